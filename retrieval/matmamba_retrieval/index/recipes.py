"""Ways to index a prefix, by name, and which one suits the rows, the memory and the recall."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from ..errors import GalleryError

AUTO = "auto"
# FAISS's k-means asks for this many training vectors a centroid.
ROWS_PER_CELL = 39
# Of a doubling: how far beyond the middle between two numbers of cells the larger one is taken.
TOWARDS_FEWER = 0.3
# Up to here, comparing everything takes less than a millisecond on one core.
FEW_ROWS = 10_000
# Codes of 4 bits have 16 values, and each takes a vector to train with.
LEAST_ROWS = 16


@dataclass(frozen=True)
class Recipe:
    """A kind of index.

    Attributes:
        reason: when to take it.
        row_bytes: memory for each row at a dim, by FAISS's own layout.
        factory: FAISS's string, of rows and dim; None if FAISS has none for it.
        recall: up to which share of the exact hits a shortlist of ten times as many can be counted on to
            hold, of those by that prefix.
    """

    reason: str
    row_bytes: Callable[[int], float]
    factory: Callable[[int, int], str] | None
    recall: float = 1.0


def cells(rows: int) -> int:
    """How many cells to divide rows into: a power of two near their square root, as far as they can train.

    FAISS's guide says 4 to 16 times as many; but fast scan reads a code in less than a nanosecond, so that
    comparing the centroids would be the expensive part. Between two powers rather the smaller, because
    finding the cell of each row is most of what an index takes to build.
    """
    wanted = max(1.0, min(math.sqrt(rows), rows / ROWS_PER_CELL))
    return int(2 ** max(0, round(math.log2(wanted) - TOWARDS_FEWER)))


def more_cells(rows: int) -> int:
    """Of shorter centroids: the power of two above the square root of the rows, as far as they can train."""
    wanted = max(1.0, min(2 ** math.ceil(math.log2(rows) / 2), rows / ROWS_PER_CELL))
    return int(2 ** math.floor(math.log2(wanted)))


RECIPES: dict[str, Recipe] = {
    "flat": Recipe("exact by the prefix; for few rows", lambda dim: 4 * dim, lambda rows, dim: "Flat"),
    "sq8": Recipe(
        "all compared, in a quarter of the memory; any filter is cheap", lambda dim: dim,
        lambda rows, dim: "SQ8", 0.999,
    ),
    "hnsw": Recipe(
        "short lists from up to millions of rows, where memory is ample and rows come one by one",
        lambda dim: dim + 272, lambda rows, dim: "HNSW32_SQ8", 0.99,
    ),
    "ivf": Recipe(
        "a few cells compared at full precision", lambda dim: 4 * dim + 8,
        lambda rows, dim: f"IVF{cells(rows)},Flat", 0.999,
    ),
    "ivfpq": Recipe(
        "fastest from some 10,000 rows on: 4 bits a coordinate, of the residual, compared in registers",
        lambda dim: dim / 2 + 8, lambda rows, dim: f"IVF{cells(rows)},PQ{dim}x4fsr", 0.99,
    ),
    "rabitq": Recipe(
        "1 bit a coordinate with an error bound (arXiv 2405.12497): the least memory at a high dim",
        lambda dim: dim / 8 + 16, lambda rows, dim: f"IVF{cells(rows)},RaBitQfs", 0.9,
    ),
    "binary": Recipe("signs and Hamming distance: no training at all", lambda dim: dim / 8, None, 0.8),
    "pca-ivfpq": Recipe(
        "fastest over all dims: `ivfpq` of principal coordinates of the gallery: pca-ivfpq:COORDINATES:CELLS",
        lambda dim: dim / 10 + 8, None, 0.99,
    ),
    "adanns-ivf": Recipe(
        "cells by one prefix, compared by another (arXiv 2305.19435, section 4.1): adanns-ivf:CELLS:COMPARED",
        lambda dim: dim + 8, None, 0.99,
    ),
    "adanns-opq": Recipe(
        "the best prefix for so many bytes a row (arXiv 2305.19435, section 4.2): adanns-opq:BYTES",
        lambda dim: 8, None, 0.9,
    ),
}  # fmt: skip


def split(recipe: str) -> tuple[str, list[int]]:
    """A recipe's name with its numbers, such as "adanns-ivf:16:64"; a FAISS factory string has none.

    Raises:
        GalleryError: a number is not one, or the recipe takes no numbers or fewer.
    """
    name, *numbers = recipe.split(":")
    if name not in RECIPES:
        return recipe, []
    takes = {"adanns-ivf": 2, "adanns-opq": 1, "pca-ivfpq": 2}.get(name, 0)
    if len(numbers) > takes or not all(number.isdigit() and int(number) for number in numbers):
        raise GalleryError(f"{recipe!r} is not {name!r} with at most {takes} numbers above 0")
    return name, [int(number) for number in numbers]


def factory_of(recipe: str, rows: int, dim: int) -> str | None:
    """FAISS's factory string for a recipe or factory string; None if it is built otherwise.

    Of fewer rows than a recipe can be trained with, all are compared.
    """
    name, _ = split(recipe)
    if name not in RECIPES:
        return recipe
    if rows < LEAST_ROWS:
        return "Flat"
    factory = RECIPES[name].factory
    return factory(rows, dim) if factory else None


def choose(rows: int, dim: int, budget: float = math.inf, recall: float = 0.99) -> str:
    """The name of the recipe that is fastest within a memory budget and reaches a recall.

    Args:
        budget: bytes for the index.
        recall: wanted share of the k nearest by the prefix in a shortlist of 10 k.

    Raises:
        GalleryError: none fits.
    """
    fastest = ("flat", "ivfpq", "hnsw", "sq8", "rabitq", "binary") if rows <= FEW_ROWS else (
        "ivfpq", "hnsw", "sq8", "flat", "rabitq", "binary",
    )  # fmt: skip
    for name in fastest:
        recipe = RECIPES[name]
        if recipe.recall >= recall and rows * recipe.row_bytes(dim) <= budget:
            return name
    raise GalleryError(
        f"no index over {rows} rows of {dim} dims has a recall of {recall} in {budget:,.0f} bytes:"
        " take a shorter prefix, more memory or a lower recall"
    )
