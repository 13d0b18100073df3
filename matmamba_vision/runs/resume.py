"""Finding what a run goes on from, and whether it is the same run."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from matmamba_common.words import shown

from ..checkpoint import checkpoint_file
from ..config_file import as_plain, flat
from ..errors import ConfigError
from ..training import ResumeError, Saves
from ..training.saving import STATE, read_state
from .train_config import TrainConfig

# Keys that change nothing about the losses of a run.
FREE = (
    "output",
    "overwrite",
    "device",
    "threads",
    "compile",
    "eval_every",
    "trackers",
    "save",
    "data.workers",
    "data.root",
    "images",
    "cache",
    "teacher_digest",
    "rotation_digest",
    "engine.cuda_graphs",
    "engine.lost_seconds",
)

Found = tuple[Path, dict[str, Any]]


def require_there(resume: str) -> None:
    """Raise `ResumeError` if `resume` names a checkpoint, and there is none."""
    if resume not in ("no", "auto") and not (Path(resume) / STATE).is_file():
        raise ResumeError(
            f"resume is {shown(resume)}: it can be no, auto, or a checkpoint of the run, such as"
            " RUN/checkpoints/step-00000100"
        )


def find_checkpoint(config: TrainConfig, saves: Saves, resume: str) -> Found | None:
    """The checkpoint that `resume` means, with its state; None to start.

    Raises:
        ConfigError: there is a run, and it is neither to be resumed nor replaced.
        ResumeError: no such checkpoint, a damaged one, or one of a run with other settings.
    """
    if resume == "no":
        if (saves.all() or checkpoint_file(config.output).exists()) and not config.overwrite:
            raise ConfigError(
                f"{config.output} holds a finished or interrupted run: go on with resume auto, choose"
                " another output, or overwrite it"
            )
        return None
    found = saves.newest() if resume == "auto" else (Path(resume), read_state(Path(resume)))
    if found:
        # A run from before a setting was there had what is now its default.
        known = flat(as_plain(type(config)()), ".") | flat(found[1]["config"], ".")
        require_same_run(found[0], known, as_plain(config), found[1]["position"]["epoch"])
    return found


def more_epochs(saved: Mapping[str, Any], wanted: Mapping[str, Any], epoch: int) -> int:
    """By how many epochs a run can be prolonged as is asked, 0 for not at all.

    A constant course has the same learning rate at each step, however long it is; any other would have had
    other rates from the start. The warm-up must be as long as it was, or over.

    Args:
        saved: settings of the run by their joined names.
        wanted: settings that are asked for.
        epoch: where the run is.
    """
    before, now = saved["optim.epochs"], wanted["optim.epochs"]
    warmup = wanted["optim.warmup_epochs"]
    steady = wanted["optim.sched"] == "constant" and (
        warmup <= before / 5 or epoch + 1 >= min(warmup, now / 5)
    )
    return max(0, now - before) if steady else 0


def require_same_run(path: Path, saved: Mapping[str, Any], wanted: Mapping[str, Any], epoch: int) -> None:
    """Raise `ResumeError` listing the keys in which the configuration of a checkpoint differs.

    More epochs than before are no difference where the course of the learning rate permits them.
    """
    # As JSON has it, which knows no tuples.
    before, now = flat(saved, "."), flat(json.loads(json.dumps(wanted)), ".")
    names = [name for name in dict.fromkeys([*before, *now]) if not _is_free(name)]
    differing = [
        f"{name}: {before.get(name)} there, {now.get(name)} here"
        for name in names
        if before.get(name) != now.get(name)
    ]
    if more_epochs(before, now, epoch):
        differing = [line for line in differing if not line.startswith("optim.epochs: ")]
    if differing:
        listed = "\n  ".join(differing)
        if before["optim.epochs"] < now["optim.epochs"]:
            course = now["optim.sched"]
            listed += f"\n(with more epochs, {course} has other learning rates from the first step on; only"
            listed += " a run of optim.sched constant can be prolonged)"
        raise ResumeError(
            f"{path} is of a run with other settings; to start from its weights, give model.init and"
            f" another output:\n  {listed}"
        )


def _is_free(name: str) -> bool:
    return any(name == free or name.startswith(f"{free}.") for free in FREE)
