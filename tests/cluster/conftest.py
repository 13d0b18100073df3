"""One Ray on this machine for all tests that need one, and what they index."""

from __future__ import annotations

import logging
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from matmamba_vision import save_checkpoint
from matmamba_vision.cluster.ray_cluster import QUIET, STORE_BYTES
from small import create


# No longer than its tests: its processes take time of the others'.
@pytest.fixture(scope="module")
def cluster() -> Iterator[str]:
    """The address of a Ray with two cores, whatever this machine has; this process is connected to it."""
    # Here, because it takes long.
    import ray

    places = (Path(__file__).parents[2] / place for place in ("", "datasets", "retrieval", "tests"))
    os.environ |= QUIET | {"PYTHONPATH": os.pathsep.join(map(str, places))}
    before = signal.getsignal(signal.SIGTERM)
    context: Any = ray.init(
        address="local", num_cpus=2, num_gpus=0, object_store_memory=STORE_BYTES, include_dashboard=False,
        log_to_driver=False, logging_level=logging.ERROR,
    )  # fmt: skip
    # Ray leaves a handler of its own: processes forked from this one would have it, and lose a signal that
    # comes while they start.
    signal.signal(signal.SIGTERM, before)
    yield context.address_info["gcs_address"]
    ray.shutdown()


@pytest.fixture
def place(tmp_path: Path, photos: Path) -> Path:
    """Photos, one of them broken, what is known about them, and a model with random weights."""
    (photos / "bright" / "03.jpg").write_bytes(b"no image")
    (photos / "dark" / "notes.txt").write_text("hello")
    lines = [
        f"{file.relative_to(photos).as_posix()},{2000 + len(file.name)}" for file in photos.rglob("*.png")
    ]
    (tmp_path / "known.csv").write_text("\n".join(["id,year", *sorted(lines)]))
    torch.manual_seed(0)
    model = create(
        "matmamba_nano_patch4_32", img_size=16, num_classes=2,
        pretrained_cfg_overlay={"input_size": (3, 16, 16)},
    )  # fmt: skip
    save_checkpoint(tmp_path / "model", model.eval(), ("bright", "dark"))
    return tmp_path
