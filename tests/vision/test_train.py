"""The objective and the loop."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
import torch
from matmamba_vision import MatMamba
from matmamba_vision.training import (
    EngineConfig,
    Hooks,
    MixConfig,
    NestedObjective,
    ObjectiveConfig,
    OptimConfig,
    Position,
    ScheduleConfig,
    StepReport,
    Training,
    WidthSchedule,
    fit,
    make_accelerator,
    make_optimiser,
    prepare_training,
)
from matmamba_vision.training.loop import accumulate
from matmamba_vision.training.objective import alignment, distillation
from small import SMALL
from small import LabelledImages as Batch
from torch.nn import functional as F

PLAIN = ObjectiveConfig(mrl=0, distillation=0, alignment=0, label_smoothing=0, mrl_dims=[4, 8, 64])
LABELS = torch.tensor([0, 1, 2, 3])


class Loader(list[Batch]):
    """The same batches in each epoch."""

    def batches(self, epoch: int, first: int = 0) -> Iterator[Batch]:
        return iter(self[first:])


class Listener(Hooks):
    """Keeps what the loop says."""

    def __init__(self) -> None:
        self.reports: list[StepReport] = []
        self.epochs: list[int] = []

    def on_step(self, report: StepReport, position: Position) -> None:
        self.reports.append(report)

    def on_epoch(self, position: Position) -> None:
        self.epochs.append(position.epoch)


def train(
    model: MatMamba,
    objective: NestedObjective,
    loader: list[Batch],
    config: OptimConfig,
    **settings: Any,
) -> Listener:
    listener = Listener()
    training = prepare_training(model, objective, config, len(loader), **on_cpu(settings))
    fit(training, Loader(loader), listener)
    return listener


def on_cpu(settings: dict[str, Any]) -> dict[str, Any]:
    accelerator = make_accelerator(settings.get("engine", EngineConfig()), "cpu")
    return {**settings, "accelerator": accelerator}


def gradients(
    model: MatMamba, objective: NestedObjective, batches: list[Batch], step: int = 0, **settings: Any
) -> list[torch.Tensor]:
    """Of the model's parameters, as a step sees them."""
    training = prepare_training(model, objective, OptimConfig(), 1, **on_cpu(settings))
    accumulate(training, batches, step)
    found = [tensor.grad.clone() for tensor in model.parameters() if tensor.grad is not None]
    assert len(found) == len([*model.parameters()])
    training.optimiser.zero_grad()
    return found


@pytest.mark.parametrize(
    "kind",
    [
        {"scan": "flip", "mean_token": True, "reg_tokens": 1, "bias": True},
        {"scan": "bidirectional", "heads_per_group": 2},
        {"attention_blocks": [1], "mlp_ratio": 2.0},
        {"attention_blocks": [0, 1, 2], "mlp_ratio": 2.0, "nested_attention": False},
        {"trained_widths": ("full",)},
        {"trained_widths": ("full", "8-0-4", "1/2:1/2", "1/8")},
    ],
    ids=str,
)
def test_every_kind_of_model_is_trained_alike(kind: dict[str, Any], images: torch.Tensor) -> None:
    """All trained widths learn four images by heart, by the same objective."""
    torch.manual_seed(0)
    model = MatMamba(**SMALL, **kind)
    objective = NestedObjective(ObjectiveConfig(label_smoothing=0), model.embed_dim, model.num_classes)
    train(model, objective, [Batch(images, LABELS)], OptimConfig(epochs=20, lr=2e-2, warmup_epochs=0))
    with torch.no_grad():
        for width in model.trained_widths:
            assert torch.equal(model.eval()(images, width).argmax(1), LABELS), model.label(width)


def mean_gradients(model: MatMamba, batch: Batch, shares: dict[str, float]) -> list[torch.Tensor]:
    """Of a weighted sum of plain cross-entropies, all widths in one backward pass."""
    losses = [
        share * F.cross_entropy(model(batch.images, width=width), batch.labels)
        for width, share in shares.items()
    ]
    return list(torch.autograd.grad(torch.stack(losses).sum(), [*model.parameters()]))


