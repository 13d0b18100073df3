"""A network of another library computed by ONNX Runtime, which takes convolutions and norms together.

Recording it takes seconds: that is for a collection, not for a query.
"""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..frozen import freeze
from ..models import MatMamba
from .encoder import Encoder, Features
from .onnx_file import session_features

# Largest difference of a coordinate of a vector of length 1 from PyTorch's.
TOLERANCE = 1e-4
# Images at once: what a layer leaves is still in the caches when the next one reads it.
TOGETHER = 16
# Images from which on it is worth the seconds.
MANY = 1000


def for_many(encoder: Encoder, count: int) -> Encoder:
    """The encoder computed by ONNX Runtime, where that is there and gives the same; else as it is.

    Nothing is timed: an encoding that was cut off and goes on is to come to the same bytes.

    Args:
        encoder: any; a network of ours is frozen; what is no network of PyTorch, or computes elsewhere than
            on the CPU, stays as it is.
        count: images of the whole collection; for fewer than `MANY` it stays, too.
    """
    if count < MANY:
        return encoder
    if isinstance(encoder.network, MatMamba):
        frozen = freeze(encoder.network, "full")
        return replace(encoder, features=frozen.embed, by=frozen.by)
    needed = map(find_spec, ("onnxruntime", "onnxscript"))
    if encoder.network is None or encoder.device.type != "cpu" or not all(needed):
        return encoder
    features = _recorded(encoder)
    if features is None:
        return encoder
    other = replace(encoder, features=features, by="onnx")
    images = torch.randn(TOGETHER, *encoder.input["input_size"], generator=torch.Generator().manual_seed(0))
    same = (encoder.embed(images) - other.embed(images)).abs().max() <= TOLERANCE
    return other if same else encoder


def _recorded(encoder: Encoder) -> Features | None:
    """Vectors of length 1 by ONNX Runtime; None for a network that cannot be recorded."""
    try:
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "network.onnx"
            record(encoder, file)
            features = session_features(file, {})
    # Whatever another library's network does that no graph can hold: then PyTorch computes it.
    except Exception:
        return None
    return lambda images: torch.cat([features(part) for part in images.split(TOGETHER)])


def record(encoder: Encoder, file: Path) -> None:
    """Write an encoder as one ONNX file: "images" (B, C, S, S) to "embeddings" (B, D) of length 1, any B.

    Raises:
        Exception: whatever PyTorch says of a network that no graph can hold.
    """
    # Here, because it loads the exporter.
    from ..export import export_network

    with _quiet():
        export_network(_Unit(encoder), torch.zeros(1, *encoder.input["input_size"]), file, "embeddings")


class _Unit(nn.Module):
    """From prepared images to vectors of length 1, as a module."""

    def __init__(self, encoder: Encoder) -> None:
        super().__init__()
        self.network, self.features = encoder.network, encoder.features

    def forward(self, images: Tensor) -> Tensor:
        return F.normalize(self.features(images).float(), dim=-1)


@contextmanager
def _quiet() -> Iterator[None]:
    """Without what the exporter logs of networks that it cannot take."""
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        yield
    finally:
        logging.disable(before)
