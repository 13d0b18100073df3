"""A run as it is before its first step, and whether what was done with it came to its end."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import torch
from matmamba_vision import save_checkpoint
from matmamba_vision.progress import Event, Progress
from small import SMALL, create


def untrained_run(photos: Path, folder: Path) -> Path:
    """A run on photos of two classes, with a model of random weights."""
    torch.manual_seed(0)
    cfg = {"input_size": (3, 16, 16)}
    sizes = SMALL | {"num_classes": 2}
    model = create("matmamba_nano_patch4_32", pretrained_cfg_overlay=cfg, **sizes)
    known = {"data": {"name": "folder", "root": str(photos), "max_broken": 1.0, "held_out": 0.4}}
    save_checkpoint(folder, model, ("bright", "dark"), known)
    return folder


def require_finished(events: Iterable[Event], *stages: str) -> None:
    """Each stage began, and its last event says that it is over."""
    last = {event.stage: event for event in events if isinstance(event, Progress)}
    assert set(stages) <= set(last)
    assert all(event.finished for event in last.values())
