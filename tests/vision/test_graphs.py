"""`index`, `search` and `evaluate` encode by graphs on a GPU, here one that is imagined."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from matmamba_retrieval.planning.grid import Grid
from matmamba_vision import Checkpoint, load_checkpoint, save_checkpoint
from matmamba_vision.api import open_gallery
from matmamba_vision.frozen import PackedWidth, captured_batches, freeze, frozen_width
from matmamba_vision.frozen.frozen_width import PyTorchEngine
from matmamba_vision.frozen.place import Place
from matmamba_vision.galleries.image_intake import index
from matmamba_vision.studies.evaluate import evaluate
from played_graphs import Played
from small import SMALL, create

triton_width = pytest.importorskip("matmamba_vision.frozen.triton_width", reason="triton is not installed")


class Memory(Played):
    """The graphs of a device."""

    made: list[Memory]

    def __init__(self, device: torch.device) -> None:
        super().__init__()
        self.made.append(self)


@pytest.fixture
def memories(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Memory]]:
    """What graphs were captured with, as if the CPU were a GPU whose kernels are PyTorch's."""

    def network(packed: PackedWidth, place: Place, choose: object) -> PyTorchEngine:
        return PyTorchEngine(packed)

    monkeypatch.setattr(Memory, "made", [], raising=False)
    monkeypatch.setattr(captured_batches, "GraphMemory", Memory)
    monkeypatch.setattr(triton_width, "TritonNetwork", network)
    monkeypatch.setattr(frozen_width, "ENGINES", {"triton": triton_width.TritonEngine})
    captured_batches.memory_of.cache_clear()
    yield Memory.made
    captured_batches.memory_of.cache_clear()


@pytest.fixture
def checkpoint(photos: Path, tmp_path: Path) -> Checkpoint:
    """An untrained model, of a run on the photos."""
    cfg = {"input_size": (3, 16, 16)}
    model = create("matmamba_nano_patch4_32", pretrained_cfg_overlay=cfg, **SMALL | {"num_classes": 2})
    known = {"data": {"name": "folder", "root": str(photos), "max_broken": 1.0, "held_out": 0.4}}
    save_checkpoint(tmp_path / "run", model, ("bright", "dark"), known)
    return load_checkpoint(tmp_path / "run")


def test_galleries_are_filled_and_asked_by_graphs(
    checkpoint: Checkpoint, photos: Path, tmp_path: Path, memories: list[Memory]
) -> None:
    """One for each width and size of batch, all of one memory; none is captured again."""
    index(photos, tmp_path / "g", model=checkpoint, widths=["1/2"], batch_size=16)
    (memory,) = memories
    # Of 24 images 16, and the others in a graph of 8.
    assert memory.captured == 2 * 2
    with open_gallery(tmp_path / "g", model=checkpoint) as gallery:
        for _ in range(2):
            assert gallery.search(next(photos.rglob("*.jpg"))).hits
            assert len(memories) == 1
            assert memory.captured == 2 * 2 + 1


def test_studies_encode_by_graphs(checkpoint: Checkpoint, memories: list[Memory]) -> None:
    grid = Grid(k=3, query_widths=["1/8"], strategies=["single-shot"])
    evaluate(checkpoint, grid=grid, batch_size=16)
    (memory,) = memories
    # 14 images of the gallery at full width; 10 queries at both, and one of each that is timed.
    assert memory.captured == 1 + 2 * 1 + 2 - 1


def test_widths_of_several_models_share_the_memory_of_a_gpu(memories: list[Memory]) -> None:
    for width in ("full", "1/2"):
        model = create("matmamba_nano_patch4_32", **SMALL).eval()
        frozen = freeze(model, width)
        assert frozen.by == "triton"
        frozen.embed(model.random_images(3))
    assert [memory.captured for memory in memories] == [2]
