"""Time to encode, measured."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from ..models import MatMamba, extract
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
    """Latency of the extracted submodel of each width on the device of `model`, the widths taken in turn."""
    images = model.random_images(batch_size)
    submodels = [extract(model, width).eval() for width in widths]
    ms = [[_time(submodel, images) for submodel in submodels] for _ in range(warm_up + repeats)][warm_up:]
    quartiles = np.percentile(np.array(ms), [50, 25, 75], axis=0).T
    return [Latency(*map(float, row)) for row in quartiles]


def _time(model: MatMamba, images: torch.Tensor) -> float:
    start = time.perf_counter()
    model.embed(images)
    if images.is_cuda:
        torch.cuda.synchronize()
    return 1e3 * (time.perf_counter() - start)
