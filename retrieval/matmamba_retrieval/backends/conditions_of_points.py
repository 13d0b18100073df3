"""Conditions on points put together, without the parser of filters, which takes long to load."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from .engine import Condition
from .layout import METADATA

_PART = re.compile(r'"([^"]*)"|([^."]+)')


def field_names(kinds: Mapping[str, str]) -> list[str]:
    """Names of metadata fields as filters have them, of their paths in the payload."""
    parts = (_PART.findall(path.removeprefix(f"{METADATA}.")) for path in kinds)
    return sorted({".".join(quoted or plain for quoted, plain in each) for each in parts})


def every(parts: Sequence[Condition]) -> Condition:
    """All of some conditions."""
    return parts[0] if len(parts) == 1 else {"must": list(parts)}


def none_of(parts: Sequence[Condition]) -> Condition:
    """None of some conditions."""
    return {"must_not": list(parts)}


def among(keys: Sequence[int]) -> Condition:
    """Points with these keys."""
    return {"has_id": list(keys)}
