"""What callers hand over, checked before anything is done: wrong types, and numbers that cannot be."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, TypeAlias

from matmamba_common.settings import Bounds, require
from matmamba_common.words import in_words, shown

from .errors import ConfigError

PathLike: TypeAlias = str | os.PathLike[str]
# How files end that programs of this kind write; a folder may have any other dot in its name.
OF_FILES = frozenset(
    f".{name}"
    for name in (
        *("bin", "ckpt", "npy", "npz", "onnx", "pkl", "pt", "pth", "safetensors"),
        *("csv", "db", "faiss", "json", "jsonl", "parquet", "sqlite", "tar", "txt", "yaml", "yml", "zip"),
        *("html", "jpeg", "jpg", "pdf", "png", "svg"),
    )
)


def require_path(name: str, value: Any) -> Path:
    """The path that an argument names.

    Args:
        name: of the argument.
        value: as it was given.

    Raises:
        TypeError: it is no path.
        ConfigError: it has a NUL, which no system takes.
    """
    if not isinstance(value, (str, os.PathLike)):
        raise TypeError(f"{name} is {shown(value)}: it can be {in_words(PathLike)}")
    path = os.fsdecode(value)
    if "\0" in path:
        raise ConfigError(f"{name} is {shown(path)}: it can be a path, without a NUL")
    return Path(path)


def require_type(name: str, value: Any, kind: type | tuple[type, ...], allowed: str) -> None:
    """Raise `TypeError` if an argument is of another type.

    Args:
        name: of the argument.
        value: as it was given.
        kind: the types that it may have.
        allowed: these in words, where a type alone does not say it.
    """
    if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
        raise TypeError(f"{name} is {shown(value)}: it can be {allowed}")


def require_texts(name: str, values: Any) -> tuple[str, ...]:
    """The texts of an argument, one or several.

    Args:
        name: of the argument.
        values: a text, or a sequence of texts.

    Raises:
        TypeError: anything else.
    """
    if isinstance(values, str):
        return (values,)
    require(name, values, Sequence[str])
    return tuple(values)


def require_lists(**given: Any) -> None:
    """Raise `TypeError` if an argument is a single text where a list is wanted, or no list at all.

    Args:
        given: values by the name of their argument.
    """
    for name, value in given.items():
        if isinstance(value, str):
            raise TypeError(f"{name} is {shown(value)}: it can be a list, such as [{shown(value)}]")
        require(name, value, Sequence[Any])


def require_whole(name: str, value: Any, least: int) -> None:
    """Raise if a number is not whole, or too small.

    Args:
        name: of the argument.
        value: as it was given.
        least: the smallest that it may be.

    Raises:
        TypeError: it is no whole number.
        ConfigError: it is below `least`.
    """
    require(name, value, Annotated[int, Bounds(least=least)])


def require_number(name: str, value: Any) -> None:
    """Raise if an argument is no number.

    Args:
        name: of the argument.
        value: as it was given.

    Raises:
        TypeError: it is of another type.
        ConfigError: it is not a number (NaN).
    """
    require(name, value, float)
    if value != value:
        raise ConfigError(f"{name} is nan: it can be a number")


def require_folder(name: str, folder: Any, written: str = "a folder") -> Path:
    """The folder that an argument names, which is to be written: refused if its name is that of a file.

    Args:
        name: of the argument.
        folder: as it was given.
        written: what is, for the message.

    Raises:
        TypeError: it is no path.
        ConfigError: it ends as files do, and is no folder that is there; or it is a file, or below one.
    """
    path = require_path(name, folder)
    if not path.is_dir() and (path.suffix.lower() in OF_FILES or path.is_file()):
        raise ConfigError(f"{name} {path} is the name of a file: {written} is written")
    above = next((place for place in path.absolute().parents if place.exists()), path)
    if above.is_file():
        raise ConfigError(f"{name} {path}: {above} is a file, and holds no folders")
    return path


def require_place(name: str, file: Any) -> Path:
    """The file that an argument names, which is to be written: refused before all the work.

    Args:
        name: of the argument.
        file: as it was given.

    Raises:
        TypeError: it is no path.
        ConfigError: its folder is not there, or it is a folder itself.
    """
    path = require_path(name, file)
    if not path.absolute().parent.is_dir():
        raise ConfigError(f"{name} {path}: there is no folder {path.parent}")
    if path.is_dir():
        raise ConfigError(f"{name} {path} is a folder")
    return path
