"""Collections through a network of timm's: by ONNX Runtime, with PyTorch's vectors."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import matmamba_vision as mv
import numpy as np
import pytest
import torch
from encoders_made import coloured, timm_folder
from matmamba_vision.encoders import Encoder, for_many, onnx_runtime, open_encoder
from matmamba_vision.encoders.encoder import Features
from numpy.typing import NDArray
from torch import Tensor, nn

COUNT = 18


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return coloured(tmp_path_factory.mktemp("photos"))


@pytest.fixture(scope="module")
def name(tmp_path_factory: pytest.TempPathFactory) -> str:
    return timm_folder(tmp_path_factory.mktemp("timm"))


@pytest.fixture
def few_are_many(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(onnx_runtime, "MANY", COUNT)


def vectors_of(folder: Path) -> tuple[list[str], NDArray[np.floating]]:
    with mv.open_gallery(folder) as gallery, gallery.reading() as opened:
        keys = opened.keys_of(
            sorted(f"{colour}/{n}.png" for colour in ("blue", "green", "red") for n in range(6))
        )
        return list(keys), opened.vectors(np.array(list(keys.values())))


@pytest.mark.usefixtures("few_are_many")
def test_vectors_are_those_of_pytorch_whatever_the_number_of_images(name: str) -> None:
    encoder = open_encoder(name)
    faster = for_many(encoder, COUNT)
    assert (encoder.by, faster.by) == ("pytorch", "onnx")
    for count in (1, onnx_runtime.TOGETHER - 1, 2 * onnx_runtime.TOGETHER + 3):
        images = torch.randn(count, *encoder.input["input_size"])
        torch.testing.assert_close(faster.embed(images), encoder.embed(images), atol=1e-5, rtol=0)
    assert faster.digests == encoder.digests
    assert faster.weights == encoder.weights


def test_few_images_are_not_worth_the_recording(name: str) -> None:
    encoder = open_encoder(name)
    assert for_many(encoder, onnx_runtime.MANY - 1) is encoder


@pytest.mark.usefixtures("few_are_many")
def test_an_indexed_folder_is_the_gallery_that_pytorch_makes(
    photos: Path, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recorded: list[Encoder] = []
    made = onnx_runtime._recorded

    def noted(encoder: Encoder) -> Features | None:
        recorded.append(encoder)
        return made(encoder)

    monkeypatch.setattr(onnx_runtime, "_recorded", noted)
    assert mv.index(photos, tmp_path / "fast", model=name).added == COUNT
    assert len(recorded) == 1
    monkeypatch.setattr(onnx_runtime, "MANY", COUNT + 1)
    mv.index(photos, tmp_path / "slow", model=name)
    assert len(recorded) == 1
    (fast_ids, fast), (slow_ids, slow) = (vectors_of(tmp_path / side) for side in ("fast", "slow"))
    assert fast_ids == slow_ids
    # Stored in half precision.
    np.testing.assert_allclose(fast, slow, atol=1e-3)
    with mv.open_gallery(tmp_path / "fast") as one, mv.open_gallery(tmp_path / "slow") as other:
        assert one.spec == other.spec
        assert one.search(photos / "red" / "2.png").hits[0].id == "red/2.png"


@pytest.mark.usefixtures("few_are_many")
def test_a_network_of_ours_is_frozen() -> None:
    encoder = open_encoder("matmamba_nano_patch4_32")
    frozen = for_many(encoder, COUNT)
    assert frozen.by == mv.freeze(mv.load_checkpoint("matmamba_nano_patch4_32").model, "full").by
    images = torch.randn(3, *encoder.input["input_size"])
    torch.testing.assert_close(frozen.embed(images), encoder.embed(images), atol=1e-5, rtol=0)
    assert frozen.digests == encoder.digests


class Sorted(nn.Module):
    """Pooled features by way of Python, which no graph can hold."""

    def forward(self, images: Tensor) -> Tensor:
        rows: Sequence[float] = sorted(images.mean((1, 2, 3)).tolist())
        return images.mean((2, 3)) + len(rows) / (1 + len(rows))


class Noisy(nn.Module):
    """Features whose record is another: it holds the batch that was recorded."""

    def forward(self, images: Tensor) -> Tensor:
        return images.mean((2, 3)) + (1.0 if torch.compiler.is_compiling() else 2.0)


@pytest.mark.usefixtures("few_are_many")
@pytest.mark.parametrize("network", [Sorted(), Noisy()], ids=["not recorded", "recorded wrongly"])
def test_what_cannot_be_recorded_rightly_stays_with_pytorch(network: nn.Module) -> None:
    encoder = mv.encoder_from(network, "odd", size=48)
    assert for_many(encoder, COUNT) is encoder


@pytest.mark.usefixtures("few_are_many")
def test_without_onnx_runtime_it_stays_with_pytorch(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(onnx_runtime, "find_spec", lambda package: None)
    encoder = open_encoder(name)
    assert for_many(encoder, COUNT) is encoder
