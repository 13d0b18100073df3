"""Which columns of a Parquet file hold images and labels, and what the labels mean."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from .classes import MOST_CLASSES, distinct, listed_names
from .errors import DataError
from .reading import TableReading
from .sample import NO_LABEL, NoImagesError

# Names that images and labels usually have, the likeliest first.
_IMAGES = ("image", "img", "picture", "photo", "jpg", "png", "bytes", "image_bytes", "content")
_LABELS = ("label", "labels", "fine_label", "class", "target", "category", "y")
# Labels of rows: a number, or the name of a class.
Labels = list[int | str]


@dataclass(frozen=True)
class Columns:
    """Of one file.

    Attributes:
        image: column of images, a struct with `bytes` and perhaps `path`, or plain bytes.
        is_struct: which of the two.
        label: column of labels, "" if there is none.
        names: of classes, by the file's metadata.
        note: what is odd about the labels, "" if nothing is.
    """

    image: str
    is_struct: bool
    label: str
    names: tuple[str, ...] = ()
    note: str = ""


def columns_of(file: Path, schema: pa.Schema, reading: TableReading) -> Columns:
    """Choose by type and by what Hugging Face's datasets note in the file; names decide among several.

    Raises:
        NoImagesError: no column of images.
        DataError: no column of labels of the name that was asked for.
    """
    features = _features(schema)
    image = _image(file, schema, features, reading.image_column)
    label, note = _label(file, schema, features, reading.label_column)
    names = listed_names(features.get(label, {}).get("names")) or ()
    return Columns(image, pa.types.is_struct(schema.field(image).type), label, distinct(names), note)


def _features(schema: pa.Schema) -> Mapping[str, Any]:
    """What Hugging Face's datasets say about the columns, by name."""
    try:
        noted = json.loads((schema.metadata or {}).get(b"huggingface", b"{}"))
        features = noted.get("info", {}).get("features") or {}
    except (ValueError, AttributeError):
        return {}
    if not isinstance(features, dict):
        return {}
    return {name: feature for name, feature in features.items() if isinstance(feature, dict)}


def _image(file: Path, schema: pa.Schema, features: Mapping[str, Any], wanted: str) -> str:
    able = [field.name for field in schema if _holds_images(field.type)]
    listed = ", ".join(f"{field.name} ({field.type})" for field in schema)
    if wanted:
        if wanted not in able:
            raise NoImagesError(f"{file}: image_column {wanted!r} is no column of images: it has {listed}")
        return wanted
    noted = [name for name in able if features.get(name, {}).get("_type") == "Image"]
    structs = [name for name in able if pa.types.is_struct(schema.field(name).type)]
    found = _first(noted or structs or able, _IMAGES)
    if not found:
        raise NoImagesError(
            f"{file} has no column of images (`image: struct<bytes, path>` or bytes): it has {listed}"
        )
    return found


def _holds_images(kind: pa.DataType) -> bool:
    if pa.types.is_struct(kind):
        place = kind.get_field_index("bytes")
        return place >= 0 and _is_binary(kind.field(place).type)
    return _is_binary(kind)


def _is_binary(kind: pa.DataType) -> bool:
    kind = kind.value_type if pa.types.is_dictionary(kind) else kind
    tests = (pa.types.is_binary, pa.types.is_large_binary, pa.types.is_binary_view)
    return any(test(kind) for test in tests)


def _label(file: Path, schema: pa.Schema, features: Mapping[str, Any], wanted: str) -> tuple[str, str]:
    if wanted:
        if wanted not in schema.names:
            raise DataError(f"{file}: there is no label_column {wanted!r}: it has {', '.join(schema.names)}")
        if fault := _unfit(schema.field(wanted).type):
            raise DataError(f"{file}: label_column {wanted!r} {fault}")
        return wanted, ""
    noted = [name for name in schema.names if features.get(name, {}).get("_type") == "ClassLabel"]
    usual = [name for name in _LABELS if name in schema.names]
    fit = [name for name in (*noted, *usual) if not _unfit(schema.field(name).type)]
    if fit:
        return _first(fit, _LABELS), ""
    odd = [f"column {name!r} {_unfit(schema.field(name).type)}" for name in usual]
    return "", odd[0] if odd else ""


def _first(found: Sequence[str], likely: Sequence[str]) -> str:
    """The likeliest of some names, "" if there is none."""
    return min(found, key=lambda name: likely.index(name) if name in likely else len(likely), default="")


def _unfit(kind: pa.DataType) -> str:
    """Why a column of this type gives no class, "" if it does."""
    value = kind.value_type if _is_list(kind) or pa.types.is_dictionary(kind) else kind
    tests = [pa.types.is_integer, pa.types.is_floating, pa.types.is_boolean]
    tests += [pa.types.is_string, pa.types.is_large_string, pa.types.is_string_view]
    return "" if any(test(value) for test in tests) else f"is of type {kind}, which names no class"


def _is_list(kind: pa.DataType) -> bool:
    return any(test(kind) for test in (pa.types.is_list, pa.types.is_large_list, pa.types.is_fixed_size_list))


def labels_in(values: Iterable[Any], names: Sequence[str]) -> tuple[Labels, dict[int, str]]:
    """Labels of rows, and by place what is odd about some: these have none.

    Args:
        values: as they are in the file: numbers, names, or a list with one of these; None for none.
        names: what numbers mean, if that is known.
    """
    found, odd, same = Labels(), dict[int, str](), dict[str, str]()
    for place, value in enumerate(values):
        label = value[0] if isinstance(value, list) and len(value) == 1 else value
        if isinstance(label, list):
            odd[place] = "several labels, not one" if label else "an empty list of labels"
        elif isinstance(label, str) and not label.strip():
            odd[place] = "an empty label"
        elif isinstance(label, (bool, str)):
            # One object for all that are equal, as there may be millions.
            found.append(same.setdefault(str(label), str(label)))
            continue
        elif label is not None and NO_LABEL <= label < MOST_CLASSES and int(label) == label:
            number = int(label)
            found.append(names[number] if 0 <= number < len(names) else number)
            continue
        elif label is not None:
            odd[place] = "a label that numbers no class"
        found.append(NO_LABEL)
    return found, odd


def as_numbers(labels: Labels, names: Sequence[str]) -> tuple[NDArray[np.int64], tuple[str, ...]]:
    """Labels (n,) as numbers, and the names of the classes; () where numbers have no names.

    Args:
        names: of classes in the order of their numbers, if known; else names are sorted.
    """
    texts = {label for label in labels if isinstance(label, str)}
    if not texts:
        return np.array(labels, dtype=np.int64), ()
    others = {str(label) for label in labels if not isinstance(label, str) and label != NO_LABEL}
    known = tuple(names) if texts | others <= set(names) else tuple(sorted(texts | others))
    number = {name: place for place, name in enumerate(known)}
    return np.array([number.get(str(label), NO_LABEL) for label in labels], dtype=np.int64), known
