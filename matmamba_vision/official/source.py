"""Where a published checkpoint comes from: a file, a folder, or a name on the Hugging Face Hub."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from matmamba_common.words import shown
from safetensors.torch import load_file

from ..checkpoint import FILE_NAME, CheckpointError

Config = Mapping[str, Any] | Path | str
# The published code writes and reads `pytorch_model.bin`.
WEIGHTS = (FILE_NAME, "pytorch_model.bin")
CONFIG = "config.json"
PICKLED = (".bin", ".pt", ".pth")
SUFFIXES = (".safetensors", *PICKLED)


def locate(source: str | os.PathLike[str], config: Config | None) -> tuple[Path, Config]:
    """The weights' file meant by a path or a Hub name, and `config`, or else the config that lies with it.

    Raises:
        CheckpointError: there is no such file, no config, or the Hub could not give them.
    """
    path = Path(source)
    if path.exists():
        file = _weights_in(path) if path.is_dir() else path
        found = file.with_name(CONFIG) if config is None else config
    elif isinstance(source, str) and _may_be_hub_name(source):
        # The small one first, so that a model which is not published this way costs no download.
        found = _from_hub(source, (CONFIG,)) if config is None else config
        file = _from_hub(source, WEIGHTS)
    else:
        raise CheckpointError(f"no file or folder at {source}")
    return file, found


def read_weights(file: Path) -> Any:
    """What a weights' file holds, on the CPU; pickled code is never run.

    Raises:
        CheckpointError: the file is damaged, or holds more than tensors and plain values.
    """
    if file.suffix not in SUFFIXES:
        raise CheckpointError(f"{file} has none of the endings {', '.join(SUFFIXES)}")
    try:
        if file.suffix in PICKLED:
            return torch.load(file, map_location="cpu", weights_only=True)
        return load_file(file)
    # A damaged pickle fails in any way.
    except Exception as error:
        # Not torch's own words, which go on to advise running the code.
        why = "it is damaged, or holds more than tensors, and pickled code is never run"
        raise CheckpointError(f"{file} cannot be read: {why if file.suffix in PICKLED else error}") from error


def read_config(config: Config) -> Mapping[str, Any]:
    """Published constructor arguments, themselves or from their JSON file.

    Raises:
        CheckpointError: the file is missing, or is not a JSON object.
    """
    if isinstance(config, Mapping):
        return config
    if not isinstance(config, str | os.PathLike):
        raise TypeError(f"config is {shown(config)}: it can be a mapping, or the path of a JSON file")
    try:
        arguments = json.loads(Path(config).read_text())
    except FileNotFoundError as error:
        raise CheckpointError(f"no config at {config}: put it there, or give `config`") from error
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{config} is damaged: {error}") from error
    if not isinstance(arguments, dict):
        raise CheckpointError(f"{config} is no config: it is {shown(arguments)}, and can be a mapping")
    return arguments


def _weights_in(folder: Path) -> Path:
    others = sorted(file for file in folder.iterdir() if file.suffix in SUFFIXES)
    usual = [folder / name for name in WEIGHTS if (folder / name).is_file()]
    if not usual and len(others) != 1:
        found = [file.name for file in others] or "none"
        raise CheckpointError(f"{folder} should hold {' or '.join(WEIGHTS)}, or one file of weights: {found}")
    return (usual or others)[0]


def _may_be_hub_name(source: str) -> bool:
    """Whether `source` reads as owner/name; a file's ending says that a file was meant."""
    parts = source.split("/")
    return (
        len(parts) == 2 and all(parts) and parts[0] not in (".", "..", "~") and not source.endswith(SUFFIXES)
    )


def _from_hub(name: str, files: tuple[str, ...]) -> Path:
    """The first of `files` that `name` has, from the cache or the network."""
    from huggingface_hub import errors, hf_hub_download

    failure: Exception | None = None
    for file in files:
        # One wait for the network is enough, but the next file may be in the cache.
        unreachable = isinstance(failure, errors.LocalEntryNotFoundError)
        try:
            return Path(hf_hub_download(name, file, local_files_only=unreachable))
        except errors.EntryNotFoundError as error:
            failure = failure or error
        # Whatever the network, its proxy or the library may raise.
        except Exception as error:
            failure = error
            break
    assert failure is not None
    raise CheckpointError(
        f"no file or folder at {name}, and the Hugging Face Hub {_why(failure, ' or '.join(files))}; "
        f"download {' or '.join(WEIGHTS)} with its {CONFIG}, and give the path of their folder"
    ) from failure


def _why(failure: Exception, files: str) -> str:
    from huggingface_hub import errors

    # The library's own words are about its cache; what went wrong stands behind them.
    detail = str(failure.__cause__ or failure).strip().partition("\n")[0]
    if isinstance(failure, errors.RepositoryNotFoundError):
        return f"has no public model of this name ({detail})"
    if isinstance(failure, errors.RemoteEntryNotFoundError):
        return f"has a model of this name without {files} ({detail})"
    return f"cannot be reached ({detail})"