def assert_equal_lists(found: list[torch.Tensor], wanted: list[torch.Tensor]) -> None:
    for one, other in zip(found, wanted, strict=True):
        torch.testing.assert_close(one, other)


def test_gradients_are_those_of_the_mean_over_widths(model: MatMamba, images: torch.Tensor) -> None:
    objective, batch = NestedObjective(PLAIN, model.embed_dim, model.num_classes), Batch(images, LABELS)
    wanted = mean_gradients(model, batch, dict.fromkeys(("full", "1/2", "1/4", "1/8"), 0.25))
    assert_equal_lists(gradients(model, objective, [batch]), wanted)
    # Two halves of a batch are the batch.
    halves = [Batch(images[:2], LABELS[:2]), Batch(images[2:], LABELS[2:])]
    assert_equal_lists(gradients(model, objective, halves, engine=EngineConfig(accumulate=2)), wanted)


def test_gradients_weigh_widths_as_they_are_told(model: MatMamba, images: torch.Tensor) -> None:
    objective = NestedObjective(replace(PLAIN, width_weights=[3, 0, 1, 4]), 32, model.num_classes)
    wanted = mean_gradients(model, Batch(images, LABELS), {"full": 3 / 8, "1/4": 1 / 8, "1/8": 4 / 8})
    assert_equal_lists(gradients(model, objective, [Batch(images, LABELS)]), wanted)


def test_gradients_of_the_published_schedule_are_those_of_its_widths(
    model: MatMamba, images: torch.Tensor
) -> None:
    """One width for each of four batches, whose gradients are added before the step."""
    objective = NestedObjective(PLAIN, model.embed_dim, model.num_classes)
    batches = [Batch(images[index : index + 1], LABELS[index : index + 1]) for index in range(4)]
    found = gradients(
        model,
        objective,
        batches,
        schedule=ScheduleConfig("published"),
        engine=EngineConfig(accumulate=4),
    )
    parts = [
        mean_gradients(model, batch, {width: 0.25})
        for batch, width in zip(batches, ("full", "1/2", "1/4", "1/8"), strict=True)
    ]
    assert_equal_lists(found, [torch.stack(part).sum(0) for part in zip(*parts, strict=True)])


@pytest.mark.parametrize("kind", ["all", "sandwich", "one", "published"])
def test_schedules_are_functions_of_the_step(model: MatMamba, kind: str) -> None:
    first, second = (
        WidthSchedule(ScheduleConfig(kind, between=1), model.trained_widths, seed=3, accumulate=4)
        for _ in range(2)
    )
    forwards = [first.widths(step, batch) for step in range(40) for batch in range(4)]
    backwards = [second.widths(step, batch) for step in reversed(range(40)) for batch in reversed(range(4))]
    assert forwards == backwards[::-1]
    seen = {width for widths in forwards for width in widths}
    assert seen == set(model.trained_widths)
    trained, sizes = model.trained_widths, {len(widths) for widths in forwards}
    assert sizes == {"all": {4}, "sandwich": {3}, "one": {1}, "published": {1}}[kind]
    if kind == "sandwich":
        assert all(widths[0] == trained[0] and widths[-1] == trained[-1] for widths in forwards)
    if kind == "published":
        assert forwards[:8] == [(width,) for width in trained] * 2
    other = WidthSchedule(ScheduleConfig(kind, between=1), trained, seed=4, accumulate=4)
    drawn = [other.widths(step, batch) for step in range(40) for batch in range(4)]
    assert (drawn != forwards) == (kind in ("sandwich", "one"))


def test_a_schedule_that_cannot_work_is_refused(model: MatMamba) -> None:
    with pytest.raises(ValueError, match=r"schedule\.kind 'half' is none of all, sandwich, one, published"):
        WidthSchedule(ScheduleConfig("half"), model.trained_widths)
    with pytest.raises(ValueError, match=r"engine\.accumulate is 3, not a multiple of the 4"):
        WidthSchedule(ScheduleConfig("published"), model.trained_widths, accumulate=3)


