"""The nested model and what is made of it.

`Architecture` describes it, `Backbone` (in `backbone`) and `MatMamba` are the network; `extract` takes a
width out of it, `sort_heads` orders its parts, and the variants in `registry` are known to timm.
"""

from .architecture import Architecture
from .importance import importance_of_gradients, importance_of_weights, sort_heads
from .matmamba import MatMamba
from .registry import default_cfgs
from .submodel import extract, leading_tensors

__all__ = [
    "Architecture",
    "MatMamba",
    "default_cfgs",
    "extract",
    "importance_of_gradients",
    "importance_of_weights",
    "leading_tensors",
    "sort_heads",
]
