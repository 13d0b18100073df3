"""Small things that tests make."""

import numpy as np

SMALL = {
    "img_size": 16,
    "patch_size": 4,
    "num_classes": 5,
    "embed_dim": 32,
    "depth": 3,
    "num_heads": 8,
    "head_dim": 4,
    "d_state": 8,
}


def unit_vectors(count: int, dim: int, seed: int = 0) -> np.ndarray:
    """(count, dim) float32 vectors of length 1."""
    x = np.random.default_rng(seed).standard_normal((count, dim)).astype(np.float32)
    return x / np.linalg.norm(x, axis=1, keepdims=True)
