"""Shortlist indexes: every recipe, filters, effort, files, and what a search must not depend on."""

from __future__ import annotations

from pathlib import Path

import faiss
import numpy as np
import pytest
from lookups import by_index
from matmamba_retrieval import EmbeddingSpec, Gallery, GalleryError, Row, prefix
from matmamba_retrieval.index.gallery_index import (
    FEW_ALLOWED,
    build_index,
    load_index,
    save_index,
    search_index,
)
from matmamba_retrieval.index.recipes import RECIPES, cells, choose, split
from matmamba_retrieval.index.rerank import NO_KEY
from matmamba_retrieval.index.shortlist_index import ShortlistIndex
from matmamba_retrieval.index.threads import one_thread
from small import unit_vectors

ROWS, DIM = 6000, 32
KINDS = [
    *RECIPES,
    "pca-ivfpq:16:32",
    "adanns-ivf:8:32",
    "adanns-ivf:32:8",
    "HNSW16",
    "PQ16x4fs",
    "PCA16,IVF8,SQ8",
    # FAISS's tables for it are larger than its file.
    "IVF128,PQ32x4fsr",
]
# Of random residuals, few bits, or few dims, know less than they do of an image's.
LEAST = {"binary": 0.6, "rabitq": 0.7, "adanns-opq": 0.7, "adanns-ivf:32:8": 0.5}
WITH_EFFORT = ["hnsw", "ivf", "ivfpq", "pca-ivfpq:16:32", "rabitq", "adanns-ivf", "HNSW16"]


def clustered(rows: int, seed: int) -> np.ndarray:
    """Vectors around 40 centres, whose leading coordinates say more."""
    centres = unit_vectors(40, DIM, seed=99)
    rng = np.random.default_rng(seed)
    x = centres[rng.integers(40, size=rows)] + 0.15 * rng.standard_normal((rows, DIM)).astype(np.float32)
    x *= np.linspace(2, 0.5, DIM, dtype=np.float32)
    return x / np.linalg.norm(x, axis=1, keepdims=True)


