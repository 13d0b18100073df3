"""Encoders that a gallery keeps as files: derived from its model, checked, and read without PyTorch.

A file is a line with two SHA-256, a line of JSON that describes the encoder, and the encoder itself: the
arrays of a frozen width, or an ONNX graph. The first checksum is of the description, the second of the
encoder. What is lost is made again from the model.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from matmamba_retrieval import EmbeddingSpec, GalleryError
from matmamba_retrieval.storage.files import new_file

# Folder of a gallery that has them.
FOLDER = "encoders"
SUFFIX = ".encoder"
# What computes them, the fastest first where nothing was measured.
NATIVE, ONNX, ONNX_INT8 = "native", "onnx", "onnx-int8"
KINDS = (NATIVE, ONNX, ONNX_INT8)
# No description is longer.
_LONGEST = 1 << 16
# So much of a checkpoint's digest stands in a file's name.
_OF_NAME = 16


@dataclass(frozen=True, kw_only=True)
class LightHeader:
    """What an encoder is.

    Attributes:
        kind: one of `KINDS`.
        width: its label.
        checkpoint: digest of the model's checkpoint.
        transform: digest of how images are prepared.
        dim: length of its embeddings.
        macs: multiply-adds for an image.
        input: the model's data configuration, see `matmamba_datasets.eval_transform`.
        trained_widths: labels of all widths that the model was trained at.
        machine: where it was timed, see `light_encoder.this_machine`.
        ms: of one image there, the median.
    """

    kind: str
    width: str
    checkpoint: str
    transform: str
    dim: int
    macs: float
    input: Mapping[str, Any]
    trained_widths: tuple[str, ...]
    machine: str
    ms: float

    @property
    def spec(self) -> EmbeddingSpec:
        """What its embeddings are made of."""
        return EmbeddingSpec(self.checkpoint, self.width, self.dim, self.transform)

    @property
    def file_name(self) -> str:
        """Its own for each model, width and kind."""
        width = self.width.replace("/", "_").replace(":", "~")
        return f"{self.checkpoint[:_OF_NAME]}-{width}.{self.kind}{SUFFIX}"


class LightFileError(GalleryError):
    """A file that is no encoder of this gallery, or is damaged."""


def write_light(gallery: Path, header: LightHeader, content: bytes) -> Path:
    """Write an encoder into a gallery's folder, whole or not at all; one of the same name is replaced.

    Raises:
        GalleryError: it cannot be written there.
    """
    described = json.dumps(asdict(header), default=list).encode()
    first = f"{_sha256(described)} {_sha256(content)}\n".encode()
    folder = gallery / FOLDER
    with new_file(folder, ".partial") as file:
        file.write(first + described + b"\n" + content)
    written = folder / header.file_name
    try:
        (folder / file.name).replace(written)
    except OSError as error:
        raise GalleryError(f"cannot write {written}: {error.strerror or error}") from error
    return written


def read_header(file: Path) -> LightHeader:
    """What an encoder is; the encoder itself is neither read nor checked.

    Raises:
        LightFileError: it cannot be read, is damaged, or is something else.
    """
    return _parsed(file, _read(file, _LONGEST))[0]


def read_light(file: Path) -> tuple[LightHeader, bytes]:
    """What `write_light` wrote.

    Raises:
        LightFileError: it cannot be read, is damaged, or is something else.
    """
    header, digest, content = _parsed(file, _read(file, -1))
    if _sha256(content) != digest:
        raise LightFileError(f"{file} is damaged: it does not have its checksum")
    return header, content


def _read(file: Path, size: int) -> bytes:
    try:
        with file.open("rb") as opened:
            return opened.read(size)
    except OSError as error:
        raise LightFileError(f"{file} cannot be read: {error.strerror or error}") from error


def _parsed(file: Path, whole: bytes) -> tuple[LightHeader, str, bytes]:
    """The header, the checksum that the encoder is to have, and as much of it as was read."""
    first, _, rest = whole.partition(b"\n")
    described, _, content = rest.partition(b"\n")
    of_header, _, of_content = first.decode("ascii", "replace").partition(" ")
    if _sha256(described) != of_header:
        raise LightFileError(f"{file} is damaged: it does not have its checksum")
    try:
        known = json.loads(described)
        header = LightHeader(**known | {"trained_widths": tuple(known["trained_widths"])})
    # Its checksum is right: another version of the program wrote it.
    except (ValueError, TypeError, KeyError) as error:
        raise LightFileError(f"{file} was written by another version: {error}") from error
    if header.file_name != file.name:
        raise LightFileError(f"{file} is not what its name says, but {header.file_name}")
    return header, of_content, content


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def light_files(gallery: Path, checkpoint: str = "") -> list[Path]:
    """The encoders that a gallery has, or those of one checkpoint, by name.

    Args:
        gallery: its folder.
        checkpoint: digest; "" for all.
    """
    folder = gallery / FOLDER
    return sorted(folder.glob(f"{checkpoint[:_OF_NAME]}*{SUFFIX}")) if folder.is_dir() else []
