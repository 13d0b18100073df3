"""Encoders whose pace tests decide, for processes that are to be met at work."""

from __future__ import annotations

import os
import time
from pathlib import Path

import torch
from matmamba_vision import Encoder, encoder_from
from torch import Tensor

SECONDS = 0.15
TOLD, AWAITED = "MATMAMBA_TEST_TOLD", "MATMAMBA_TEST_AWAITED"
PATIENCE = 100.0


def _features(images: Tensor) -> Tensor:
    return torch.nn.functional.adaptive_avg_pool2d(images, 4).flatten(1) + 1e-3


def _slowly(images: Tensor) -> Tensor:
    time.sleep(SECONDS)
    return _features(images)


def _deadly(images: Tensor) -> Tensor:
    # An encoder is tried on two images when it is made.
    if len(images) > 2:
        os._exit(1)
    return _features(images)


def _told(images: Tensor) -> Tensor:
    # Beside what this process was given by Ray.
    if folder := os.environ.get(TOLD):
        seen = os.environ.get("CUDA_VISIBLE_DEVICES", "none")
        (Path(folder) / f"{os.getpid()}-{seen}").touch()
        until = time.monotonic() + PATIENCE
        # So that no process has done all before the others begin.
        while seen != "none" and time.monotonic() < until and not _all_told(Path(folder)):
            time.sleep(SECONDS)
    return _features(images)


def _all_told(folder: Path) -> bool:
    return len([*folder.glob("*-[01]")]) >= int(os.environ[AWAITED])


def telling_encoder() -> Encoder:
    """One that leaves a file with the number of its process and its GPUs in the folder that `TOLD` names."""
    return encoder_from(_told, "telling", size=16)


def slow_encoder() -> Encoder:
    """One that takes its time for each batch."""
    return encoder_from(_slowly, "4 x 4 colours, slowly", size=16)


def deadly_encoder() -> Encoder:
    """One that ends its process at the first batch of more than two images."""
    return encoder_from(_deadly, "deadly", size=16)
