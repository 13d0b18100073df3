"""How a gallery lies in a collection: names of vectors and payload, and what is remembered of its making."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from ..errors import FormatError, GalleryError
from ..storage.records import Row
from ..storage.spec import EmbeddingSpec
from ..strategies.json_values import filled
from .engine import VectorField

# Of collections; another one is not touched.
FORMAT = 1
# Under which name a collection remembers what made it; others are their owners'.
ABOUT = "matmamba"
ID, PATH, LABEL, METADATA = "id", "path", "label", "metadata"
# The metadata as text, where it holds numbers that engines keep otherwise: last digits of decimals, and whole
# ones beyond 64 bits.
EXACT = "exact"
_LEAST, _MOST = -(2**63), 2**64 - 1
# What names of vectors may not have on a server.
_UNFIT = re.compile(r'[<>:"/\\|?*\x00\x1f]')
_PLAIN = re.compile(r"[A-Za-z0-9_-]+")
_LONGEST = 100


def vector_name(spec: EmbeddingSpec, width: str, dim: int) -> str:
    """Of the leading `dim` coordinates of a width's vectors: "full", "dim64"; of another width "1-4.dim64".

    Args:
        spec: of the gallery.
        width: label of the gallery's own width, or of a further one.
        dim: all coordinates, or fewer, which are normalised again.
    """
    of_dim = "full" if dim == spec.dim else f"dim{dim}"
    if width == spec.width:
        return of_dim
    label = _UNFIT.sub("-", width)
    if len(label) > _LONGEST:
        label = hashlib.sha256(width.encode()).hexdigest()[:16]
    return f"{label}.{of_dim}"


def payload_of(row: Row) -> dict[str, Any]:
    """What stands beside the vectors of an image."""
    found = {ID: row.id, PATH: row.path, LABEL: row.label, METADATA: _kept(dict(row.metadata))}
    if _is_kept_otherwise(row.metadata):
        found[EXACT] = json.dumps(dict(row.metadata), ensure_ascii=False)
    return found


def _is_kept_otherwise(value: Any) -> bool:
    if isinstance(value, Mapping):
        return any(map(_is_kept_otherwise, value.values()))
    if isinstance(value, list):
        return any(map(_is_kept_otherwise, value))
    return isinstance(value, float) or _is_too_large(value)


def _is_too_large(value: Any) -> bool:
    return isinstance(value, int) and not _LEAST <= value <= _MOST


def _kept(value: Any) -> Any:
    """A value as an engine can have it: whole numbers that it has no type for are text."""
    if isinstance(value, Mapping):
        return {name: _kept(each) for name, each in value.items()}
    if isinstance(value, list):
        return [_kept(each) for each in value]
    return str(value) if _is_too_large(value) else value


def row_of(payload: Mapping[str, Any], place: str) -> Row:
    """The image that `payload_of` described; `GalleryError` if it is no such thing."""
    image_id, path, label = payload.get(ID), payload.get(PATH), payload.get(LABEL)
    exact = payload.get(EXACT)
    metadata = (exact and _exact(exact)) or payload.get(METADATA) or {}
    if not (
        isinstance(image_id, str) and isinstance(path, str) and (label is None or isinstance(label, str))
    ):
        raise GalleryError(f"{place} has a point that no push wrote: its id is {image_id!r:.80}")
    if not isinstance(metadata, dict):
        raise GalleryError(f"{place}: the metadata of {image_id!r} are {metadata!r:.80}, not an object")
    return Row(image_id, path, label, dict(metadata))


def text_of(payload: Mapping[str, Any], name: str, place: str) -> str:
    """The id or label in a payload; `GalleryError` if there is none, though the point was found by it."""
    if not isinstance(value := payload.get(name), str):
        raise GalleryError(
            f"{place} is damaged: a point that was found by its {name} has {value!r:.80} there"
        )
    return value


def _exact(text: Any) -> Any:
    """The metadata of a text; None if there is none, or it was meddled with."""
    try:
        return json.loads(text) if isinstance(text, str) else None
    except (ValueError, RecursionError):
        return None


def payload_path(names: Sequence[str]) -> str | None:
    """Where a part of the metadata stands in the payload, in Qdrant's words; None if they cannot say it."""
    if any('"' in name or "\\" in name for name in names):
        return None
    return ".".join((METADATA, *(name if _PLAIN.fullmatch(name) else f'"{name}"' for name in names)))


@dataclass(frozen=True, kw_only=True)
class Contents:
    """What a collection says of the gallery in it.

    Attributes:
        format: of this.
        gallery: tells galleries, and generations of one, apart: number and digest of its first images.
        folder: where the gallery was when it was pushed.
        generation: of the gallery, whose keys the points have.
        version: of the gallery, up to which deletions were carried over; -1 before the first whole push.
        time: of that version.
        keys: of the gallery that were pushed: all below.
        live: images, when the push was finished.
        complete: whether a push was finished; until then it does not answer.
        spec: of the vectors.
        checkpoint_path: of what made them.
        widths: further ones.
        fields: vectors of each point.
        wish: what was asked for when it was begun.
        serial: of the collections that were made for one place, one after the other.
        kinds: of the metadata's values that were pushed, by path in the payload; "" for mixed ones, "null"
            for none.
        paths: digests of the images' paths, by block of keys, the last block up to `keys`.
        plan: of the gallery, as it keeps it; None for none.
        measured: what was measured of it.
    """

    format: int = FORMAT
    gallery: str
    folder: str
    generation: int
    version: int = -1
    time: str = ""
    keys: int = 0
    live: int = 0
    complete: bool = False
    spec: EmbeddingSpec
    checkpoint_path: str
    widths: tuple[str, ...]
    fields: tuple[VectorField, ...]
    wish: dict[str, Any]
    serial: int = 0
    kinds: dict[str, str] = field(default_factory=dict)
    paths: list[str] = field(default_factory=list)
    plan: Any = None
    measured: dict[str, Any] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """As it is remembered."""
        return {ABOUT: asdict(self)}

    @staticmethod
    def from_json(about: Mapping[str, Any], place: str) -> Contents:
        """What `to_json` gave.

        Raises:
            FormatError: another version of this package wrote it.
            GalleryError: no push made the collection, or what it says is damaged.
        """
        values = about.get(ABOUT)
        if not isinstance(values, Mapping):
            raise GalleryError(f"{place} is a collection that no push has made: name another")
        if values.get("format") != FORMAT:
            raise FormatError(
                f"{place} has format {values.get('format')!r}, this version of the package reads {FORMAT}:"
                " update the package, or push the gallery to another place"
            )
        spec = filled(EmbeddingSpec, values.get("spec") or {}, f"{place}: spec")
        fields = tuple(filled(VectorField, each, f"{place}: vectors") for each in values.get("fields") or ())
        widths = tuple(values.get("widths") or ())
        return filled(Contents, {**values, "spec": spec, "fields": fields, "widths": widths}, place)

    def vector(self, width: str, dim: int) -> VectorField | None:
        """The vectors of so many coordinates of a width; None if they were not pushed."""
        return next((each for each in self.fields if (each.width, each.dim) == (width, dim)), None)
