"""Encoders that a gallery keeps beside its vectors, so that searching it needs no PyTorch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from matmamba_common.errors import MatMambaError
from matmamba_retrieval import Gallery
from matmamba_retrieval.strategies.plan import planned

from ..errors import ConfigError
from ..progress import Reporter
from .light_files import KINDS, read_header

if TYPE_CHECKING:
    from .embedder import Embedder


@dataclass(frozen=True)
class KeptEncoder:
    """An encoder that was made.

    Attributes:
        file: where it is.
        width: its label.
        kind: what computes it.
        ms: of one image on this machine, the median.
        bytes: of its file.
    """

    file: Path
    width: str
    kind: str
    ms: float
    bytes: int

    def to_dict(self) -> dict[str, Any]:
        """As plain values."""
        return {
            "file": str(self.file), "width": self.width, "kind": self.kind, "ms": self.ms, "bytes": self.bytes
        }  # fmt: skip


def freeze_widths(
    gallery: Gallery, embedder: Embedder, widths: Sequence[str], kinds: Sequence[str], report: Reporter
) -> list[KeptEncoder]:
    """Make the encoders of some widths, and have the gallery keep them.

    Args:
        gallery: whose model it is.
        embedder: of that model.
        widths: as a user writes them; by default those that its plan asks for, or all trained ones.
        kinds: of `KINDS`; by default the best that this machine can make of each width.
        report: is told how far it is.

    Raises:
        ConfigError: no such kind; or none was named, and this machine can make none.
        GalleryError: a width cannot have an encoder of that kind, or nothing can be written there.
        WidthError: no such width.
    """
    from .light_making import kinds_that_can_be, make_light, require_side

    for kind in kinds:
        if kind not in KINDS:
            raise ConfigError(f"kind {kind!r} is none of {', '.join(KINDS)}")
    require_side(embedder)
    labels = dict.fromkeys(embedder.label(width) for width in widths or _widths_asked(gallery, embedder))
    made = []
    with report.meter("freezing", len(labels)) as meter:
        for width in labels:
            wanted = kinds or kinds_that_can_be(embedder, width)[:1]
            if not wanted:
                raise ConfigError(
                    "no encoder can be made here: build the kernels in C, or install onnxruntime and"
                    " onnxscript"
                )
            made += [_kept(make_light(gallery.folder, embedder, width, kind)) for kind in wanted]
            meter.advance(1)
    return made


def try_to_freeze(gallery: Gallery, embedder: Embedder) -> None:
    """Make the encoders that a plan asks for, if this machine can; it is no fault if it cannot."""
    try:
        freeze_widths(gallery, embedder, (), (), Reporter(None))
    except MatMambaError:
        return


def _kept(file: Path) -> KeptEncoder:
    header = read_header(file)
    return KeptEncoder(file, header.width, header.kind, header.ms, file.stat().st_size)


def _widths_asked(gallery: Gallery, embedder: Embedder) -> list[str]:
    """Those that the gallery's plan encodes queries at, or all that were trained."""
    strategy = planned(gallery)
    if strategy is None:
        return list(embedder.widths)
    return [width for width in (strategy.query_width, "full", *strategy.widths) if width]
