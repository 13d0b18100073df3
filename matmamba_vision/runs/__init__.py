"""Training runs: by labels or by another network, resumed to the bit, with a folder that says all of it."""

from typing import TYPE_CHECKING

from matmamba_common.lazy import names_of

if TYPE_CHECKING:
    from .distillation import distill
    from .dry_run import RatesAhead, RunMemory, TrainingPlan, WidthCost, Workload
    from .fitting import Run
    from .supervised import plan_training, train
    from .train_config import DistillConfig, TrainConfig, load_config
else:
    __getattr__, __dir__ = names_of(
        __name__,
        {
            ".distillation": ("distill",),
            ".dry_run": (
                "RatesAhead",
                "RunMemory",
                "TrainingPlan",
                "WidthCost",
                "Workload",
            ),
            ".fitting": ("Run",),
            ".supervised": (
                "plan_training",
                "train",
            ),
            ".train_config": (
                "DistillConfig",
                "TrainConfig",
                "load_config",
            ),
        },
    )

__all__ = [
    "DistillConfig",
    "RatesAhead",
    "Run",
    "RunMemory",
    "TrainConfig",
    "TrainingPlan",
    "WidthCost",
    "Workload",
    "distill",
    "load_config",
    "plan_training",
    "train",
]
