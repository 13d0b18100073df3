"""What a service says of itself, as plain values."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from matmamba_retrieval import Plan

from ..galleries.strategies import KINDS, plan_text
from .quality import recall_of
from .question import LiveRecall
from .served_gallery import ServedGallery
from .settings import Settings


def described(served: ServedGallery, settings: Settings) -> dict[str, Any]:
    """What `GET /v1/galleries/{g}` says of a gallery.

    Args:
        served: the gallery.
        settings: of the service.
    """
    version, opened = served.present, served.present.opened
    with opened.reading() as gallery:
        stored = gallery.plan
        return {
            "name": served.name,
            "images": len(gallery),
            "version": version.label,
            "dim": gallery.spec.dim,
            "model": gallery.checkpoint_path,
            "takes_text": bool(version.encoder is not None and opened.takes_text()),
            "writable": settings.writable,
            "labels": gallery.labelled(),
            "fields": gallery.fields(),
            "max_k": settings.max_k,
            "widths": [
                {
                    "width": width,
                    "gmacs": 0.0 if version.encoder is None else version.encoder.encoder.macs(width) / 1e9,
                    "ms": version.single_ms.get(width),
                }
                for width in version.widths
            ],
            "strategies": list(KINDS),
            "plan": plan_text(Plan.from_json(stored)) if stored else None,
            "min_width": min_width(served),
            "state": "ready" if len(gallery) else "no images yet",
        }


def min_width(served: ServedGallery) -> str:
    """The narrowest width that is used because narrower ones are too bad; "" if all are."""
    return served.windows.widths[served.windows.narrowest] if served.windows.on_trial else ""


def recalls(galleries: Iterable[ServedGallery]) -> dict[str, LiveRecall | None]:
    """What is known of each width, in all galleries together."""
    served = list(galleries)
    widths = dict.fromkeys(width for one in served for width in one.windows.widths)
    found: dict[str, LiveRecall | None] = {}
    for width in widths:
        parts = [one.windows.compared(width) for one in served if width in one.windows.widths]
        # One gallery has its own at hand.
        found[width] = (
            served[0].windows.recall(width)
            if len(served) == 1
            else recall_of([one for part in parts for one in part])
        )
    return found
