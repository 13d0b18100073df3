"""Slices: a chosen width of a checkpoint as a YAML file, which `select` writes and others read."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import asdict, fields
from fractions import Fraction
from pathlib import Path
from typing import Any, TypeAlias

import yaml
from matmamba_common.words import shown

from ..checkpoint import Checkpoint
from ..errors import ConfigError
from ..galleries.embedder import Embedder
from ..given import PathLike
from ..width import Width, WidthError, WidthLike

SLICE_FILE = "slice.yaml"
_SUFFIXES = (".yaml", ".yml")
# A width, or the file of a slice.
NamedWidth: TypeAlias = WidthLike | PathLike


def named_width(wanted: NamedWidth, checkpoint: Checkpoint) -> Width:
    """The width of `checkpoint` that is meant.

    Args:
        wanted: what `model.width` takes, or a slice's YAML file.
        checkpoint: whose width.

    Raises:
        WidthError: the model has no such width.
        ConfigError: as `read_slice`.
        TypeError: it is neither.
    """
    if isinstance(wanted, os.PathLike) or (isinstance(wanted, str) and wanted.endswith(_SUFFIXES)):
        return read_slice(Path(wanted), checkpoint)
    return checkpoint.model.width(width_like(wanted))


def named_label(wanted: NamedWidth, embedder: Embedder) -> str:
    """The label of the width of a model that is meant; see `named_width`."""
    if embedder.checkpoint is None:
        return embedder.label(width_like(wanted))
    return embedder.label(named_width(wanted, embedder.checkpoint))


def width_like(wanted: NamedWidth) -> WidthLike:
    """The same, if it is what `model.width` takes; else `TypeError`."""
    if not isinstance(wanted, Width | str | float | int | Fraction | Sequence):
        raise TypeError(
            f"width is {shown(wanted)}: it can be 'full', a share such as '1/4', a head count for each"
            " block, or for a checkpoint a slice's YAML file"
        )
    return wanted


def write_slice(file: Path, width: Width, checkpoint: Checkpoint, about: dict[str, Any]) -> None:
    """Write the width, the digest of its checkpoint, and what is known of it; all of it or nothing.

    Args:
        file: to write.
        width: of the checkpoint.
        checkpoint: what the slice belongs to.
        about: entries that are written besides.
    """
    own = {name: list(counts) for name, counts in asdict(width).items() if counts}
    content = {"label": checkpoint.model.label(width), **own, "checkpoint": checkpoint.digest, **about}
    partial = file.with_name(file.name + ".partial")
    partial.write_text(yaml.safe_dump(content, sort_keys=False, default_flow_style=None, width=110))
    partial.replace(file)


def read_slice(file: Path, checkpoint: Checkpoint) -> Width:
    """The width that `write_slice` wrote.

    Raises:
        ConfigError: the file is missing, is no slice, or is one of another checkpoint.
    """
    content = _read(file)
    if content["checkpoint"] != checkpoint.digest:
        raise ConfigError(
            f"{file} is a slice of another checkpoint than {checkpoint.path}"
            f" (SHA-256 {str(content['checkpoint'])[:12]}, not {checkpoint.digest[:12]})"
        )
    try:
        counts = {field.name: tuple(content[field.name]) for field in fields(Width) if field.name in content}
        return checkpoint.model.width(Width(**counts))
    except (TypeError, WidthError) as error:
        raise ConfigError(f"{file}: {error}") from error


def _read(file: Path) -> dict[str, Any]:
    if not file.is_file():
        raise ConfigError(f"no slice {file}")
    try:
        content = yaml.safe_load(file.read_text())
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{file} is not YAML: {' '.join(str(error).split())}") from error
    missing = {"heads", "checkpoint"} - set(content if isinstance(content, dict) else {})
    if missing:
        raise ConfigError(
            f"{file} is not a slice: it has no {' and no '.join(sorted(missing, reverse=True))}"
        )
    return content
