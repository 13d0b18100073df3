"""What neighbours say about labels: suggestions for images without one, and labels they contradict."""

from __future__ import annotations

import csv
import os
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
from matmamba_common.settings import require_least
from matmamba_datasets.names import safe_cell
from matmamba_retrieval import Gallery, Row
from matmamba_retrieval.curation.labels import Votes, vote
from matmamba_retrieval.index.rerank import NO_KEY
from matmamba_retrieval.metrics import VOTE_TEMPERATURE
from matmamba_retrieval.strategies.searchable import Searchable
from numpy.typing import NDArray

from ..galleries.page import Page, Section, image_card
from ..galleries.pictures import Pictures
from ..galleries.strategies import Method, own_strategy, say_few
from ..given import require_number, require_place
from ..progress import Listener, Reporter
from ..public_call import public_call
from .contents import keys_where

Kind = Literal["suggestion", "suspicious"]
_COLUMNS = ("kind", "id", "path", "label", "suggested", "confidence", "own_share")
# Neighbours that are shown with an image.
_PICTURES = 6


class Readable(Protocol):
    """A gallery that is read through a lock, such as `ImageGallery`."""

    def reading(self) -> AbstractContextManager[Searchable]: ...


@dataclass(frozen=True, kw_only=True)
class LabelFinding:
    """An image and what its neighbours say.

    Attributes:
        kind: a suggestion for an image without a label, or a label that the neighbours contradict.
        row: the image.
        suggested: label that the neighbours vote for.
        confidence: how often such a vote is right, in [0, 1].
        own_share: of the votes, for the image's own label.
        neighbours: keys of the nearest of those that voted.
    """

    kind: Kind
    row: Row
    suggested: str
    confidence: float
    own_share: float
    neighbours: NDArray[np.int64]

    def to_dict(self) -> dict[str, Any]:
        """As a row of the CSV file, and as JSON."""
        row = self.row
        found = (self.kind, row.id, row.path, row.label, self.suggested, self.confidence, self.own_share)
        return dict(zip(_COLUMNS, found, strict=True))


@dataclass(frozen=True, kw_only=True)
class LabelFindings:
    """What all neighbours say.

    Attributes:
        folder: of the gallery.
        k: neighbours that voted on each image.
        temperature: of the votes.
        confirmed: share of the labelled images whose neighbours confirm their label; None where none has one.
        labelled: how many these are.
        findings: suggestions, then suspicious labels, the most certain first.
    """

    folder: Path
    k: int
    temperature: float
    confirmed: float | None
    labelled: int
    findings: list[LabelFinding]

    def of(self, kind: Kind) -> list[LabelFinding]:
        """Those of one kind."""
        return [finding for finding in self.findings if finding.kind == kind]

    def to_dict(self) -> dict[str, Any]:
        """As plain values."""
        about = {"k": self.k, "temperature": self.temperature, "confirmed": self.confirmed}
        return {**about, "images": [finding.to_dict() for finding in self.findings]}

    @public_call
    def write_csv(self, file: str | os.PathLike[str]) -> None:
        """Write all of them to a CSV file, whose texts no spreadsheet takes for formulas.

        Args:
            file: to write.

        Raises:
            ConfigError: its folder is not there.
            SystemRefusalError: it cannot be written.
        """
        place = require_place("file", file)
        # Names of files can hold bytes that are no text.
        with place.open("w", newline="", encoding="utf-8", errors="surrogateescape") as opened:
            writer = csv.DictWriter(opened, _COLUMNS)
            writer.writeheader()
            for finding in self.findings:
                writer.writerow({name: safe_cell(value) for name, value in finding.to_dict().items()})

    @public_call
    def write_page(self, file: str | os.PathLike[str], gallery: Gallery | Readable, *, top: int = 20) -> None:
        """Write a page with the pictures and their neighbours.

        Args:
            file: HTML file to write.
            gallery: the open one that these are of.
            top: images of each kind.

        Raises:
            ConfigError: its folder is not there.
            SystemRefusalError: it cannot be written.
        """
        require_least(0, top=top)
        place, pictures = require_place("file", file), Pictures()
        about = f"images of {self.folder}. Nothing was changed."
        intro = f"What the {self.k} nearest labelled images say about {about}"
        reading: AbstractContextManager[Searchable] = (
            nullcontext(gallery) if isinstance(gallery, Gallery) else gallery.reading()
        )
        with reading as opened, Page(place, "Labels by neighbours", intro) as page:
            if self.confirmed is not None:
                page.facts["labels confirmed by neighbours"] = f"{self.confirmed:.1%}"
            for kind, title in (("suspicious", "suspicious labels"), ("suggestion", "suggestions")):
                found = self.of(kind)  # type: ignore[arg-type]
                page.facts[title] = f"{len(found):,}, {min(top, len(found))} shown"
                for finding in found[:top]:
                    page.write(_section(finding, opened.rows(finding.neighbours), pictures))


