"""Which backend computes: the table of them, the choice by name or by speed, and that for given tensors."""

from .backends import BACKENDS, Backend, BackendError, Setting
from .fastest import require_known, resolve
from .for_tensors import resolve_for

__all__ = ["BACKENDS", "Backend", "BackendError", "Setting", "require_known", "resolve", "resolve_for"]
