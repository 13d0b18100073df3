"""Queries with what they found, to be shown."""

from __future__ import annotations

from dataclasses import dataclass

from PIL import Image


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
