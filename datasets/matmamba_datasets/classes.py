"""Names of classes: from `classes.json`, from lists and objects, each once."""

from __future__ import annotations

import json
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from .errors import DataError
from .sample import NO_LABEL

# Numbers from here on are no classes, but identifiers, or damage.
MOST_CLASSES = 1_000_000
# Beside Parquet files and shards: class names in the order of their labels.
CLASSES = "classes.json"


def class_names(content: bytes | None, labels: NDArray[np.int64]) -> tuple[str, ...]:
    """Class names from what `classes.json` holds, or the numbers themselves where it names too few.

    Args:
        content: a list in JSON, or an object with one under "names" or "classes"; None if there is no file.

    Raises:
        DataError: it is not JSON.
    """
    try:
        names = json.loads(content or b"[]")
    except ValueError as error:
        raise DataError(f"{CLASSES} is not JSON: {error}") from error
    if isinstance(names, dict):
        inside = [names.get(key) for key in ("names", "classes") if key in names]
        names = next(filter(None, inside), []) if inside else names
    known = listed_names(names)
    if known is None:
        raise DataError(f'{CLASSES} holds no list of names: ["cats", "dogs"]')
    count = int(labels.max(initial=NO_LABEL)) + 1
    return known if len(known) >= count else tuple(map(str, range(count)))


def listed_names(names: object) -> tuple[str, ...] | None:
    """Class names of a list, or of an object: names by number, or numbers by name; None if it is neither."""
    if isinstance(names, dict):
        by_number = {str(number): name for name, number in names.items() if type(number) is int}
        by_number = by_number or names
        names = [by_number.get(str(number)) for number in range(len(names))]
        names = None if None in names else names
    return tuple(map(str, names)) if isinstance(names, list) else None


def distinct(names: Sequence[str]) -> tuple[str, ...]:
    """Names as they are, but for those that are there before: these get their number, as "crane (134)".

    Two classes of one name, of which ImageNet has several, would become one.
    """
    seen, found = set[str](), list[str]()
    for number, name in enumerate(names):
        found.append(f"{name} ({number})" if name in seen else name)
        seen.add(name)
    return tuple(found)
