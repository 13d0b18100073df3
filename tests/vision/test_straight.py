"""The straight path embeds what the model embeds, whatever the decays, in few calls that never change."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
import torch
from frozen_models import DECAYS, KINDS, TOLERANCE, VARIANTS, model_of, variant, with_decays
from matmamba_vision import MatMamba
from matmamba_vision.frozen.packed import pack
from matmamba_vision.frozen.straight import Straight
from matmamba_vision.frozen.straight_scan import ASKED_FROM, CHUNK
from small import create
from torch.utils._python_dispatch import TorchDispatchMode


@torch.no_grad()
def assert_straight(model: MatMamba, width: str, images: torch.Tensor) -> None:
    straight = Straight(pack(model, width))
    wanted = model.embed(images, width)
    torch.testing.assert_close(straight(images), wanted, rtol=0, atol=TOLERANCE)


@pytest.mark.parametrize(("kind", "width"), KINDS, ids=str)
def test_the_straight_path_equals_the_model(kind: dict[str, Any], width: str) -> None:
    model = model_of(kind)
    for batch in (0, 1, 3, ASKED_FROM):
        assert_straight(model, width, model.random_images(batch))


@pytest.mark.parametrize("decays", DECAYS, ids=str)
@pytest.mark.parametrize(("kind", "width"), [KINDS[index] for index in (0, 6, 8, 9)], ids=str)
def test_decays_of_any_strength_are_right(
    kind: dict[str, Any], width: str, decays: tuple[float, float]
) -> None:
    model = with_decays(model_of(kind), *decays)
    assert_straight(model, width, model.random_images(2))


# Lengths of one chunk, of two equal ones, and of three that are not equal.
@pytest.mark.parametrize("decays", [None, *DECAYS], ids=str)
@pytest.mark.parametrize("size", [(32, 32), (48, 44), (56, 56)], ids=str)
def test_several_chunks_are_right(size: tuple[int, int], decays: tuple[float, float] | None) -> None:
    kind = {"img_size": size, "scan": "flip", "heads_per_group": 3, "global_pool": "avg"}
    model = model_of(kind)
    if decays:
        with_decays(model, *decays)
    tokens = size[0] * size[1] // 16 + 1
    assert {65: 1, 133: 2, 197: 3}[tokens] == -(-tokens // CHUNK)
    assert_straight(model, "4-8-8", model.random_images(2))


@pytest.mark.parametrize("name", VARIANTS)
def test_every_variant_has_a_straight_path(name: str) -> None:
    model = variant(name)
    assert_straight(model, model.label(model.trained_widths[-1]), model.random_images(2))


class Calls(TorchDispatchMode):
    """Counts what is called, and what of it does more than look at a tensor in another way."""

    VIEWS = (
        "view",
        "slice",
        "split",
        "squeeze",
        "select",
        "transpose",
        "expand",
        "alias",
        "unbind",
        "aten.t.",
    )

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.called = Counter[str]()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.called[str(func)] += 1
        return func(*args, **(kwargs or {}))

    @property
    def computing(self) -> int:
        return sum(
            count for name, count in self.called.items() if not any(view in name for view in self.VIEWS)
        )


@torch.no_grad()
def test_a_block_takes_few_calls_that_do_not_depend_on_values() -> None:
    """31 that compute and 23 views, of 65 tokens; the model itself has 96 and 46."""
    model = create("matmamba_mini_patch8_64").eval()
    images, found = model.random_images(1), []
    for strong in (0.0, 9.0):
        with_decays(model, strong, 0.0)
        straight = Straight(pack(model, "1/8"))
        with Calls() as calls:
            straight(images)
        found.append(calls.called)
        assert calls.computing <= 32 * len(straight.blocks)
        assert calls.called.total() <= 55 * len(straight.blocks)
    assert found[0] == found[1]
    with Calls() as of_model:
        model.embed(images, "1/8")
    assert of_model.computing > 2 * calls.computing


@torch.no_grad()
def test_of_the_last_block_the_last_token_alone_is_computed() -> None:
    token, average = (
        Straight(pack(model_of({"global_pool": pool, "depth": 1}), "full")) for pool in ("token", "avg")
    )
    with Calls() as of_token:
        token(torch.zeros(1, 3, 16, 16))
    with Calls() as of_average:
        average(torch.zeros(1, 3, 16, 16))
    assert of_token.called["aten.bmm.default"] == 0 < of_average.called["aten.bmm.default"]
