"""Packed weights that the widths of a step share are what each width would pack, step after step."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from typing import Any

import pytest
import torch
from matmamba_vision import MatMamba
from matmamba_vision.layers.mixer import Mixer
from matmamba_vision.ops.step_weights import share_in_steps, step_weights
from matmamba_vision.training import (
    EngineConfig,
    NestedObjective,
    ObjectiveConfig,
    OptimConfig,
    Position,
    Training,
    make_accelerator,
    prepare_training,
)
from matmamba_vision.training.loop import take_step
from matmamba_vision.training.passes import CapturedPass
from small import SMALL, LabelledImages, play
from torch import Tensor

start = pytest.importorskip(
    "matmamba_vision.ops.triton.block.training_start", reason="triton is not installed"
)
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
FUSED: dict[str, Any] = SMALL | {
    "depth": 1,
    "embed_dim": 16,
    "num_heads": 4,
    "trained_widths": ("full", "1/2", "1/4"),
    "patch_size": 8,
    "head_dim": 16,
    "d_state": 16,
}


def made(**changes: Any) -> MatMamba:
    torch.manual_seed(0)
    return MatMamba(**{**FUSED, **changes}, ssd_backend="triton").to(DEVICE)


def images(size: int = 1) -> Tensor:
    return torch.randn(size, 3, 16, 16, generator=torch.Generator().manual_seed(1)).to(DEVICE)


@pytest.fixture
def packed(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Gets the rows of what is packed, whenever a kernel does it."""
    rows, launch = list[int](), start._launch

    def counted(like: Tensor, tokens: Any, parts: Any, *rest: Any) -> None:
        rows.extend(len(part) for part in parts[:1])
        launch(like, tokens, parts, *rest)

    monkeypatch.setattr(start, "_launch", counted)
    return rows


def gradients(model: MatMamba, widths: tuple[str, ...]) -> list[Tensor]:
    """Logits of each width, and the sum of their gradients."""
    model.zero_grad()
    logits = [model(images(), width=model.width(width)) for width in widths]
    torch.stack([one.square().sum() for one in logits]).sum().backward()
    return [*logits, *(p.grad for p in model.parameters() if p.grad is not None)]


WIDTHS = ("full", "1/2", "1/4")
# The interpreter of kernels takes seconds for a pass of all of them.
TWO_HEADS: dict[str, Any] = {"num_heads": 2, "trained_widths": ("full", "1/2")}


@pytest.mark.parametrize(
    ("changes", "widths"),
    [({}, WIDTHS), ({"depth": 2, "scan": "flip", "heads_per_group": 2}, ("full", "1/4"))],
    ids=str,
)
def test_widths_and_their_gradients_are_the_same_and_are_packed_once(
    changes: dict[str, Any], widths: tuple[str, ...], packed: list[int]
) -> None:
    model = made(**changes)
    alone = gradients(model, widths)
    assert len(packed) == len(widths) * len(model.stack)
    share_in_steps(model)
    packed.clear()
    together = gradients(model, widths)
    again = gradients(model, widths[::-1])
    assert len(packed) == len(model.stack)
    assert all(torch.equal(one, other) for one, other in zip(alone, together, strict=True))
    torch.testing.assert_close(again[len(widths) :], alone[len(widths) :])


def test_a_smaller_state_takes_its_rows_of_b_and_c(packed: list[int]) -> None:
    torch.manual_seed(0)
    mixer = made(d_state=32, heads_per_group=2).stack[0].mixer
    assert isinstance(mixer, Mixer)
    u_BLD = torch.randn(1, 5, FUSED["embed_dim"], device=DEVICE, requires_grad=True)

    def found() -> list[Tensor]:
        out = mixer(u_BLD, 3, 16)
        return [out, *torch.autograd.grad(out.square().sum(), [u_BLD, *mixer.parameters()])]

    alone = found()
    share_in_steps(mixer)
    assert all(torch.equal(one, other) for one, other in zip(alone, found(), strict=True))
    assert packed == [3 * 16, 4 * 16]


def by_optimiser(model: MatMamba) -> None:
    torch.optim.SGD(model.parameters(), lr=0.1).step()


def by_data(model: MatMamba) -> None:
    """As some optimisers write, of which no version tells; who takes steps says so."""
    for parameter in model.parameters():
        parameter.data.mul_(1.1)
    for kept in step_weights(model):
        kept.forget()


def by_loading(model: MatMamba) -> None:
    model.load_state_dict({name: 1.1 * value for name, value in model.state_dict().items()})


