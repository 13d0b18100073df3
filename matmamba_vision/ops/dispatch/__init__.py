"""Which backend computes: the table of them, the choice by name, and that for given tensors."""

from .backends import BACKENDS, Backend, BackendError, InTraining, Setting
from .by_name import require_known, resolve
from .for_tensors import resolve_for

__all__ = [
    "BACKENDS",
    "Backend",
    "BackendError",
    "InTraining",
    "Setting",
    "require_known",
    "resolve",
    "resolve_for",
]
