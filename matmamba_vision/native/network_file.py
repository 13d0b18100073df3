"""A frozen width as a file: its arrays and numbers in NumPy's own format, uncompressed."""

from __future__ import annotations

import io
import json
from dataclasses import fields
from typing import Any

import numpy as np
from matmamba_common.errors import MatMambaError
from numpy.typing import NDArray

from .network import MixerArrays, NetworkArrays

# The entry that has what is no array, as JSON.
_NUMBERS = "numbers"


class NetworkFileError(MatMambaError):
    """A file that does not hold a frozen width."""


def to_bytes(arrays: NetworkArrays) -> bytes:
    """The width as a file; equal widths give equal bytes."""
    parts = {"": arrays} | {f"{index}.": mixer for index, mixer in enumerate(arrays.mixers)}
    numbers: dict[str, Any] = {}
    entries: dict[str, NDArray[Any]] = {}
    for prefix, part in parts.items():
        for field in fields(part):
            value = getattr(part, field.name)
            if isinstance(value, np.ndarray):
                entries[prefix + field.name] = value
            elif field.name != "mixers":
                numbers[prefix + field.name] = value
    numbers["mixers"] = len(arrays.mixers)
    entries[_NUMBERS] = np.frombuffer(json.dumps(numbers).encode(), np.uint8)
    written = io.BytesIO()
    np.savez(written, allow_pickle=False, **entries)
    return written.getvalue()


def from_bytes(content: bytes) -> NetworkArrays:
    """What `to_bytes` wrote.

    Raises:
        NetworkFileError: it is something else, or damaged.
    """
    try:
        with np.load(io.BytesIO(content), allow_pickle=False) as entries:
            known = {name: entries[name] for name in entries.files}
        numbers = json.loads(known.pop(_NUMBERS).tobytes())
        mixers = tuple(
            MixerArrays(**_of(MixerArrays, f"{index}.", known, numbers)) for index in range(numbers["mixers"])
        )
        values = _of(NetworkArrays, "", known, {**numbers, "mixers": mixers})
        # JSON has lists alone.
        sizes = {name: tuple(values[name]) for name in ("image_size", "patch_size")}
        return NetworkArrays(**values | sizes)
    # What NumPy and the ZIP reader raise for other bytes, and what is missing.
    except Exception as error:
        raise NetworkFileError(f"not a frozen width, or damaged: {error}") from error


def _of(kind: type, prefix: str, arrays: dict[str, NDArray[Any]], numbers: dict[str, Any]) -> dict[str, Any]:
    names = [field.name for field in fields(kind)]
    return {
        name: arrays[prefix + name] if prefix + name in arrays else numbers[prefix + name] for name in names
    }
