"""Images to embeddings: how any model answers what galleries and strategies ask of an encoder."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np
import torch
from matmamba_retrieval import EmbeddingSpec
from numpy.typing import NDArray
from torch import Tensor

from ..checkpoint import Checkpoint
from ..encoders import Encoder
from ..errors import NotFiniteError
from ..frozen import freeze
from ..measures import Latency, count_macs, count_parameters, time_in_turn
from ..models import MatMamba
from ..width import WidthError, WidthLike
from .image_queries import ImageQueries, PreparedImages, require_prepared

BATCH = 256
FULL = "full"


class EncodesWidth(Protocol):
    """Computes one width."""

    @property
    def by(self) -> str:
        """What computes it."""
        ...

    def embed(self, images: Tensor) -> Tensor:
        """(B, D) float32 of length 1 of prepared images."""
        ...


class Widths(Protocol):
    """A model as an `Embedder` asks it.

    Attributes:
        place: by which it is opened again.
        digest: of its weights.
        input: its data configuration.
        dim: of its embeddings.
        labels: of its widths, "full" first.
        device: where it computes.
    """

    place: str
    digest: str
    input: Mapping[str, Any]
    dim: int
    labels: tuple[str, ...]

    @property
    def device(self) -> torch.device:
        """Where it computes."""
        ...

    def label(self, width: WidthLike) -> str:
        """The label of a width that a user names; `WidthError` if there is none."""
        ...

    def freeze(self, width: str) -> EncodesWidth:
        """What computes a width."""
        ...

    def count_macs(self, width: str) -> float:
        """Multiply-adds for one image."""
        ...

    def count_parameters(self, width: str) -> int:
        """Numbers that are its weights."""
        ...


class NestedWidths:
    """The widths of a model of ours; see `Widths`."""

    def __init__(self, checkpoint: Checkpoint) -> None:
        self.model: MatMamba = checkpoint.model
        self.place, self.digest = str(checkpoint.path.absolute()), checkpoint.digest
        self.input: Mapping[str, Any] = self.model.input
        self.dim = self.model.embedding_dim
        self.labels: tuple[str, ...] = tuple(
            dict.fromkeys((FULL, *map(self.model.label, self.model.trained_widths)))
        )

    @property
    def device(self) -> torch.device:
        """Where it computes."""
        return self.model.pos_embed.device

    def label(self, width: WidthLike) -> str:
        """The label of a width that a user names."""
        return self.model.label(width)

    def freeze(self, width: str) -> EncodesWidth:
        """A frozen width."""
        return freeze(self.model, width)

    def count_macs(self, width: str) -> float:
        """Multiply-adds for one image."""
        return count_macs(self.model, width)

    def count_parameters(self, width: str) -> int:
        """Of the submodel."""
        return count_parameters(self.model, width)


class OneWidth:
    """The single width of an encoder that is not nested; see `Widths`."""

    def __init__(self, encoder: Encoder) -> None:
        self._encoder = encoder
        self.place, self.digest = encoder.place, encoder.weights
        self.input, self.dim = encoder.input, encoder.dim
        self.labels: tuple[str, ...] = (FULL,)

    @property
    def device(self) -> torch.device:
        """Where it computes."""
        return self._encoder.device

    def label(self, width: WidthLike) -> str:
        """Only "full"."""
        if width not in (FULL, "1", 1):
            raise WidthError(f"width {width!r}: {self._encoder.name} has no nested widths, only 'full'")
        return FULL

    def freeze(self, width: str) -> EncodesWidth:
        """The encoder itself."""
        self.label(width)
        return self._encoder

    def count_macs(self, width: str) -> float:
        """Multiply-adds for one image; 0 where nobody knows."""
        return self._encoder.count_macs()

    def count_parameters(self, width: str) -> int:
        """Of its network; 0 without one."""
        network = self._encoder.network
        return 0 if network is None else sum(tensor.numel() for tensor in network.parameters())


def _trained(model: Checkpoint | Encoder) -> tuple[str, ...]:
    if isinstance(model, Encoder):
        return (FULL,)
    return tuple(map(model.model.label, model.model.trained_widths))


class Embedder:
    """Encodes images at any width of a model, each frozen when it is first asked for.

    Args:
        model: a checkpoint of ours, or an encoder that is not.

    Attributes:
        checkpoint: of ours; None for another encoder.
        encoder: that is not ours; None for a checkpoint.
        name: as it was asked for.
        place: by which the model is opened again.
        digest: of its weights.
        input: its data configuration.
        dim: of its embeddings.
        widths: labels of its trained widths, "full" first.
        trained_widths: the same as they were trained, perhaps without "full".
    """

    def __init__(self, model: Checkpoint | Encoder) -> None:
        self.checkpoint = model if isinstance(model, Checkpoint) else None
        self.encoder = model if isinstance(model, Encoder) else None
        self.name = str(model.path) if isinstance(model, Checkpoint) else model.name
        self._model: Widths = NestedWidths(model) if isinstance(model, Checkpoint) else OneWidth(model)
        self.place, self.digest = self._model.place, self._model.digest
        self.trained_widths = _trained(model)
        self.input, self.dim, self.widths = self._model.input, self._model.dim, self._model.labels
        self._macs: dict[str, float] = {}
        self._frozen: dict[str, EncodesWidth] = {}
        self._freezing = threading.Lock()

    def frozen(self, width: str = FULL) -> EncodesWidth:
        """What encodes at a width, made now if it was not.

        Raises:
            WidthError: no such width.
        """
        with self._freezing:
            if width not in self._frozen:
                self._frozen[width] = self._model.freeze(width)
            return self._frozen[width]

    def spec(self, width: str = FULL) -> EmbeddingSpec:
        """What embeddings of a width are made of, at full length."""
        described = json.dumps(self.input, sort_keys=True, default=str)
        transform = hashlib.sha256(described.encode()).hexdigest()
        return EmbeddingSpec(self.digest, self._model.label(width), self.dim, transform)

    def macs(self, width: str) -> float:
        """Multiply-adds for one image; 0 where nobody knows them."""
        if width not in self._macs:
            self._macs[width] = self._model.count_macs(width)
        return self._macs[width]

    def parameters(self, width: str) -> int:
        """Numbers that are the weights of a width."""
        return self._model.count_parameters(width)

    def label(self, width: WidthLike) -> str:
        """The label of a width that a user names; "" is the smallest trained one."""
        return self._model.label(width or self.widths[-1])

    def encoded_by(self, width: str) -> str:
        """What computes a width."""
        return self.frozen(width).by

    def latencies(self, widths: Sequence[str]) -> list[Latency]:
        """Milliseconds to encode one image at each width, the widths taken in turn."""
        images = torch.randn(1, *self.input["input_size"], device=self._model.device)
        return time_in_turn([self.frozen(width).embed for width in widths], images)

    @torch.inference_mode()
    def embed(self, images: PreparedImages, width: str = FULL) -> NDArray[np.float32]:
        """(n, D) float32 L2-normalised embeddings of (n, C, S, S) images, in batches of bounded size.

        Raises:
            GalleryError: images of another shape than the model takes.
            WidthError: no such width.
            NotFiniteError: embeddings that are not numbers.
        """
        images = self._checked(images)
        frozen, device = self.frozen(width), self._model.device
        found = torch.cat([frozen.embed(batch.to(device)).cpu() for batch in images.split(BATCH)])
        if not found.isfinite().all():
            raise NotFiniteError(f"width {width} of {self.name} gives embeddings that are not numbers")
        return found.numpy()

    def queries(self, images: PreparedImages) -> ImageQueries:
        """Query images for a strategy, encoded at each width when first asked for."""
        return ImageQueries(self, self._checked(images).numpy())

    def _checked(self, images: PreparedImages) -> Tensor:
        require_prepared(images, tuple(self.input["input_size"]))
        return torch.from_numpy(images) if isinstance(images, np.ndarray) else images