def test_all_widths_of_a_step_see_the_same_mixed_images(model: MatMamba, images: torch.Tensor) -> None:
    """And the batch itself stays as it was."""
    seen: list[tuple[torch.Tensor, torch.Tensor]] = []

    class Watching(NestedObjective):
        def forward(self, model: Any, images: Any, labels: Any, *others: Any) -> Any:
            seen.append((images, labels))
            return super().forward(model, images, labels, *others)

    before, objective = images.clone(), Watching(ObjectiveConfig(), model.embed_dim, model.num_classes)
    settings = {"mix": MixConfig(mixup=1.0, cutmix=1.0)}
    reports = train(model, objective, [Batch(images, LABELS)], OptimConfig(epochs=1), **settings).reports
    assert len(seen) == 4
    assert all(torch.equal(images, seen[0][0]) and torch.equal(labels, seen[0][1]) for images, labels in seen)
    assert torch.equal(images, before)
    assert not torch.equal(seen[0][0], before)
    assert seen[0][1].shape == (4, 5)
    torch.testing.assert_close(seen[0][1].sum(1), torch.ones(4))
    assert [*reports[0].widths] == ["full", "1/2", "1/4", "1/8"]


def test_checkpointed_activations_give_the_same_gradients_at_all_widths(
    model: MatMamba, images: torch.Tensor
) -> None:
    objective = NestedObjective(ObjectiveConfig(), model.embed_dim, model.num_classes)
    plain = gradients(model, objective, [Batch(images, LABELS)])
    model.set_grad_checkpointing()
    assert_equal_lists(gradients(model, objective, [Batch(images, LABELS)]), plain)


def test_bfloat16_trains_all_widths(model: MatMamba, images: torch.Tensor) -> None:
    losses = {}
    for precision in ("fp32", "bf16"):
        torch.manual_seed(0)
        model = MatMamba(**SMALL)
        objective = NestedObjective(ObjectiveConfig(), model.embed_dim, model.num_classes)
        settings = {"engine": EngineConfig(precision=precision)}
        losses[precision] = train(
            model, objective, [Batch(images, LABELS)] * 5, OptimConfig(epochs=2), **settings
        )
    for one, other in zip(losses["fp32"].reports, losses["bf16"].reports, strict=True):
        assert one.widths == pytest.approx(other.widths, rel=0.05)
        assert one.widths != other.widths
    with pytest.raises(ValueError, match="fp16 needs a GPU"):
        make_accelerator(EngineConfig(precision="fp16"), "cpu")
    with pytest.raises(ValueError, match=r"engine\.precision 'fp8' is none of fp32, bf16, fp16"):
        make_accelerator(EngineConfig(precision="fp8"), "cpu")


def test_the_moving_average_follows_the_weights(model: MatMamba, images: torch.Tensor) -> None:
    objective = NestedObjective(ObjectiveConfig(), model.embed_dim, model.num_classes)
    before = model.get_parameter("head.weight").detach().clone()
    training = prepare_training(model, objective, OptimConfig(epochs=3, ema=0.5), 2, **on_cpu({}))
    fit(training, Loader([Batch(images, LABELS)] * 2), Hooks())
    kept = training.kept_model()
    assert kept is not model
    kept_weight, weight = (one.get_parameter("head.weight") for one in (kept, model))
    assert (kept_weight - before).norm() < (weight - before).norm()
    assert not torch.equal(kept_weight, before)


