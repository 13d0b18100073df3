"""What a result was measured with."""

from __future__ import annotations

import platform
import resource
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from ..processor import processor_name

PACKAGES = (
    "matmamba-vision",
    "torch",
    "torchvision",
    "timm",
    "numpy",
    "pillow",
    "faiss-cpu",
    "faiss-gpu",
    "safetensors",
    "transformers",
    "triton",
    "mamba-ssm",
    "causal-conv1d",
)


def environment() -> dict[str, Any]:
    """Commit, versions and machine."""
    return {
        "commit": _commit(),
        "versions": {"python": platform.python_version(), **_versions()},
        "machine": {
            "system": platform.platform(),
            "processor": processor_name(),
            "instructions": torch.backends.cpu.get_cpu_capability(),
            "threads": torch.get_num_threads(),
            "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        },
    }


def peak_memory_mib() -> float:
    """Largest resident memory of this process so far, in MiB."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**20 if sys.platform == "darwin" else 2**10)


def _versions() -> dict[str, str]:
    found = {}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def _commit() -> str | None:
    """Commit of the source tree that this package was installed from, with "+" for uncommitted changes.

    Recorded results do not count: one that was just written says nothing about the next one.
    """
    try:
        git = ["git", "-C", str(Path(__file__).parent)]
        commit = subprocess.run([*git, "rev-parse", "HEAD"], capture_output=True, text=True, check=True)
        status = [*git, "status", "--porcelain", "--", ":/", ":(top,exclude)benchmarks/results"]
        changed = subprocess.run(status, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return commit.stdout.strip() + ("+" if changed.stdout.strip() else "")
