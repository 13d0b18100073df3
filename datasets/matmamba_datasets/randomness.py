"""Randomness that belongs to a sample: what augmentation draws depends on nothing that was drawn before."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch


@contextmanager
def seeded(*key: int) -> Iterator[None]:
    """Inside, the generators that augmentation draws from are seeded by `key`; then they go on as before.

    These are Python's, numpy's legacy one and torch's for the CPU. Seeds of a GPU stay untouched.

    Args:
        key: numbers of 0 or more.
    """
    states = random.getstate(), np.random.get_state(), torch.default_generator.get_state()  # noqa: NPY002
    first, second, third = np.random.SeedSequence(key).generate_state(3).tolist()
    random.seed(first)
    np.random.seed(second)  # noqa: NPY002  timm draws from it
    torch.default_generator.manual_seed(third)
    try:
        yield
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])  # noqa: NPY002
        torch.default_generator.set_state(states[2])
