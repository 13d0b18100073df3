"""A teacher and photos for students, made in no time."""

from __future__ import annotations

import json
from pathlib import Path
from unittest.mock import patch

from encoders_made import coloured, timm_folder
from matmamba_vision.cli import main

SIZES = ["--model", "matmamba_nano_patch4_32", "--dim", "16", "--data.batch-size", "12", "--threads", "1"]
SIZES += ["--model.patch-size", "8", "--rotation-images", "20", "--optim.warmup-epochs", "0", "--trackers"]


def write_photos(root: Path, count: int = 12) -> Path:
    """Noise around a colour for each class, a folder for each."""
    return coloured(root, count, spread=60, size=(36, 40))


def write_teacher(folder: Path, **more: object) -> str:
    """A small network of timm's in a folder, configured as `more` says; its name as a teacher."""
    name, config = timm_folder(folder), folder / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | more))
    return name


def distill(teacher: str, photos: Path, output: Path, *more: str) -> int:
    """The command's exit status."""
    flags = ["distill", "--teacher", teacher, "--images", str(photos), "--output", str(output)]
    # A second of each run, and those of a student are no others.
    with patch("matmamba_vision.runs.curves.draw_curves"):
        return main([*flags, *SIZES, *more])
