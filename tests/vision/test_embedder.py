"""What encodes images for galleries: any width, what it costs, and what it refuses."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from frozen_models import TOLERANCE
from matmamba_retrieval import GalleryError
from matmamba_vision import Checkpoint, MatMamba, WidthError
from matmamba_vision.galleries.embedder import Embedder


@pytest.fixture
def embedder(model: MatMamba, tmp_path: Path) -> Embedder:
    return Embedder(Checkpoint(tmp_path, model, (), {}, "a" * 64))


def test_an_embedder_encodes_at_any_width(embedder: Embedder, model: MatMamba, images: torch.Tensor) -> None:
    encoded = embedder.queries(images).encode("1/4")
    wanted = model.embed(images, width="1/4").detach().numpy()
    np.testing.assert_allclose(encoded.xq, wanted, rtol=0, atol=TOLERANCE)
    assert embedder.frozen("1/4") is embedder.frozen("1/4")
    assert encoded.macs < embedder.macs("full")
    assert embedder.spec("1/4").width == "1/4"
    assert embedder.spec().dim == 32


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ((1, 1, 16, 16), "1 channels, the model takes 3"),
        ((1, 3, 16, 20), "20 pixels"),
        ((3, 16, 16), "shape"),
    ],
)
def test_a_query_of_another_shape_is_refused(
    embedder: Embedder, shape: tuple[int, ...], message: str
) -> None:
    with pytest.raises(GalleryError, match=message):
        embedder.queries(torch.zeros(shape))
    with pytest.raises(WidthError, match="1/3"):
        embedder.embed(torch.zeros(1, 3, 16, 16), "1/3")


def test_images_that_are_taken_are_encoded_alone(
    embedder: Embedder, images: torch.Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    queries = embedder.queries(images)
    small = queries.encode("1/8").xq
    sizes: list[tuple[str, int]] = []
    embed = embedder.embed

    def counted(batch: torch.Tensor, width: str) -> np.ndarray:
        sizes.append((width, len(batch)))
        return embed(batch, width)

    monkeypatch.setattr(embedder, "embed", counted)
    taken = queries.take(np.array([2, 0]))
    assert np.array_equal(taken.encode("1/8").xq, small[[2, 0]])
    assert np.allclose(taken.encode("full").xq, embed(images[[2, 0]], "full"))
    assert sizes == [("full", 2)]
