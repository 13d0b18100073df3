"""Which trials there are: what models launch."""

from __future__ import annotations

from collections.abc import Iterable

import torch

from .block.block_trials import DIM, block_trials
from .block.branch_trials import branch_trials
from .candidates import HOPPER
from .trials import HEADS, KernelTrial, rows_of_channels, scans

STATE_DIM = 128
# Tokens of an image of 224, 512 and 1,024 px, and how many images fill a GPU.
BATCHES = {197: 128, 1025: 24, 4097: 8}


def all_trials(dtypes: Iterable[str], head_dims: Iterable[int], gpu: int = HOPPER) -> list[KernelTrial]:
    """Blocks, scans, convolutions and norms of models with such heads, at three lengths and two D.

    Args:
        dtypes: of "bfloat16", "float16", "float32".
        head_dims: P, such as 16.
        gpu: compute capability.
    """
    found = list[KernelTrial]()
    for dtype in (getattr(torch, name) for name in dtypes):
        for head_dim in head_dims:
            for length, batch in BATCHES.items():
                found += scans(dtype, head_dim, STATE_DIM, length, batch)
                found += block_trials(dtype, head_dim, STATE_DIM, length, batch, gpu)
            found += rows_of_channels(dtype, HEADS * head_dim)
        for dim in (DIM, 2 * DIM):
            found += branch_trials(dtype, dim)
    # Those of one class once.
    return list({(trial.name, trial.shapes): trial for trial in found}.values())
