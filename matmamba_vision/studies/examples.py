"""Queries to show with what they found."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matmamba_datasets import Images, Splits
from matmamba_retrieval import Gallery
from numpy.typing import NDArray
from PIL import Image

from .compare import Compared, K


@dataclass(frozen=True)
class Picture:
    """An image and the name of its class."""

    image: Image.Image
    label: str


@dataclass(frozen=True)
class Example:
    """A query, what its shortlist began with, and what it was answered with, best first."""

    query: Picture
    shortlist: list[Picture]
    reranked: list[Picture]


def pick_examples(
    splits: Splits, gallery: Gallery, compared: Sequence[Compared], count: int = 6
) -> list[Example]:
    """Queries with their shortlist and reranked hits, from the first shortlist strategy.

    They are spread evenly over all queries in order of how much of the shortlist's head is right, most first.
    """
    chosen = next(found for found in compared if found.row["strategy"] == "shortlist")
    stored = np.array(gallery.labels(), dtype=object)
    asked = np.array([splits.held_out.classes[label] for label in splits.held_out.labels], dtype=object)
    right = (stored[chosen.hits.shortlist[:, :K]] == asked[:, None]).sum(1)
    by_hits = np.argsort(-right, kind="stable")
    shown = by_hits[np.linspace(0, len(by_hits) - 1, count).round().astype(int)]
    position = {image_id: index for index, image_id in enumerate(splits.train.ids)}

    def pictures(keys: NDArray[np.int64]) -> list[Picture]:
        return [_picture(splits.train, position[row.id]) for row in gallery.rows(keys)]

    return [
        Example(
            _picture(splits.held_out, int(q)),
            pictures(chosen.hits.shortlist[q, :K]),
            pictures(chosen.hits.I[q]),
        )
        for q in shown
    ]


def _picture(images: Images, index: int) -> Picture:
    sample = images[index]
    return Picture(sample.image, images.classes[sample.label])
