"""What a student follows: its teacher's rotated vectors of the very images that it sees, or stored ones."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from ..batch import LabelledBatch
from ..encoders import Encoder, EncoderError
from ..rotation import Rotation


class OnlineTeacher:
    """Encodes each batch as the student sees it (Beyer et al., arXiv 2106.05237: patient and consistent).

    Args:
        encoder: the teacher.
        rotation: applied to its vectors, so that leading coordinates say most.
        input: the student's data configuration, by which images were prepared.
        dim: coordinates to give.
    """

    def __init__(self, encoder: Encoder, rotation: Rotation, input: Mapping[str, Any], dim: int) -> None:
        self.encoder, self.rotation, self.input, self.dim = encoder, rotation, input, dim

    def __call__(self, batch: LabelledBatch, images: Tensor) -> Tensor:
        """(B, dim) vectors of length 1; of the batch's larger views where it has some."""
        larger = getattr(batch, "larger", None)
        views = self.encoder.views(images if larger is None else larger, self.input)
        return self.rotation(self.encoder.embed(views), self.dim)


class CachedTeacher:
    """Gives the vectors of fixed views, which were made before.

    Args:
        vectors: (u x views, dim) of length 1, the views of an image one after the other.
        positions: (m,) which of the u images each image of the collection is.
        views: of each image.
    """

    def __init__(self, vectors: Tensor, positions: NDArray[np.int64], views: int) -> None:
        self.vectors, self.positions, self.views = vectors, torch.from_numpy(positions), views

    def __call__(self, batch: LabelledBatch, images: Tensor) -> Tensor:
        """(B, dim)."""
        indices, shown = batch.indices, batch.views  # type: ignore[attr-defined]
        rows = self.positions[indices] * self.views + shown
        return F.normalize(self.vectors[rows.to(self.vectors.device)].float(), dim=-1)


class StoredTeacher:
    """Gives vectors that were made before, whatever part of an image the student sees.

    Args:
        vectors: (n, dim) of length 1.
        positions: (m,) which of them each image of the collection has.
    """

    def __init__(self, vectors: Tensor, positions: NDArray[np.int64]) -> None:
        self.vectors, self.positions = vectors, torch.from_numpy(positions)

    def __call__(self, batch: LabelledBatch, images: Tensor) -> Tensor:
        """(B, dim)."""
        indices: Tensor = batch.indices  # type: ignore[attr-defined]
        return self.vectors[self.positions[indices].to(self.vectors.device)]


def teacher_vectors(encoder: Encoder, batches: Iterable[LabelledBatch], device: torch.device | str) -> Tensor:
    """(n, D) vectors of images that were prepared for the encoder, on the CPU.

    Raises:
        EncoderError: a vector is not finite, or nothing but zeros; the message names the image.
    """
    parts = [batch_vectors(encoder, batch, device) for batch in batches if len(batch)]
    if not parts:
        raise EncoderError(f"{encoder.name}: no image to encode")
    return torch.cat(parts)


def batch_vectors(encoder: Encoder, batch: LabelledBatch, device: torch.device | str) -> Tensor:
    """(B, D) vectors of a batch that was prepared for the encoder, on the CPU.

    Raises:
        EncoderError: a vector is not finite, or nothing but zeros; the message names the image.
    """
    found = encoder.embed(batch.images.to(device))
    if not (good := found.isfinite().all(1) & found.any(1)).all():
        first = int((~good).nonzero()[0])
        what = "that are not numbers" if found[first].any() else "of nothing but zeros"
        raise EncoderError(f"{encoder.name} gives features {what} for {batch.ids[first]}")
    return found.cpu()


def read_vectors(file: Path, count: int) -> tuple[Tensor, str]:
    """Vectors (n, D) of a NumPy file, of length 1, and the digest of the file.

    Raises:
        EncoderError: not a table of finite numbers with a row for each of `count` images, or a row of zeros.
    """
    try:
        values = np.load(file, allow_pickle=False)
    except (OSError, ValueError) as error:
        raise EncoderError(f"{file} is no NumPy file of vectors: {error}") from error
    if values.ndim != 2 or len(values) != count or values.dtype.kind != "f":
        raise EncoderError(
            f"{file} holds {values.dtype} of shape {values.shape}: it takes floating-point numbers, a row for"
            f" each of the {count} images in their order"
        )
    vectors = torch.from_numpy(values.astype(np.float32))
    if not vectors.isfinite().all() or not vectors.any(1).all():
        raise EncoderError(f"{file} has rows that are zero, or not finite")
    return F.normalize(vectors, dim=-1), hashlib.sha256(file.read_bytes()).hexdigest()
