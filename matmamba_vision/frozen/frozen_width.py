"""A width made for inference, and the engines that can compute it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import torch
from torch import Tensor

from ..models import MatMamba
from ..width import WidthLike
from .native_width import native_engine
from .packed import PackedWidth, is_plain, pack
from .straight import Straight


class Engine(Protocol):
    """What computes embeddings of a packed width, for any number of threads at once.

    Attributes:
        name: what answers call it.
    """

    name: str

    def embed(self, images: Tensor) -> Tensor:
        """(B, E) float32, L2-normalised, of contiguous float32 images (B, C, H, W) on the CPU."""
        ...


class PyTorchEngine:
    """The straight path; PyTorch is always there."""

    name = "pytorch"

    def __init__(self, packed: PackedWidth) -> None:
        self._straight = Straight(packed).eval()

    @torch.inference_mode()
    def embed(self, images: Tensor) -> Tensor:
        """As `Engine.embed`."""
        embeddings: Tensor = self._straight(images)
        return embeddings


# By name, the most preferred first: each makes an engine, or gives None where it cannot serve here.
ENGINES: dict[str, Callable[[PackedWidth], Engine | None]] = {
    "native": native_engine,
    "pytorch": PyTorchEngine,
}


class FrozenWidth:
    """Embeddings of images at one width of a model, computed from a packed copy of its weights.

    They equal `MatMamba.embed` at that width up to rounding. Any number of threads may ask at once. What the
    weights become later is not seen: freeze once more after training.

    Args:
        model: to be frozen, and asked itself wherever a packed copy cannot serve: off the CPU, in other
            numbers than float32, in training, and where gradients of images are wanted.
        width: of it.

    Attributes:
        width: what was frozen.
        label: its name.
        packed: its weights; None where the model itself is asked.
        by: what computes: "native" with the instruction set, "pytorch", or "model".
    """

    def __init__(self, model: MatMamba, width: WidthLike) -> None:
        self._model, self.width, self.label = model, model.width(width), model.label(width)
        self.packed = pack(model, width) if _serves(model) else None
        self.by, self._engine = _first_engine(self.packed)

    def embed(self, images: Tensor) -> Tensor:
        """(B, E) float32, L2-normalised; without gradients unless those of `images` are wanted.

        Args:
            images: (B, C, H, W) of the model's own size, prepared as it wants them.

        Raises:
            ConfigError: images of another shape than the width was frozen for.
        """
        if self._engine is None or self.packed is None or _wants_model(self._model, images):
            with torch.set_grad_enabled(torch.is_grad_enabled() and images.requires_grad):
                return self._model.embed(images, self.width)
        self.packed.require_images(images.shape)
        return self._engine.embed(images.detach().to("cpu", torch.float32).contiguous())


def freeze(model: MatMamba, width: WidthLike = "full") -> FrozenWidth:
    """An encoder for inference of one width of a model; see `FrozenWidth`.

    Args:
        model: in evaluation mode.
        width: as `MatMamba.width` takes it.

    Raises:
        WidthError: the model has no such width.
    """
    return FrozenWidth(model, width)


def _serves(model: MatMamba) -> bool:
    return is_plain(model) and not model.training


def _wants_model(model: MatMamba, images: Tensor) -> bool:
    gradients = torch.is_grad_enabled() and images.requires_grad
    return gradients or not _serves(model)


def _first_engine(packed: PackedWidth | None) -> tuple[str, Engine | None]:
    for make in ENGINES.values():
        engine = None if packed is None else make(packed)
        if engine is not None:
            return engine.name, engine
    return "model", None
