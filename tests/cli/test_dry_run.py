"""What a run says before it begins."""

from __future__ import annotations

import copy
import io
from dataclasses import replace
from typing import Any

import pytest
import torch
from matmamba_vision import MatMamba
from matmamba_vision.cli.train_command import plan_tables
from matmamba_vision.measures import count_macs, count_parameters
from matmamba_vision.measures.memory import measure_training_memory
from matmamba_vision.runs import Workload
from matmamba_vision.runs.dry_run import activation_bytes, describe_run, optimiser_bytes
from matmamba_vision.training import NestedObjective, ObjectiveConfig, OptimConfig, make_optimiser
from rich.console import Console

WORK = Workload(
    model="a model",
    data="photos",
    images=1234,
    held_out=56,
    batch_size=8,
    steps_per_epoch=38,
    widths="full and a random one",
    processes=2,
    accumulation=2,
)
CONFIG = OptimConfig(epochs=10, warmup_epochs=1, lr=2e-3, min_lr=1e-5, layer_decay=0.75)


def optimiser_of(model: MatMamba, config: OptimConfig = CONFIG) -> torch.optim.Optimizer:
    objective = NestedObjective(ObjectiveConfig(mrl_dims=[4]), model.embed_dim, model.num_classes)
    return make_optimiser(config, model, objective)


def said(model: MatMamba, config: OptimConfig = CONFIG) -> str:
    console = Console(file=io.StringIO(), width=200)
    console.print(plan_tables(describe_run(WORK, config, model, optimiser_of(model, config))))
    return console.file.getvalue()  # type: ignore[attr-defined]


def test_it_says_what_would_happen(model: MatMamba) -> None:
    text = said(model)
    for width in model.trained_widths:
        row = next(line for line in text.splitlines() if f" {model.label(width)} " in line)
        assert f" {count_parameters(model, width):,} " in row
        assert f" {count_macs(model, width) / 1e6:,.1f} " in row
    for part in (
        "a model, images of 3 x 16 x 16",
        "photos: 1,234 images, 56 held out, 5 classes",
        "full and a random one",
        "32 (2 processes x 2 batches x 8)",
        "10 epochs x 38 = 380",
        "adamw, weight decay 0.05",
        "from 1e-06 to 0.002 in 38 steps, then cosine to 1",
        "times 0.75 for each block further down",
        "measured on 2 and 4 images, scaled to 8",
    ):
        assert part in text, part
    assert "from 0.002 linear to" in said(model, replace(CONFIG, sched="linear", warmup_epochs=0))


@pytest.mark.parametrize(("opt", "tensors"), [("adamw", 2), ("momentum", 1), ("lion", 1)])
def test_the_optimiser_s_memory_is_what_it_keeps(model: MatMamba, opt: str, tensors: int) -> None:
    optimiser = optimiser_of(model, OptimConfig(opt=opt))
    weights = [tensor for group in optimiser.param_groups for tensor in group["params"]]
    found = optimiser_bytes(optimiser)
    # Adam counts its steps besides, in 4 bytes for each parameter.
    assert 0 <= found - tensors * sum(tensor.nbytes for tensor in weights) <= 4 * len(weights)
    assert not optimiser.state


@pytest.mark.parametrize("checkpointing", [False, True])
def test_small_batches_tell_the_memory_of_large_ones(model: MatMamba, checkpointing: bool) -> None:
    model.set_grad_checkpointing(checkpointing)
    assert activation_bytes(model, 24) == pytest.approx(measure_training_memory(model, 24), rel=0.02)


def test_memory_holds_what_autograd_saves(model: MatMamba) -> None:
    """What is saved for the backward pass is a lower bound, and recomputing it instead needs less."""
    saved: dict[int, torch.UntypedStorage] = {}
    own = {tensor.untyped_storage().data_ptr() for tensor in model.parameters()}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            saved[storage.data_ptr()] = storage
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        loss = model(model.random_images(8)).square().mean()
    kept = sum(storage.nbytes() for storage in saved.values()) - model.random_images(8).nbytes
    whole = measure_training_memory(model, 8)
    assert 0.9 * kept < whole < 3 * kept
    loss.backward()
    model.zero_grad()
    model.set_grad_checkpointing()
    assert measure_training_memory(model, 8) < 0.7 * whole


def test_describing_changes_nothing(model: MatMamba) -> None:
    model.stack[0].proj_drop.p = 0.5
    optimiser, before = optimiser_of(model), copy.deepcopy(model.state_dict())
    groups: list[dict[str, Any]] = copy.deepcopy(optimiser.state_dict()["param_groups"])
    random, training = torch.get_rng_state(), model.training
    describe_run(WORK, CONFIG, model, optimiser)
    assert torch.equal(torch.get_rng_state(), random)
    assert optimiser.state_dict() == {"state": {}, "param_groups": groups}
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert all(tensor.grad is None for tensor in model.parameters())
    assert model.training == training
