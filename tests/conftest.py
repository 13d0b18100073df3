"""Small models, images and galleries that the tests share."""

from __future__ import annotations

# First, because much imports Triton.
import interpreter  # noqa: F401  isort: skip

import signal
from pathlib import Path

import pytest
import torch
from matmamba_retrieval import EmbeddingSpec, Gallery, Row
from matmamba_vision import MatMamba
from small import SMALL, save_photos, unit_vectors

# What a shell starts in the background has interrupts ignored, and with it all that it starts.
signal.signal(signal.SIGINT, signal.default_int_handler)
# One thread: small tensors gain little by more, and on a busy machine threads wait for each other.
torch.set_num_threads(1)


@pytest.fixture
def model() -> MatMamba:
    """A small nested model with random weights, in evaluation mode."""
    torch.manual_seed(0)
    return MatMamba(**SMALL, chunk_size=8).eval()


@pytest.fixture
def images() -> torch.Tensor:
    return torch.randn(4, 3, 16, 16, generator=torch.Generator().manual_seed(1))


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """A folder of two classes whose images differ in format, size and mode."""
    save_photos(tmp_path / "photos")
    return tmp_path / "photos"


@pytest.fixture
def spec() -> EmbeddingSpec:
    return EmbeddingSpec("a" * 64, "full", 32)


@pytest.fixture
def gallery(tmp_path: Path, spec: EmbeddingSpec) -> Gallery:
    """300 random vectors of 32 dims in three segments, some of them equal; shortlists by 8 and 16 dims."""
    gallery = Gallery.create(tmp_path / "gallery", spec)
    xb = unit_vectors(300, 32)
    xb[250:260] = xb[0:10]
    for start in (0, 100, 200):
        rows = [Row(f"id{key}", f"/photos/{key}.jpg", str(key % 3)) for key in range(start, start + 100)]
        gallery.add(rows, xb[start : start + 100])
    gallery.build_shortlist(8)
    gallery.build_shortlist(16)
    return gallery
