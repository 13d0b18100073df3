"""Time to encode, measured."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ..frozen import freeze
from ..models import MatMamba
from ..width import WidthLike

REPEATS, WARM_UP = 20, 3


@dataclass(frozen=True)
class Latency:
    """Milliseconds for one batch.

    Attributes:
        median: over the repeats.
        low: lower quartile.
        high: upper quartile.
    """

    median: float
    low: float
    high: float


def measure_latency(
    model: MatMamba,
    widths: Sequence[WidthLike],
    batch_size: int = 1,
    repeats: int = REPEATS,
    warm_up: int = WARM_UP,
) -> list[Latency]:
    """Latency of each width, frozen, on the device of `model`; the widths are taken in turn."""
    images, was_training = model.random_images(batch_size), model.training
    model.eval()
    try:
        frozen = [freeze(model, width).embed for width in widths]
        return time_in_turn(frozen, images, repeats, warm_up)
    finally:
        model.train(was_training)


@torch.inference_mode()
def time_in_turn(
    encoders: Sequence[Callable[[Tensor], object]],
    images: Tensor,
    repeats: int = REPEATS,
    warm_up: int = WARM_UP,
) -> list[Latency]:
    """Latency of each of several functions of the same images, taken in turn."""
    ms = [[_time(encode, images) for encode in encoders] for _ in range(warm_up + repeats)][warm_up:]
    quartiles = np.percentile(np.array(ms), [50, 25, 75], axis=0).T
    return [Latency(*map(float, row)) for row in quartiles]


def _time(encode: Callable[[Tensor], object], images: Tensor) -> float:
    start = time.perf_counter()
    encode(images)
    if images.is_cuda:
        torch.cuda.synchronize()
    return 1e3 * (time.perf_counter() - start)
