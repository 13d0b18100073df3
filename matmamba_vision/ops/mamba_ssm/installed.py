"""What of mamba-ssm and causal-conv1d is installed, and their modules.

mamba-ssm's kernels are written in Triton and work without its CUDA extension, which its package demands when
it is imported: then the modules are imported without it.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from types import ModuleType
from typing import Any


@lru_cache
def missing() -> str | None:
    """Why mamba-ssm's kernels cannot be had here, or None."""
    for package in ("triton", "mamba_ssm"):
        if importlib.util.find_spec(package) is None:
            return f"{package} is not installed"
    try:
        load("ssd_combined")
    except (ImportError, AttributeError) as error:
        return f"mamba_ssm cannot be imported: {error}"
    return None


@lru_cache
def has_conv() -> bool:
    """Whether causal-conv1d is there with its CUDA extension."""
    return _importable("causal_conv1d")


def _importable(package: str) -> bool:
    try:
        importlib.import_module(package)
    except ImportError:
        return False
    return True


@lru_cache
def load(module: str) -> Any:
    """A module of mamba_ssm.ops.triton, with or without the package's CUDA extension."""
    return _with_package(lambda: importlib.import_module(f"mamba_ssm.ops.triton.{module}"))


def _with_package(imported: Callable[[], ModuleType]) -> ModuleType:
    if _importable("mamba_ssm"):
        return imported()
    # The package's own code fails without the extension; its modules need only the folder. The stand-in does
    # not stay: whoever imports the package later is told what is missing.
    spec = importlib.util.find_spec("mamba_ssm")
    if spec is None or spec.origin is None:
        raise ImportError("mamba_ssm is not installed")
    stand_in = ModuleType("mamba_ssm")
    stand_in.__path__ = [str(Path(spec.origin).parent)]
    sys.modules["mamba_ssm"] = stand_in
    try:
        return imported()
    finally:
        del sys.modules["mamba_ssm"]
