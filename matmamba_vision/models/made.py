"""A model of a variant, made as timm makes it, without importing timm where all is known."""

from __future__ import annotations

from functools import partial
from typing import Any

from .backbone import Noted
from .matmamba import MatMamba
from .shipped import shipped_cfg
from .variants import CFGS, SIZES

# What timm takes from its notes where it is not given.
_FROM_NOTES = {"img_size", "in_chans", "num_classes", "global_pool"}


def make_model(variant: str, overlay: dict[str, Any], **arguments: Any) -> MatMamba:
    """What `timm.create_model(variant, pretrained_cfg_overlay=overlay, **arguments)` gives.

    Args:
        variant: a registered name.
        overlay: what timm is to note of this model.
        arguments: of the model, instead of the variant's own.

    Raises:
        ConfigError: an argument that cannot work.
        RuntimeError: timm knows no such name.
    """
    given = {name: value for name, value in arguments.items() if value is not None}
    if variant not in SIZES or not given.keys() >= _FROM_NOTES or "width" in given or "expand" in given:
        return _by_timm(variant, overlay, **given)
    model = MatMamba(**{**SIZES[variant], **given})
    model.pretrained_cfg = Noted(
        CFGS[variant] | shipped_cfg(variant) | overlay, partial(_notes, variant, overlay)
    )
    return model


def _by_timm(variant: str, overlay: dict[str, Any], **arguments: Any) -> MatMamba:
    import timm

    model: Any = timm.create_model(variant, pretrained_cfg_overlay=overlay, **arguments)
    return model


def _notes(variant: str, overlay: dict[str, Any]) -> dict[str, Any]:
    from .registry import known_to_timm

    return known_to_timm(variant, overlay)
