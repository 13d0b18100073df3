"""Some steps of training in several processes: a program for vision/test_spread.py.

    python spread_runs.py FOLDER

trains copies of a model (ddp) and a sharded one (fsdp), in two processes each that are forked from this one.
Accelerate shards on GPUs only; here it is made to do so on the CPU. Writes losses, weights and how often
gradients were exchanged to FOLDER/ddp.pt and FOLDER/fsdp.pt. Without a GPU, prints what two processes of
`matmamba train` would do.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import interpreter  # noqa: F401
import torch
from accelerate.state import AcceleratorState
from accelerate.utils import DistributedType, FullyShardedDataParallelPlugin
from forked_ranks import run_ranks
from matmamba_vision import MatMamba
from matmamba_vision.cli.main import main as command
from matmamba_vision.training import (
    EngineConfig,
    Hooks,
    NestedObjective,
    ObjectiveConfig,
    OptimConfig,
    Position,
    StepReport,
    Training,
    end_training,
    fit,
    make_accelerator,
    prepare_training,
)
from small import SMALL, LabelledImages
from torch.distributed.algorithms.ddp_comm_hooks.default_hooks import allreduce_hook

BATCHES, IMAGES = 4, 4  # in an epoch; in each batch, over all processes


class RandomBatches:
    """The part of each batch that one of several processes takes."""

    def __init__(self, rank: int, ranks: int) -> None:
        self.rank, self.ranks = rank, ranks

    def __len__(self) -> int:
        return BATCHES

    def batches(self, epoch: int, first: int = 0) -> Iterator[LabelledImages]:
        for index in range(first, BATCHES):
            chance = torch.Generator().manual_seed(100 * epoch + index)
            images = torch.randn(IMAGES, 3, 16, 16, generator=chance)
            labels = torch.randint(5, (IMAGES,), generator=chance)
            own = slice(self.rank * IMAGES // self.ranks, (self.rank + 1) * IMAGES // self.ranks)
            yield LabelledImages(images[own], labels[own])


class Losses(Hooks):
    """Keeps the losses of each step."""

    def __init__(self) -> None:
        self.widths: list[dict[str, float]] = []

    def on_step(self, report: StepReport, position: Position) -> None:
        self.widths.append(report.widths)


def prepared(engine: EngineConfig) -> Training:
    """The same small model in training, in however many processes."""
    torch.manual_seed(0)
    # The last width skips a block.
    model = MatMamba(**SMALL, trained_widths=("full", "1/2", "8-0-4"))
    objective = NestedObjective(ObjectiveConfig(), model.embed_dim, model.num_classes)
    accelerator = make_accelerator(engine, "cpu")
    return prepare_training(
        model, objective, OptimConfig(epochs=2), BATCHES, engine=engine, accelerator=accelerator
    )


def shard_on_cpu() -> None:
    """Let Accelerate shard without a GPU."""
    initialise = AcceleratorState.__init__

    def sharding(self: AcceleratorState, *args: object, **known: object) -> None:
        initialise(self, *args, **known)
        self.distributed_type = DistributedType.FSDP
        self.fsdp_plugin = FullyShardedDataParallelPlugin(
            fsdp_version=2, auto_wrap_policy="transformer_based_wrap", transformer_cls_names_to_wrap=["Block"]
        )

    AcceleratorState.__init__ = sharding


def train_some_steps(kind: str, output: Path) -> None:
    """Train, and let the first process write what came of it."""
    if kind == "fsdp":
        shard_on_cpu()
    training, heard, exchanges = prepared(EngineConfig(accumulate=2, fsdp=kind == "fsdp")), Losses(), []
    if kind == "ddp":
        # Without annotations, which torch would compare as text.
        def counted(group, bucket):  # type: ignore[no-untyped-def]
            exchanges.append(bucket.index())
            return allreduce_hook(group, bucket)

        distributed: Any = training.trainee
        distributed.register_comm_hook(None, counted)
    fit(training, RandomBatches(training.rank, training.ranks), heard)
    weights = training.kept_model().state_dict()
    if training.rank == 0:
        wrapped = type(training.trainee).__name__
        found = {"widths": heard.widths, "weights": weights, "exchanges": exchanges, "wrapped": wrapped}
        torch.save(found, output)
    end_training(training.accelerator)


def plan_a_run() -> None:
    """By the command, which is not told a device."""
    assert command(["train", "--dry-run", "--data.batch-size", "8"]) == 0


def main() -> None:
    """Both kinds, two processes each."""
    torch.set_num_threads(1)
    for kind in ("ddp", "fsdp"):
        run_ranks(partial(train_some_steps, kind, Path(sys.argv[1]) / f"{kind}.pt"), (1, 2))
    # Two processes would want two GPUs.
    if not torch.cuda.is_available():
        run_ranks(plan_a_run, (1, 2))


if __name__ == "__main__":
    main()
