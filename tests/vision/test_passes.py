"""Steps by captured passes are the steps that are launched eagerly."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from matmamba_vision import MatMamba
from matmamba_vision.training import (
    EngineConfig,
    NestedObjective,
    ObjectiveConfig,
    OptimConfig,
    Position,
    ScheduleConfig,
    Training,
    make_accelerator,
    prepare_training,
)
from matmamba_vision.training.loop import take_step
from matmamba_vision.training.passes import SHAPES, CapturedPass, EagerPass, make_pass
from small import SMALL, LabelledImages, play

STEPS = 6


def prepared(device: str, cuda_graphs: bool, kind: dict[str, Any], **settings: Any) -> Training:
    torch.manual_seed(0)
    model = MatMamba(**{**SMALL, **kind})
    objective = NestedObjective(
        ObjectiveConfig(teacher=settings.pop("teacher", "next")), model.embed_dim, model.num_classes
    )
    engine = EngineConfig(cuda_graphs=cuda_graphs, **settings.pop("engine", {}))
    accelerator = make_accelerator(engine, device)
    training = prepare_training(
        model,
        objective,
        OptimConfig(epochs=1, lr=1e-2),
        STEPS,
        engine=engine,
        accelerator=accelerator,
        **settings,
    )
    training.trainee.train()
    return training


def batches(sizes: list[int]) -> list[LabelledImages]:
    noise = torch.Generator().manual_seed(1)
    return [
        LabelledImages(torch.randn(size, 3, 16, 16, generator=noise), torch.arange(size) % 4)
        for size in sizes
    ]


def losses(training: Training, sizes: list[int]) -> list[dict[str, float]]:
    """Of each step, by width."""
    found = []
    for step, first in enumerate(range(0, len(sizes), training.settings.accumulate)):
        group = batches(sizes)[first : first + training.settings.accumulate]
        report = take_step(training, group, Position(step=step), 0.0)
        assert report is not None
        found.append(report.widths)
    return found


SETTINGS = [
    {},
    {"teacher": "largest", "schedule": ScheduleConfig("sandwich", between=1)},
    {"schedule": ScheduleConfig("one")},
    {"engine": {"accumulate": 2}},
]


@pytest.mark.parametrize("settings", SETTINGS, ids=str)
@pytest.mark.parametrize("kind", [{}, {"scan": "flip", "drop_path_rate": 0.5, "drop_rate": 0.2}], ids=str)
def test_a_captured_step_is_the_step(settings: dict[str, Any], kind: dict[str, Any]) -> None:
    """Losses and weights to the bit: dropout too, and batches of one shape more than is captured."""
    sizes = [4, 4, 3, 4, 2, 4]
    assert len({*sizes}) > SHAPES
    eager, captured = (prepared("cpu", False, kind, **dict(settings)) for _ in range(2))
    assert isinstance(eager.passes, EagerPass)
    captured.passes = CapturedPass(eager=captured.passes, capture=play)  # type: ignore[arg-type]
    assert losses(captured, sizes) == losses(eager, sizes)
    for (name, ours), theirs in zip(
        captured.trainee.named_parameters(), eager.trainee.parameters(), strict=True
    ):
        assert torch.equal(ours, theirs), name


def gradient_places(training: Training) -> list[int]:
    """Where in memory each parameter's gradient lies."""
    gradients = [parameter.grad for parameter in training.trainee.parameters()]
    return [gradient.data_ptr() for gradient in gradients if gradient is not None]


def test_gradients_stay_where_they_are() -> None:
    """A capture writes to their memory, so no step may leave it."""
    training = prepared("cpu", False, {})
    training.passes = CapturedPass(training.passes, play)  # type: ignore[arg-type]
    losses(training, [4])
    places = gradient_places(training)
    assert len(places) == len([*training.trainee.parameters()])
    losses(training, [4, 3, 2])
    assert places == gradient_places(training)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("settings", SETTINGS, ids=str)
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_cuda_graph_is_the_step(settings: dict[str, Any], precision: str) -> None:
    """Losses of some steps; a GPU adds up in another order from run to run."""
    engine = settings.get("engine", {}) | {"precision": precision}
    given = {**settings, "engine": engine}
    kind = {"scan": "flip", "drop_path_rate": 0.5, "head_dim": 8, "d_state": 16}
    eager, captured = (prepared("cuda", graphs, kind, **dict(given)) for graphs in (False, True))
    assert isinstance(captured.passes, CapturedPass)
    sizes = [4, 4, 3, 4, 2, 4]
    for ours, theirs in zip(losses(captured, sizes), losses(eager, sizes), strict=True):
        assert ours == pytest.approx(theirs, rel=1e-3 if precision == "fp32" else 3e-2)


def test_without_a_gpu_nothing_is_captured() -> None:
    training = prepared("cpu", True, {})
    assert isinstance(training.passes, EagerPass)
    assert isinstance(make_pass(training.trainee, training.accelerator, training.model, True), EagerPass)
