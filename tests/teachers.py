"""A teacher and photos for students, made in no time."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import timm
import torch
from matmamba_vision.cli import main
from PIL import Image
from safetensors.torch import save_file

COLOURS = {"blue": (20, 40, 200), "green": (30, 180, 40), "red": (200, 30, 30)}
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
    """A small network of timm's in a folder, with a transform of its own; its name as a teacher."""
    folder.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(0)
    network = timm.create_model("resnet10t", num_classes=4)
    save_file(network.state_dict(), folder / "model.safetensors")
    known = {"input_size": [3, 48, 48], "mean": [0.4] * 3, "std": [0.3] * 3, "num_classes": 4}
    known |= {"classifier": "fc", "first_conv": "conv1.0", "interpolation": "bicubic", "crop_pct": 1.0}
    written = {"architecture": "resnet10t", "num_classes": 4, "pretrained_cfg": known, **more}
    (folder / "config.json").write_text(json.dumps(written))
    return f"timm:local-dir:{folder}"


def distill(teacher: str, photos: Path, output: Path, *more: str) -> int:
    """The command's exit status."""
    flags = ["distill", "--teacher", teacher, "--images", str(photos), "--output", str(output)]
    return main([*flags, *SIZES, *more])
