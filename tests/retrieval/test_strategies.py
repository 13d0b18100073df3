"""Strategies within a selection, with deletions and ties; funnels by width, expansion, and counted work."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import faiss
import numpy as np
import pytest
from matmamba_retrieval import (
    EmbeddingSpec,
    Encoded,
    EncodedQueries,
    Gallery,
    GalleryError,
    Row,
    Strategy,
    prefix,
    search,
)
from matmamba_retrieval.index.rerank import NO_KEY
from matmamba_retrieval.strategies.gate import Gate
from matmamba_retrieval.strategies.stages import put_first
from small import unit_vectors


@pytest.fixture
def queries() -> EncodedQueries:
    full, small = unit_vectors(30, 32, seed=1), unit_vectors(30, 32, seed=2)
    return EncodedQueries({"full": Encoded(full, 100.0, 2.0), "1/8": Encoded(small, 10.0, 0.5)})


def every_strategy(length: int = 300) -> list[Strategy]:
    return [
        Strategy.single_shot(),
        Strategy.shortlist(width="1/8", dim=8, length=length),
        Strategy.funnel(width="1/8", dims=(8, 16), lengths=(length, length)),
        Strategy.gated(width="1/8", dim=8, length=length, gate=Gate("gap")),
    ]


def exact(gallery: Gallery, xq: np.ndarray, allowed: np.ndarray, k: int) -> np.ndarray:
    """By float64 arithmetic, ties to the smaller key."""
    xb = gallery.segments.read(np.arange(gallery.key_count)).astype(np.float64)
    scores = np.where(allowed, (xq.astype(np.float64) @ xb.T).round(6), -np.inf)
    order = np.lexsort((np.broadcast_to(np.arange(len(xb)), scores.shape), -scores))[:, :k]
    return np.where(np.take_along_axis(scores, order, 1) > -np.inf, order, NO_KEY)


@pytest.mark.parametrize("number", range(4))
def test_a_selection_is_searched_as_if_it_were_the_gallery(
    gallery: Gallery, queries: EncodedQueries, number: int
) -> None:
    allowed = np.random.default_rng(0).random(300) < 0.2
    hits = search(gallery, every_strategy()[number], queries, 7, allowed)
    assert np.array_equal(hits.I, exact(gallery, queries.by_width["full"].xq, allowed, 7))
    assert hits.reason == ""


@pytest.mark.parametrize("number", range(4))
def test_fewer_than_k_come_with_a_reason(gallery: Gallery, queries: EncodedQueries, number: int) -> None:
    allowed = np.zeros(300, dtype=bool)
    allowed[[5, 77]] = True
    hits = search(gallery, every_strategy()[number], queries, 4, allowed)
    assert (np.sort(hits.I[:, :2], axis=1) == [5, 77]).all()
    assert (hits.I[:, 2:] == NO_KEY).all()
    assert np.isneginf(hits.D[:, 2:]).all()
    assert hits.reason == "only 2 images are in the selection: fewer than k = 4"
    none = search(gallery, every_strategy()[number], queries, 4, np.zeros(300, dtype=bool))
    assert (none.I == NO_KEY).all()


@pytest.mark.parametrize("number", range(4))
def test_deleted_images_are_never_answered(gallery: Gallery, queries: EncodedQueries, number: int) -> None:
    gone = [f"id{key}" for key in range(0, 300, 3)]
    gallery.delete(gone)
    live = np.arange(300) % 3 > 0
    strategy = every_strategy()[number]
    assert np.array_equal(
        search(gallery, strategy, queries, 7).I, exact(gallery, queries.by_width["full"].xq, live, 7)
    )
    among = np.arange(300) < 50
    hits = search(gallery, strategy, queries, 7, among)
    assert np.array_equal(hits.I, exact(gallery, queries.by_width["full"].xq, live & among, 7))
    with pytest.raises(GalleryError, match=r"k = 201 is not in 1\.\.200"):
        search(gallery, strategy, queries, 201)


def test_a_selection_of_another_shape_is_refused(gallery: Gallery, queries: EncodedQueries) -> None:
    selections: list[Any] = [np.ones(299, dtype=bool), np.ones(300, dtype=np.int64)]
    for wrong in selections:
        with pytest.raises(GalleryError, match="a selection is"):
            search(gallery, Strategy.single_shot(), queries, 3, wrong)


def test_where_an_approximate_index_finds_too_few_the_exact_ones_are_taken(
    tmp_path: Path, spec: EmbeddingSpec, queries: EncodedQueries
) -> None:
    """One list of many holds few images: fewer than k are found, and k are answered."""
    xb = unit_vectors(400, 32)
    with Gallery.create(tmp_path / "lists", spec) as gallery:
        gallery.add([Row(str(key), str(key)) for key in range(400)], xb)
        gallery.build_shortlist(8, "IVF80,Flat")
        hits = search(gallery, Strategy.shortlist(width="1/8", dim=8, length=40), queries, 30)
    assert (hits.I != NO_KEY).all()
    assert hits.I.shape == (30, 30)


def tied_gallery(folder: Path, spec: EmbeddingSpec, parts: int) -> Gallery:
    """240 images, each vector six times, in some number of segments."""
    xb = np.tile(unit_vectors(40, 32), (6, 1))
    gallery = Gallery.create(folder, spec)
    for chosen in np.array_split(np.arange(240), parts):
        gallery.add([Row(str(key), str(key), str(key % 2)) for key in chosen], xb[chosen])
    gallery.build_shortlist(8)
    return gallery


@pytest.mark.parametrize("number", range(4))
def test_answers_depend_on_neither_threads_nor_segments_nor_batches(
    tmp_path: Path, spec: EmbeddingSpec, queries: EncodedQueries, number: int
) -> None:
    """With more equal images than k asks for: among equal ones the smallest keys are answered."""
    whole, cut = tied_gallery(tmp_path / "one", spec, 1), tied_gallery(tmp_path / "many", spec, 7)
    threads = faiss.omp_get_max_threads()
    try:
        found = []
        for gallery, count, size in ((whole, 1, 30), (cut, 2, 30), (whole, 2, 1), (cut, 1, 11)):
            faiss.omp_set_num_threads(count)
            strategy = every_strategy(240)[number]
            starts = range(0, 30, size)
            parts = [queries.take(np.arange(start, min(30, start + size))) for start in starts]
            found.append(np.concatenate([search(gallery, strategy, part, 10).I for part in parts]))
    finally:
        faiss.omp_set_num_threads(threads)
    for other in found[1:]:
        assert np.array_equal(other, found[0])
    assert (found[0][:, :6] == found[0][:, :1] + 40 * np.arange(6)).all()


def test_many_queries_are_searched_in_parts(gallery: Gallery) -> None:
    xq = unit_vectors(600, 32, seed=5)
    asked = EncodedQueries({"full": Encoded(xq, 1, 1)})
    expected = exact(gallery, xq, np.ones(300, dtype=bool), 3)
    assert np.array_equal(search(gallery, Strategy.single_shot(), asked, 3).I, expected)
    none = asked.take(np.empty(0, dtype=np.int64))
    assert search(gallery, Strategy.single_shot(), none, 3).I.shape == (0, 3)


def best_of(scores: np.ndarray, keys: np.ndarray) -> np.ndarray:
    """Descending, ties to the smaller key."""
    return np.lexsort((keys, -scores.round(6)))


def test_each_step_of_a_funnel_takes_the_query_of_its_width(
    gallery: Gallery, queries: EncodedQueries
) -> None:
    hits = search(
        gallery,
        Strategy.funnel(width="1/8", dims=(8, 20), lengths=(60, 12), widths=("full", "1/8")),
        queries,
        5,
    )
    stored = gallery.segments.read(np.arange(300)).astype(np.float32)
    small, full = queries.by_width["1/8"].xq, queries.by_width["full"].xq
    assert hits.cost.macs == 110
    assert not hits.by_full.any()
    for q in range(30):
        kept = hits.shortlist[q]
        kept = kept[best_of(prefix(stored[kept], 20) @ prefix(full[q : q + 1], 20)[0], kept)][:12]
        assert np.array_equal(hits.I[q], kept[best_of(stored[kept] @ small[q], kept)][:5])


def test_widths_of_a_funnel_that_do_not_fit_are_refused(gallery: Gallery, queries: EncodedQueries) -> None:
    with pytest.raises(GalleryError, match="as many later widths"):
        search(
            gallery,
            Strategy.funnel(width="1/8", dims=(8, 16), lengths=(60, 12), widths=("full",)),
            queries,
            5,
        )
    with pytest.raises(GalleryError, match=r"dim 33 is not in 1\.\.32"):
        search(gallery, Strategy.funnel(width="1/8", dims=(8, 33), lengths=(60, 12)), queries, 5)


def test_an_expanded_query_is_the_mean_with_its_nearest(gallery: Gallery, queries: EncodedQueries) -> None:
    hits = search(gallery, Strategy.shortlist(width="1/8", dim=8, length=40, expand=6), queries, 5)
    plain = search(gallery, Strategy.shortlist(width="1/8", dim=8, length=40), queries, 6)
    stored = gallery.segments.read(np.arange(300)).astype(np.float64)
    for q, xq in enumerate(queries.by_width["full"].xq):
        mean = xq + stored[plain.I[q]].sum(0)
        scores = stored @ (mean / np.linalg.norm(mean))
        assert np.allclose(hits.D[q], scores[hits.I[q]], atol=1e-6)
        assert hits.I[q, 0] == plain.I[q, 0]
        others = hits.shortlist[q][hits.shortlist[q] != plain.I[q, 0]]
        assert np.allclose(hits.D[q, 1:], -np.sort(-scores[others])[:4], atol=1e-6)
    assert hits.nearest is not None
    assert np.array_equal(hits.nearest[1], plain.I[:, :5])
    assert np.array_equal(hits.nearest[0], plain.D[:, :5])


@pytest.mark.parametrize("first", [4, 7, 9, NO_KEY])
def test_a_hit_is_put_first_once(first: int) -> None:
    """Whether it stood first, further down, or not at all; where there is no hit, there is none."""
    I = np.array([[4, 7, 8]]) if first != NO_KEY else np.full((1, 3), NO_KEY)  # noqa: E741
    D = np.array([[0.9, 0.8, 0.7]], dtype=np.float32)
    D, I = put_first(np.array([[0.5]], dtype=np.float32), np.array([[first]]), D, I)  # noqa: E741
    assert I.tolist() == {4: [[4, 7, 8]], 7: [[7, 4, 8]], 9: [[9, 4, 7]], NO_KEY: [[NO_KEY] * 3]}[first]
    assert D[0, 0] == 0.5


def test_the_work_of_a_search_is_counted(gallery: Gallery, queries: EncodedQueries) -> None:
    assert search(gallery, Strategy.single_shot(), queries, 5).cost.search_macs == {"rerank": 300 * 32}
    funnel = search(gallery, Strategy.funnel(width="1/8", dims=(8, 16), lengths=(60, 12)), queries, 5).cost
    assert funnel.search_macs == {"shortlist": 300 * 8, "rerank": 60 * 16 + 12 * 32}
    expanded = search(gallery, Strategy.shortlist(width="1/8", dim=8, length=40, expand=6), queries, 5).cost
    assert expanded.search_macs["rerank"] == 2 * 40 * 32


def test_an_index_that_compares_fewer_counts_fewer(tmp_path: Path, spec: EmbeddingSpec) -> None:
    asked = EncodedQueries({"full": Encoded(unit_vectors(4, 32, seed=1), 1, 1)})
    with Gallery.create(tmp_path / "graph", spec) as gallery:
        gallery.add([Row(str(key), str(key)) for key in range(3000)], unit_vectors(3000, 32))
        gallery.build_shortlist(8, "HNSW8")
        counted = search(
            gallery, Strategy.shortlist(width="full", dim=8, length=20), asked, 5
        ).cost.search_macs["shortlist"]
    assert 20 * 8 < counted < 3000 * 8


def test_an_index_of_a_small_width_holds_vectors_of_that_width(
    tmp_path: Path, spec: EmbeddingSpec, queries: EncodedQueries
) -> None:
    xb, small = unit_vectors(300, 32), unit_vectors(300, 32, seed=7)
    with Gallery.create(tmp_path / "two", spec, widths=("1/8",)) as gallery:
        gallery.add([Row(str(key), str(key)) for key in range(300)], xb, {"1/8": small})
        gallery.build_shortlist(8)
        with pytest.raises(GalleryError, match=r"over 8 dims of width 1/8 \(built: 8 dims of width full\)"):
            search(
                gallery, Strategy.shortlist(width="1/8", dim=8, length=20, gallery_width="1/8"), queries, 5
            )
        gallery.build_shortlist(8, width="1/8")
        found = {
            width: search(
                gallery, Strategy.shortlist(width="1/8", dim=8, length=20, gallery_width=width), queries, 5
            ).shortlist
            for width in ("full", "1/8")
        }
    for width, stored in (("full", xb), ("1/8", small)):
        near = prefix(queries.by_width["1/8"].xq, 8) @ prefix(stored.astype(np.float16), 8).T
        expected = np.argsort(-near, axis=1)[:, :20]
        assert (np.sort(found[width], axis=1) == np.sort(expected, axis=1)).all()


def test_another_index_than_is_named_is_refused(gallery: Gallery, queries: EncodedQueries) -> None:
    with pytest.raises(GalleryError, match="over 8 dims is 'Flat', not 'HNSW32'"):
        search(gallery, Strategy.shortlist(width="1/8", dim=8, length=20, index="HNSW32"), queries, 5)
