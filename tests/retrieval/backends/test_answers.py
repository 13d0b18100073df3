"""A pushed gallery answers as the one in the folder does: strategies, filters, equal images, deletions."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from drawn_filters import Filter, described, filters
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from matmamba_retrieval import (
    EmbeddingSpec,
    Encoded,
    EncodedQueries,
    Gallery,
    GalleryError,
    Gate,
    Hits,
    Row,
    Strategy,
    search,
)
from matmamba_retrieval.backends import deciding
from matmamba_retrieval.backends.engine import ScoredPoint, Stage
from matmamba_retrieval.backends.layout import row_of
from matmamba_retrieval.backends.pushed_gallery import PushedGallery
from matmamba_retrieval.strategies.examples import Stored
from pushed_places import Places, compared, push
from small import unit_vectors

DIM, SMALL = 32, "1/8"
SPEC = EmbeddingSpec("a" * 64, "full", DIM)
# Engines sum in single precision.
SCORE_TOLERANCE = 1e-6
CONDITIONS = (
    "label = 'b' AND year > 2010",
    "label IS NULL",
    "NOT (year < 2018 OR label = 'a')",
    "id = 'x'",
)


def drawn(count: int, seed: int) -> np.ndarray:
    """Vectors of which many are equal to others."""
    rng, xb = np.random.default_rng(seed), unit_vectors(count, DIM, seed)
    copies = rng.random(count) < 0.4
    xb[copies] = xb[rng.integers(count // 20 + 1, size=count)[copies]]
    return xb


def row(number: int) -> Row:
    label = None if number % 7 == 0 else "abc"[number % 3]
    return Row(
        f"id{number}",
        f"/photos/{number}.jpg",
        label,
        {"year": 2000 + number % 20, "raw": number % 2 == 0}
        | {"score": number % 10 / 10, "mixed": [1, "b", ["a", "b"], None][number % 4]},
    )


def make(folder: Path, seed: int) -> Gallery:
    """A gallery with equal images, deleted ones, two widths, and flat indexes."""
    count = 40 + 60 * (seed % 4)
    with Gallery.create(folder, SPEC, "runs/a", [SMALL]) as made:
        made.add(
            [row(n) for n in range(count)], drawn(count, seed), {SMALL: unit_vectors(count, DIM, seed + 1)}
        )
        gone = np.random.default_rng(seed).permutation(count)[: count // 5]
        made.delete([f"id{n}" for n in gone])
        for dim in (8, 16):
            made.build_shortlist(dim, "flat")
        made.build_shortlist(8, "flat", SMALL)
    return Gallery(folder)


@contextmanager
def pushed(places: Places, gallery: Gallery, **wish: Any) -> Iterator[PushedGallery]:
    push(gallery, places, **wish)
    with opened(places) as found:
        yield found


@contextmanager
def opened(places: Places) -> Iterator[PushedGallery]:
    with places.open(write=False) as store:
        yield PushedGallery(store)


def queries_of(gallery: Gallery, seed: int) -> EncodedQueries:
    """Some of nobody, and some that are images of the gallery; the small ones are like the full ones."""
    own = gallery.segments.read(np.arange(3)).astype(np.float32)
    full = np.concatenate([unit_vectors(3, DIM, seed + 2), own / np.linalg.norm(own, axis=1, keepdims=True)])
    small = full + 0.3 * unit_vectors(len(full), DIM, seed + 3)
    small /= np.linalg.norm(small, axis=1, keepdims=True)
    by_width = {"full": Encoded(full, 100.0, 2.0), SMALL: Encoded(small.astype(np.float32), 10.0, 0.5)}
    return EncodedQueries(by_width)


def strategies(length: int) -> list[Strategy]:
    first: dict[str, Any] = {"width": SMALL, "dim": 8, "length": length}
    return [
        Strategy.single_shot(),
        Strategy.single_shot(width=SMALL),
        Strategy.shortlist(**first),
        Strategy.shortlist(**first, index="flat", rerank_width=SMALL),
        Strategy.shortlist(**first, gallery_width=SMALL),
        Strategy.shortlist(**first, expand=3),
        Strategy.funnel(width=SMALL, dims=(8, 16), lengths=(length, max(10, length // 2))),
        Strategy.gated(**first, gate=Gate("gap", 0.05)),
        Strategy.gated(**first, gate=Gate("gap", 0.05), again=True, expand=2),
        Strategy.gated(**first, gate=Gate("vote", 0.5)),
    ]


def twins(gallery: Gallery) -> np.ndarray:
    """(keys + 1,) a number that equal images share; the last is that of no image."""
    xb = gallery.segments.read(np.arange(gallery.key_count))
    return np.append(np.unique(xb, axis=0, return_inverse=True)[1].ravel(), -1)


def require_same(found: Hits, wanted: Hits, alike: np.ndarray | None = None) -> None:
    if alike is None:
        assert np.array_equal(found.I, wanted.I)
    else:
        assert np.array_equal(alike[found.I], alike[wanted.I])
    there = np.isfinite(wanted.D)
    assert np.abs(found.D[there] - wanted.D[there]).max(initial=0) < SCORE_TOLERANCE
    assert np.array_equal(np.isfinite(found.D), there)
    assert np.array_equal(found.by_full, wanted.by_full)
    assert found.reason == wanted.reason
    assert found.cost.macs == wanted.cost.macs


@pytest.mark.parametrize("seed", [1, 2])
def test_answers_are_those_of_the_folder(tmp_path: Path, places: Places, seed: int) -> None:
    gallery = make(tmp_path / "g", seed)
    queries, k = queries_of(gallery, seed), 10
    with pushed(places, gallery) as found:
        assert len(found) == len(gallery)
        # So long lists are cut nowhere; others may end with another one of equal images.
        for length in (gallery.key_count, k + 15):
            for place, strategy in enumerate(strategies(length)):
                for where in (None, CONDITIONS[place % len(CONDITIONS)]):
                    here = search(found, strategy, queries, k, found.allowed(where))
                    there = search(gallery, strategy, queries, k, gallery.allowed(where))
                    require_same(here, there, None if length > k + 15 else twins(gallery))
                    assert where != "id = 'x'" or here.reason == "no image fulfils the condition"


def test_a_search_is_one_call_unless_scores_are_equal(
    tmp_path: Path, places: Places, monkeypatch: pytest.MonkeyPatch
) -> None:
    gallery = make(tmp_path / "g", 1)
    with pushed(places, gallery) as found:
        collection, calls = found._seen.collection, list[int]()
        real = type(collection).query

        def counted(self: Any, stages: list[Stage], *args: Any, **more: Any) -> list[list[ScoredPoint]]:
            calls.append(len(stages))
            return real(self, stages, *args, **more)

        monkeypatch.setattr(type(collection), "query", counted)
        queries = queries_of(gallery, 1)
        alone = queries.take(np.array([0]))
        search(found, Strategy.funnel(width=SMALL, dims=(8, 16), lengths=(60, 30)), alone, 3)
        assert calls == [3]
        hits = search(found, Strategy.single_shot(), alone, 3)
        assert calls == [3, 1]
        # Whoever found them knows them already.
        monkeypatch.setattr(type(collection), "retrieve", None)
        assert [one.id for one in found.rows(hits.I[0])] == [one.id for one in gallery.rows(hits.I[0])]


def test_images_of_the_gallery_ask_by_their_stored_vectors(tmp_path: Path, places: Places) -> None:
    gallery = make(tmp_path / "g", 2)
    live = gallery.live_keys()[:5]
    with pushed(places, gallery) as found:
        for width in ("full", SMALL):
            assert np.array_equal(
                Stored(found, live).encode(width).xq, Stored(gallery, live).encode(width).xq
            )
        assert found.keys_of(["id1", "id2", "never"]) == gallery.keys_of(["id1", "id2", "never"])
        assert [one.id for one in found.rows(live)] == [one.id for one in gallery.rows(live)]
        assert np.array_equal(found.keys_where(), gallery.live_keys())
        left = found.allowed("year > 2010", live)
        hits = search(found, Strategy.single_shot(), Stored(found, live), 5, left)
        wanted = search(
            gallery, Strategy.single_shot(), Stored(gallery, live), 5, gallery.allowed("year > 2010", live)
        )
        require_same(hits, wanted)


# Metadata whose values are of one type each, as filters of an engine need them.
typed = st.lists(
    described(
        st.sampled_from(["", "a", "cat"]),
        st.none() | st.sampled_from(["", "a", "Cat", "cat", "5"]),
        st.none() | st.integers(-5, 5),
        st.none() | st.sampled_from([0.5, -2.25, 3.0, 1e300]),
        st.none() | st.sampled_from(["a", "it's", "日本", "100%"]),
        st.none() | st.booleans(),
        st.none() | st.integers(-3, 3) | st.just(-2.25),
        st.none() | st.sampled_from(["a", "cat"]),
    ),
    min_size=30,
    max_size=30,
)


def keys_or_refusal(gallery: Gallery | PushedGallery, where: str) -> np.ndarray | str:
    """What a condition finds, or what is wrong with it."""
    try:
        return gallery.keys_where(where)
    except GalleryError as error:
        return str(error)


# A push for each attempt: one that fails is not made smaller.
@settings(
    max_examples=2,
    deadline=None,
    suppress_health_check=[*HealthCheck],
    phases=[Phase.explicit, Phase.generate],
)
@given(typed, st.lists(filters, min_size=40, max_size=40))
def test_filters_mean_what_they_mean_in_the_folder(
    tmp_path_factory: pytest.TempPathFactory,
    kind: str,
    images: list[tuple[str, str | None, dict[str, Any]]],
    conditions: list[Filter],
) -> None:
    """All of them; where the engine cannot say one, points are looked at."""
    folder = tmp_path_factory.mktemp("filters")
    with Gallery.create(folder / "g", SPEC) as gallery:
        rows = [Row(f"image {n}", *parts) for n, parts in enumerate(images)]
        gallery.add(rows, unit_vectors(len(rows), DIM))
        places, answered = Places(kind, folder), 0
        with pushed(places, gallery) as found:
            for condition in conditions:
                here, there = (keys_or_refusal(one, condition.sql) for one in (found, gallery))
                answered += not isinstance(there, str)
                assert np.array_equal(here, there), condition.sql
            assert found.fields() == gallery.fields()
            assert found.rows(range(len(rows))) == gallery.rows(range(len(rows)))
    assert answered > 3


def test_what_an_engine_cannot_say_is_looked_at(
    tmp_path: Path, places: Places, monkeypatch: pytest.MonkeyPatch
) -> None:
    """LIKE, order of texts, names compared, truth values, decimals at their very bound: only points that the
    rest of the filter leaves, and once for each filter."""
    gallery, looked = make(tmp_path / "g", 1), list[int]()

    def look(payload: dict[str, Any], place: str) -> Row:
        looked.append(1)
        return row_of(payload, place)

    monkeypatch.setattr(deciding, "row_of", look)
    with pushed(places, gallery) as found:
        for where in (
            "path LIKE '%7.JPG'", "label < 'b'", "label < id", "raw = TRUE", "NOT raw = 0", "score = 0.3",
            "score >= 0.3", "score < 0.3 OR path LIKE '%1.jpg'", "NOT (score <> 0.3 OR label > 'a')",
            "mixed IS NULL", "mixed = 1", "mixed LIKE '%b%'",
        ):  # fmt: skip
            keys = gallery.keys_where(where)
            assert np.array_equal(found.keys_where(where), keys), where
            assert len(keys), where
        looked.clear()
        assert len(found.keys_where("year = 2003 AND path LIKE '%.jpg'"))
        count = len(looked)
        assert 0 < count < len(gallery) / 4
        assert len(found.keys_where("year = 2003 AND path LIKE '%.jpg'"))
        assert len(found.keys_where("score > 0.25 AND year > 2004"))
        assert len(looked) == count
        with monkeypatch.context() as without:
            # What is asked again is not even parsed again.
            without.setattr(deciding, "compile_filter", None)
            assert len(found.keys_where("score > 0.25 AND year > 2004"))
        hits = search(
            found, Strategy.single_shot(), queries_of(gallery, 1), 5, allowed=found.allowed("label < 'b'")
        )
        other = gallery.allowed("label < 'b'")
        require_same(hits, search(gallery, Strategy.single_shot(), queries_of(gallery, 1), 5, allowed=other))


def test_decimals_come_back_to_the_last_digit(tmp_path: Path, places: Places) -> None:
    """Engines keep some of them with another one."""
    rng = np.random.default_rng(0)
    values = (rng.uniform(-1, 1, 300) * 10.0 ** rng.integers(-20, 20, 300)).tolist()
    with Gallery.create(tmp_path / "g", SPEC) as gallery:
        gallery.add(
            [Row(f"{n}", "", None, {"x": [{"y": value}]}) for n, value in enumerate(values)],
            unit_vectors(300, DIM),
        )
        gallery.add(
            [Row(f"z{n}", "", None, {"z": value}) for n, value in enumerate(values)], unit_vectors(300, DIM)
        )
        with pushed(places, gallery) as found:
            assert found.rows(range(600)) == gallery.rows(range(600))
            for value in values[:30]:
                for sign in ("=", "<=", ">"):
                    where = f"z {sign} {value!r}"
                    assert np.array_equal(found.keys_where(where), gallery.keys_where(where)), where
        assert compared(gallery, places).faults == []


# Values of which engines have no type, or whose names their paths cannot say; names without any value.
ODD: tuple[dict[str, Any], ...] = (
    {"x": 2**70},
    {"x": {"large": [10**400, 1.5]}},
    {"x": {}},
    {"x": 1, "y": None},
    {"x": "1", "": "no name", "y": {"z": None}},
    {"a\\b": 1, 'a"b': 2, "a.b": 3, "a": {"b": 4}},
    {"a\tb": 5, "c[0]": 6, "c": [7]},
)


def test_metadata_of_any_names_and_values_are_pushed_and_found(tmp_path: Path, places: Places) -> None:
    with Gallery.create(tmp_path / "g", SPEC) as gallery:
        gallery.add([Row(f"{n}", "", None, odd) for n, odd in enumerate(ODD)], unit_vectors(len(ODD), DIM))
        with pushed(places, gallery) as found:
            assert found.rows(range(len(ODD))) == gallery.rows(range(len(ODD)))
            # What no filter can name.
            assert set(gallery.fields()) - set(found.fields()) == {"a\\b", 'a"b'}
            for where in (
                f"x = {2**70}", "x > 1e20", "x = 1", "x = '1'", "x LIKE '{%'", "x IS NULL",
                "x.large LIKE '[1%'", "y = 1", "y IS NULL", "NOT y = 1", "y LIKE '{%'", "y.z IS NULL",
                "y.z = 'a'", "y.z IN (1, 2)", "\"\" = 'no name'", '"a.b" = 3', "a.b = 4", "a IS NULL",
                '"c[0]" = 6', "c LIKE '%7%'",
            ):  # fmt: skip
                assert np.array_equal(found.keys_where(where), gallery.keys_where(where)), where
        assert compared(gallery, places).faults == []


def test_queries_that_are_not_finite_are_refused(tmp_path: Path, places: Places) -> None:
    xq = unit_vectors(3, DIM)
    xq[1, 2] = np.nan
    gallery = make(tmp_path / "g", 1)
    with pushed(places, gallery) as found:
        for each in (found, gallery):
            with pytest.raises(GalleryError, match=r"^row 1 of xq holds a number that is not finite$"):
                search(each, Strategy.single_shot(), EncodedQueries({"full": Encoded(xq, 0.0, 0.0)}), 3)


@pytest.fixture(params=["edge", "local"])
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)
