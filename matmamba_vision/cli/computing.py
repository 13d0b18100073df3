"""The flags that all commands share which compute, and where these show how far they are."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any

from matmamba_common.settings import CREW, Bounds

from .console import Console

# In a file or a pipe tables may be wide.
FILE_COLUMNS = 140


@dataclass
class NamedData:
    # By name: digits, folder, imagenet, shards, parquet, cifar10 or cifar100.
    name: str = ""
    # Its folder.
    root: str = ""


@dataclass
class Computing:
    # Images encoded at once.
    batch_size: Annotated[int, Bounds(least=1)] = 64
    # Processes that decode images.
    workers: Annotated[int, CREW] = 0
    # cpu, cuda, or auto for whichever is there.
    device: str = "auto"
    # Threads that encode and search; 0 for as many as there are.
    threads: Annotated[int, CREW] = 0
    # Seed of all that is left to chance.
    seed: Annotated[int, Bounds(least=0)] = 0
    # Print JSON instead of tables.
    json: bool = False

    def settings(self) -> dict[str, Any]:
        """All but `json`, as jobs take them."""
        return {name: value for name, value in vars(self).items() if name != "json"}

    def console(self) -> Console:
        """Where to show progress: beside JSON, so that a program can read that."""
        console = Console(stderr=self.json, highlight=False)
        if not console.is_terminal:
            console.width = max(console.width, FILE_COLUMNS)
        return console
