"""Near-duplicates in a gallery: groups of images whose embeddings are nearly equal."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from matmamba_common.counts import counted
from matmamba_common.settings import require, require_least
from matmamba_retrieval import Gallery, Row
from matmamba_retrieval.curation.duplicates import find_duplicates

from ..galleries.answers import row_of
from ..galleries.page import Page, Section, image_card
from ..galleries.pictures import Pictures
from ..galleries.strategies import Method, is_exact, own_strategy
from ..given import require_number, require_place
from ..progress import Listener, Reporter
from ..public_call import public_call


@dataclass(frozen=True)
class DuplicateGroup:
    """Images that are nearly the same.

    Attributes:
        rows: the images, first the one that was added first, which is the one to keep.
        scores: cosine similarity of each to that one, at most 1.
    """

    rows: list[Row]
    scores: list[float]

    def others(self) -> Iterator[tuple[float, Row]]:
        """All but the first, with their scores."""
        return zip(self.scores[1:], self.rows[1:], strict=True)

    def to_dict(self) -> dict[str, Any]:
        """As plain values."""
        others = [{"score": score, **row_of(row)} for score, row in self.others()]
        return {"keep": row_of(self.rows[0]), "others": others}


@dataclass(frozen=True, kw_only=True)
class DuplicatesFound:
    """The near-duplicates of a gallery.

    Attributes:
        folder: of the gallery.
        threshold: least similarity to the first image of a group.
        exact: whether all pairs were compared.
        groups: of two images or more, none in two groups.
    """

    folder: Path
    threshold: float
    exact: bool
    groups: list[DuplicateGroup]

    @property
    def surplus(self) -> list[str]:
        """Ids of all images but the first of each group."""
        return [row.id for group in self.groups for _, row in group.others()]

    def to_dict(self, deleted: int = 0) -> dict[str, Any]:
        """As plain values.

        Args:
            deleted: how many of the surplus images were deleted afterwards.
        """
        method = "exact" if self.exact else "shortlist"
        groups = [group.to_dict() for group in self.groups]
        return {"threshold": self.threshold, "method": method, "deleted": deleted, "groups": groups}

    @public_call
    def write_page(self, file: str | os.PathLike[str]) -> None:
        """Write a page with the pictures, which holds everything and opens from disk.

        Args:
            file: HTML file to write.

        Raises:
            ConfigError: its folder is not there.
            SystemRefusalError: it cannot be written.
        """
        place, pictures = require_place("file", file), Pictures()
        alike = f"{self.threshold:g} or more similar to the first of their group"
        intro = f"Images of {self.folder} that are {alike}."
        with Page(place, "Near-duplicates", intro) as page:
            facts = {"groups": f"{len(self.groups):,}", "images too many": f"{len(self.surplus):,}"}
            page.facts.update(facts)
            for number, group in enumerate(self.groups, 1):
                page.write(_section(number, group, pictures))


def _section(number: int, group: DuplicateGroup, pictures: Pictures) -> Section:
    labels = {row.label for row in group.rows}
    note = f"labels differ: {', '.join(sorted(map(str, labels)))}" if len(labels) > 1 else ""
    lead = image_card(pictures, group.rows[0], badge="kept", mark="lead")
    cards = [image_card(pictures, row, score, f"{score:.4f}") for score, row in group.others()]
    return Section(f"Group {number}: {counted(len(group.rows), 'image')}", cards, lead, note, bool(note))


@public_call
def duplicates(
    gallery: Gallery,
    *,
    threshold: float = 0.98,
    where: str = "",
    method: Method = "auto",
    neighbours: int = 32,
    progress: Listener | None = None,
) -> DuplicatesFound:
    """Find groups of images of which each is nearly equal to the one that was added first.

    Which threshold means "the same picture" depends on the model.

    Args:
        gallery: an open one.
        threshold: least cosine similarity to the first image of a group, in (0, 1].
        where: condition on the images to compare, in SQL.
        method: "exact" compares all pairs, "shortlist" each image with those that an index finds near it, and
            may miss pairs; "auto" takes exact up to 100,000 images.
        neighbours: nearest others that "shortlist" looks at, for each image.
        progress: is told how far it is.

    Raises:
        ConfigError: a number that is too small, or no such method.
        GalleryError: a threshold or condition that cannot be, or a gallery without the index that is needed.
    """
    require_least(1, neighbours=neighbours)
    require_number("threshold", threshold)
    require("where", where, str)
    allowed = gallery.allowed(where or None)
    count = len(gallery) if allowed is None else int(allowed.sum())
    exact = is_exact(gallery, method)
    strategy = None if exact else own_strategy(gallery, method, neighbours)
    with Reporter(progress).meter("comparing", count) as meter:
        groups = find_duplicates(gallery, threshold, allowed, strategy, neighbours, meter.advance)
    # Vectors are rounded: those of one image can come out a little longer than 1.
    found = [
        DuplicateGroup(gallery.rows(group.keys), [min(1.0, float(score)) for score in group.scores])
        for group in groups
    ]
    return DuplicatesFound(folder=gallery.folder, threshold=threshold, exact=exact, groups=found)
