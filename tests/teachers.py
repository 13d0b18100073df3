"""A teacher and photos for students, made in no time."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from encoders_made import COLOURS, timm_folder
from matmamba_vision.cli import main
from PIL import Image

SIZES = ["--model", "matmamba_nano_patch4_32", "--dim", "16", "--data.batch-size", "12", "--threads", "1"]
SIZES += ["--model.patch-size", "8", "--rotation-images", "20", "--optim.warmup-epochs", "0", "--trackers"]


def write_photos(root: Path, count: int = 12) -> Path:
    """Noise around a colour for each class, a folder for each."""
    noise = np.random.default_rng(0)
    for name, colour in COLOURS.items():
        (root / name).mkdir(parents=True)
        for number in range(count):
            pixels = np.clip(noise.normal(colour, 60, (36, 40 + number, 3)), 0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(root / name / f"{number}.png")
    return root


def write_teacher(folder: Path, **more: object) -> str:
    """A small network of timm's in a folder, configured as `more` says; its name as a teacher."""
    name, config = timm_folder(folder), folder / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | more))
    return name


def distill(teacher: str, photos: Path, output: Path, *more: str) -> int:
    """The command's exit status."""
    flags = ["distill", "--teacher", teacher, "--images", str(photos), "--output", str(output)]
    return main([*flags, *SIZES, *more])
