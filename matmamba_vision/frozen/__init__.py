"""A width made for inference: packed weights, and what computes embeddings from them.

`packed` are the weights. `straight` and `straight_scan` compute with them in PyTorch, `native_width` by
kernels in C, and on a GPU `triton_width` by kernels of `ops.triton.block`, with a CUDA graph for each size of
batch (`captured_batches`). `frozen_width` chooses among these for the `place` of a model.
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
