"""Random numbers that depend on the step alone."""

from __future__ import annotations

import random

import numpy as np
import torch


def seed_everything(*key: int) -> None:
    """Seed the generators of Python, numpy and torch from some numbers, such as seed, step and process."""
    state = int(np.random.SeedSequence(key).generate_state(1, np.uint64)[0])
    random.seed(state)
    np.random.seed(state % 2**32)  # noqa: NPY002  timm draws from it
    torch.manual_seed(state)
