"""A student together with its teacher: a gallery that the teacher encodes, and that either of them asks."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from ..checkpoint import Checkpoint, CheckpointError, load_checkpoint
from ..device import place_called
from ..encoders import Encoder, EncoderError, for_many, is_named, open_encoder, place_of
from ..encoders.names import taught_name, taught_parts
from ..given import PathLike, require_path
from ..public_call import public_call
from ..rotation import Rotation, student_rotation

# What a student may have followed in the place of an encoder.
_VECTORS = ".npy"


class Taught:
    """A student and its teacher in one space: the leading coordinates of the teacher's rotated vectors.

    The teacher is loaded when it is first needed: a query that the student encodes does without.

    Args:
        student: that `distill` made.
        teacher: its name, or itself; "" for the one that the student's run names.
        device: where the teacher is to compute; that of the student.

    Attributes:
        student: as it was given.
        rotation: of the teacher's space, as the student's run keeps it.
        place: by which both are opened again.

    Raises:
        CheckpointError: the checkpoint is no student, or followed vectors in a file.
        RotationError: its rotation is missing, damaged, or of another run.
    """

    def __init__(
        self, student: Checkpoint, teacher: str | Encoder = "", device: torch.device | str = "cpu"
    ) -> None:
        self.student, self.rotation = student, rotation_of(student)
        self._given, self._device = teacher or str(student.run["teacher"]), device
        self._rotated: Encoder | None = None
        self._loading = threading.Lock()
        named = self._given.place if isinstance(self._given, Encoder) else _place(self._given)
        self.place = taught_name(str(student.path.absolute()), named)

    @property
    def dim(self) -> int:
        """Of the vectors of both."""
        return self.student.model.embedding_dim

    @property
    def teacher(self) -> Encoder:
        """The teacher whose vectors, of images and of texts, are rotated and cut, loaded now if it was not.

        Raises:
            EncoderError: it cannot be had; or has other weights than the teacher of the run, or another
                transform of images.
        """
        with self._loading:
            if self._rotated is None:
                teacher = self._opened()
                if self.rotation.encoder not in teacher.digests:
                    raise EncoderError(
                        f"{teacher.name} is not the teacher of {self.student.path}: it has other weights, or"
                        " prepares images in another way"
                    )
                self._rotated = rotated(teacher, self.rotation, self.dim)
            return self._rotated

    def for_many(self, count: int) -> Taught:
        """The same with what computes the teacher fastest for as many images."""
        return Taught(self.student, for_many(self._opened(), count), self._device)

    def _opened(self) -> Encoder:
        if isinstance(self._given, Encoder):
            return self._given
        return open_encoder(self._given, self.student.run.get("teacher_size"), self._device)


def rotated(encoder: Encoder, rotation: Rotation, dim: int) -> Encoder:
    """The same encoder, giving the leading `dim` coordinates of its rotated vectors, of length 1.

    Args:
        encoder: whose vectors of length 1 the rotation was fitted to.
        rotation: of its space.
        dim: how many coordinates.
    """

    def turned(found: Tensor) -> Tensor:
        return rotation.to(found.device)(found, dim)

    def texts(asked: Sequence[str]) -> Tensor:
        return turned(encoder.embed_texts(asked))

    return replace(
        encoder,
        features=lambda images: turned(encoder.embed(images)),
        texts=None if encoder.texts is None else texts,
        dim=dim,
        digest=rotation.digest,
    )


def rotation_of(student: Checkpoint) -> Rotation:
    """The rotation of its teacher's space that a student was trained with.

    Raises:
        CheckpointError: the checkpoint is no student, or followed vectors of which no encoder is known.
        RotationError: the rotation is missing, damaged, or of another run.
    """
    if not student.run.get("rotation_digest"):
        raise CheckpointError(
            f"{student.path} is no student, so it has no teacher: `distill` (`matmamba distill`) trains one"
        )
    if str(student.run["teacher"]).endswith(_VECTORS):
        raise CheckpointError(
            f"{student.path} followed the vectors in {student.run['teacher']}: no encoder is known for them"
        )
    return student_rotation(student)


def _place(teacher: str) -> str:
    path = Path(teacher)
    return str(path.absolute()) if not is_named(teacher) and path.exists() else place_of(teacher)


def open_taught(name: str, device: torch.device | str = "cpu") -> Taught:
    """What `student:RUN::TEACHER` names; the teacher is loaded when it is first needed.

    Args:
        name: as `Taught.place` has it; without a teacher, the one that the student's run names.
        device: where both are to compute.

    Raises:
        CheckpointError: the student is missing or damaged, or is none.
        RotationError: its rotation is missing, damaged, or of another run.
    """
    run, teacher = taught_parts(name)
    return Taught(load_checkpoint(Path(run), device), teacher, device)


@public_call
def with_teacher(
    student: PathLike | Checkpoint,
    teacher: PathLike | Encoder | None = None,
    *,
    device: str = "cpu",
) -> Taught:
    """A student together with its teacher, as the model of `index`, `reindex`, `evaluate` or `open_gallery`.

    The gallery's vectors are the teacher's, rotated as in the student's run, cut to the student's dims. Its
    width `full` is the teacher; `student`, `student 1/2` and so on are the widths of the student, which ask
    in the same gallery. So a query by a small width costs a small part of what the teacher costs.

    Args:
        student: run folder or checkpoint file that `distill` made, or the name of one that is shipped; or one
            that is loaded.
        teacher: `timm:NAME` or whatever the student was trained with; or the encoder itself, on the device of
            the student. By default what the student's run names.
        device: where both are to compute: cpu, cuda, or auto for whichever is there.

    Raises:
        CheckpointError: the student is missing or damaged, or is no student.
        EncoderError: the teacher cannot be had; or has other weights than the student's, or another transform
            of images.
        RotationError: the rotation is missing, damaged, or of another run.
        TypeError: an argument is of another type.
    """
    place = place_called(device)
    known = student
    if not isinstance(known, Checkpoint):
        known = load_checkpoint(require_path("student", known), place)
    if teacher is not None and not isinstance(teacher, Encoder):
        teacher = str(require_path("teacher", teacher))
    found = Taught(known, teacher or "", place)
    # Now, so that what is wrong is said before anything else is done.
    _ = found.teacher
    return found
