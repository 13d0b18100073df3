"""Vectors drawn by chance, for processes that load no torch, too."""

import numpy as np


def unit_vectors(count: int, dim: int, seed: int = 0) -> np.ndarray:
    """(count, dim) float32 vectors of length 1."""
    x = np.random.default_rng(seed).standard_normal((count, dim)).astype(np.float32)
    return x / np.linalg.norm(x, axis=1, keepdims=True)
