"""What turns images into vectors: any network with pooled features, ours or not."""

from typing import TYPE_CHECKING

from matmamba_common.lazy import names_of

from .names import KINDS, is_named, place_of

if TYPE_CHECKING:
    from .encoder import Encoder, EncoderError
    from .functions import encoder_from
    from .open_encoder import open_encoder
else:
    __getattr__, __dir__ = names_of(
        __name__,
        {
            ".encoder": ("Encoder", "EncoderError"),
            ".functions": ("encoder_from",),
            ".open_encoder": ("open_encoder",),
        },
    )

__all__ = [
    "KINDS",
    "Encoder",
    "EncoderError",
    "encoder_from",
    "is_named",
    "open_encoder",
    "place_of",
]
