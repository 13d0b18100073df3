"""A frozen width by the kernels of a GPU, in Triton's interpreter or on a GPU, equals the model."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import Any

import pytest
import torch
from frozen_models import model_of, with_decays
from matmamba_vision.frozen import PackedWidth, freeze, pack
from matmamba_vision.frozen.place import Place, place_of
from torch.utils._python_dispatch import TorchDispatchMode

pytest.importorskip("triton", reason="triton is not installed")

from matmamba_vision.frozen.triton_width import TritonNetwork, why_not_triton
from matmamba_vision.ops.triton.block.configs import (
    BlockConfig,
    BlockShape,
    QuadraticConfig,
    StateConfig,
)

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
TOLERANCE = 2e-5
SIZES: dict[str, Any] = {"head_dim": 16, "d_state": 16}
# Small tiles, because the interpreter is slow.
QUADRATIC = BlockConfig(scan=QuadraticConfig(tile=16))
STATE = BlockConfig(scan=StateConfig(tile=16))

KINDS: list[tuple[dict[str, Any], str]] = [
    ({}, "full"),
    ({}, "8-0-3"),
    ({"scan": "flip", "head_dim": 32}, "1/4"),
    ({"scan": "cross", "depth": 4, "reg_tokens": 3, "img_size": (16, 24)}, "1/2"),
    ({"heads_per_group": 3, "bias": True, "scan": "flip"}, "7-3-1"),
    ({"global_pool": "avg", "reg_tokens": 2, "projection": 12}, "1/2"),
    ({"scan": ("columns", "both", "rows_reversed"), "reg_tokens": 1}, "1/2"),
    ({"attention_blocks": [0, 2], "scan": "flip", "depth": 4, "d_conv": 2}, "full"),
    ({"mean_token": True, "depth": 2}, "full"),
]


def network_of(packed: PackedWidth, config: BlockConfig, dtype: torch.dtype = torch.float32) -> TritonNetwork:
    def choose(shape: BlockShape) -> BlockConfig:
        return config

    return TritonNetwork(packed, Place(DEVICE, dtype), choose)


@pytest.mark.parametrize("number", range(len(KINDS) - 1))
def test_every_kind_of_model_equals_itself(number: int) -> None:
    kind, width = KINDS[number]
    # What differs between the forms does not depend on the kind.
    config = STATE if number in (0, 3, 4) else QUADRATIC
    model = model_of(SIZES | kind)
    images = model.random_images(2)
    found = network_of(pack(model, width), config).embed(images.to(DEVICE))
    assert found.dtype == torch.float32
    torch.testing.assert_close(found.cpu(), model.embed(images, width).detach(), rtol=0, atol=TOLERANCE)


class Launches(TorchDispatchMode):
    """Names of the operations that launch something: all that look at no memory are left out."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.names: list[str] = []

    def __torch_dispatch__(self, operation: Any, types: Any, given: Any = (), options: Any = None) -> Any:
        if not operation.is_view and operation._schema.name not in ("aten::_unsafe_view", "aten::view"):
            self.names.append(operation._schema.name.split("::")[1])
        return operation(*given, **(options or {}))


@pytest.mark.parametrize("config", [QUADRATIC, STATE], ids=["quadratic", "state"])
def test_a_block_is_five_launches(config: BlockConfig) -> None:
    """Also where the scan turns from block to block."""
    depth, counts = 4, []
    for blocks in (1, depth):
        model = model_of(SIZES | {"scan": "flip", "depth": blocks, "global_pool": "avg"})
        network = network_of(pack(model, "full"), config)
        with Launches() as launches:
            network.embed(model.random_images(1).to(DEVICE))
        counts.append(Counter(name for name in launches.names if not name.startswith("empty")))
    more = counts[1] - counts[0]
    scan = "scan_state" if config is STATE else "scan_quadratic"
    products = {name: more.pop(name) for name in [*more] if name in ("addmm", "mm", "linear")}
    assert sum(products.values()) == 2 * (depth - 1)
    assert more == dict.fromkeys(("conv_scores", scan, "norm_residual"), depth - 1)


@pytest.mark.parametrize("strong", [6.0, 14.0])
def test_decays_of_any_strength(strong: float) -> None:
    model = with_decays(model_of(SIZES), strong, -3.0)
    images = model.random_images(1)
    for config in (QUADRATIC, replace(STATE, scan=StateConfig(tile=16, exact=True))):
        found = network_of(pack(model, "full"), config).embed(images.to(DEVICE))
        torch.testing.assert_close(found.cpu(), model.embed(images).detach(), rtol=0, atol=TOLERANCE)


def test_in_halves_it_is_as_near_as_they_allow() -> None:
    model = model_of(SIZES)
    images, wanted = model.random_images(2), model.embed(model.random_images(2)).detach()
    for dtype, tolerance in ((torch.bfloat16, 3e-2), (torch.float16, 5e-3)):
        found = network_of(pack(model, "full"), QUADRATIC, dtype).embed(images.to(DEVICE, dtype))
        torch.testing.assert_close(found.cpu(), wanted, rtol=0, atol=tolerance)


def test_what_the_kernels_do_not_take_is_left_to_the_model() -> None:
    assert why_not_triton(pack(model_of(SIZES), "full"), torch.bfloat16) is None
    assert "head dims" in (why_not_triton(pack(model_of({}), "full"), torch.bfloat16) or "")
    assert "no block" in (why_not_triton(pack(model_of(SIZES | KINDS[-1][0]), "full"), torch.float32) or "")
    assert "states" in (why_not_triton(pack(model_of(SIZES), "1/2:1/2"), torch.float32) or "")


def test_on_a_cpu_the_kernels_are_not_taken() -> None:
    assert freeze(model_of(SIZES).cpu(), "full").by.split()[0] in ("native", "pytorch")


def test_where_a_model_can_be_frozen() -> None:
    model = model_of(SIZES)
    assert place_of(model) == Place(torch.device("cpu"), torch.float32)
    assert place_of(model.bfloat16()) is None
    assert place_of(model.float().train()) is None


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_on_a_gpu_a_frozen_width_is_a_graph_of_each_size(dtype: torch.dtype) -> None:
    model = model_of(SIZES | {"scan": "flip"})
    images = model.random_images(300)
    wanted = model.embed(images, "1/2").detach()
    model = model.to("cuda", dtype)
    frozen = freeze(model, "1/2")
    assert frozen.by == "triton"
    for count in (0, 1, 3, 4, 300, 2):
        found = frozen.embed(images[:count].cuda())
        tolerance = 1e-4 if dtype == torch.float32 else 3e-2
        torch.testing.assert_close(found.cpu(), wanted[:count], rtol=0, atol=tolerance)
