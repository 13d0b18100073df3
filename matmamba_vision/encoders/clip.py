"""Two-tower networks of the library open_clip: images and texts in one space (CLIP, arXiv 2103.00020)."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from torch import Tensor

from .encoder import EncoderError, Texts

# What open_clip calls how an image is brought to its size: timm's word for the same.
_CROPS = {"shortest": "center", "longest": "border", "squash": "squash"}


def find_clip(asked: str) -> tuple[Any, dict[str, Any], str, Texts]:
    """A network, its data configuration as timm writes them, its architecture, and what encodes texts.

    Args:
        asked: ARCH/TAG, such as ViT-B-32/laion2b_s34b_b79k; local-dir:FOLDER or hf-hub:OWNER/NAME.

    Raises:
        EncoderError: open_clip is not installed, or no weights are named.
    """
    try:
        import open_clip  # type: ignore[import-not-found,unused-ignore]
    except ImportError as error:
        raise EncoderError(
            'open_clip is not installed: pip install "matmamba-vision[clip]", or pip install open_clip_torch'
        ) from error
    name, tag = asked, None
    if not asked.startswith(("local-dir:", "hf-hub:")):
        name, _, tag = asked.partition("/")
        if not tag:
            raise EncoderError(f"open_clip:{asked} names no weights: write open_clip:ARCH/TAG")
    network = open_clip.create_model(name, pretrained=tag, require_pretrained=True)
    tokenizer = open_clip.get_tokenizer(name)

    def texts(texts: Sequence[str]) -> Tensor:
        device = next(network.parameters()).device
        found: Tensor = network.encode_text(tokenizer(list(texts)).to(device))
        return found

    # The same weights may be run with another activation: ViT-B-32 and ViT-B-32-quickgelu.
    architecture = json.dumps(open_clip.get_model_config(name), sort_keys=True)
    return network, _as_timm(open_clip.get_model_preprocess_cfg(network)), architecture, texts


def _as_timm(known: dict[str, Any]) -> dict[str, Any]:
    size = known["size"]
    height, width = (size, size) if isinstance(size, int) else size
    return {
        "input_size": (3, height, width),
        "interpolation": known.get("interpolation", "bicubic"),
        "mean": tuple(known["mean"]),
        "std": tuple(known["std"]),
        "crop_pct": 1.0,
        "crop_mode": _CROPS[known.get("resize_mode", "shortest")],
    }
