"""The widths of a model, whichever it is: what computes each, how its images are prepared, what it costs."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any, Protocol, TypeAlias

import torch
from torch import Tensor

from ..checkpoint import Checkpoint
from ..encoders import Encoder
from ..frozen import freeze
from ..measures import count_macs, count_parameters
from ..models import MatMamba
from ..width import WidthError, WidthLike
from .taught import Taught

FULL = "full"
# Of a student beside its teacher; before the labels of its smaller widths.
STUDENT = "student"
# What a user may call the width of the teacher.
TEACHER = "teacher"
Model: TypeAlias = "Checkpoint | Encoder | Taught"


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
        stored_by: digest of what makes the vectors of its galleries.
        transform: digest of how images are prepared for these.
        dim: of its embeddings.
        labels: of its widths, "full" first.
        device: where it computes.
    """

    place: str
    digest: str
    stored_by: str
    transform: str
    dim: int
    labels: tuple[str, ...]

    @property
    def device(self) -> torch.device:
        """Where it computes."""
        ...

    def input_of(self, width: str) -> Mapping[str, Any]:
        """The data configuration of a width."""
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
        self.place = str(checkpoint.path.absolute())
        self.digest = self.stored_by = checkpoint.digest
        self.transform = _digest_of(self.model.input)
        self.dim = self.model.embedding_dim
        self.labels: tuple[str, ...] = tuple(
            dict.fromkeys((FULL, *map(self.model.label, self.model.trained_widths)))
        )

    @property
    def device(self) -> torch.device:
        """Where it computes."""
        return self.model.pos_embed.device

    def input_of(self, width: str) -> Mapping[str, Any]:
        """The same for all of them."""
        return self.model.input

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
        self.place, self.dim = encoder.place, encoder.dim
        self.digest = self.stored_by = encoder.weights
        self.transform = _digest_of(encoder.input)
        self.labels: tuple[str, ...] = (FULL,)

    @property
    def device(self) -> torch.device:
        """Where it computes."""
        return self._encoder.device

    def input_of(self, width: str) -> Mapping[str, Any]:
        """Of the encoder."""
        return self._encoder.input

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
        return _count(self._encoder)


class TaughtWidths:
    """A teacher as the full width, and the widths of its student beside it; see `Widths`."""

    def __init__(self, taught: Taught) -> None:
        self._taught, self._model = taught, taught.student.model
        self.place, self.dim = taught.place, taught.dim
        # Another student of the same teacher and rotation may ask the same gallery.
        self.stored_by = taught.rotation.digest
        self.transform = taught.rotation.encoder
        self.digest = hashlib.sha256(f"{self.stored_by} {taught.student.digest}".encode()).hexdigest()
        widths = map(self._model.label, self._model.trained_widths)
        self.labels: tuple[str, ...] = tuple(dict.fromkeys((FULL, STUDENT, *map(_of_student, widths))))

    @property
    def device(self) -> torch.device:
        """Of both."""
        return self._model.pos_embed.device

    def input_of(self, width: str) -> Mapping[str, Any]:
        """The teacher's data configuration, or the student's."""
        return self._taught.teacher.input if width == FULL else self._model.input

    def label(self, width: WidthLike) -> str:
        """ "full" for the teacher; any other width is the student's."""
        if isinstance(width, str):
            if width in (FULL, TEACHER):
                return FULL
            width = width.removeprefix(STUDENT).strip() or FULL
        return _of_student(self._model.label(width))

    def freeze(self, width: str) -> EncodesWidth:
        """The teacher, or a frozen width of the student."""
        return self._taught.teacher if width == FULL else freeze(self._model, _own(width))

    def count_macs(self, width: str) -> float:
        """Multiply-adds for one image."""
        return self._taught.teacher.count_macs() if width == FULL else count_macs(self._model, _own(width))

    def count_parameters(self, width: str) -> int:
        """Of the teacher's network, or of the student's submodel."""
        if width == FULL:
            return _count(self._taught.teacher)
        return count_parameters(self._model, _own(width))


def widths_of(model: Model) -> Widths:
    """The widths of a checkpoint, of an encoder, or of a student with its teacher."""
    if isinstance(model, Taught):
        return TaughtWidths(model)
    return NestedWidths(model) if isinstance(model, Checkpoint) else OneWidth(model)


def _of_student(label: str) -> str:
    return STUDENT if label == FULL else f"{STUDENT} {label}"


def _own(width: str) -> str:
    """What the student itself calls one of its widths."""
    return width.removeprefix(STUDENT).strip() or FULL


def _count(encoder: Encoder) -> int:
    network = encoder.network
    return 0 if network is None else sum(tensor.numel() for tensor in network.parameters())


def _digest_of(input: Mapping[str, Any]) -> str:
    described = json.dumps(input, sort_keys=True, default=str)
    return hashlib.sha256(described.encode()).hexdigest()
