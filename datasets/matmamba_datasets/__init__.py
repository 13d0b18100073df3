"""What the images are and how they are read: samples with stable ids, fixed splits, transforms, loaders."""

# First, because transforms come from timm, which imports torchvision.
from . import torchvision_compat as _torchvision_compat  # noqa: F401  isort: skip

from .catalog import DATASETS, DataConfig, open_folder_or_parquet, open_splits
from .decode import BrokenImageError, read_image
from .loader import Batch, BrokenTally, make_loader
from .sample import DataError, Images, Sample, Splits, Subset
from .transforms import AugmentConfig, eval_transform, train_transform

__all__ = [
    "DATASETS",
    "AugmentConfig",
    "Batch",
    "BrokenImageError",
    "BrokenTally",
    "DataConfig",
    "DataError",
    "Images",
    "Sample",
    "Splits",
    "Subset",
    "eval_transform",
    "make_loader",
    "open_folder_or_parquet",
    "open_splits",
    "read_image",
    "train_transform",
]
