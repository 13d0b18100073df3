"""A width made for inference, and the engines that can compute it."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from typing import Protocol

import torch
from matmamba_common.settings import require
from torch import Tensor

from ..models import MatMamba
from ..public_call import public_call
from ..width import WidthLike
from .native_width import native_engine
from .packed import PackedWidth, pack
from .place import Place, place_of
from .straight import Straight


class Engine(Protocol):
    """What computes embeddings of a packed width, for any number of threads at once.

    Attributes:
        name: what answers call it.
    """

    name: str

    def wake(self) -> None:
        """Say that `embed` will be called at once by this thread: what sleeps may wake meanwhile."""
        ...

    def embed(self, images: Tensor) -> Tensor:
        """(B, E) float32, L2-normalised, of contiguous images (B, C, H, W) of the engine's place."""
        ...


class PyTorchEngine:
    """The straight path; PyTorch is always there."""

    name = "pytorch"

    def __init__(self, packed: PackedWidth) -> None:
        self._straight = Straight(packed).eval()

    def wake(self) -> None:
        """As `Engine.wake`: PyTorch wakes its threads itself."""

    @torch.inference_mode()
    def embed(self, images: Tensor) -> Tensor:
        """As `Engine.embed`."""
        embeddings: Tensor = self._straight(images)
        return embeddings


def _triton_engine(packed: PackedWidth, place: Place) -> Engine | None:
    """Kernels of ours on a GPU; None if Triton is not there or too old, or they cannot compute the width."""
    if place.device.type != "cuda" or importlib.util.find_spec("triton") is None:
        return None
    from ..ops.triton.oldest import too_old

    if too_old():
        return None
    from .triton_width import TritonEngine, why_not_triton

    return None if why_not_triton(packed, place.dtype) else TritonEngine(packed, place)


def _native_engine(packed: PackedWidth, place: Place) -> Engine | None:
    return native_engine(packed) if place.device.type == "cpu" else None


def _pytorch_engine(packed: PackedWidth, place: Place) -> Engine | None:
    return PyTorchEngine(packed) if place.device.type == "cpu" else None


# By name, the most preferred first: each makes an engine, or gives None where it cannot serve there.
ENGINES: dict[str, Callable[[PackedWidth, Place], Engine | None]] = {
    "triton": _triton_engine,
    "native": _native_engine,
    "pytorch": _pytorch_engine,
}


class FrozenWidth:
    """Embeddings of images at one width of a model, computed from a packed copy of its weights.

    They equal `MatMamba.embed` at that width up to rounding. Any number of threads may ask at once. What the
    weights become later is not seen: freeze once more after training.

    Args:
        model: to be frozen, and asked itself wherever a packed copy cannot serve: in numbers that no engine
            has on its device, in training, under autocast on a GPU, on a GPU in sizes that the kernels do
            not take, and where gradients of images are wanted.
        width: of it.

    Attributes:
        width: what was frozen.
        label: its name.
        packed: its weights; None where the model itself is asked.
        by: what computes: "triton", "native" with the instruction set, "pytorch", or "model".
    """

    def __init__(self, model: MatMamba, width: WidthLike) -> None:
        self._model, self.width, self.label = model, model.width(width), model.label(width)
        self._place = place_of(model)
        packed = None if self._place is None else pack(model, width)
        self.by, self._engine = _first_engine(packed, self._place)
        self.packed = packed if self._engine is not None else None

    def embed(self, images: Tensor) -> Tensor:
        """(B, E) float32, L2-normalised; without gradients unless those of `images` are wanted.

        Args:
            images: (B, C, H, W) of the model's own size, prepared as it wants them.

        Raises:
            ConfigError: images of another shape than the width was frozen for.
        """
        if self._engine is not None:
            self._engine.wake()
        if self._engine is None or self.packed is None or self._wants_model(images):
            with torch.set_grad_enabled(torch.is_grad_enabled() and images.requires_grad):
                return self._model.embed(images, self.width)
        self.packed.require_images(images.shape)
        assert self._place is not None
        return self._engine.embed(images.to(self._place.device, self._place.dtype).contiguous())

    def _wants_model(self, images: Tensor) -> bool:
        place = place_of(self._model)
        if place is None or place != self._place:
            return True
        casts = place.device.type == "cuda" and torch.is_autocast_enabled("cuda")
        return casts or (images.requires_grad and torch.is_grad_enabled())


@public_call
def freeze(model: MatMamba, width: WidthLike = "full") -> FrozenWidth:
    """An encoder for inference of one width of a model; see `FrozenWidth`.

    Args:
        model: in evaluation mode.
        width: as `MatMamba.width` takes it.

    Raises:
        WidthError: the model has no such width.
    """
    require("model", model, MatMamba)
    return FrozenWidth(model, width)


def _first_engine(packed: PackedWidth | None, place: Place | None) -> tuple[str, Engine | None]:
    for make in ENGINES.values():
        engine = None if packed is None or place is None else make(packed, place)
        if engine is not None:
            return engine.name, engine
    return "model", None
