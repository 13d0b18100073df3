"""Where the numbers of a run go besides: TensorBoard, and Weights & Biases where it is installed."""

from __future__ import annotations

import importlib
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from accelerate.utils import is_tensorboard_available, is_wandb_available

from ..errors import ConfigError

# Name of the project there.
PROJECT = "matmamba"
TRACKERS = {"tensorboard": is_tensorboard_available, "wandb": is_wandb_available}


def trackers_of(wanted: Sequence[str]) -> list[str]:
    """Names of trackers for Accelerate; `ConfigError` for one that is unknown or not installed."""
    auto = list(wanted) == ["auto"]
    for name in [] if auto else wanted:
        if name not in TRACKERS:
            raise ConfigError(f"trackers: {name!r} is none of auto, {', '.join(TRACKERS)}")
        if not TRACKERS[name]():
            raise ConfigError(f"trackers: this needs {name}: pip install {name}")
    return [name for name in (TRACKERS if auto else wanted) if TRACKERS[name]()]


def tracker_settings(names: Sequence[str], output: Path, run_id: str, step: int) -> dict[str, Any]:
    """What each tracker is told; of a run that goes on from `step`, its log forgets later steps."""
    settings: dict[str, Any] = {"tensorboard": {"purge_step": step}}
    if "wandb" in names:
        # Without an account it would ask for one: then the log stays in the folder, to be sent later.
        known = importlib.import_module("wandb").api.api_key
        mode = os.environ.get("WANDB_MODE") or ("online" if known else "offline")
        settings["wandb"] = {"dir": str(output), "id": run_id, "resume": "allow", "mode": mode}
    return {name: settings[name] for name in names}
