"""What turns images into vectors of length 1: a network of this project, or any of timm's."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import timm
import torch
from matmamba_common.errors import MatMambaError
from timm.data import resolve_data_config
from torch import Tensor, nn
from torch.nn import functional as F

from .checkpoint import load_checkpoint

TIMM = "timm:"


class EncoderError(MatMambaError):
    """An encoder that cannot be had, or that does not give one vector for each image."""


@dataclass(frozen=True, eq=False)
class Encoder:
    """A network with pooled features, and how it wants its images.

    Attributes:
        name: as it was asked for.
        network: in evaluation mode, without gradients.
        features: from prepared images (B, C, S, S) to (B, D).
        input: timm's data configuration.
        dim: D.
        digest: SHA-256 of the weights and of the input.
    """

    name: str
    network: nn.Module
    features: Callable[[Tensor], Tensor]
    input: Mapping[str, Any]
    dim: int
    digest: str

    @property
    def size(self) -> int:
        """Height and width of its images in pixels."""
        return int(self.input["input_size"][-1])

    @torch.no_grad()
    def embed(self, images: Tensor) -> Tensor:
        """(B, D) float32 vectors of length 1 of prepared images.

        Raises:
            EncoderError: it gives another number of features than before, or none for each image.
        """
        found = self.features(images)
        if found.shape != (len(images), self.dim):
            raise EncoderError(
                f"{self.name} gives features of shape {tuple(found.shape)} for {len(images)} images, not"
                f" {self.dim} for each"
            )
        return F.normalize(found.float(), dim=-1)

    def views(self, images: Tensor, input: Mapping[str, Any]) -> Tensor:
        """Prepared images from those that were prepared as another network's data configuration says."""
        mean, std = (_column(input[key], images) for key in ("mean", "std"))
        images = images * std + mean
        if images.shape[-1] != self.size:
            images = resized(images, self.size).clamp(0, 1)
        mean, std = (_column(self.input[key], images) for key in ("mean", "std"))
        return (images - mean) / std


def resized(images: Tensor, size: int) -> Tensor:
    """Images (B, C, S, S) at another size: bicubic, antialiased."""
    return F.interpolate(images, (size, size), mode="bicubic", antialias=True)


def _column(values: Any, like: Tensor) -> Tensor:
    return torch.tensor(values, device=like.device, dtype=like.dtype).view(-1, 1, 1)


def open_encoder(
    name: str, size: int | None = None, device: torch.device | str = "cpu", half: bool = False
) -> Encoder:
    """The encoder called `timm:NAME` (`timm:local-dir:FOLDER` too), or a run or checkpoint of ours.

    Args:
        size: of its images in pixels, by default its own.
        half: compute in float16.

    Raises:
        EncoderError: its weights cannot be had, or it has no pooled features.
        CheckpointError: not a checkpoint of ours, and no name that begins with "timm:".
    """
    network, features, known = _timm(name) if name.startswith(TIMM) else _ours(name)
    if size:
        known = {**known, "input_size": (known["input_size"][0], size, size)}
    network = network.to(device).eval().requires_grad_(False)
    digest = _digest(network, known)
    dim = _require_pooled(name, features, known, device)
    if half:
        network.half().to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        features = _in_half(features)
    return Encoder(name, network, features, known, dim, digest)


def _timm(name: str) -> tuple[nn.Module, Callable[[Tensor], Tensor], dict[str, Any]]:
    asked = name.removeprefix(TIMM)
    try:
        network = timm.create_model(asked, pretrained=True, num_classes=0)
    # What timm and the hub raise for a name, a folder or a network that is not there.
    except Exception as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise EncoderError(f"{name}: its weights cannot be had: {reason}") from error
    return network, network, resolve_data_config({}, model=network)  # type: ignore[no-untyped-call]


def _ours(name: str) -> tuple[nn.Module, Callable[[Tensor], Tensor], dict[str, Any]]:
    model = load_checkpoint(Path(name)).model
    return model, model.embed, model.input


def _in_half(features: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    return lambda images: features(images.half().contiguous(memory_format=torch.channels_last))


def _require_pooled(
    name: str, features: Callable[[Tensor], Tensor], known: Mapping[str, Any], device: torch.device | str
) -> int:
    """Numbers of features of an image; tried on two black ones."""
    try:
        with torch.no_grad():
            found = features(torch.zeros(2, *known["input_size"], device=device))
    # A network that does not take images of this size says so in its own way.
    except (AssertionError, ValueError, RuntimeError) as error:
        size = known["input_size"][-1]
        raise EncoderError(
            f"{name} takes no images of {size} pixels: {str(error).splitlines()[0]}"
        ) from error
    if found.dim() != 2:
        raise EncoderError(f"{name} has no pooled features: it gives {tuple(found.shape)} for two images")
    if not found.isfinite().all():
        raise EncoderError(f"{name} gives features that are not numbers")
    return found.shape[1]


def _digest(network: nn.Module, known: Mapping[str, Any]) -> str:
    digest = hashlib.sha256(json.dumps(dict(known), sort_keys=True, default=str).encode())
    for key, tensor in sorted(network.state_dict().items()):
        digest.update(key.encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
