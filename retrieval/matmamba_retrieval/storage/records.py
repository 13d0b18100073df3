"""What a gallery's catalogue holds, checked where it is read: a catalogue can come from elsewhere."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from ..errors import GalleryError
from .files import INDEX, VECTORS, is_own_name
from .spec import EmbeddingSpec

# More images than this are not a count but damage: they would not fit into any memory.
MOST_KEYS = 1 << 40
# One for all: `json.dumps` makes one for each value that it writes.
_ENCODER = json.JSONEncoder(ensure_ascii=False, allow_nan=False)


class _Meaningless(ValueError):
    """A stored value that nothing of ours has written."""


@contextmanager
def damage_of(file: Path) -> Iterator[None]:
    """Turn what is wrong with stored values into a `GalleryError` that names the catalogue."""
    try:
        yield
    except (_Meaningless, json.JSONDecodeError, UnicodeError, RecursionError) as error:
        raise GalleryError(f"{file} is damaged: {error}") from error


def _require(record: Any, kinds: Mapping[str, type | tuple[type, ...]]) -> None:
    for name, kind in kinds.items():
        value = getattr(record, name)
        # A truth value is an int in Python, and nothing here is one.
        if not isinstance(value, kind) or isinstance(value, bool) or (isinstance(value, int) and value < 0):
            raise _Meaningless(f"{type(record).__name__} {name} is {value!r:.80}")


def as_json(value: Any, what: str) -> str:
    """Its stored form, with letters as they are; `GalleryError` with `what` ("it is") if there is none."""
    try:
        return _ENCODER.encode(value)
    except (TypeError, ValueError, RecursionError) as error:
        raise GalleryError(f"{what} not JSON: {error}") from error


def stored_json(text: Any, name: str, kind: type = object) -> Any:
    """What a column of JSON holds."""
    return _parsed(text, kind, name)


def require_column(file: Path, values: list[Any], name: str, *kinds: type) -> list[Any]:
    """The values of a column; `GalleryError` if one is of none of the types."""
    for value in values:
        if not isinstance(value, kinds):
            raise GalleryError(f"{file} is damaged: {name} is {value!r:.80}")
    return values


def _parsed(text: Any, kind: type, name: str) -> Any:
    if not isinstance(text, str) or not isinstance(value := json.loads(text), kind):
        raise _Meaningless(f"{name} is {text!r:.80}")
    return value


@dataclass(frozen=True)
class Row:
    """One image of a gallery.

    Attributes:
        id: stable and unique.
        path: where the image can be found.
        label: class name, or None.
        metadata: whatever the user wants to keep with it, and filter by: a JSON object.
    """

    id: str
    path: str
    label: str | None = None
    metadata: Mapping[str, Any] = field(default_factory=dict)

    @staticmethod
    def stored(image_id: Any, path: Any, label: Any, metadata: Any) -> Row:
        """From the columns of the catalogue."""
        row = Row(image_id, path, label, _parsed(metadata, dict, f"the metadata of {image_id!r}"))
        _require(row, {"id": str, "path": str, "label": (str, type(None))})
        return row


@dataclass(frozen=True)
class SegmentRecord:
    """A file of vectors of a width: those of the keys `start` to `start + rows`.

    Attributes:
        checks: CRC-32 of each block of rows, uint32 little-endian; see `segments`.
    """

    width: str
    start: int
    rows: int
    file: str
    sha256: str
    checks: bytes

    @staticmethod
    def stored(*columns: Any) -> SegmentRecord:
        """From the columns of the catalogue."""
        record = SegmentRecord(*columns)
        _require(
            record, {"width": str, "start": int, "rows": int, "file": str, "sha256": str, "checks": bytes}
        )
        if (
            not is_own_name(record.file, VECTORS)
            or not 0 < record.rows <= MOST_KEYS
            or record.start > MOST_KEYS
        ):
            raise _Meaningless(f"it has a segment {record.file!r:.80} of {record.rows} rows")
        return record


@dataclass(frozen=True)
class ShortlistRecord:
    """A FAISS index over `dim` leading coordinates of the vectors of a width, keys 0 to `rows`.

    Attributes:
        name: unique in its gallery.
        recipe: how it was made, in the words of `recipes`.
    """

    name: str
    width: str
    dim: int
    recipe: str
    rows: int
    file: str
    sha256: str

    @staticmethod
    def stored(*columns: Any) -> ShortlistRecord:
        """From the columns of the catalogue."""
        record = ShortlistRecord(*columns)
        numbers, texts = ("dim", "rows"), ("name", "width", "recipe", "file", "sha256")
        _require(record, dict.fromkeys(numbers, int) | dict.fromkeys(texts, str))
        if not is_own_name(record.file, INDEX) or not record.dim > 0 or record.rows > MOST_KEYS:
            raise _Meaningless(
                f"it has an index {record.file!r:.80} of {record.rows} rows, {record.dim} dims"
            )
        return record


@dataclass(frozen=True)
class Generation:
    """All vectors of a gallery from one model. Another model makes a new one, and so does compacting.

    Attributes:
        since: the oldest version that can still be opened.
        widths: further widths of which each image has a vector, beside that of `spec`.
    """

    number: int
    spec: EmbeddingSpec
    checkpoint_path: str
    widths: tuple[str, ...]
    since: int

    @staticmethod
    def stored(number: Any, spec: Any, checkpoint_path: Any, widths: Any, since: Any) -> Generation:
        """From the columns of the catalogue."""
        about = _parsed(spec, dict, f"the spec of generation {number}")
        known = {attribute.name for attribute in fields(EmbeddingSpec)}
        if not known - {"transform"} <= about.keys() <= known:
            raise _Meaningless(f"the spec of generation {number} has {', '.join(map(repr, about))}")
        found = EmbeddingSpec(**about)
        _require(found, {"checkpoint": str, "width": str, "dim": int, "transform": str})
        further = _parsed(widths, list, f"the widths of generation {number}")
        if not 0 < found.dim <= MOST_KEYS or not all(isinstance(width, str) for width in further):
            raise _Meaningless(f"generation {number} has {found.dim} dims, widths {further!r:.80}")
        generation = Generation(number, found, checkpoint_path, tuple(further), since)
        _require(generation, {"number": int, "checkpoint_path": str, "since": int})
        return generation


@dataclass(frozen=True)
class Version:
    """The gallery after one change.

    Attributes:
        keys: how many keys were given out.
        live: images that were not deleted.
        time: UTC, ISO 8601.
    """

    number: int
    generation: int
    keys: int
    live: int
    time: str

    @staticmethod
    def stored(*columns: Any) -> Version:
        """From the columns of the catalogue."""
        version = Version(*columns)
        _require(version, {"number": int, "generation": int, "keys": int, "live": int, "time": str})
        if not version.live <= version.keys <= MOST_KEYS:
            raise _Meaningless(f"version {version.number} has {version.live} images of {version.keys} keys")
        return version
