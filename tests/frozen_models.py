"""Models of every kind, and widths of them, that frozen widths are tested with."""

from __future__ import annotations

from typing import Any

import torch
from matmamba_vision import MatMamba
from matmamba_vision.layers import Mixer
from matmamba_vision.models import default_cfgs
from small import SMALL, create

# Largest difference of a coordinate of an embedding, whose length is 1; of float32 and other sums.
TOLERANCE = 1e-5

KINDS: list[tuple[dict[str, Any], str]] = [
    ({}, "full"),
    ({}, "1/4"),
    ({}, "8-0-3"),
    ({}, "0-0-0"),
    ({"scan": "flip"}, "1/2:1/2"),
    ({"scan": "cross", "depth": 6, "reg_tokens": 3, "img_size": (16, 24)}, "1/2"),
    ({"scan": "cross", "depth": 6, "reg_tokens": 3, "img_size": (16, 24)}, "0-8-0-2-5-0:4-8-8-2-8-8"),
    ({"heads_per_group": 3, "bias": True}, "full"),
    ({"heads_per_group": 3, "bias": True, "scan": "flip"}, "7-3-1"),
    ({"heads_per_group": 3, "global_pool": "avg", "reg_tokens": 2}, "4-8-6:5-8-1"),
    ({"global_pool": "avg", "scan": "flip"}, "1/2"),
    ({"projection": 12, "scan": "flip"}, "1/2"),
    ({"projection": 48, "global_pool": "avg", "d_conv": 2}, "1/2"),
    ({"scan": "cross", "mean_token": True, "reg_tokens": 2}, "0-4-8:4-4-4"),
    ({"scan": "bidirectional", "heads_per_group": 4, "bias": True}, "5-0-8"),
    ({"scan": ("columns", "both", "rows_reversed"), "reg_tokens": 1}, "1/2"),
    ({"attention_blocks": [1], "mlp_ratio": 2.0}, "1/4"),
    ({"attention_blocks": [1], "scan": "flip", "d_conv": 1, "in_chans": 1}, "1/2"),
    ({"attention_blocks": [0, 2], "scan": "flip", "global_pool": "avg"}, "4-2-8"),
    ({"dynamic_img_size": True, "patch_size": (4, 2)}, "1/2"),
]


def model_of(kind: dict[str, Any]) -> MatMamba:
    """A small model of a kind, none of whose parameters is 0 or 1 as it was initialised."""
    torch.manual_seed(0)
    model = MatMamba(**SMALL | {"chunk_size": 8} | kind).eval()
    for parameter in model.parameters():
        parameter.data += 0.1 * torch.randn_like(parameter)
    return model


def variant(name: str) -> MatMamba:
    """A registered variant for images of four patches by four."""
    torch.manual_seed(0)
    patch = int(name.split("patch")[1].split("_")[0])
    return create(name, img_size=4 * patch).eval()


VARIANTS = [*default_cfgs]


def with_decays(model: MatMamba, strong: float, slow: float) -> MatMamba:
    """The model with some heads whose states decay at once, and others that never forget.

    Args:
        strong: logarithm of the rate of half of the heads, in turn.
        slow: that of the others.
    """
    for block in model.stack:
        if isinstance(block.mixer, Mixer):
            A_log = block.mixer.get_parameter("A_log").data
            A_log[::2], A_log[1::2] = strong, slow
    return model


# Logarithms of rates: steps dt are some hundredths, so that the strongest decay by exp(-1e4) and more.
DECAYS = [(2.0, 0.0), (6.0, 0.0), (9.0, -9.0), (14.0, 14.0), (14.0, 3.0)]
