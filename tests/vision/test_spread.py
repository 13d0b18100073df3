"""Several processes train what one trains."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from matmamba_vision.training import EngineConfig, fit, make_accelerator
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


@pytest.fixture(scope="module")
def spread(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with what came of two processes, by kind, and what was printed."""
    folder = tmp_path_factory.mktemp("spread")
    with (folder / "printed.txt").open("w") as printed:
        subprocess.run([sys.executable, str(PROGRAM), str(folder)], check=True, timeout=300, stdout=printed)
    return folder


@pytest.mark.parametrize("kind", ["ddp", "fsdp"])
def test_two_processes_train_as_one(
    spread: Path, kind: str, alone: tuple[list[dict[str, float]], dict[str, torch.Tensor]]
) -> None:
    """Copied or sharded; copies exchange gradients once for each step of three widths and two batches."""
    found = torch.load(spread / f"{kind}.pt")
    assert found["wrapped"] == {"ddp": "DistributedDataParallel", "fsdp": "FSDPTrainee"}[kind]
    for one, other in zip(found["widths"], alone[0], strict=True):
        assert one == pytest.approx(other, rel=TOLERANCE)
    for name, tensor in alone[1].items():
        torch.testing.assert_close(found["weights"][name], tensor, rtol=1e-2, atol=TOLERANCE)
    if kind == "ddp":
        buckets = set(found["exchanges"])
        assert len(found["exchanges"]) == STEPS * len(buckets)


@pytest.mark.skipif(torch.cuda.is_available(), reason="two processes would want two GPUs")
def test_two_processes_find_each_other_without_being_told_the_device(spread: Path) -> None:
    assert (spread / "printed.txt").read_text().count("16 (2 processes x 1 batches x 8)") == 1


def test_sharding_without_gpus_is_refused() -> None:
    with pytest.raises(ValueError, match=r"engine\.fsdp needs several processes with a GPU each"):
        make_accelerator(EngineConfig(fsdp=True), "cpu")
