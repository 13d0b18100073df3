"""A small gallery, and videos in which its pictures are seen at known times."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matmamba_vision as mv
import numpy as np
import torch
from made_videos import SIZE, Pixels, still, write_video
from matmamba_vision import MatMamba
from matmamba_vision.checkpoint import save_checkpoint
from matmamba_vision.native import why_missing
from PIL import Image

PICTURES = 8
WIDTHS = ("full", "1/2", "1/4")
FPS = 10


def patches(number: int) -> Pixels:
    """(H, W, 3) large patches of colour: compression leaves them as they are, and no two look alike."""
    colours = np.random.default_rng(number).integers(0, 255, (3, 4, 3), dtype=np.uint8)
    return np.asarray(Image.fromarray(colours).resize(SIZE, Image.Resampling.BICUBIC))


def watched_gallery(folder: Path) -> Path:
    """Pictures 0 to 7, called "picture 0" and so on; an encoder of each width where there are kernels."""
    torch.manual_seed(0)
    sizes: dict[str, Any] = {
        "img_size": 32,
        "patch_size": 8,
        "embed_dim": 32,
        "depth": 2,
        "num_heads": 4,
        "head_dim": 16,
    }
    model = MatMamba(**sizes, d_state=16, num_classes=3, trained_widths=WIDTHS).eval()
    checkpoint = save_checkpoint(folder / "model.safetensors", model)
    gallery = folder / "gallery"
    mv.index([Image.fromarray(patches(0))], gallery, model=checkpoint, ids=["picture 0"], labels=["0"])
    add_pictures(gallery, range(1, PICTURES))
    if why_missing() is None:
        with mv.open_gallery(gallery, write=True) as opened:
            opened.freeze(WIDTHS)
    return gallery


def add_pictures(gallery: Path, numbers: Sequence[int]) -> None:
    """More pictures, each called by its number."""
    pictures = [Image.fromarray(patches(number)) for number in numbers]
    ids = [f"picture {number}" for number in numbers]
    with mv.open_gallery(gallery, write=True) as opened:
        opened.add(pictures, ids=ids, labels=[str(number) for number in numbers])


def shown_video(file: Path, pictures: Sequence[int], seconds: float = 1.0) -> Path:
    """A video that shows pictures one after the other, each for so long, at 10 frames a second."""
    frames = [pixels for number in pictures for pixels in still(patches(number), round(seconds * FPS))]
    return write_video(file, ((place / FPS, pixels) for place, pixels in enumerate(frames)), keyframes=5)