def _section(finding: LabelFinding, neighbours: list[Row], pictures: Pictures) -> Section:
    mark = "doubt" if finding.kind == "suspicious" else "lead"
    cards = [image_card(pictures, row) for row in neighbours]
    label = finding.row.label or "no label"
    lead = image_card(pictures, finding.row, badge=label, mark=mark)
    note = f"{finding.confidence:.0%} sure of {finding.suggested}"
    if finding.kind == "suspicious":
        note += f"; {finding.own_share:.0%} of the votes for {finding.row.label}"
    return Section(f"{label} → {finding.suggested}?", cards, lead, note, finding.kind == "suspicious")


@public_call
def suggest_labels(
    gallery: Gallery,
    *,
    where: str = "",
    k: int = 20,
    temperature: float = VOTE_TEMPERATURE,
    min_confidence: float = 0.0,
    method: Method = "auto",
    progress: Listener | None = None,
) -> LabelFindings:
    """Let each image's nearest labelled others vote on its label; nothing is changed in the gallery.

    A vote weighs exp(similarity / temperature). Confidence is how often the winner of such a share of the
    votes is right, by the labelled images (of fewer than 50 it is the share itself).

    Args:
        gallery: an open one.
        where: condition on the images to judge, in SQL; all labelled images vote.
        k: neighbours that vote.
        temperature: of the votes: the smaller, the more the nearest count.
        min_confidence: below which nothing is said.
        method: how neighbours are found: "exact", "shortlist" (by an index), or "auto" by the gallery's size.
        progress: is told how far it is.

    Raises:
        ConfigError: a number that cannot be, or no such method.
        GalleryError: a condition that cannot be understood, or no image has a label.
    """
    require_least(1, k=k)
    require_number("temperature", temperature)
    require_number("min_confidence", min_confidence)
    report, keys = Reporter(progress), keys_where(gallery, where)
    strategy = own_strategy(gallery, method, k)
    say_few(report, gallery, k)
    with report.meter("asking neighbours", len(keys)) as meter:
        votes = vote(gallery, strategy, keys, k, temperature, gallery.allowed(), meter.advance)
    labelled = int((votes.own >= 0).sum())
    found = _findings(gallery, votes, min_confidence)
    return LabelFindings(
        folder=gallery.folder,
        k=k,
        temperature=temperature,
        confirmed=votes.accuracy(),
        labelled=labelled,
        findings=found,
    )


def _findings(gallery: Gallery, votes: Votes, min_confidence: float) -> list[LabelFinding]:
    found: list[LabelFinding] = []
    confidence = votes.calibrated()
    kinds: tuple[tuple[Kind, Any], ...] = (
        ("suggestion", votes.suggestions()),
        ("suspicious", votes.doubts()),
    )
    for kind, positions in kinds:
        certain = positions[confidence[positions] >= min_confidence]
        for position, row in zip(certain, gallery.rows(votes.keys[certain]), strict=True):
            suggested = votes.classes[votes.winners[position]]
            near = votes.neighbours[position]
            found.append(
                LabelFinding(
                    kind=kind,
                    row=row,
                    suggested=suggested,
                    confidence=float(confidence[position]),
                    own_share=float(votes.own_share[position]),
                    neighbours=near[near != NO_KEY][:_PICTURES],
                )
            )
    return found
