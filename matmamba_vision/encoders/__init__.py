"""What turns images into vectors: any network with pooled features, ours or not."""

from typing import TYPE_CHECKING

from matmamba_common.lazy import names_of

from .names import EncoderError, is_named, place_of, takes_text

if TYPE_CHECKING:
    from .any_encoder import open_encoder
    from .encoder import Encoder
    from .functions import encoder_from
    from .onnx_runtime import for_many
else:
    __getattr__, __dir__ = names_of(
        __name__,
        {
            ".encoder": ("Encoder",),
            ".functions": ("encoder_from",),
            ".any_encoder": ("open_encoder",),
            ".onnx_runtime": ("for_many",),
        },
    )

__all__ = [
    "Encoder",
    "EncoderError",
    "encoder_from",
    "for_many",
    "is_named",
    "open_encoder",
    "place_of",
    "takes_text",
]
