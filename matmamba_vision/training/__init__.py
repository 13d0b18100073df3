"""Joint training of all widths, by labels or after another network."""

from typing import TYPE_CHECKING

from matmamba_common.lazy import names_of

if TYPE_CHECKING:
    from .build import build_model
    from .compilation import compile_widths
    from .engine import (
        DEVICES,
        LostProcessError,
        end_training,
        everywhere,
        make_accelerator,
        named_losses,
    )
    from .folder import RunFolder, RunFolderError
    from .loop import Hooks, Position, StepReport, fit
    from .objective import NestedObjective, Teacher, Trainee
    from .optimiser import make_optimiser, make_scheduler
    from .regression import StudentObjective
    from .saving import ResumeError, Saves
    from .schedule import WidthSchedule
    from .sections import (
        EngineConfig,
        MixConfig,
        ModelConfig,
        ObjectiveConfig,
        OptimConfig,
        RegressionConfig,
        SaveConfig,
        ScheduleConfig,
    )
    from .student import (
        CachedTeacher,
        OnlineTeacher,
        StoredTeacher,
        batch_vectors,
        read_vectors,
        teacher_vectors,
    )
    from .training import Training, prepare_training
    from .vector_cache import CacheKey, VectorCache, VectorCacheError
else:
    __getattr__, __dir__ = names_of(
        __name__,
        {
            ".build": ("build_model",),
            ".compilation": ("compile_widths",),
            ".engine": (
                "DEVICES",
                "LostProcessError",
                "end_training",
                "everywhere",
                "make_accelerator",
                "named_losses",
            ),
            ".folder": (
                "RunFolder",
                "RunFolderError",
            ),
            ".loop": (
                "Hooks",
                "Position",
                "StepReport",
                "fit",
            ),
            ".objective": (
                "NestedObjective",
                "Teacher",
                "Trainee",
            ),
            ".optimiser": (
                "make_optimiser",
                "make_scheduler",
            ),
            ".regression": ("StudentObjective",),
            ".saving": (
                "ResumeError",
                "Saves",
            ),
            ".schedule": ("WidthSchedule",),
            ".sections": (
                "EngineConfig",
                "MixConfig",
                "ModelConfig",
                "ObjectiveConfig",
                "OptimConfig",
                "RegressionConfig",
                "SaveConfig",
                "ScheduleConfig",
            ),
            ".student": (
                "CachedTeacher",
                "OnlineTeacher",
                "StoredTeacher",
                "batch_vectors",
                "read_vectors",
                "teacher_vectors",
            ),
            ".training": (
                "Training",
                "prepare_training",
            ),
            ".vector_cache": (
                "CacheKey",
                "VectorCache",
                "VectorCacheError",
            ),
        },
    )

__all__ = [
    "DEVICES",
    "CacheKey",
    "CachedTeacher",
    "EngineConfig",
    "Hooks",
    "LostProcessError",
    "MixConfig",
    "ModelConfig",
    "NestedObjective",
    "ObjectiveConfig",
    "OnlineTeacher",
    "OptimConfig",
    "Position",
    "RegressionConfig",
    "ResumeError",
    "RunFolder",
    "RunFolderError",
    "SaveConfig",
    "Saves",
    "ScheduleConfig",
    "StepReport",
    "StoredTeacher",
    "StudentObjective",
    "Teacher",
    "Trainee",
    "Training",
    "VectorCache",
    "VectorCacheError",
    "WidthSchedule",
    "batch_vectors",
    "build_model",
    "compile_widths",
    "end_training",
    "everywhere",
    "fit",
    "make_accelerator",
    "make_optimiser",
    "make_scheduler",
    "named_losses",
    "prepare_training",
    "read_vectors",
    "teacher_vectors",
]
