"""Small models, images and galleries that the tests share."""

from __future__ import annotations

# First, because much imports Triton.
import interpreter  # noqa: F401  isort: skip

import gc
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import figures
import pytest
import torch
from matmamba_retrieval import EmbeddingSpec, Gallery, Row
from matmamba_vision import MatMamba
from small import SMALL, save_photos, unit_vectors

# What a shell starts in the background has interrupts ignored, and with it all that it starts.
signal.signal(signal.SIGINT, signal.default_int_handler)
# One thread: small tensors gain little by more, and on a busy machine threads wait for each other.
torch.set_num_threads(1)
figures.leave_blank()


def pytest_collection_finish() -> None:
    """What was loaded stays: the search for garbage passes it over, which saves a thirtieth of all time."""
    gc.collect()
    gc.freeze()


def pytest_runtest_teardown() -> None:
    """Commands that were told to take more threads leave nothing to other tests."""
    torch.set_num_threads(1)


@pytest.fixture
def really_drawn() -> Iterator[None]:
    """For a test that looks at pictures of figures."""
    with figures.drawn():
        yield


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
def few_digits(monkeypatch: pytest.MonkeyPatch) -> None:
    """A fifth of the handwritten digits, for what is done with them."""
    datasets = pytest.importorskip("sklearn.datasets")
    found = datasets.load_digits()
    few = SimpleNamespace(images=found.images[:360], target=found.target[:360])
    monkeypatch.setattr(datasets, "load_digits", lambda: few)


@pytest.fixture
def spec() -> EmbeddingSpec:
    return EmbeddingSpec("a" * 64, "full", 32)


@pytest.fixture(scope="session")
def made_gallery(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The gallery that tests copy."""
    folder = tmp_path_factory.mktemp("vectors") / "gallery"
    xb = unit_vectors(300, 32)
    xb[250:260] = xb[0:10]
    with Gallery.create(folder, EmbeddingSpec("a" * 64, "full", 32)) as gallery:
        for start in (0, 100, 200):
            rows = [Row(f"id{key}", f"/photos/{key}.jpg", str(key % 3)) for key in range(start, start + 100)]
            gallery.add(rows, xb[start : start + 100])
        gallery.build_shortlist(8)
        gallery.build_shortlist(16)
    return folder


@pytest.fixture
def gallery(tmp_path: Path, made_gallery: Path) -> Gallery:
    """300 random vectors of 32 dims in three segments, some of them equal; shortlists by 8 and 16 dims."""
    return Gallery(shutil.copytree(made_gallery, tmp_path / "gallery"), write=True)