def test_a_run_goes_on_from_any_position(images: torch.Tensor) -> None:
    """With the weights that it had there, the losses are those of the unbroken run."""
    loader = Loader([Batch(images + index, LABELS) for index in range(3)])

    class Snapshots(Listener):
        def __init__(self, training: Training) -> None:
            super().__init__()
            self.training, self.kept = training, dict[Position, Any]()

        def on_step(self, report: StepReport, position: Position) -> None:
            super().on_step(report, position)
            states = (self.training.trainee.state_dict(), self.training.optimiser.state_dict())
            self.kept[position] = copy.deepcopy(states)

    def prepared() -> Training:
        torch.manual_seed(0)
        model = MatMamba(**SMALL, drop_path_rate=0.3)
        objective = NestedObjective(ObjectiveConfig(), model.embed_dim, model.num_classes)
        settings = {"schedule": ScheduleConfig("one"), "mix": MixConfig(mixup=0.5), "seed": 7}
        return prepare_training(model, objective, OptimConfig(epochs=2), len(loader), **on_cpu(settings))

    training = prepared()
    unbroken = Snapshots(training)
    fit(training, loader, unbroken)
    assert [*unbroken.kept][:4] == [
        Position(0, 1, 1),
        Position(0, 2, 2),
        Position(0, 3, 3),
        Position(1, 1, 4),
    ]
    for position, (weights, state) in [*unbroken.kept.items()][:5]:
        training, rest = prepared(), Listener()
        training.trainee.load_state_dict(weights)
        training.optimiser.load_state_dict(state)
        fit(training, loader, rest, position)
        wanted = [replace(report, data_seconds=0, compute_seconds=0) for report in unbroken.reports]
        found = [replace(report, data_seconds=0, compute_seconds=0) for report in rest.reports]
        assert found == wanted[position.step :]


def test_each_term_is_what_it_says(model: MatMamba, images: torch.Tensor) -> None:
    config = replace(PLAIN, mrl=2.0, distillation=3.0, alignment=4.0, temperature=2.0)
    objective = NestedObjective(config, model.embed_dim, model.num_classes)
    full, half = model.trained_widths[:2]
    terms, teacher = objective(model, images, LABELS, full, None)
    assert set(terms) == {"cross_entropy", "mrl"}
    assert not teacher.logits.requires_grad
    assert not teacher.embedding.requires_grad
    terms, next_teacher = objective(model, images, LABELS, half, teacher)
    largest = NestedObjective(replace(config, teacher="largest"), model.embed_dim, model.num_classes)
    assert torch.equal(largest(model, images, LABELS, half, teacher)[1].logits, teacher.logits)
    pooled = model.forward_head(model.forward_features(images, half), pre_logits=True)
    prefixes = [
        F.cross_entropy(head(pooled[:, :dim]), LABELS)
        for head, dim in zip(objective.prefix_heads, (4, 8), strict=True)
    ]
    log_teacher, log_student = (
        F.log_softmax(logits / 2, -1) for logits in (teacher.logits, model.head(pooled))
    )
    divergence = (log_teacher.exp() * (log_teacher - log_student)).sum(-1).mean()
    torch.testing.assert_close(terms["mrl"], 2 * torch.stack(prefixes).mean())
    torch.testing.assert_close(terms["distillation"], 3 * 4 * divergence)
    cosines = [F.cosine_similarity(pooled[:, :dim], teacher.embedding[:, :dim]).mean() for dim in (4, 8, 32)]
    torch.testing.assert_close(terms["alignment"], 4 * (1 - torch.stack(cosines).mean()))
    assert torch.equal(next_teacher.embedding, teacher.embedding)
    assert torch.equal(next_teacher.logits, model.head(pooled).detach())


def test_terms_vanish_where_there_is_nothing_to_learn() -> None:
    same = torch.randn(3, 5)
    assert distillation(same, same, 1.0).abs() < 1e-6
    assert alignment(same, 7 * same, [2, 5]).abs() < 1e-6


def test_prefix_classifiers_are_trained_but_not_part_of_the_model(model: MatMamba) -> None:
    objective = NestedObjective(ObjectiveConfig(mrl_dims=[4]), model.embed_dim, model.num_classes)
    optimiser = make_optimiser(OptimConfig(), model, objective)
    held = {id(tensor) for group in optimiser.param_groups for tensor in group["params"]}
    assert held == {id(tensor) for module in (model, objective) for tensor in module.parameters()}
    assert not {id(tensor) for tensor in model.parameters()} & {
        id(tensor) for tensor in objective.parameters()
    }


