"""A rotation of a teacher's space after which leading coordinates say most: PCA, kept as one file."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

import safetensors
import torch
from matmamba_common.errors import MatMambaError
from safetensors.torch import save
from torch import Tensor
from torch.nn import functional as F

from .checkpoint import Checkpoint, write_whole

FILE_NAME = "rotation.safetensors"
_HEADER = "rotation"
# Folder beside weights that are shipped.
_SHIPPED = "rotations"


class RotationError(MatMambaError):
    """A rotation that is missing, damaged, or of other vectors; the message names the file."""


@dataclass(frozen=True, eq=False)
class Rotation:
    """An isometry: distances and cosines of whole vectors stay what they were.

    Attributes:
        matrix: (D, D) float32, orthonormal columns, the most telling direction first.
        encoder: digest of what made the vectors that it was fitted to.
    """

    matrix: Tensor
    encoder: str

    @property
    def digest(self) -> str:
        """SHA-256 of matrix and encoder."""
        values = self.matrix.detach().cpu().contiguous().numpy().tobytes()
        return hashlib.sha256(self.encoder.encode() + values).hexdigest()

    def __call__(self, vectors: Tensor, dim: int | None = None) -> Tensor:
        """The leading `dim` rotated coordinates of vectors (B, D), of length 1 again."""
        return F.normalize(vectors.float() @ self.matrix[:, :dim], dim=-1)

    def to(self, device: torch.device | str) -> Rotation:
        """The same on another device."""
        return Rotation(self.matrix.to(device), self.encoder)

    def save(self, file: Path) -> None:
        """Write it; all of it or nothing."""
        header = json.dumps({"encoder": self.encoder, "digest": self.digest})
        write_whole({file: save({"matrix": self.matrix.cpu().contiguous()}, metadata={_HEADER: header})})


def fit_rotation(vectors: Tensor, encoder: str) -> Rotation:
    """The rotation to the principal directions of vectors (n, D), about the origin, strongest first."""
    x = vectors.double()
    _, directions = torch.linalg.eigh(x.T @ x)
    directions = directions.flip(1)
    # Signs are arbitrary: the largest entry of each direction is positive, so that equal fits are equal.
    signs = directions.gather(0, directions.abs().argmax(0, keepdim=True)).sign()
    # As it is read again: another order in memory would be rounded otherwise.
    return Rotation((directions * signs).float().contiguous(), encoder)


def load_rotation(file: Path, *encoder: str) -> Rotation:
    """The rotation in a file, if it is that of an encoder's vectors.

    Args:
        file: that `Rotation.save` wrote.
        encoder: the digests by which the encoder may be known.

    Raises:
        RotationError: missing, damaged, or of another encoder.
    """
    try:
        with safetensors.safe_open(file, framework="pt") as opened:
            header = json.loads((opened.metadata() or {})[_HEADER])
            rotation = Rotation(opened.get_tensor("matrix"), header["encoder"])
    except (OSError, KeyError, ValueError, safetensors.SafetensorError) as error:
        raise RotationError(f"{file} holds no rotation: {error}") from error
    if rotation.digest != header["digest"]:
        raise RotationError(f"{file} is damaged: its matrix is not what was written")
    if rotation.encoder not in encoder:
        raise RotationError(
            f"{file} rotates the vectors of another encoder, or of another transform of images"
        )
    return rotation


def student_rotation(student: Checkpoint) -> Rotation:
    """The rotation that a student was trained with: the file in its run, or beside shipped weights.

    Raises:
        RotationError: missing, damaged, or of another run.
    """
    file = student.path.with_name(FILE_NAME)
    shipped = student.path.parent / _SHIPPED / student.path.name
    file = shipped if shipped.is_file() and not file.is_file() else file
    rotation = load_rotation(file, student.run["teacher_digest"])
    if rotation.digest != student.run["rotation_digest"]:
        raise RotationError(f"{file} is the rotation of another run than {student.path}")
    return rotation