@pytest.mark.parametrize(
    "change", [by_optimiser, *(pytest.param(one, marks=pytest.mark.slow) for one in (by_data, by_loading))]
)
def test_changed_weights_are_packed_again(change: Callable[[MatMamba], None], packed: list[int]) -> None:
    model, other = made(**TWO_HEADS), made(**TWO_HEADS)
    share_in_steps(model)
    for step in range(1, 3):
        found, wanted = gradients(model, ("full", "1/2")), gradients(other, ("full", "1/2"))
        assert all(torch.equal(one, exact) for one, exact in zip(found, wanted, strict=True))
        assert packed.count(2 * 16) == 2 * step
        change(model)
        change(other)


def test_blocks_that_are_computed_again_pack_nothing(packed: list[int]) -> None:
    model = made(**TWO_HEADS)
    alone = gradients(model, ("full", "1/2"))
    share_in_steps(model)
    model.set_grad_checkpointing()
    packed.clear()
    found = gradients(model, ("full", "1/2"))
    assert len(packed) == 1
    torch.testing.assert_close(found, alone)


def test_halves_and_whole_numbers_are_kept_apart() -> None:
    model, other = made(**TWO_HEADS), made(**TWO_HEADS)
    share_in_steps(model)
    for _ in range(2):
        with torch.autocast(DEVICE, torch.bfloat16):
            found, wanted = gradients(model, ("1/2",)), gradients(other, ("1/2",))
        assert all(torch.equal(one, exact) for one, exact in zip(found, wanted, strict=True))
        found, wanted = gradients(model, ("1/2",)), gradients(other, ("1/2",))
        assert all(torch.equal(one, exact) for one, exact in zip(found, wanted, strict=True))


def test_copies_of_a_model_share_nothing() -> None:
    model = made(**TWO_HEADS)
    share_in_steps(model)
    gradients(model, ("full",))
    for twin in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert not list(step_weights(twin))
        assert all(
            torch.equal(one, other)
            for one, other in zip(gradients(twin, ("1/2",)), gradients(model, ("1/2",)), strict=True)
        )


def test_a_compiled_model_packs_for_itself() -> None:
    model = made(**TWO_HEADS)
    wanted = gradients(model, ("1/2",))
    share_in_steps(model)
    compiled = torch.compile(model, backend="aot_eager", fullgraph=True)
    for _ in range(2):
        model.zero_grad()
        compiled(images(), width=model.width("1/2")).square().sum().backward()
        found = [p.grad for p in model.parameters() if p.grad is not None]
        torch.testing.assert_close(found, wanted[1:], rtol=1e-4, atol=1e-5)


def prepared(accumulate: int) -> Training:
    model = made(**TWO_HEADS)
    engine = EngineConfig(cuda_graphs=False, accumulate=accumulate)
    return prepare_training(
        model,
        NestedObjective(ObjectiveConfig(), model.embed_dim, model.num_classes),
        OptimConfig(epochs=1, lr=1e-2),
        8,
        engine=engine,
        accelerator=make_accelerator(engine, DEVICE),
    )


@pytest.mark.slow
@pytest.mark.parametrize("accumulate", [1, 2])
def test_steps_of_training_pack_once_each_and_are_the_same_steps(accumulate: int, packed: list[int]) -> None:
    """Launched eagerly, and by graphs that read what a graph of its own packs."""
    shared, captured, alone = (prepared(accumulate) for _ in range(3))
    captured.passes = CapturedPass(captured.passes, play)  # type: ignore[arg-type]
    for block in alone.model.stack:
        block.mixer.step_weights = None
    counts = dict[str, list[int]]()
    for name, training in (("shared", shared), ("captured", captured), ("alone", alone)):
        training.trainee.train()
        for step in range(3):
            before = len(packed)
            batches = [LabelledImages(images().cpu(), torch.tensor([1])) for _ in range(accumulate)]
            assert take_step(training, batches, Position(step=step), 0.0)
            counts.setdefault(name, []).append(len(packed) - before)
    assert counts["shared"] == [1, 1, 1]
    assert counts["alone"] == [accumulate * len(alone.widths.shares(0, 0))] * 3
    # In its second step the graph is captured, which `play` does by two turns beforehand.
    assert counts["captured"] == [1, 3, 1]
    for one, other, wanted in zip(
        *(training.model.parameters() for training in (shared, captured, alone)), strict=True
    ):
        assert torch.equal(one, wanted)
        assert torch.equal(other, wanted)
