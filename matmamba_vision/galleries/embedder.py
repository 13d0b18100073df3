"""Images to embeddings: how any model answers what galleries and strategies ask of an encoder."""

from __future__ import annotations

import json
import threading
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from matmamba_datasets import eval_transform
from matmamba_datasets.transforms import Transform
from matmamba_retrieval import EmbeddingSpec
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from ..checkpoint import Checkpoint
from ..encoders import Encoder, for_many
from ..encoders.names import no_texts
from ..encoders.onnx_runtime import MANY
from ..errors import NotFiniteError
from ..measures import Latency, time_in_turn
from ..width import WidthLike
from .image_queries import ImageQueries, Originals, PreparedImages, require_prepared
from .model_widths import FULL, EncodesWidth, Model, widths_of
from .taught import Taught

BATCH = 256


class Embedder:
    """Encodes images at any width of a model, each frozen when it is first asked for.

    Args:
        model: a checkpoint of ours, an encoder that is not, or a student with its teacher.

    Attributes:
        checkpoint: of ours; None for anything else.
        taught: a student with its teacher; None for anything else.
        trained: the checkpoint, or that of the student; None for another encoder.
        name: as it was asked for.
        place: by which the model is opened again.
        digest: of its weights.
        dim: of its embeddings.
        widths: labels of its trained widths, "full" first.
        trained_widths: the same as they were trained, perhaps without "full".
    """

    def __init__(self, model: Model) -> None:
        self.checkpoint = model if isinstance(model, Checkpoint) else None
        self.taught = model if isinstance(model, Taught) else None
        self.trained = self.checkpoint if self.taught is None else self.taught.student
        self._encoder = model if isinstance(model, Encoder) else None
        self._model = widths_of(model)
        self.place, self.digest = self._model.place, self._model.digest
        self.name = _name(model)
        self.dim, self.widths = self._model.dim, self._model.labels
        self.trained_widths = _trained(self.checkpoint, self.widths)
        self._macs: dict[str, float] = {}
        self._frozen: dict[str, EncodesWidth] = {}
        self._transforms: dict[str, Transform] = {}
        self._freezing = threading.Lock()

    @property
    def encoder(self) -> Encoder | None:
        """What encodes galleries, if it is not ours; of a student with its teacher, the teacher."""
        return self._encoder if self.taught is None else self.taught.teacher

    @property
    def input(self) -> Mapping[str, Any]:
        """The data configuration of the full width."""
        return self.input_of(FULL)

    def input_of(self, width: str) -> Mapping[str, Any]:
        """The data configuration of a width; nested widths have one for all."""
        return self._model.input_of(width)

    def transform_of(self, width: str) -> Transform:
        """How images are prepared for a width: one for all that want the same."""
        input = self.input_of(width)
        described = json.dumps(input, sort_keys=True, default=str)
        if described not in self._transforms:
            self._transforms[described] = eval_transform(input)
        return self._transforms[described]

    def frozen(self, width: str = FULL) -> EncodesWidth:
        """What encodes at a width, made now if it was not.

        Raises:
            WidthError: no such width.
        """
        with self._freezing:
            if width not in self._frozen:
                self._frozen[width] = self._model.freeze(width)
            return self._frozen[width]

    def for_many(self, count: int) -> Embedder:
        """The same model by what encodes as many images fastest; their vectors are equal up to rounding."""
        if self.taught is not None:
            return Embedder(self.taught.for_many(count)) if count >= MANY else self
        return self if self._encoder is None else Embedder(for_many(self._encoder, count))

    def spec(self, width: str = FULL) -> EmbeddingSpec:
        """What embeddings of a width are made of, at full length."""
        model = self._model
        return EmbeddingSpec(model.stored_by, model.label(width), self.dim, model.transform)

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
        device = self._model.device
        sizes = [tuple(self.input_of(width)["input_size"]) for width in widths]
        images = {size: torch.randn(1, *size, device=device) for size in dict.fromkeys(sizes)}
        return time_in_turn([self.frozen(width).embed for width in widths], [images[size] for size in sizes])

    @torch.inference_mode()
    def embed(self, images: PreparedImages, width: str = FULL) -> NDArray[np.float32]:
        """(n, D) float32 L2-normalised embeddings of (n, C, S, S) images, in batches of bounded size.

        Raises:
            GalleryError: images of another shape than the model takes.
            WidthError: no such width.
            NotFiniteError: embeddings that are not numbers.
        """
        images = self._checked(images, width)
        frozen, device = self.frozen(width), self._model.device
        found = torch.cat([frozen.embed(batch.to(device)).cpu() for batch in images.split(BATCH)])
        if not found.isfinite().all():
            raise NotFiniteError(f"width {width} of {self.name} gives embeddings that are not numbers")
        return found.numpy()

    def embed_texts(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """(n, D) float32 embeddings of length 1 of texts, comparable with those of images at full width.

        Raises:
            EncoderError: the model has no text tower.
            NotFiniteError: embeddings that are not numbers.
        """
        if self.encoder is None:
            raise no_texts(self.name)
        found = self.encoder.embed_texts(texts).cpu().numpy()
        if not np.isfinite(found).all():
            raise NotFiniteError(f"the text tower of {self.name} gives embeddings that are not numbers")
        return found

    def queries(self, images: PreparedImages) -> ImageQueries:
        """Query images for a strategy, encoded at each width when first asked for."""
        return ImageQueries(self, self._checked(images, FULL).numpy())

    def original_queries(self, images: Sequence[Image.Image]) -> ImageQueries:
        """The same of images that are not prepared yet; how a width wants them, when it is asked for."""
        return ImageQueries(self, Originals(images, self.transform_of))

    def _checked(self, images: PreparedImages, width: str) -> Tensor:
        require_prepared(images.shape, tuple(self.input_of(width)["input_size"]))
        return torch.from_numpy(images) if isinstance(images, np.ndarray) else images


def _name(model: Model) -> str:
    if isinstance(model, Checkpoint):
        return str(model.path)
    return model.place if isinstance(model, Taught) else model.name


def _trained(checkpoint: Checkpoint | None, widths: tuple[str, ...]) -> tuple[str, ...]:
    if checkpoint is None:
        return widths
    return tuple(map(checkpoint.model.label, checkpoint.model.trained_widths))
