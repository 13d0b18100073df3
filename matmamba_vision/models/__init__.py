"""The nested model and what is made of it.

`Architecture` describes it, `Backbone` (in `backbone`) and `MatMamba` are the network; `extract` takes a
width out of it, `sort_heads` orders its parts, and the variants in `registry` are known to timm.
"""

from typing import TYPE_CHECKING

from matmamba_common.lazy import names_of

if TYPE_CHECKING:
    from .architecture import Architecture
    from .importance import importance_of_gradients, importance_of_weights, sort_heads
    from .made import make_model
    from .matmamba import MatMamba
    from .registry import default_cfgs
    from .submodel import extract, leading_tensors
else:
    __getattr__, __dir__ = names_of(
        __name__,
        {
            ".architecture": ("Architecture",),
            ".importance": (
                "importance_of_gradients",
                "importance_of_weights",
                "sort_heads",
            ),
            ".made": ("make_model",),
            ".matmamba": ("MatMamba",),
            ".registry": ("default_cfgs",),
            ".submodel": (
                "extract",
                "leading_tensors",
            ),
        },
    )

__all__ = [
    "Architecture",
    "MatMamba",
    "default_cfgs",
    "extract",
    "importance_of_gradients",
    "importance_of_weights",
    "leading_tensors",
    "make_model",
    "sort_heads",
]