@pytest.mark.parametrize("kind", KINDS)
def test_few_images_are_no_flood_of_warnings(
    kind: str, tmp_path: Path, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    """FAISS says so of each k-means, dozens of times for one index; this library once."""
    with Gallery.create(tmp_path / "g", EmbeddingSpec("a" * 64, "full", DIM)) as gallery:
        gallery.add([Row(f"id{key}", "") for key in range(140)], clustered(140, 1))
        caplog.set_level("INFO", "matmamba_retrieval")
        assert build_index(gallery.segments, 140, DIM, kind).ntotal == 140
    assert capfd.readouterr().err == ""
    assert len(caplog.messages) <= 2
    if kind == "IVF128,PQ32x4fsr":
        assert caplog.messages == ["140 images train an index for which FAISS asks for 4992 or more"]


@pytest.fixture(scope="module")
def stored(tmp_path_factory: pytest.TempPathFactory) -> Gallery:
    gallery = Gallery.create(tmp_path_factory.mktemp("g") / "gallery", EmbeddingSpec("a" * 64, "full", DIM))
    xb = clustered(ROWS, 1)
    xb[ROWS - 40 :] = xb[:40]
    for start in range(0, ROWS, 2500):
        rows = [Row(f"id{key}", "") for key in range(start, min(ROWS, start + 2500))]
        gallery.add(rows, xb[start : start + 2500])
    return gallery


@pytest.fixture(scope="module")
def built(stored: Gallery) -> dict[str, ShortlistIndex]:
    with one_thread():
        return {recipe: build_index(stored.segments, ROWS, DIM, recipe) for recipe in KINDS}


@pytest.fixture(scope="module")
def xq() -> np.ndarray:
    return clustered(30, 2)


@pytest.fixture(scope="module")
def exact(stored: Gallery, xq: np.ndarray) -> np.ndarray:
    """All keys, in float64, by score and key."""
    scores = xq.astype(np.float64) @ stored.segments.read(np.arange(ROWS)).astype(np.float64).T
    return np.argsort(-scores, axis=1, kind="stable")


def share(found: np.ndarray, truth: np.ndarray) -> float:
    return float(np.mean([np.isin(t, f).mean() for f, t in zip(found, truth, strict=True)]))


@pytest.mark.parametrize("recipe", KINDS)
def test_a_shortlist_holds_the_nearest(
    stored: Gallery, built: dict[str, ShortlistIndex], xq: np.ndarray, exact: np.ndarray, recipe: str
) -> None:
    found = search_index(built[recipe], stored.segments, xq, 100)
    assert found.shape == (30, 100)
    assert all(len(set(row)) == 100 and NO_KEY not in row for row in found)
    assert share(found, exact[:, :10]) >= LEAST.get(recipe, 0.95)


@pytest.mark.parametrize("recipe", KINDS)
@pytest.mark.parametrize("kept", [0.5, 0.002])
def test_a_filter_leaves_as_many_as_are_asked_for(
    stored: Gallery, built: dict[str, ShortlistIndex], xq: np.ndarray, recipe: str, kept: float
) -> None:
    """k asked is k given, whether the filter is wide, narrow, or turned away from the query."""
    rng = np.random.default_rng(3)
    far = stored.segments.read(np.arange(ROWS)) @ xq[0] < 0.2
    for allowed in (rng.random(ROWS) < kept, far & (rng.random(ROWS) < kept)):
        found = search_index(built[recipe], stored.segments, xq, 100, allowed, effort=1)
        wanted = min(100, int(allowed.sum()))
        assert ((found != NO_KEY).sum(1) == wanted).all()
        assert allowed[found[found != NO_KEY]].all()
        assert all(len(set(row[:wanted])) == wanted for row in found)
    assert (search_index(built[recipe], stored.segments, xq, 5, np.zeros(ROWS, dtype=bool)) == NO_KEY).all()


def test_few_allowed_are_compared_exactly(
    stored: Gallery, built: dict[str, ShortlistIndex], xq: np.ndarray, exact: np.ndarray
) -> None:
    allowed = np.zeros(ROWS, dtype=bool)
    allowed[np.random.default_rng(4).choice(ROWS, FEW_ALLOWED, replace=False)] = True
    found = search_index(built["binary"], stored.segments, xq, 20, allowed)
    for row, truth in zip(found, exact, strict=True):
        assert np.array_equal(row, truth[allowed[truth]][:20])


@pytest.mark.parametrize("recipe", KINDS)
def test_an_answer_depends_on_neither_batch_nor_threads(
    stored: Gallery, built: dict[str, ShortlistIndex], xq: np.ndarray, recipe: str
) -> None:
    together = search_index(built[recipe], stored.segments, xq, 50)
    alone = [search_index(built[recipe], stored.segments, xq[q : q + 1], 50)[0] for q in range(len(xq))]
    assert np.array_equal(together, alone)
    with one_thread():
        assert np.array_equal(together, search_index(built[recipe], stored.segments, xq, 50))


def test_equal_scores_are_in_the_order_of_their_keys(
    stored: Gallery, built: dict[str, ShortlistIndex]
) -> None:
    """Rows 0 to 39 are stored twice, and one search in two ends between the two."""
    xq = prefix(stored.segments.read(np.arange(40)), DIM)
    for recipe in ("flat", "sq8", "ivf", "binary", "adanns-ivf"):
        for length in (1, 2, 3):
            found = search_index(built[recipe], stored.segments, xq, length)
            own = found == np.arange(40)[:, None]
            twin = found == np.arange(ROWS - 40, ROWS)[:, None]
            assert not (twin.any(1) & ~own.any(1)).any()
            assert (own.argmax(1) < twin.argmax(1))[twin.any(1)].all()


def test_the_flat_index_is_exact(
    stored: Gallery, built: dict[str, ShortlistIndex], xq: np.ndarray, exact: np.ndarray
) -> None:
    assert np.array_equal(search_index(built["flat"], stored.segments, xq, 100), exact[:, :100])


@pytest.mark.parametrize("recipe", WITH_EFFORT)
def test_more_effort_finds_no_less(
    stored: Gallery, built: dict[str, ShortlistIndex], xq: np.ndarray, exact: np.ndarray, recipe: str
) -> None:
    index = built[recipe]
    assert index.effort in index.efforts
    shares = [
        share(search_index(index, stored.segments, xq, 50, effort=e), exact[:, :10]) for e in index.efforts
    ]
    assert shares[0] - 0.02 <= shares[-1]
    assert share(search_index(index, stored.segments, xq, 50), exact[:, :10]) >= shares[-1] - 0.1


@pytest.mark.parametrize("recipe", KINDS)
def test_an_index_comes_back_from_its_file(
    stored: Gallery,
    built: dict[str, ShortlistIndex],
    xq: np.ndarray,
    recipe: str,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    record = save_index(tmp_path, built[recipe], name="name", width="full", dim=DIM, recipe=recipe)
    again = load_index(tmp_path, record, stored.segments)
    assert not caplog.text
    assert (again.dim, again.recipe, again.ntotal, again.effort) == (DIM, recipe, ROWS, built[recipe].effort)
    before, after = (search_index(index, stored.segments, xq, 40) for index in (built[recipe], again))
    assert np.array_equal(before, after)


def test_a_foreign_file_is_built_again(
    stored: Gallery, xq: np.ndarray, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    other = build_index(stored.segments, 500, DIM, "flat")
    record = save_index(tmp_path, other, name="name", width="full", dim=DIM, recipe="flat")
    limit = faiss.get_deserialization_vector_byte_limit()
    foreign = type(record)(**{**record.__dict__, "rows": ROWS})
    again = load_index(tmp_path, foreign, stored.segments)
    assert again.ntotal == ROWS
    assert "holds 500 rows, not 6000; building it again" in caplog.text
    assert faiss.get_deserialization_vector_byte_limit() == limit


def test_rows_newer_than_an_index_are_found_and_filtered(
    stored: Gallery, xq: np.ndarray, exact: np.ndarray
) -> None:
    index = build_index(stored.segments, 4000, DIM, "flat")
    assert np.array_equal(search_index(index, stored.segments, xq, 60), exact[:, :60])
    allowed = np.random.default_rng(5).random(ROWS) < 0.9
    found = search_index(index, stored.segments, xq, 60, allowed)
    for row, truth in zip(found, exact, strict=True):
        assert np.array_equal(row, truth[allowed[truth]][:60])


@pytest.mark.parametrize("recipe", ["flat", "sq8", "hnsw", "ivf", "ivfpq", "binary"])
def test_memory_is_what_the_recipe_says(built: dict[str, ShortlistIndex], recipe: str) -> None:
    overhead = 4 * DIM * cells(ROWS) + 64 * 1024
    assert built[recipe].memory == pytest.approx(
        ROWS * RECIPES[recipe].row_bytes(DIM), rel=0.15, abs=overhead
    )


def test_auto_chooses_by_rows_memory_and_recall() -> None:
    assert choose(1000, 64) == "flat"
    assert choose(1_000_000, 64) == "ivfpq"
    assert choose(1000, 64, budget=1000 * 64) == "ivfpq"
    assert choose(1_000_000, 64, recall=0.999) == "sq8"
    assert choose(1_000_000, 64, recall=1.0) == "flat"
    assert choose(1_000_000, 64, budget=20e6, recall=0.8) in ("binary", "rabitq")
    with pytest.raises(GalleryError, match="shorter prefix"):
        choose(1_000_000, 64, budget=1e6)


def test_ivfpq_stays_within_64_bytes_an_image() -> None:
    for rows in (10**4, 10**6, 10**8):
        assert RECIPES["ivfpq"].row_bytes(64) * rows + 4 * 64 * cells(rows) <= 2 * 2**30 + 64 * rows


def test_a_gallery_takes_names_and_auto(stored: Gallery, xq: np.ndarray) -> None:
    stored.build_shortlist(8, "auto")
    stored.build_shortlist(16, "ivfpq", recall=0.9)
    assert [record.name for record in stored.shortlists()] == ["flat-8", "ivfpq-16"]
    allowed = np.random.default_rng(6).random(ROWS) < 0.4
    found = by_index(stored, prefix(xq, 16), 30, allowed=allowed, effort=2)
    assert allowed[found].all()
    with pytest.raises(GalleryError, match="memory"):
        stored.build_shortlist(8, "auto", memory_bytes=10)


@pytest.mark.parametrize(
    "recipe",
    [
        "ivfpq:3",
        "adanns-ivf:0:8",
        "adanns-ivf:x",
        "adanns-ivf:4:4",
        "adanns-opq:33",
        "pca-ivfpq:33",
        "pca-ivfpq:0",
        "pca-ivfpq:8:8:8",
    ],
)
def test_a_recipe_that_cannot_be_is_named(stored: Gallery, recipe: str) -> None:
    with pytest.raises(GalleryError, match=recipe):
        stored.build_shortlist(8, recipe)
    assert split("IVF4,Flat") == ("IVF4,Flat", [])


def test_a_gpu_is_used_where_faiss_has_one(
    stored: Gallery, built: dict[str, ShortlistIndex], xq: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With stand-ins for FAISS's GPU functions: a copy elsewhere, of fewer kinds and without filters."""
    elsewhere: list[object] = []

    def to_gpus(index: faiss.Index) -> faiss.Index:
        if isinstance(index, faiss.IndexHNSW):
            raise RuntimeError("not implemented on the GPU")
        elsewhere.append(faiss.clone_index(index))
        return elsewhere[-1]

    monkeypatch.setattr(faiss, "index_cpu_to_all_gpus", to_gpus, raising=False)
    monkeypatch.setattr(faiss, "get_num_gpus", lambda: 1, raising=False)
    before = search_index(built["ivfpq"], stored.segments, xq, 20, effort=4)
    index = build_index(stored.segments, ROWS, DIM, "ivf")
    assert len(elsewhere) == 2  # one for k-means, one to search
    elsewhere[-1].reset()  # type: ignore[attr-defined]
    assert (index.search(xq, 5)[1] == NO_KEY).all()
    allowed = np.random.default_rng(7).random(ROWS) < 0.6
    assert (index.search(xq, 5, allowed=allowed)[1] != NO_KEY).all()
    assert not build_index(stored.segments, ROWS, DIM, "hnsw").use_gpu()
    assert np.array_equal(search_index(built["ivfpq"], stored.segments, xq, 20, effort=4), before)


@pytest.mark.parametrize("recipe", [*RECIPES])
def test_a_gallery_of_one_image_can_be_indexed(recipe: str, tmp_path: Path) -> None:
    with Gallery.create(tmp_path / "g", EmbeddingSpec("a" * 64, "full", DIM)) as gallery:
        gallery.add([Row("only", "")], clustered(1, 0))
        gallery.build_shortlist(DIM, recipe)
        assert by_index(gallery, clustered(2, 1), 3).tolist() == [[0], [0]]


@pytest.mark.parametrize("recipe", ["Flat", "HNSW8", "IVF20,Flat", "IVF20,PQ4x4fs"])
@pytest.mark.parametrize("count", [1, 3])
def test_what_is_found_out_once_answers_as_each_search_does(
    recipe: str, count: int, gallery: Gallery
) -> None:
    """Where cells run dry, where rows are newer than the index, and of several queries, too."""
    gallery.build_shortlist(8, recipe)
    xq = prefix(unit_vectors(count, 32, seed=5), 8)
    for turn in range(2):
        opened = gallery.open_index(8, "full")
        assert opened is not None
        for effort in (None, 1) if opened.index.takes_effort else (None,):
            for length in (20, 200):
                find = opened.finder(length, effort)
                for _again in range(2):
                    assert np.array_equal(find(xq), opened.search(xq, length, None, effort))
        gallery.add([Row(f"newer {turn}.{number}", "") for number in range(3)], unit_vectors(3, 32, seed=5))
