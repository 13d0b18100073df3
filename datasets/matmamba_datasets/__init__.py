"""What the images are and how they are read: samples with stable ids, fixed splits, transforms, loaders."""

from typing import TYPE_CHECKING

from matmamba_common.lazy import names_of

from .torchvision_startup import mend_when_imported

if TYPE_CHECKING:
    from .errors import BrokenImageError, BrokenVideoError, DataError
    from .fixed_views import FixedViews
    from .image_file import read_image
    from .joined import JoinedImages, open_training_images
    from .left_out import left_out_text
    from .loader import Batch, Loader, SizedViews, make_loader
    from .names import shown
    from .pixels import DecodedLoader, decode
    from .reading import Limits, Reading, TableReading
    from .registry import DATASETS, DataConfig, open_images, open_splits
    from .sample import NO_LABEL, Images, Sample, Subset
    from .splits import Splits
    from .stored import StoredImages
    from .tally import BrokenTally
    from .transforms import AugmentConfig, eval_transform, train_transform, view_transform
    from .video_file import VideoFile
    from .video_frame import Frame
    from .video_sampling import Sampling
    from .videos import Videos, open_videos
else:
    __getattr__, __dir__ = names_of(
        __name__,
        {
            ".errors": (
                "BrokenImageError",
                "BrokenVideoError",
                "DataError",
            ),
            ".fixed_views": ("FixedViews",),
            ".image_file": ("read_image",),
            ".joined": (
                "JoinedImages",
                "open_training_images",
            ),
            ".left_out": ("left_out_text",),
            ".loader": (
                "Batch",
                "Loader",
                "SizedViews",
                "make_loader",
            ),
            ".names": ("shown",),
            ".pixels": (
                "DecodedLoader",
                "decode",
            ),
            ".reading": (
                "Limits",
                "Reading",
                "TableReading",
            ),
            ".registry": (
                "DATASETS",
                "DataConfig",
                "open_images",
                "open_splits",
            ),
            ".sample": (
                "NO_LABEL",
                "Images",
                "Sample",
                "Subset",
            ),
            ".splits": ("Splits",),
            ".stored": ("StoredImages",),
            ".tally": ("BrokenTally",),
            ".transforms": (
                "AugmentConfig",
                "eval_transform",
                "train_transform",
                "view_transform",
            ),
            ".video_file": ("VideoFile",),
            ".video_frame": ("Frame",),
            ".video_sampling": ("Sampling",),
            ".videos": ("Videos", "open_videos"),
        },
    )

__all__ = [
    "DATASETS",
    "NO_LABEL",
    "AugmentConfig",
    "Batch",
    "BrokenImageError",
    "BrokenTally",
    "BrokenVideoError",
    "DataConfig",
    "DataError",
    "DecodedLoader",
    "FixedViews",
    "Frame",
    "Images",
    "JoinedImages",
    "Limits",
    "Loader",
    "Reading",
    "Sample",
    "Sampling",
    "SizedViews",
    "Splits",
    "StoredImages",
    "Subset",
    "TableReading",
    "VideoFile",
    "Videos",
    "decode",
    "eval_transform",
    "left_out_text",
    "make_loader",
    "open_images",
    "open_splits",
    "open_training_images",
    "open_videos",
    "read_image",
    "shown",
    "train_transform",
    "view_transform",
]

# Transforms for training come from timm, which imports torchvision.
mend_when_imported()
