"""Data sets that tests make."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TypeAlias

import pytest
from matmamba_datasets import DataConfig, open_splits
from matmamba_datasets.prepare import Preparation, PrepareSettings

Prepare: TypeAlias = Callable[..., Preparation]


@pytest.fixture
def prepare(photos: Path, tmp_path: Path) -> Prepare:
    """Write the photos as several shards, into a folder of `tmp_path`."""

    def run(
        output: str = "shards",
        workers: int = 0,
        max_broken: float = 0.2,
        shard_mb: float = 0.015,
        **more: int,
    ) -> Preparation:
        splits = open_splits(DataConfig(name="folder", root=str(photos)))
        settings = PrepareSettings("folder", str(photos), 0.2, shard_mb, **more)
        preparation = Preparation(splits, settings, tmp_path / output, max_broken)
        preparation.run(workers, lambda images: None)
        return preparation

    return run


@pytest.fixture
def sharded(prepare: Prepare) -> Path:
    """The photos in several shards."""
    return prepare().output
