"""Checkpoints: one safetensors file with the weights and, in its header, all that is needed to use them."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from matmamba_common.errors import MatMambaError
from matmamba_common.lazy import Deferred
from matmamba_common.settings import require
from matmamba_common.words import shown

from .device import place_called
from .models.shipped import HEADER, read_header, shipped_file, shipped_variants
from .nearest import did_you_mean
from .plain import plain_number
from .public_call import public_call

if TYPE_CHECKING:
    import safetensors
    import torch

    from .models import MatMamba
else:
    safetensors = Deferred("safetensors")

FILE_NAME = "model.safetensors"
# What trainers put around a state dict, and what DistributedDataParallel and torch.compile put before names.
_WRAPPERS = ("model", "state_dict")
_PREFIXES = ("module.", "_orig_mod.")
_NAMED = 5
_INPUT_KEYS = ("input_size", "interpolation", "crop_pct", "crop_mode", "mean", "std")


class CheckpointError(MatMambaError):
    """A checkpoint that is missing, damaged, or of another model; the message names the file."""


class ForeignFileError(CheckpointError):
    """A file of weights that this project did not write."""


@dataclass(frozen=True)
class Checkpoint:
    """A loaded checkpoint.

    Attributes:
        path: the file.
        model: in evaluation mode.
        classes: names in the order of the logits.
        run: the resolved configuration of the run that wrote it.
        digest: SHA-256 of the file, which identifies the model.
    """

    path: Path
    model: MatMamba
    classes: tuple[str, ...]
    run: dict[str, Any]
    digest: str


@public_call
def save_checkpoint(
    path: str | os.PathLike[str],
    model: MatMamba,
    classes: tuple[str, ...] = (),
    run: dict[str, Any] | None = None,
    dtype: torch.dtype | None = None,
) -> Path:
    """Write `model` to a file, or to `model.safetensors` in a folder; all of it or nothing.

    The header holds architecture, arguments, trained widths, input settings, class names and `run`.

    Args:
        dtype: of the weights in the file, such as float16 for half the size; by default the model's own.
    """
    import torch
    from safetensors.torch import save

    from .models import MatMamba

    require("model", model, MatMamba)
    require("classes", classes, Sequence[str])
    require("run", run, dict[str, Any] | None)
    require("dtype", dtype, torch.dtype | None)
    file = checkpoint_file(path)
    cfg = model.pretrained_cfg or {}
    header = {
        "architecture": cfg.get("architecture", ""),
        "arguments": model.arguments,
        "trained_widths": [model.label(width) for width in model.trained_widths],
        "input": {key: cfg[key] for key in _INPUT_KEYS if key in cfg},
        "classes": list(classes),
        "run": run or {},
    }
    tensors = {
        name: tensor.detach().cpu().to(dtype or tensor.dtype).contiguous()
        for name, tensor in model.state_dict().items()
    }
    # Not by save_file, which makes files that only their owner can read.
    write_whole({file: save(tensors, metadata={HEADER: json.dumps(header, default=plain_number)})})
    return file


@public_call
def load_checkpoint(path: str | os.PathLike[str], device: torch.device | str = "cpu") -> Checkpoint:
    """Read a checkpoint file, the one in a run's folder, or the one that is shipped for a registered name.

    Raises:
        CheckpointError: the file is missing, damaged, not a checkpoint of this project, or holds numbers that
            are not finite.
    """
    file, place = require_checkpoint(path), place_called(device)
    header = _read_header(file)
    from safetensors.torch import load_file

    try:
        model = _build(header)
        fit_weights(model, load_file(file))
    except (RuntimeError, TypeError, KeyError, ValueError, safetensors.SafetensorError) as error:
        raise CheckpointError(f"{file} does not hold the model that its header describes: {error}") from error
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    return Checkpoint(file, model.to(place).eval(), tuple(header["classes"]), header["run"], digest)


def checkpoint_file(path: str | os.PathLike[str]) -> Path:
    """The file meant by a run's folder or by a file's own path."""
    path = Path(path)
    return path if path.suffix == ".safetensors" else path / FILE_NAME


def require_checkpoint(path: str | os.PathLike[str]) -> Path:
    """The file to read; what lies in the file system goes before what is shipped under the same name.

    Raises:
        CheckpointError: there is none.
    """
    if (file := checkpoint_file(path)).is_file():
        return file
    if shipped := shipped_file(os.fspath(path)):
        return shipped
    names = shipped_variants()
    raise CheckpointError(
        f"no checkpoint at {file}, nor among the names whose weights are shipped:"
        f" {', '.join(names) or 'none'}{did_you_mean(str(path), names)}"
    )


def write_whole(contents: dict[Path, bytes]) -> None:
    """Write files that belong together: none is replaced before all of them are on the disk."""
    partials = {file: file.with_name(file.name + ".partial") for file in contents}
    for file, partial in partials.items():
        file.parent.mkdir(parents=True, exist_ok=True)
        partial.write_bytes(contents[file])
        flush(partial)
    for file, partial in partials.items():
        partial.replace(file)
        flush(file.parent)


def _read_header(file: Path) -> dict[str, Any]:
    try:
        return read_header(file)
    except KeyError as error:
        raise ForeignFileError(
            f"{file} was not written by this project: its header has no {HEADER!r}"
        ) from error
    except (OSError, ValueError, safetensors.SafetensorError) as error:
        raise CheckpointError(f"{file} is damaged: {error}") from error


def unwrapped(state: Any) -> Mapping[str, Any]:
    """The state dict inside of what trainers save, without the prefixes that all of its names share.

    Raises:
        CheckpointError: there is none.
    """
    if isinstance(state, Mapping):
        state = next((state[key] for key in _WRAPPERS if isinstance(state.get(key), Mapping)), state)
    if not isinstance(state, Mapping) or not all(isinstance(name, str) for name in state):
        raise CheckpointError(f"{shown(state)} is not a state dict: tensors by name")
    while state and (prefix := _shared_prefix(state)):
        state = {name.removeprefix(prefix): tensor for name, tensor in state.items()}
    return state


def _shared_prefix(state: Mapping[str, Any]) -> str | None:
    return next((prefix for prefix in _PREFIXES if all(name.startswith(prefix) for name in state)), None)


def fit_weights(model: MatMamba, state: Any) -> None:
    """Give a model the weights of a state dict under its own names, which wrappers may have prefixed.

    Raises:
        CheckpointError: naming the first few tensors that are missing, left over, of another shape, or not
            finite.
    """
    found, wanted = unwrapped(state), model.state_dict()
    faults = {
        "lacks": sorted(wanted.keys() - found.keys()),
        "has besides": sorted(found.keys() - wanted.keys()),
        "has in another shape": [
            f"{name} {tuple(getattr(found[name], 'shape', ()))}, not {tuple(like.shape)}"
            for name, like in wanted.items()
            if name in found and getattr(found[name], "shape", None) != like.shape
        ],
    }
    said = [f"{what} {_first(names)}" for what, names in faults.items() if names]
    if said:
        raise CheckpointError(f"of {len(wanted)} tensors, the state dict {'; it '.join(said)}")
    for name, tensor in found.items():
        if not tensor.isfinite().all():
            raise CheckpointError(f"{name} holds numbers that are not finite")
    model.load_state_dict(found)


def _first(names: list[str]) -> str:
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return f"{', '.join(names[:_NAMED])}{more}"


def _build(header: dict[str, Any]) -> MatMamba:
    # Lists, because JSON has no tuples.
    prepared = {
        key: tuple(value) if isinstance(value, list) else value for key, value in header["input"].items()
    }
    from .models import MatMamba, make_model

    arguments = header["arguments"] | {"trained_widths": header["trained_widths"]}
    if not header["architecture"]:
        return MatMamba(**arguments)
    return make_model(header["architecture"], prepared, **arguments)


def flush(path: Path) -> None:
    """Force a file, or a folder's list of names, to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
