"""What nested training costs on a GPU, the batch on the device: see nested_cost.py.

Also what it gains to launch forward and backward of each width at once, as a CUDA graph. Needs Python, torch,
triton, timm and accelerate; the repository need not be installed. Writes results/nested_cost_gpu.json.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "datasets"), str(ROOT / "retrieval")]

import torch  # noqa: E402
from matmamba_datasets import Batch  # noqa: E402
from measuring import Case, Plan, Ratio, measure_case, run, timed  # noqa: E402
from nested_cost import Setting, nested_training, step_costs, whole_step  # noqa: E402

ROUNDS = 10
SETTINGS = (
    Setting("matmamba_small_patch16_224", 64, 224, "cuda", "bf16"),
    Setting("matmamba_mini_patch8_64", 512, 64, "cuda", "bf16"),
)


def main(arguments: Sequence[str] | None = None, settings: Sequence[Setting] = SETTINGS) -> None:
    """Measure, print and write."""
    run(__file__, __doc__, partial(cases, settings=settings), arguments)


def cases(plan: Plan, settings: Sequence[Setting]) -> Iterator[Case]:
    """For each model: against separate models, and graphs against kernels."""
    if settings[0].device == "cuda" and not torch.cuda.is_available():
        raise SystemExit("nested_cost_gpu.py: no GPU here: torch.cuda.is_available() is False")
    for setting in settings:
        batch = _batch(setting)
        known: dict[str, Any] = {"batch": setting.batch_size, "pixels": setting.pixels}
        known |= {"model": setting.model, "precision": setting.precision}
        name, own = setting.model.removeprefix("matmamba_").split("_")[0], plan.at_most(ROUNDS)
        yield step_costs(f"{name}, nested training", own, setting, partial(_itself, batch), known)
        yield _graphs(f"{name}, CUDA graphs", own, setting, batch, known)


def _batch(setting: Setting) -> Batch:
    shape = setting.batch_size, 3, setting.pixels, setting.pixels
    labels = torch.zeros(setting.batch_size, dtype=torch.int64, device=setting.device)
    return Batch(torch.randn(shape, device=setting.device), labels, labels, [], [])


def _itself(batch: Batch) -> Batch:
    return batch


def _graphs(name: str, plan: Plan, setting: Setting, batch: Batch, known: dict[str, Any]) -> Case:
    """Nested steps, kernel by kernel over graph by graph."""
    kinds = {"kernel by kernel": False, "CUDA graphs": True}
    trainings = {
        kind: nested_training(replace(setting, cuda_graphs=graphs), "all") for kind, graphs in kinds.items()
    }
    sides = {
        kind: timed(partial(whole_step, training, partial(_itself, batch)))
        for kind, training in trainings.items()
    }
    ratio = Ratio("kernel by kernel / CUDA graphs", "kernel by kernel", "CUDA graphs")
    return measure_case(name, sides, [ratio], plan, known)


if __name__ == "__main__":
    main()