def test_the_loop_learns_at_every_width(model: MatMamba) -> None:
    """Classes differ in brightness; after some steps all widths tell most of them apart."""
    torch.manual_seed(0)
    labels = torch.arange(32) % 4
    batch = Batch(torch.randn(32, 3, 16, 16) * 0.3 + labels[:, None, None, None], labels)
    objective = NestedObjective(ObjectiveConfig(mrl_dims=[4]), model.embed_dim, model.num_classes)
    heard = train(model, objective, [batch], OptimConfig(lr=1e-2, epochs=60, warmup_epochs=2))
    reports = heard.reports
    assert heard.epochs == list(range(60))
    assert [report.step for report in reports] == list(range(60))
    assert reports[-1].loss < 0.6 * reports[0].loss
    assert max(report.lr for report in reports) == pytest.approx(1e-2, rel=0.02)
    assert reports[-1].lr < 1e-3
    model.eval()
    for width in model.trained_widths:
        assert (model(batch.images, width=width).argmax(-1) == labels).float().mean() > 0.7


def test_the_same_seed_gives_the_same_losses(images: torch.Tensor) -> None:
    runs = []
    for _ in range(2):
        torch.manual_seed(3)
        model = MatMamba(
            img_size=16, patch_size=4, num_classes=5, embed_dim=16, depth=2, num_heads=8, head_dim=2
        )
        objective = NestedObjective(ObjectiveConfig(), 16, 5)
        reports = train(model, objective, [Batch(images, LABELS)] * 3, OptimConfig(epochs=2)).reports
        runs.append([replace(report, data_seconds=0, compute_seconds=0) for report in reports])
    assert runs[0] == runs[1]


def test_a_loss_that_is_not_finite_stops_with_step_width_and_images(
    model: MatMamba, images: torch.Tensor
) -> None:
    """Before it reaches the weights."""
    objective = NestedObjective(PLAIN, model.embed_dim, model.num_classes)
    batches = [Batch(images * math.nan, LABELS)]
    before = model.get_parameter("head.weight").detach().clone()
    named = r"cross_entropy is nan at step 0, width full, images image 0, image 1, image 2, image 3"
    with pytest.raises(FloatingPointError, match=named):
        train(model, objective, batches, OptimConfig(epochs=1))
    assert torch.equal(model.get_parameter("head.weight"), before)


def test_a_gradient_that_is_not_finite_stops_with_step_and_images(
    model: MatMamba, images: torch.Tensor
) -> None:
    objective = NestedObjective(PLAIN, model.embed_dim, model.num_classes)
    model.get_parameter("head.weight").register_hook(lambda gradient: gradient * math.inf)
    with pytest.raises(
        FloatingPointError, match=r"norm is (nan|inf) at step 0, widths full, .*, images image 0"
    ):
        train(model, objective, [Batch(images, LABELS)], OptimConfig(epochs=1))


def test_an_empty_batch_is_passed_over(model: MatMamba, images: torch.Tensor) -> None:
    objective = NestedObjective(PLAIN, model.embed_dim, model.num_classes)
    batches = [Batch(images[:0], LABELS[:0]), Batch(images, LABELS)]
    reports = train(model, objective, batches, OptimConfig(epochs=1)).reports
    assert [report.step for report in reports] == [1]


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ({"teacher": "smallest"}, r"objective\.teacher 'smallest' is none of next, largest"),
        ({"mrl_weights": [1.0]}, r"objective\.mrl_weights \[1\.0\]: 3 weights"),
        ({"width_weights": [1.0, -1.0, 1.0, 1.0]}, r"objective\.width_weights .*: 4 weights, none negative"),
    ],
)
def test_an_objective_that_cannot_work_is_refused(
    model: MatMamba, images: torch.Tensor, setting: dict[str, Any], said: str
) -> None:
    def attempt() -> None:
        objective = NestedObjective(replace(PLAIN, **setting), model.embed_dim, model.num_classes)
        train(model, objective, [Batch(images, LABELS)], OptimConfig(epochs=1))

    with pytest.raises(ValueError, match=said):
        attempt()


def test_an_unknown_optimiser_is_named(model: MatMamba) -> None:
    with pytest.raises(ValueError, match="sgdx"):
        make_optimiser(OptimConfig(opt="sgdx"), model, NestedObjective(PLAIN, 32, 5))
