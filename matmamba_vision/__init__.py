"""MatMamba Vision: Mamba2 image backbones with nested widths, their training and their evaluation.

Importing the package registers its models with timm.
"""

# First, because timm imports torchvision.
from matmamba_datasets import torchvision_compat as _torchvision_compat  # noqa: F401  isort: skip

from .allocator import keep_freed_memory
from .checkpoint import Checkpoint, CheckpointError, load_checkpoint, save_checkpoint
from .models import MatMamba, extract
from .official import load_official, save_official, to_official
from .width import Width, WidthError

__version__ = "0.1.0"
__all__ = [
    "Checkpoint",
    "CheckpointError",
    "MatMamba",
    "Width",
    "WidthError",
    "extract",
    "keep_freed_memory",
    "load_checkpoint",
    "load_official",
    "save_checkpoint",
    "save_official",
    "to_official",
]
