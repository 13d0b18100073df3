"""Time to encode, measured."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from ..frozen import FrozenWidth, freeze
from ..models import MatMamba
from ..width import WidthLike


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


@torch.inference_mode()
def measure_latency(
    model: MatMamba, widths: Sequence[WidthLike], batch_size: int = 1, repeats: int = 20, warm_up: int = 3
) -> list[Latency]:
    """Latency of each width, frozen, on the device of `model`; the widths are taken in turn."""
    images, was_training = model.random_images(batch_size), model.training
    model.eval()
    try:
        frozen = [freeze(model, width) for width in widths]
        ms = [[_time(width, images) for width in frozen] for _ in range(warm_up + repeats)][warm_up:]
    finally:
        model.train(was_training)
    quartiles = np.percentile(np.array(ms), [50, 25, 75], axis=0).T
    return [Latency(*map(float, row)) for row in quartiles]


def _time(frozen: FrozenWidth, images: torch.Tensor) -> float:
    start = time.perf_counter()
    frozen.embed(images)
    if images.is_cuda:
        torch.cuda.synchronize()
    return 1e3 * (time.perf_counter() - start)
