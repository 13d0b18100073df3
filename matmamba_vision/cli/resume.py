"""Finding what a run goes on from, and whether it is the same run."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..checkpoint import checkpoint_file
from ..train import ResumeError, Saves
from ..train.folder import flat
from ..train.saving import read_state
from .config import ConfigError, TrainConfig, as_plain

# Keys that change nothing about the losses of a run.
FREE = (
    "output", "overwrite", "device", "threads", "compile", "eval_every", "trackers", "save", "data.workers",
    "data.root", "images", "teacher_digest", "rotation_digest",
    "engine.cuda_graphs",
)  # fmt: skip

Found = tuple[Path, dict[str, Any]]


def find_checkpoint(config: TrainConfig, saves: Saves, resume: str) -> Found | None:
    """The checkpoint that `--resume` means, with its state; None to start.

    Raises:
        ConfigError: there is a run, and it is neither to be resumed nor replaced. ResumeError: no such
            checkpoint, a damaged one, or one of a run with other settings.
    """
    if resume == "no":
        if (saves.all() or checkpoint_file(config.output).exists()) and not config.overwrite:
            raise ConfigError(
                f"{config.output} holds a finished or interrupted run: go on with --resume auto, choose"
                " another --output, or --overwrite"
            )
        return None
    found = saves.newest() if resume == "auto" else (Path(resume), read_state(Path(resume)))
    if found:
        require_same_run(found[0], found[1]["config"], as_plain(config))
    return found


def require_same_run(path: Path, saved: Mapping[str, Any], wanted: Mapping[str, Any]) -> None:
    """Raise `ResumeError` listing the keys in which the configuration of a checkpoint differs."""
    # As JSON has it, which knows no tuples.
    before, now = flat(saved, "."), flat(json.loads(json.dumps(wanted)), ".")
    names = [name for name in dict.fromkeys([*before, *now]) if not _is_free(name)]
    differing = [
        f"{name}: {before.get(name)} there, {now.get(name)} here"
        for name in names
        if before.get(name) != now.get(name)
    ]
    if differing:
        listed = "\n  ".join(differing)
        raise ResumeError(
            f"{path} is of a run with other settings; to start from its weights, give --model.init and"
            f" another --output:\n  {listed}"
        )


def _is_free(name: str) -> bool:
    return any(name == free or name.startswith(f"{free}.") for free in FREE)
