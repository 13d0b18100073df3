"""The objective and the loop."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import pytest
import torch
from matmamba_vision import MatMamba
from matmamba_vision.train import (
    Hooks,
    NestedObjective,
    ObjectiveConfig,
    OptimConfig,
    StepReport,
    fit,
    make_optimiser,
)
from matmamba_vision.train.loop import accumulate
from matmamba_vision.train.objective import alignment, distillation
from small import SMALL
from torch.nn import functional as F

PLAIN = ObjectiveConfig(mrl=0, distillation=0, alignment=0, label_smoothing=0, mrl_dims=[4, 8, 64])
LABELS = torch.tensor([0, 1, 2, 3])


@dataclass
class Batch:
    images: torch.Tensor
    labels: torch.Tensor

    def __len__(self) -> int:
        return len(self.images)


class Listener(Hooks):
    """Keeps what the loop says."""

    def __init__(self) -> None:
        self.reports: list[StepReport] = []
        self.epochs: list[int] = []

    def on_step(self, report: StepReport) -> None:
        self.reports.append(report)

    def on_epoch(self, epoch: int) -> None:
        self.epochs.append(epoch)


def train(model: MatMamba, objective: NestedObjective, loader: list[Batch], config: OptimConfig) -> Listener:
    listener = Listener()
    fit(model, objective, loader, make_optimiser(config, model, objective), config, listener)
    return listener


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
def test_every_kind_of_model_is_trained_alike(kind: dict[str, object], images: torch.Tensor) -> None:
    """All trained widths learn four images by heart, by the same objective."""
    torch.manual_seed(0)
    model = MatMamba(**SMALL, **kind)
    objective = NestedObjective(ObjectiveConfig(label_smoothing=0), model.embed_dim, model.num_classes)
    train(model, objective, [Batch(images, LABELS)], OptimConfig(epochs=60, lr=1e-2, warmup_epochs=0))
    with torch.no_grad():
        for width in model.trained_widths:
            assert torch.equal(model.eval()(images, width).argmax(1), LABELS), model.label(width)


def test_gradients_are_those_of_the_mean_over_widths(model: MatMamba, images: torch.Tensor) -> None:
    objective = NestedObjective(PLAIN, model.embed_dim, model.num_classes)
    losses = accumulate(model, objective, images, LABELS)
    found = [tensor.grad.clone() for tensor in model.parameters()]
    model.zero_grad()
    wanted = torch.stack(
        [F.cross_entropy(model(images, width=width), LABELS) for width in model.trained_widths]
    ).mean()
    wanted.backward()
    assert losses["loss"] == pytest.approx(wanted.item(), rel=1e-5)
    for one, other in zip(found, model.parameters(), strict=True):
        torch.testing.assert_close(one, other.grad)


def test_each_term_is_what_it_says(model: MatMamba, images: torch.Tensor) -> None:
    config = replace(PLAIN, mrl=2.0, distillation=3.0, alignment=4.0, temperature=2.0)
    objective = NestedObjective(config, model.embed_dim, model.num_classes)
    full, half = model.trained_widths[:2]
    terms, teacher = objective(model, images, LABELS, full, None)
    assert set(terms) == {"cross_entropy", "mrl"}
    assert not teacher.logits.requires_grad
    assert not teacher.embedding.requires_grad
    terms, next_teacher = objective(model, images, LABELS, half, teacher)
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
    assert reports[-1].losses["loss"] < 0.6 * reports[0].losses["loss"]
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
        runs.append(train(model, objective, [Batch(images, LABELS)] * 3, OptimConfig(epochs=2)).reports)
    assert runs[0] == runs[1]


def test_a_loss_that_is_not_finite_stops_with_step_and_width(model: MatMamba, images: torch.Tensor) -> None:
    objective = NestedObjective(PLAIN, model.embed_dim, model.num_classes)
    batches = [Batch(images, LABELS), Batch(images * math.nan, LABELS)]
    with pytest.raises(FloatingPointError, match="step 1, width full"):
        train(model, objective, batches, OptimConfig(epochs=1))


def test_an_empty_batch_is_passed_over(model: MatMamba, images: torch.Tensor) -> None:
    objective = NestedObjective(PLAIN, model.embed_dim, model.num_classes)
    batches = [Batch(images[:0], LABELS[:0]), Batch(images, LABELS)]
    reports = train(model, objective, batches, OptimConfig(epochs=1)).reports
    assert [report.step for report in reports] == [1]


def test_an_unknown_optimiser_is_named(model: MatMamba) -> None:
    with pytest.raises(ValueError, match="sgdx"):
        make_optimiser(OptimConfig(opt="sgdx"), model, NestedObjective(PLAIN, 32, 5))
