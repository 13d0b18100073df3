"""MatMamba Vision: elastic image retrieval by Mamba2 backbones with nested widths.

    import matmamba_vision as mv

    mv.index("PHOTOS", "G")
    for hit in mv.open_gallery("G").search("query.jpg"):
        print(hit.path, hit.score)

Importing the package registers its models with timm. What searches, trains and measures is loaded when it is
first asked for: see `matmamba_vision.api`.
"""

# First, because timm imports torchvision.
from matmamba_datasets import torchvision_compat as _torchvision_compat  # noqa: F401  isort: skip

import importlib
from typing import TYPE_CHECKING, Any

from .allocator import keep_freed_memory
from .checkpoint import Checkpoint, CheckpointError, load_checkpoint, save_checkpoint
from .errors import ConfigError, MatMambaError
from .models import MatMamba
from .official import load_official, save_official, to_official
from .width import Width, WidthError

if TYPE_CHECKING:
    from .api import (
        Answer,
        CheckedData,
        Demonstration,
        DistillConfig,
        DuplicatesFound,
        Event,
        Extracted,
        GivenVectors,
        Hit,
        ImageGallery,
        Indexed,
        LabelFindings,
        Listener,
        Merged,
        MissingPackageError,
        Moved,
        NotFiniteError,
        Notice,
        PlanFound,
        Prepared,
        Progress,
        Reindexed,
        Repaired,
        Run,
        Selected,
        Strategy,
        Study,
        SystemRefusalError,
        TrainConfig,
        TrainingPlan,
        Validation,
        Verified,
        answers_to_dict,
        build_indexes,
        demo,
        distill,
        evaluate,
        extract,
        import_gallery,
        index,
        index_vectors,
        load_config,
        merge,
        open_gallery,
        plan_training,
        prepare_shards,
        reading_rates,
        reindex,
        select,
        train,
        validate,
        verify_data,
        write_page,
    )

__version__ = "0.2.0"
__all__ = [
    "Answer",
    "CheckedData",
    "Checkpoint",
    "CheckpointError",
    "ConfigError",
    "Demonstration",
    "DistillConfig",
    "DuplicatesFound",
    "Event",
    "Extracted",
    "GivenVectors",
    "Hit",
    "ImageGallery",
    "Indexed",
    "LabelFindings",
    "Listener",
    "MatMamba",
    "MatMambaError",
    "Merged",
    "MissingPackageError",
    "Moved",
    "NotFiniteError",
    "Notice",
    "PlanFound",
    "Prepared",
    "Progress",
    "Reindexed",
    "Repaired",
    "Run",
    "Selected",
    "Strategy",
    "Study",
    "SystemRefusalError",
    "TrainConfig",
    "TrainingPlan",
    "Validation",
    "Verified",
    "Width",
    "WidthError",
    "answers_to_dict",
    "build_indexes",
    "demo",
    "distill",
    "evaluate",
    "extract",
    "import_gallery",
    "index",
    "index_vectors",
    "keep_freed_memory",
    "load_checkpoint",
    "load_config",
    "load_official",
    "merge",
    "open_gallery",
    "plan_training",
    "prepare_shards",
    "reading_rates",
    "reindex",
    "save_checkpoint",
    "save_official",
    "select",
    "to_official",
    "train",
    "validate",
    "verify_data",
    "write_page",
]


def __getattr__(name: str) -> Any:
    # What is not here yet is of `matmamba_vision.api`, which brings FAISS and what reads images.
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(".api", __name__), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
