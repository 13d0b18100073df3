"""Compilation ahead of the first step, so that its time is seen."""

from __future__ import annotations

import time
from collections.abc import Iterator

import torch

from ..models import MatMamba


def compile_widths(model: MatMamba, batch_size: int) -> Iterator[tuple[str, float]]:
    """Compile the mixers for training: a forward and backward of each trained width, on noise.

    Weights, gradients and random state stay as they were.

    Yields:
        The width's label, and the seconds that it took.
    """
    model.compile_blocks()
    images = model.random_images(batch_size)
    for width in model.trained_widths:
        start = time.perf_counter()
        with torch.random.fork_rng():
            model(images, width).sum().backward()
        model.zero_grad()
        yield model.label(width), time.perf_counter() - start
