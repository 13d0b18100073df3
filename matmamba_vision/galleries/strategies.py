"""How a gallery's own images are searched for among each other."""

from __future__ import annotations

from typing import Literal

from matmamba_retrieval import Gallery, Strategy

from ..progress import Reporter

Method = Literal["auto", "exact", "shortlist"]
# Up to so many images all are compared with all others.
EXACT_IMAGES = 100_000
SHORTLIST = 200


def own_strategy(gallery: Gallery, method: Method, k: int) -> Strategy:
    """Exact search, or a shortlist by the longest index, reranked by stored vectors; `auto` goes by size.

    Raises:
        GalleryError: a gallery that needs an index has none, when it is searched.
    """
    width = gallery.spec.width
    if is_exact(gallery, method):
        return Strategy.single_shot(width=width)
    dim = max(gallery.shortlist_dims(), default=gallery.spec.dim)
    return Strategy.shortlist(width=width, dim=dim, length=min(len(gallery), max(SHORTLIST, 10 * k)))


def say_few(report: Reporter, gallery: Gallery, k: int, itself: bool = True) -> None:
    """Say so where there are fewer images than asked for; all of them are answered with then.

    Args:
        itself: whether an image is asked with that is one of them, and left out.
    """
    there = len(gallery) - itself
    if k > there:
        images = "other images" if itself else "images"
        report.say(f"note: {gallery.folder} has {there:,} {images}: fewer than k = {k}")


def is_exact(gallery: Gallery, method: Method) -> bool:
    """Whether all images are compared with all others."""
    return method == "exact" or (method == "auto" and len(gallery) <= EXACT_IMAGES)
