"""What the processes of a run, on however many machines, must have in common before it begins."""

from __future__ import annotations

import hashlib
import platform
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from accelerate import Accelerator
from accelerate.utils import broadcast_object_list
from matmamba_datasets import DataError, Images

from ..config_file import as_plain, flat
from ..errors import ConfigError, MatMambaError
from ..training import RunFolder, RunFolderError, everywhere
from .train_config import TrainConfig

# What may differ: where things lie on a machine, and how it computes. Anything else would have processes
# take other steps, or wait for each other for ever.
_OF_A_MACHINE = (
    "output",
    "overwrite",
    "device",
    "threads",
    "compile",
    "trackers",
    "cache",
    "images",
    "data.root",
    "data.cache",
    "data.workers",
)
# How long a file on a shared disk may need to be seen by all machines.
SEEN_SECONDS = 15.0
# Ids that are compared: an image too many or too few shifts all behind it, so that some tell enough.
MOST_IDS = 1_000_000
T = TypeVar("T")


def from_first(accelerator: Accelerator, find: Callable[[], T]) -> T:
    """What the first process finds, in all of them: disks may show others something older.

    Args:
        accelerator: of this process; all must ask.
        find: called in the first process alone.

    Raises:
        MatMambaError: what `find` raised; all of them raise it.
    """
    if accelerator.num_processes == 1:
        return find()
    found: list[tuple[Any, MatMambaError | None]] = [(None, None)]
    if accelerator.is_main_process:
        try:
            found = [(find(), None)]
        except MatMambaError as error:
            found = [(None, error)]
    broadcast_object_list(found)
    value, fault = found[0]
    if fault is not None:
        raise fault
    return value


def hold_folder(accelerator: Accelerator, output: Path) -> RunFolder | None:
    """The folder of a run, held by its first process; None in all others.

    Args:
        accelerator: of this process; all must ask.
        output: the folder, as this process names it.

    Raises:
        RunFolderError: it cannot be used, or some process has another folder of that name; all of them raise
            it.
    """
    held = list[RunFolder]()

    def take() -> str:
        held.append(RunFolder(output))
        return held[0].owner

    owner = from_first(accelerator, take)
    if accelerator.num_processes > 1:
        unseen = "" if held or _sees(output, owner) else _here(accelerator)
        blind = [place for place in everywhere(accelerator, unseen) if place]
        if blind:
            for folder in held:
                folder.release()
            raise RunFolderError(
                f"{output}: {blind[0]} has another folder of that name than {owner}: a run over several"
                " machines needs an output on a disk that all of them share"
            )
    return held[0] if held else None


def require_same_start(accelerator: Accelerator, config: TrainConfig, collections: Sequence[Images]) -> None:
    """See that all processes have the same settings and the same images; nothing to see in a run of one.

    Args:
        accelerator: of this process; all must ask.
        config: of the run.
        collections: images that all of them take their parts of.

    Raises:
        ConfigError: a setting differs; it is named.
        DataError: images differ.
    """
    if accelerator.num_processes == 1:
        return
    settings = _shared_settings(config)
    images = [[len(some), _digest(some)] for some in collections]
    first, *others = everywhere(accelerator, (_here(accelerator), settings, images))
    for place, theirs, seen in others:
        differing = [name for name in {**first[1], **theirs} if first[1].get(name) != theirs.get(name)]
        if differing:
            name = differing[0]
            raise ConfigError(
                f"{name} is {theirs.get(name)} for {place}, and {first[1].get(name)} for {first[0]}: give"
                " all processes of a run the same settings"
            )
        for ours, those in zip(first[2], seen, strict=True):
            if ours != those:
                raise DataError(
                    f"{place} sees {those[0]:,} images, and {first[0]} sees {ours[0]:,}, not the same ones:"
                    " give all machines of a run the same data set"
                )


def _sees(output: Path, owner: str) -> bool:
    """Whether the folder here is held by that owner, as soon as the disk shows it."""
    until = time.monotonic() + SEEN_SECONDS
    while True:
        if RunFolder.owner_of(output) == owner:
            return True
        if time.monotonic() > until:
            return False
        time.sleep(0.1)


def _here(accelerator: Accelerator) -> str:
    return f"process {accelerator.process_index} on {platform.node()}"


def _shared_settings(config: TrainConfig) -> Mapping[str, Any]:
    known = flat(as_plain(config), ".")
    return {name: value for name, value in known.items() if name not in _OF_A_MACHINE}


def _digest(images: Images) -> str:
    """SHA-256 of what an order of images depends on, and of which they are."""
    known = hashlib.sha256(repr((list(images.groups), images.classes)).encode(errors="surrogateescape"))
    known.update(np.ascontiguousarray(images.labels).tobytes())
    for index in range(0, len(images), -(-len(images) // MOST_IDS) or 1):
        known.update(images.ids[index].encode(errors="surrogateescape") + b"\n")
    return known.hexdigest()
