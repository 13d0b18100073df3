"""A width made for inference: packed weights, and what computes embeddings from them.

`packed` are the weights. `straight` and `straight_scan` compute with them in PyTorch, `native_width` by
kernels in C; `frozen_width` chooses among these.
"""

from .frozen_width import ENGINES, Engine, FrozenWidth, freeze
from .packed import KeptBlock, PackedMixer, PackedWidth, is_plain, pack
from .straight import Straight

__all__ = [
    "ENGINES",
    "Engine",
    "FrozenWidth",
    "KeptBlock",
    "PackedMixer",
    "PackedWidth",
    "Straight",
    "freeze",
    "is_plain",
    "pack",
]
