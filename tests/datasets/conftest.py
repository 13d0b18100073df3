"""Data sets that tests make."""

from __future__ import annotations

from pathlib import Path

import pytest
from matmamba_datasets import DataConfig, open_splits
from matmamba_datasets.prepare import Preparation, PrepareSettings


def prepare(photos: Path, output: Path, shard_mb: float = 0.015, workers: int = 0) -> Path:
    """Shards of a folder of images."""
    splits = open_splits(DataConfig(name="folder", root=str(photos)))
    settings = PrepareSettings("folder", str(photos), 0.2, shard_mb)
    Preparation(splits, settings, output, max_broken=0.2).run(workers, lambda images: None)
    return output


@pytest.fixture
def sharded(photos: Path, tmp_path: Path) -> Path:
    """The photos in several shards."""
    return prepare(photos, tmp_path / "shards")
