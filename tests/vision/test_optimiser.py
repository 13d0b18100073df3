"""Groups of parameters and the course of the learning rate."""

from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from matmamba_vision import MatMamba
from matmamba_vision.runs import TrainConfig, load_config
from matmamba_vision.runs.train_config import save_config
from matmamba_vision.training import (
    NestedObjective,
    ObjectiveConfig,
    OptimConfig,
    make_optimiser,
    make_scheduler,
)
from matmamba_vision.training.optimiser import COURSES, warmup_steps

PER_EPOCH = 10
CONFIG = OptimConfig(lr=1e-2, min_lr=1e-4, epochs=30, warmup_epochs=3, warmup_lr=1e-5)


@pytest.fixture
def objective(model: MatMamba) -> NestedObjective:
    return NestedObjective(ObjectiveConfig(mrl_dims=[4, 8]), model.embed_dim, model.num_classes)


def rates(config: OptimConfig, steps: list[int] | None = None) -> list[float]:
    """The learning rate of each step, asked for in the given order."""
    optimiser = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=config.lr)
    scheduler, found = make_scheduler(config, optimiser, PER_EPOCH), {}
    for step in range(config.epochs * PER_EPOCH) if steps is None else steps:
        scheduler.step_update(step)
        found[step] = optimiser.param_groups[0]["lr"]
    return [found[step] for step in sorted(found)]


@pytest.mark.parametrize("sched", COURSES)
def test_the_rate_is_a_function_of_the_step(sched: str) -> None:
    config = replace(CONFIG, sched=sched)
    shuffled = random.Random(0).sample(range(300), 300)
    assert rates(config, shuffled) == rates(config)


@pytest.mark.parametrize("sched", COURSES)
def test_a_course_warms_up_and_falls(sched: str) -> None:
    found = rates(replace(CONFIG, sched=sched))
    assert found[0] == CONFIG.warmup_lr
    assert found[:31] == sorted(found[:31])
    assert max(found) == pytest.approx(CONFIG.lr, rel=1e-3)
    assert found[30:] == sorted(found[30:], reverse=True)
    if sched == "constant":
        assert {*found[30:]} == {CONFIG.lr}
    elif sched == "step":
        assert found[119:121] + found[209:211] == pytest.approx([1e-2, 1e-3, 1e-3, 1e-4])
    else:
        assert found[-1] == pytest.approx(CONFIG.min_lr, rel=0.5)


def test_the_middle_of_each_course_is_its_own() -> None:
    """Half-way behind the warm-up: (1 + cos(pi / 2)) / 2, 1 / 2, and 1 / 4 of the way from min_lr to lr."""
    shares = {
        sched: (rates(replace(CONFIG, sched=sched))[165] - 1e-4) / (1e-2 - 1e-4)
        for sched in ("cosine", "linear", "poly")
    }
    assert shares == pytest.approx({"cosine": 0.5, "linear": 0.5, "poly": 0.25})


def test_the_run_ends_in_a_cool_down() -> None:
    found = rates(replace(CONFIG, sched="linear", cooldown_epochs=5.5))
    assert found[244] > CONFIG.min_lr
    assert {*found[245:]} == {CONFIG.min_lr}


def test_the_warm_up_takes_a_fifth_of_the_run_at_most() -> None:
    assert warmup_steps(CONFIG, PER_EPOCH) == 30
    assert warmup_steps(replace(CONFIG, warmup_epochs=20), PER_EPOCH) == 60
    assert warmup_steps(replace(CONFIG, epochs=1), 3) == 0


@pytest.mark.parametrize("epochs", [1, 2])
@pytest.mark.parametrize("sched", COURSES)
def test_short_runs_have_a_course_too(epochs: int, sched: str) -> None:
    optimiser = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1e-2)
    scheduler = make_scheduler(replace(CONFIG, epochs=epochs, sched=sched), optimiser, 1)
    scheduler.step_update(0)
    assert optimiser.param_groups[0]["lr"] == pytest.approx(1e-2)


def test_layer_decay_scales_rates_towards_the_patches(model: MatMamba, objective: NestedObjective) -> None:
    config = replace(CONFIG, layer_decay=0.5, warmup_epochs=0)
    optimiser = make_optimiser(config, model, objective)
    make_scheduler(config, optimiser, PER_EPOCH).step_update(0)
    rate = {id(p): group["lr"] for group in optimiser.param_groups for p in group["params"]}
    named = [model.head.weight, objective.prefix_heads[0].weight]
    named += [block.mixer.out for block in model.stack[::-1]]
    named += [model.patch_embed.proj.weight, model.pos_embed]
    shares = [rate[id(tensor)] / config.lr for tensor in named]
    assert shares == pytest.approx([1, 1, 0.5, 0.25, 0.125, 0.0625, 0.0625])


@pytest.mark.parametrize("layer_decay", [None, 0.75])
def test_only_matrices_are_decayed(
    model: MatMamba, objective: NestedObjective, layer_decay: float | None
) -> None:
    config = replace(CONFIG, layer_decay=layer_decay, betas=(0.8, 0.9))
    optimiser = make_optimiser(config, model, objective)
    decay = {id(p): group["weight_decay"] for group in optimiser.param_groups for p in group["params"]}
    assert {group["betas"] for group in optimiser.param_groups} == {(0.8, 0.9)}
    mixer, classifier = model.stack[0].mixer, objective.prefix_heads[1]
    for tensor in (mixer.out, mixer.in_x, model.head.weight, classifier.weight):
        assert decay[id(tensor)] == config.weight_decay
    for tensor in (mixer.norm, mixer.A_log, model.pos_embed, model.head.bias, classifier.bias):
        assert decay[id(tensor)] == 0
    assert len(decay) == len([*model.parameters(), *objective.parameters()])


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ({"sched": "plateau"}, "optim.sched 'plateau' is none of cosine"),
        ({"sched": "step", "cooldown_epochs": 1}, "optim.cooldown_epochs 1: step"),
        ({"cooldown_epochs": 16}, "optim.cooldown_epochs 16: .*30 epochs"),
        ({"opt": "sgd", "betas": (0.9, 0.99)}, "optimiser 'sgd' has no betas"),
    ],
)
def test_what_cannot_be_is_named(
    model: MatMamba, objective: NestedObjective, config: dict[str, Any], said: str
) -> None:
    changed = replace(CONFIG, **config)
    with pytest.raises(ValueError, match=said):
        make_scheduler(changed, make_optimiser(changed, model, objective), PER_EPOCH)


def test_a_pair_of_betas_is_saved_and_loaded(tmp_path: Path) -> None:
    config = TrainConfig(optim=replace(CONFIG, betas=(0.9, 0.95), layer_decay=0.7))
    save_config(config, tmp_path / "config.yaml")
    assert load_config(tmp_path / "config.yaml") == config
