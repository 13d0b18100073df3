"""Models registered with timm."""

from .architecture import Architecture
from .matmamba import MatMamba
from .registry import default_cfgs
from .submodel import extract, leading_tensors

__all__ = ["Architecture", "MatMamba", "default_cfgs", "extract", "leading_tensors"]
