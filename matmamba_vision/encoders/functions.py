"""A Python function as an encoder."""

from __future__ import annotations

from collections.abc import Sequence

from matmamba_common.settings import require, require_least
from matmamba_common.words import shown
from torch import nn

from ..public_call import public_call
from .encoder import Encoder, Features, Texts, device_of, digests_of, require_pooled
from .names import FUNCTION
from .preparation import require_input


@public_call
def encoder_from(
    function: Features,
    name: str,
    *,
    size: int,
    mean: Sequence[float] = (0.485, 0.456, 0.406),
    std: Sequence[float] = (0.229, 0.224, 0.225),
    interpolation: str = "bicubic",
    crop_pct: float = 1.0,
    crop_mode: str = "center",
    texts: Texts | None = None,
    macs: int | None = None,
) -> Encoder:
    """Make an encoder of a Python function, or of any `torch.nn.Module`.

    A gallery remembers the name, and the weights of a module: `search` and later `index` calls hand the
    same encoder over as the model.

    Args:
        function: from prepared images (B, 3, S, S) of float32 to features (B, D); they are brought to length
            1 here.
        name: which function and version of it this is: another one needs another name.
        size: S in pixels.
        mean: of each channel, from 0 to 1, subtracted.
        std: of each channel, from 0 to 1, divided by.
        interpolation: how images are resized: nearest, bilinear, bicubic, box, hamming or lanczos.
        crop_pct: share of the resized image's shorter edge that is kept.
        crop_mode: center, squash or border.
        texts: from texts to (B, D) in the same space, if it has a text tower.
        macs: multiply-adds for one image; by default counted, if it is a module.

    Raises:
        EncoderError: it gives no vector for each image, or an argument cannot be.
        TypeError: an argument of another type.
    """
    require("name", name, str)
    if not callable(function):
        raise TypeError(f"function is {shown(function)}: it can be a function of images (B, 3, S, S)")
    require("texts", texts, Texts | None)
    require_least(1, size=size)
    input = require_input(
        {
            "input_size": (3, size, size), "mean": tuple(mean), "std": tuple(std),
            "interpolation": interpolation, "crop_pct": crop_pct, "crop_mode": crop_mode,
        },
        name,
    )  # fmt: skip
    network = function.eval().requires_grad_(False) if isinstance(function, nn.Module) else None
    # The name with it: other modules have the same weights, or none.
    weights, digest, bare_digest = digests_of(input, b"" if network is None else network, name)
    dim = require_pooled(name, function, input, device_of(network))
    return Encoder(
        name=name, place=FUNCTION + name, features=function, input=input, dim=dim, network=network,
        texts=texts, by="python" if network is None else "pytorch", known_macs=macs, weights=weights,
        digest=digest, bare_digest=bare_digest,
    )  # fmt: skip
