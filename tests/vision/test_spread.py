"""Several processes train what one trains."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from matmamba_vision.train import EngineConfig, fit, make_accelerator
from spread_runs import Losses, RandomBatches, prepared

PROGRAM = Path(__file__).parents[1] / "spread_runs.py"
STEPS = 4
# Sums over processes are taken in another order.
TOLERANCE = 1e-4


@pytest.fixture(scope="module")
def alone() -> tuple[list[dict[str, float]], dict[str, torch.Tensor]]:
    """Losses and weights of one process."""
    training, heard = prepared(EngineConfig(accumulate=2)), Losses()
    fit(training, RandomBatches(0, 1), heard)
    return heard.widths, training.kept_model().state_dict()


def spread(kind: str, output: Path) -> dict[str, Any]:
    launch = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2"]
    launch += ["--rdzv-backend", "c10d", "--rdzv-endpoint", "127.0.0.1:0"]
    subprocess.run([*launch, str(PROGRAM), kind, str(output)], check=True, timeout=300)
    return torch.load(output)


@pytest.mark.parametrize("kind", ["ddp", "fsdp"])
def test_two_processes_train_as_one(
    tmp_path: Path, kind: str, alone: tuple[list[dict[str, float]], dict[str, torch.Tensor]]
) -> None:
    """Copied or sharded; copies exchange gradients once for each step of three widths and two batches."""
    found = spread(kind, tmp_path / "found.pt")
    assert found["wrapped"] == {"ddp": "DistributedDataParallel", "fsdp": "FSDPTrainee"}[kind]
    for one, other in zip(found["widths"], alone[0], strict=True):
        assert one == pytest.approx(other, rel=TOLERANCE)
    for name, tensor in alone[1].items():
        torch.testing.assert_close(found["weights"][name], tensor, rtol=1e-2, atol=TOLERANCE)
    if kind == "ddp":
        buckets = set(found["exchanges"])
        assert len(found["exchanges"]) == STEPS * len(buckets)


def test_sharding_without_gpus_is_refused() -> None:
    with pytest.raises(ValueError, match=r"engine\.fsdp needs several processes with a GPU each"):
        make_accelerator(EngineConfig(fsdp=True), "cpu")
