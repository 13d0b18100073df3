"""Encoders whose pace tests decide, for processes that are to be met at work."""

from __future__ import annotations

import os
import time

import torch
from matmamba_vision import Encoder, encoder_from
from torch import Tensor

SECONDS = 0.15


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


def slow_encoder() -> Encoder:
    """One that takes its time for each batch."""
    return encoder_from(_slowly, "4 x 4 colours, slowly", size=16)


def deadly_encoder() -> Encoder:
    """One that ends its process at the first batch of more than two images."""
    return encoder_from(_deadly, "deadly", size=16)
