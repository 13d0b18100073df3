"""Heads sorted by importance: nothing changes at full width, and less is lost at smaller ones."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import matmamba_vision  # noqa: F401  registers the models
import pytest
import torch
from matmamba_datasets import Batch, DataConfig, eval_transform, make_loader, open_splits
from matmamba_vision import MatMamba
from matmamba_vision.measures import predict
from matmamba_vision.models import importance_of_gradients, importance_of_weights, sort_heads
from matmamba_vision.models.importance import nested_layers
from small import SMALL, create
from torch.nn import functional as F

ATTENTION: dict[str, Any] = {"attention_blocks": [0, 1, 2], "d_state": 1, "attn_head_dim": 4}
KINDS: dict[str, dict[str, Any]] = {
    "plain": {},
    "groups": {"heads_per_group": 4},
    "unequal groups": {"heads_per_group": 3},
    "one group, said so": {"heads_per_group": 16},
    "bias": {"bias": True, "heads_per_group": 2},
    "cross scan": {"scan": "cross", "mean_token": True, "reg_tokens": 2},
    "MLP": {"mlp_ratio": 2.0},
    "hybrid": {"attention_blocks": [1], "attn_head_dim": 4, "mlp_ratio": 1.0},
    "attention": ATTENTION,
    "MatViT": ATTENTION | {"nested_attention": False, "mlp_ratio": 2.0},
}
# Sums in another order, float64.
TOLERANCE = 1e-12


@dataclass
class Labelled:
    """A batch of which image i is of class i."""

    images: torch.Tensor

    @property
    def labels(self) -> torch.Tensor:
        return torch.arange(len(self.images))

    @property
    def ids(self) -> list[str]:
        return [str(index) for index in range(len(self.images))]

    def __len__(self) -> int:
        return len(self.images)


@pytest.fixture(params=KINDS, ids=str)
def varied(request: pytest.FixtureRequest) -> MatMamba:
    """A model of every kind, no weight of which is 0 or like another."""
    torch.manual_seed(0)
    model = MatMamba(**SMALL | KINDS[request.param], trained_widths=("full",), dtype=torch.float64).eval()
    for tensor in model.parameters():
        tensor.data += 0.1 * torch.randn_like(tensor)
    return model


@pytest.mark.parametrize("by", ["weights", "gradients"])
def test_full_width_computes_the_same(varied: MatMamba, images: torch.Tensor, by: str) -> None:
    images = images.double()
    found = (
        importance_of_weights(varied)
        if by == "weights"
        else importance_of_gradients(varied, [Labelled(images)])
    )
    before = {name: tensor.clone() for name, tensor in varied.state_dict().items()}
    ordered = sort_heads(varied, found)
    assert not all(torch.equal(ordered.state_dict()[name], tensor) for name, tensor in before.items())
    assert all(torch.equal(varied.state_dict()[name], tensor) for name, tensor in before.items())
    torch.testing.assert_close(ordered(images), varied(images), rtol=0, atol=TOLERANCE)


def test_leading_parts_are_the_important_ones(varied: MatMamba) -> None:
    """In groups of heads: within each, and among those that are whole."""
    found = importance_of_weights(sort_heads(varied, importance_of_weights(varied)))
    for name, layer in nested_layers(varied):
        groups = found[name].split(layer.group_size)
        assert all((group.diff() <= 0).all() for group in groups), name
        sums = torch.stack(
            [group.sum() for group in groups if len(group) == layer.group_size] or [*groups[0]]
        )
        assert (sums.diff() <= 0).all(), name


def test_sorting_what_is_sorted_changes_no_bit(varied: MatMamba) -> None:
    once = sort_heads(varied, importance_of_weights(varied))
    twice = sort_heads(once, importance_of_weights(once))
    assert all(torch.equal(twice.state_dict()[name], tensor) for name, tensor in once.state_dict().items())


def test_importance_by_gradients_is_that_of_a_gate(model: MatMamba, images: torch.Tensor) -> None:
    """Head 5 of the second block behind a gate of 1: the square of the loss's derivative by the gate."""
    found = importance_of_gradients(model, [Labelled(images), Labelled(images[:0]), Labelled(images)])
    out = model.get_parameter("blocks.1.mixer.out")
    weights = out.detach().clone()

    def loss(gate: float) -> torch.Tensor:
        out.data = weights.clone()
        out.data[:, 5] *= gate
        return F.cross_entropy(model.double()(images.double()), torch.tensor([0, 1, 2, 3]))

    slope = (loss(1 + 1e-4) - loss(1 - 1e-4)) / 2e-4
    assert found["blocks.1.mixer"][5].item() == pytest.approx(slope.item() ** 2, rel=1e-2)
    assert all(tensor.grad is None for tensor in model.parameters())


def test_importance_that_does_not_fit_is_named(model: MatMamba) -> None:
    found = importance_of_weights(model)
    with pytest.raises(ValueError, match=r"blocks\.2\.mixer: give 8"):
        sort_heads(model, {name: values for name, values in found.items() if "2" not in name})
    with pytest.raises(ValueError, match=r"blocks\.0\.mixer: give 8"):
        sort_heads(model, found | {"blocks.0.mixer": torch.ones(7)})
    with pytest.raises(ValueError, match="at least one image"):
        importance_of_gradients(model, [])


def test_half_the_heads_of_a_trained_model_are_the_better_half() -> None:
    """An ordinary Mamba2, trained at full width alone: its most important halves against its least."""
    torch.manual_seed(0)
    small: dict[str, Any] = {"img_size": 16, "embed_dim": 64, "depth": 3, "num_classes": 10}
    overlay = {"input_size": (3, 16, 16)}
    model = create("mamba2_nano_patch4_32", pretrained_cfg_overlay=overlay, **small)
    splits, transform = open_splits(DataConfig(name="digits")), eval_transform(model.input)
    batches = list(make_loader(splits.train, transform, 128))
    _train(model, batches, epochs=4)
    held_out = list(make_loader(splits.held_out, transform, 256))
    for found in (importance_of_weights(model), importance_of_gradients(model, batches[:4])):
        best = sort_heads(model, found)
        worst = sort_heads(model, {name: -values for name, values in found.items()})
        losses = [_loss_of_half(ordered, held_out) for ordered in (best, worst)]
        assert losses[0] < 0.8 * losses[1]
        assert predict(best, held_out, ["1/2"])[0].top1 > 0.7


@torch.no_grad()
def _loss_of_half(model: MatMamba, batches: list[Batch]) -> float:
    losses = [F.cross_entropy(model(batch.images, width="1/2"), batch.labels) for batch in batches]
    return torch.stack(losses).mean().item()


def _train(model: MatMamba, batches: list[Batch], epochs: int) -> None:
    images, labels = (torch.cat([getattr(batch, name) for batch in batches]) for name in ("images", "labels"))
    optimiser = torch.optim.AdamW(model.parameters(), lr=5e-3)
    for _ in range(epochs):
        for chosen in torch.randperm(len(images)).split(64):
            optimiser.zero_grad()
            F.cross_entropy(model(images[chosen]), labels[chosen]).backward()
            optimiser.step()
