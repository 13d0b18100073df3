"""What the images are and how they are read: samples with stable ids, fixed splits, transforms, loaders."""

# First, because transforms come from timm, which imports torchvision.
from . import torchvision_compat as _torchvision_compat  # noqa: F401  isort: skip

from .decode import read_image
from .errors import BrokenImageError, DataError
from .joined import JoinedImages, open_training_images
from .left_out import left_out_text
from .loader import Batch, BrokenTally, Loader, make_loader
from .names import shown
from .pixels import DecodedLoader, decode
from .reading import Limits, Reading, TableReading
from .registry import DATASETS, DataConfig, open_images, open_splits
from .sample import NO_LABEL, Images, Sample, Subset
from .splits import Splits
from .stored import StoredImages
from .transforms import AugmentConfig, eval_transform, train_transform

__all__ = [
    "DATASETS",
    "NO_LABEL",
    "AugmentConfig",
    "Batch",
    "BrokenImageError",
    "BrokenTally",
    "DataConfig",
    "DataError",
    "DecodedLoader",
    "Images",
    "JoinedImages",
    "Limits",
    "Loader",
    "Reading",
    "Sample",
    "Splits",
    "StoredImages",
    "Subset",
    "TableReading",
    "decode",
    "eval_transform",
    "left_out_text",
    "make_loader",
    "open_images",
    "open_splits",
    "open_training_images",
    "read_image",
    "shown",
    "train_transform",
]
