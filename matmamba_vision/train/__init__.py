"""Joint training of all widths."""

from .compilation import compile_widths
from .config import ModelConfig, ObjectiveConfig, OptimConfig
from .loop import Hooks, StepReport, fit
from .objective import NestedObjective, Teacher
from .optimiser import make_optimiser, make_scheduler

__all__ = [
    "Hooks",
    "ModelConfig",
    "NestedObjective",
    "ObjectiveConfig",
    "OptimConfig",
    "StepReport",
    "Teacher",
    "compile_widths",
    "fit",
    "make_optimiser",
    "make_scheduler",
]
