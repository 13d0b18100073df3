"""Models registered with timm."""

from .matmamba import MatMamba
from .registry import default_cfgs

__all__ = ["MatMamba", "default_cfgs"]
