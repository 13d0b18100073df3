"""A network with pooled features, and how it wants its images."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from matmamba_common.words import shown
from torch import Tensor, nn
from torch.nn import functional as F

from .names import EncoderError as EncoderError
from .names import no_texts

# What is asked of an encoder before it is taken.
Features = Callable[[Tensor], Tensor]
Texts = Callable[[Sequence[str]], Tensor]


@dataclass(frozen=True, eq=False, kw_only=True)
class Encoder:
    """What gives a vector for each image, and how it wants its images.

    Attributes:
        name: as it was asked for.
        place: by which it is opened again.
        features: from prepared images (B, C, S, S) to (B, D).
        input: timm's data configuration: input_size, mean, std, interpolation, crop_pct, crop_mode.
        dim: D.
        weights: SHA-256 of the architecture and of the weights: the same weights in another one are another
            encoder.
        digest: SHA-256 of these and of the input.
        bare_digest: the same without the architecture, by which students of version 0.1 know their teacher.
        network: in evaluation mode, without gradients; None if it is none of PyTorch's.
        texts: from texts to (B, D) in the space of the images; None without a text tower.
        by: what computes.
        known_macs: multiply-adds for one image; None where they have to be counted.
    """

    name: str
    place: str
    features: Features
    input: Mapping[str, Any]
    dim: int
    weights: str
    digest: str
    bare_digest: str
    network: nn.Module | None = None
    texts: Texts | None = None
    by: str = "pytorch"
    known_macs: int | None = None

    @property
    def size(self) -> int:
        """Height and width of its images in pixels, the larger of the two."""
        return max(self.input["input_size"][1:])

    @property
    def device(self) -> torch.device:
        """Where it computes."""
        return device_of(self.network)

    @property
    def digests(self) -> tuple[str, str]:
        """By which a rotation may know it, the present one first."""
        return self.digest, self.bare_digest

    @torch.no_grad()
    def embed(self, images: Tensor) -> Tensor:
        """(B, D) float32 vectors of length 1 of prepared images.

        Raises:
            EncoderError: it gives another number of features than before, or none for each image.
        """
        return self._unit(self.features(images), len(images), "images")

    @torch.no_grad()
    def embed_texts(self, texts: Sequence[str]) -> Tensor:
        """(B, D) float32 vectors of length 1 of texts, comparable with those of images.

        Raises:
            EncoderError: it has no text tower, or that gives other vectors than images have.
        """
        if self.texts is None:
            raise no_texts(self.name)
        return self._unit(self.texts(texts), len(texts), "texts")

    def count_macs(self) -> int:
        """Multiply-adds for one image: given, or counted by PyTorch; 0 where neither can be."""
        if self.known_macs is not None or self.network is None:
            return self.known_macs or 0
        # Here, because it loads Triton.
        from torch.utils.flop_counter import FlopCounterMode

        with FlopCounterMode(display=False) as counter:
            self.embed(torch.zeros(1, *self.input["input_size"], device=self.device))
        return int(counter.get_total_flops()) // 2

    def views(self, images: Tensor, input: Mapping[str, Any]) -> Tensor:
        """Prepared images from those that were prepared as another network's data configuration says.

        Of one that wants no squares the middle is taken, as `eval_transform` does.
        """
        mean, std = (_column(input[key], images) for key in ("mean", "std"))
        images = images * std + mean
        if images.shape[-1] != self.size:
            images = resized(images, self.size).clamp(0, 1)
        images = _middle(images, *self.input["input_size"][1:])
        mean, std = (_column(self.input[key], images) for key in ("mean", "std"))
        return (images - mean) / std

    def _unit(self, found: Tensor, count: int, what: str) -> Tensor:
        if found.shape != (count, self.dim):
            raise EncoderError(
                f"{self.name} gives features of shape {tuple(found.shape)} for {count} {what}, not"
                f" {self.dim} for each"
            )
        return F.normalize(found.float(), dim=-1)


def resized(images: Tensor, size: int) -> Tensor:
    """Images (B, C, S, S) at another size: bicubic, antialiased."""
    return F.interpolate(images, (size, size), mode="bicubic", antialias=True)


def _middle(images: Tensor, height: int, width: int) -> Tensor:
    top, left = (
        (side - wanted) // 2 for side, wanted in zip(images.shape[-2:], (height, width), strict=True)
    )
    return images[..., top : top + height, left : left + width]


def _column(values: Any, like: Tensor) -> Tensor:
    return torch.tensor(values, device=like.device, dtype=like.dtype).view(-1, 1, 1)


def require_pooled(
    name: str, features: Features, input: Mapping[str, Any], device: torch.device | str
) -> int:
    """Numbers of features of an image; tried on two black ones.

    Raises:
        EncoderError: no images of this size, no pooled features, or features that are not numbers.
    """
    try:
        with torch.no_grad():
            found = features(torch.zeros(2, *input["input_size"], device=device))
    # A network that does not take images of this size says so in its own way.
    except (AssertionError, ValueError, RuntimeError) as error:
        size = input["input_size"][-1]
        raise EncoderError(f"{name} takes no images of {size} pixels: {_first_line(error)}") from error
    if not isinstance(found, Tensor):
        raise EncoderError(f"{name} gives {shown(found)} for two images: it can be a tensor (2, D)")
    if found.dim() != 2 or len(found) != 2 or not found.shape[1]:
        raise EncoderError(f"{name} has no pooled features: it gives {tuple(found.shape)} for two images")
    if not found.isfinite().all():
        raise EncoderError(f"{name} gives features that are not numbers")
    return found.shape[1]


def device_of(network: nn.Module | None) -> torch.device:
    """Where a network computes; the CPU for none, and for one without weights."""
    tensor = None if network is None else next(iter(network.state_dict().values()), None)
    return torch.device("cpu") if tensor is None else tensor.device


def digests_of(
    input: Mapping[str, Any], network: nn.Module | bytes, architecture: str = ""
) -> tuple[str, str, str]:
    """What identifies an encoder, SHA-256 in hexadecimal: `weights`, `digest` and `bare_digest` of `Encoder`.

    Args:
        input: a data configuration.
        network: whose state dict is read, or what stands for it.
        architecture: what computes with these weights; "" where `network` says it.
    """
    described = json.dumps(dict(input), sort_keys=True, default=str)
    numbers, bare = hashlib.sha256(), hashlib.sha256(described.encode())
    for part in [network] if isinstance(network, bytes) else _parts(network):
        numbers.update(part)
        bare.update(part)
    weights = hashlib.sha256(f"{architecture} {numbers.hexdigest()}".encode()).hexdigest()
    digest = hashlib.sha256(f"{weights} {described}".encode()).hexdigest()
    return weights, digest, bare.hexdigest()


def _parts(network: nn.Module) -> Iterator[bytes]:
    for key, tensor in sorted(network.state_dict().items()):
        yield key.encode()
        yield tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
