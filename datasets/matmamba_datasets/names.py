"""Names of files and images as they can be printed: no system promises that they are plain text."""

from __future__ import annotations

import re
from typing import Any

# What moves a terminal's cursor, changes its colours, ends a line or turns the direction of writing; and
# bytes of a name that are no text.
_CONTROL = re.compile(
    "[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]"
)

# What a spreadsheet takes for the beginning of a formula.
_FORMULA = ("=", "+", "-", "@", "\t", "\r")


def shown(text: str) -> str:
    """A name as it can be printed: control characters are written as JSON writes them."""
    return text if text.isascii() and text.isprintable() else _CONTROL.sub(_escaped, text)


def printable(text: str) -> str:
    """Lines as they can be printed: as `shown`, but for ends of lines and tabs."""
    return _CONTROL.sub(lambda found: found[0] if found[0] in "\n\t" else _escaped(found), text)


def _escaped(found: re.Match[str]) -> str:
    return f"\\u{ord(found[0]):04x}"


def safe_cell(value: Any) -> Any:
    """A cell for a CSV file: a text that a spreadsheet would run gets an apostrophe before it."""
    if not isinstance(value, str):
        return value
    return shown(f"'{value}" if value.startswith(_FORMULA) else value)


def is_text(name: str) -> bool:
    """Whether a name was decoded, and not only carried along byte by byte."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True
