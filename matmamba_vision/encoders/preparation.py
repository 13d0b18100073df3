"""How images are prepared, as a caller says it: checked against what timm's data configuration knows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from numbers import Real
from typing import Any

from matmamba_common.words import shown

from .encoder import EncoderError

CROP_MODES = ("center", "squash", "border")
INTERPOLATIONS = ("nearest", "bilinear", "bicubic", "box", "hamming", "lanczos")
# What is taken where nothing is said: all of the image, as timm resizes it.
_DEFAULTS = {"interpolation": "bicubic", "crop_pct": 1.0, "crop_mode": "center"}
_KEYS = ("input_size", "mean", "std", *_DEFAULTS)


def require_input(given: Mapping[str, Any], where: str) -> dict[str, Any]:
    """A whole data configuration from what was given of it.

    Args:
        given: input_size (C, S, S), mean and std for each channel from 0 to 1; if need be interpolation,
            crop_pct and crop_mode.
        where: what said it.

    Raises:
        EncoderError: naming the entry that is missing, unknown, or cannot be.
    """
    unknown = sorted(given.keys() - set(_KEYS))
    if unknown:
        raise EncoderError(f"{where}: {unknown[0]!r} is none of {', '.join(_KEYS)}")
    for key in ("input_size", "mean", "std"):
        if key not in given:
            raise EncoderError(f"{where} has no {key}: images cannot be prepared without it")
    known = {**_DEFAULTS, **given}
    channels, height, width = _numbers(known, "input_size", where, 3)
    if not all(isinstance(side, int) and side > 0 for side in (channels, height, width)):
        raise EncoderError(f"{where}: input_size is {shown(known['input_size'])}: it can be [3, 224, 224]")
    mean, std = (_numbers(known, key, where, channels) for key in ("mean", "std"))
    if min(std) <= 0:
        raise EncoderError(f"{where}: std is {shown(std)}: it can be numbers above 0")
    _require_choice(known, "interpolation", INTERPOLATIONS, where)
    _require_choice(known, "crop_mode", CROP_MODES, where)
    share = known["crop_pct"]
    if isinstance(share, bool) or not isinstance(share, int | float) or share <= 0:
        raise EncoderError(f"{where}: crop_pct is {shown(share)}: it can be a number above 0")
    return known | {"input_size": (channels, height, width), "mean": mean, "std": std}


def _numbers(known: Mapping[str, Any], key: str, where: str, count: int) -> tuple[Any, ...]:
    values = known[key]
    right = isinstance(values, Sequence) and not isinstance(values, str) and len(values) == count
    if not right or not all(isinstance(one, Real) and not isinstance(one, bool) for one in values):
        raise EncoderError(f"{where}: {key} is {shown(values)}: it can be {count} numbers")
    return tuple(values)


def _require_choice(known: Mapping[str, Any], key: str, choices: Sequence[str], where: str) -> None:
    if known[key] not in choices:
        raise EncoderError(f"{where}: {key} is {shown(known[key])}: it can be {', '.join(choices)}")
