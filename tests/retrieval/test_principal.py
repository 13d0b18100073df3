"""The index over principal coordinates: what it keeps, exact answers behind it, damaged and stale files."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path

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
from matmamba_retrieval.index.principal import rotation
from matmamba_retrieval.index.recipes import more_cells
from matmamba_retrieval.strategies.hits import Hits

ROWS, DIM, RECIPE = 3000, 64, "pca-ivfpq:24:16"


def unit(x: np.ndarray) -> np.ndarray:
    """Of length 1, float32."""
    return (x / np.linalg.norm(x, axis=1, keepdims=True)).astype(np.float32)


def turned(rows: int, seed: int) -> np.ndarray:
    """Vectors around a mean far from the origin that vary in 12 directions, none along a coordinate."""
    rng = np.random.default_rng(0)
    directions = np.linalg.qr(rng.standard_normal((DIM, DIM)))[0]
    mean = 2 * directions[0]
    scales = np.r_[np.ones(12), np.full(DIM - 12, 0.05)]
    noise = np.random.default_rng(seed).standard_normal((rows, DIM)) * scales
    return unit(mean + noise @ directions)


@pytest.fixture
def gallery(tmp_path: Path) -> Iterator[Gallery]:
    with Gallery.create(tmp_path / "g", EmbeddingSpec("a" * 64, "full", DIM)) as made:
        made.add([Row(f"{key}", "") for key in range(ROWS)], turned(ROWS, 1))
        made.build_shortlist(DIM, RECIPE)
        yield made


def asked(gallery: Gallery, strategy: Strategy, xq: np.ndarray, k: int = 10) -> Hits:
    return search(gallery, strategy, EncodedQueries({"full": Encoded(xq, 0.0, 0.0)}), k)


def test_a_rotation_keeps_what_inner_products_of_vectors_away_from_the_origin_say() -> None:
    xb, xq = turned(2000, 1), turned(50, 2)
    kept = rotation(xb, 13)
    axes = faiss.vector_to_array(kept.A).reshape(13, DIM)
    assert np.allclose(axes @ axes.T, np.eye(13), atol=1e-5)
    before, after = xq @ xb.T, kept.apply(xq) @ kept.apply(xb).T
    assert np.abs(before - after).max() < 0.02
    centred = faiss.PCAMatrix(DIM, 13)
    centred.train(xb)
    assert np.abs(before - centred.apply(xq) @ centred.apply(xb).T).max() > 0.2


def test_a_list_as_long_as_the_gallery_answers_as_single_shot(gallery: Gallery) -> None:
    xq = turned(20, 2)
    wanted = asked(gallery, Strategy.single_shot(), xq)
    found = asked(gallery, Strategy.shortlist(width="full", dim=DIM, length=ROWS), xq)
    assert np.array_equal(found.D, wanted.D)
    assert np.array_equal(found.I, wanted.I)


@pytest.mark.parametrize("length", [10, 40, 300])
def test_hits_are_the_nearest_of_the_shortlist_to_the_bit(gallery: Gallery, length: int) -> None:
    strategy = Strategy.shortlist(width="full", dim=DIM, length=length, index=RECIPE, effort=4)
    stored = prefix(gallery.segments.read(np.arange(ROWS)), DIM)
    for one in turned(20, 3):
        hits = asked(gallery, strategy, one[None])
        exact = stored[hits.shortlist[0]].astype(np.float64) @ one.astype(np.float64)
        best = np.lexsort((hits.shortlist[0], -exact))[:10]
        assert np.array_equal(hits.I[0], hits.shortlist[0][best])
        assert np.allclose(hits.D[0], np.minimum(exact[best], 1), atol=1e-6)
        together = asked(gallery, strategy, np.repeat(one[None], 3, axis=0))
        assert np.array_equal(together.D[2], hits.D[0])


def test_most_of_the_nearest_are_found_in_few_bits(gallery: Gallery) -> None:
    xq = turned(50, 4)
    wanted = asked(gallery, Strategy.single_shot(), xq).I
    found = asked(gallery, Strategy.shortlist(width="full", dim=DIM, length=60, effort=8), xq).I
    share = np.mean([np.isin(truth, row).mean() for truth, row in zip(wanted, found, strict=True)])
    assert share > 0.97


@pytest.mark.parametrize("how", ["damaged", "lost"])
def test_an_index_that_is_lost_or_damaged_is_built_again(
    gallery: Gallery, caplog: pytest.LogCaptureFixture, how: str
) -> None:
    strategy, xq = Strategy.shortlist(width="full", dim=DIM, length=50), turned(10, 5)
    before = asked(gallery, strategy, xq)
    file = next((gallery.folder / "shortlist").iterdir())
    if how == "lost":
        file.unlink()
    else:
        data = bytearray(file.read_bytes())
        data[len(data) // 2] ^= 1
        file.write_bytes(data)
    with Gallery(gallery.folder) as again, caplog.at_level(logging.WARNING):
        found = asked(again, strategy, xq)
    assert "building it again" in caplog.text
    assert np.array_equal(found.I, before.I)
    assert np.array_equal(found.D, before.D)


def test_newer_rows_are_found_beside_it(gallery: Gallery) -> None:
    newer = turned(5, 6)
    gallery.add([Row(f"new{key}", "") for key in range(5)], newer)
    hits = asked(gallery, Strategy.shortlist(width="full", dim=DIM, length=50), newer, k=1)
    assert hits.I[:, 0].tolist() == [*range(ROWS, ROWS + 5)]


@pytest.mark.parametrize(
    "recipe", ["pca-ivfpq:65", "pca-ivfpq:0", "pca-ivfpq:x", "pca-ivfpq:8:9:10", "pca-ivfpq:8:9999"]
)
def test_a_recipe_that_cannot_be_changes_nothing(gallery: Gallery, recipe: str) -> None:
    before = gallery.shortlists()
    with pytest.raises(GalleryError, match=r"pca-ivfpq|FAISS"):
        gallery.build_shortlist(DIM, recipe)
    assert gallery.shortlists() == before


def test_cells_are_a_power_of_two_above_the_square_root() -> None:
    assert [more_cells(rows) for rows in (16, 1000, 100_000, 500_000, 1_000_000)] == [1, 16, 512, 1024, 1024]
