"""What a mixer computes in training by kernels equals the definition in float64, with every gradient."""

from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from matmamba_vision import MatMamba
from matmamba_vision.ops.step_weights import TypesOfStep
from mixer_core import defined
from small import SMALL
from torch import Tensor
from torch.nn import functional as F

core = pytest.importorskip("matmamba_vision.ops.triton.block.training_core", reason="triton is not installed")
norm = pytest.importorskip("matmamba_vision.ops.triton.block.training_norm")
start = pytest.importorskip("matmamba_vision.ops.triton.block.training_start")
configs = pytest.importorskip("matmamba_vision.ops.triton.block.training_configs")

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
NAMES = ("packed", "taps", "conv_bias", "dt_bias", "A_log", "D")
# Agreement with the definition in float64, relative to the largest value.
TOLERANCE = 2e-5


def inputs_of(
    length: int, heads: int, head_dim: int, state: int, groups: int = 1, batch: int = 1, rate: float = 1.0
) -> list[Tensor]:
    """Inputs of `mixer_core` in float64; `rate` multiplies the decays of every second head."""
    generator = torch.Generator().manual_seed(length)

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator, dtype=torch.float64)

    inner, convolved = heads * head_dim, heads * head_dim + 2 * state * groups
    A_log = normal(heads)
    A_log[1::2] += torch.tensor(rate).log()
    packed = normal(batch, length, inner + convolved + heads)
    return [packed, normal(convolved, 4), normal(convolved), normal(heads), A_log, normal(heads)]


def results(function: Callable[..., tuple[Tensor, Tensor]], inputs: Sequence[Tensor]) -> list[Tensor]:
    """Both outputs and all gradients of a sum of them with fixed weights."""
    inputs = [tensor.detach().requires_grad_() for tensor in inputs]
    gated, square = function(inputs)
    weight = torch.linspace(-1, 1, gated.numel(), dtype=torch.float64).to(gated).view_as(gated)
    loss = (gated * weight).sum() + (square * weight[..., 0] * 0.1).sum()
    return [gated, square, *torch.autograd.grad(loss, inputs)]


def assert_as_defined(
    sizes: tuple[int, ...],
    monkeypatch: pytest.MonkeyPatch,
    longest: int,
    *,
    tile: int = 16,
    rate: float = 1.0,
) -> None:
    length, heads, head_dim, state, groups, batch = sizes
    config = replace(
        configs.default_training_config(torch.float32),
        tile=tile,
        summed=16,
        channels=64,
        longest_quadratic=longest,
    )
    monkeypatch.setattr(core, "default_training_config", lambda dtype: config)
    inputs = inputs_of(length, heads, head_dim, state, groups, batch, rate)
    constants = (head_dim, state, -(-heads // groups))

    def by_kernels(given: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        gated, sums = core.mixer_core(*given, *constants)
        return gated, sums.sum(1)

    found = results(by_kernels, [tensor.to(DEVICE, torch.float32) for tensor in inputs])
    exact = results(lambda given: defined(given, *constants), [t.float().double() for t in inputs])
    for name, value, wanted in zip(("gated", "square", *NAMES), found, exact, strict=True):
        difference = (value.cpu().double() - wanted).abs().max()
        assert difference <= TOLERANCE * wanted.abs().max(), name


# Length, heads, head dim, state, groups, batch.
SIZES = [
    (1, 1, 16, 16, 1, 1),
    (15, 3, 16, 16, 1, 2),
    (16, 2, 32, 16, 1, 1),
    (17, 1, 64, 16, 1, 1),
    (37, 6, 16, 32, 2, 1),
    (20, 5, 16, 16, 3, 1),
]


# Of the longest sequence in which tiles read tiles; beyond it they read states.
FORMS = pytest.mark.parametrize("longest", [512, 0], ids=["quadratic", "states"])


@FORMS
@pytest.mark.parametrize("sizes", SIZES, ids=str)
def test_outputs_and_gradients_are_the_recurrence(
    sizes: tuple[int, ...], longest: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert_as_defined(sizes, monkeypatch, longest)


@FORMS
@pytest.mark.slow
@pytest.mark.parametrize(("head_dim", "heads"), [(16, 5), (32, 3), (64, 1)])
@pytest.mark.parametrize("state", [64, 128])
@pytest.mark.parametrize("length", [1, 31, 32, 33, 65, 197])
def test_longer_ones_are_the_recurrence(
    length: int, state: int, head_dim: int, heads: int, longest: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert_as_defined((length, heads, head_dim, state, 1, 1), monkeypatch, longest, tile=32)


@FORMS
@pytest.mark.parametrize("rate", [30.0, 1e5])
def test_strong_decays_are_the_recurrence(rate: float, longest: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Tiles of about 1,000 nats and more beside weak ones: no factor of rows and one of columns."""
    assert_as_defined((37, 3, 16, 16, 1, 1), monkeypatch, longest, tile=32, rate=rate)


def test_repeated_runs_give_the_same_bits() -> None:
    given = [tensor.to(DEVICE, torch.float32) for tensor in inputs_of(20, 2, 32, 16, batch=2)]
    first, second = (results(lambda t: core.mixer_core(*t, 32, 16, 2), given) for _ in range(2))
    assert all(torch.equal(one, other) for one, other in zip(first, second, strict=True))


def test_rows_of_another_layout_raise() -> None:
    packed, *rest = (tensor.to(DEVICE, torch.float32) for tensor in inputs_of(5, 2, 16, 16))
    with pytest.raises(ValueError, match="rows of 99 numbers where z, x, B, C and dt are 98"):
        core.mixer_core(F.pad(packed, (0, 1)), *rest, 16, 16, 2)


@pytest.mark.parametrize("length", [1, 5])
def test_scaled_rows_are_a_norm_before_the_projection(length: int) -> None:
    generator = torch.Generator().manual_seed(0)
    gated, weight, dout = (
        torch.randn(shape, generator=generator, dtype=torch.float64).to(DEVICE)
        for shape in ((2, length, 48), (20, 48), (2, length, 20))
    )

    def of(scaled: Callable[[Tensor, Tensor], Tensor], dtype: torch.dtype) -> list[Tensor]:
        given = [gated.to(dtype).requires_grad_(), weight.to(dtype).requires_grad_()]
        out = scaled(*given)
        return [out, *torch.autograd.grad(out, given, dout.to(dtype))]

    def behind(g: Tensor, w: Tensor) -> Tensor:
        sums = g.square().unflatten(-1, (3, 16)).sum(-1).mT.contiguous()
        return norm.scale_rows(F.linear(g, w), sums, None, 48, 1e-5, torch.float32)

    def before(g: Tensor, w: Tensor) -> Tensor:
        return F.linear(g * (g.square().mean(-1, keepdim=True) + 1e-5).rsqrt(), w)

    found, exact = of(behind, torch.float32), of(before, torch.float64)
    for value, wanted in zip(found, exact, strict=True):
        torch.testing.assert_close(value.double(), wanted, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("head_dim", [16, 64])
def test_torch_can_trace_and_differentiate_the_operations(head_dim: int) -> None:
    """Fake tensors, schemas and autograd's registration, as `torch.compile` uses them."""
    inputs = inputs_of(5, 2, head_dim, 16)
    given = [tensor.to(DEVICE, torch.float32).requires_grad_() for tensor in inputs]
    checks = ("test_schema", "test_autograd_registration", "test_faketensor")
    torch.library.opcheck(core.mixer_core_kept, (*given, head_dim, 16, 2), test_utils=checks)
    gated, sums = core.mixer_core(*given, head_dim, 16, 2)
    rows = (
        gated.detach().requires_grad_(),
        sums.detach().requires_grad_(),
        torch.ones_like(gated).requires_grad_(),
        head_dim * 2,
        1e-5,
        torch.float32,
    )
    torch.library.opcheck(norm.scale_rows, rows, test_utils=checks)


def test_torch_can_trace_where_a_mixer_begins() -> None:
    generator = torch.Generator().manual_seed(0)

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator).to(DEVICE)

    tokens, dim, inner = [normal(2, 5, 20), normal(20), normal(20)], 20, 48
    parts = [normal(inner, dim), normal(inner, dim), normal(32, dim), normal(3, dim), normal(dim, inner)]
    parts.append(normal(inner))
    checks = ("test_schema", "test_faketensor")
    for of_tokens, of_parts in ((tokens, parts), (tokens, []), ([], parts)):
        given = (of_tokens, of_parts, 1e-5, torch.float32, torch.float32)
        torch.library.opcheck(start.start_mixer, given, test_utils=checks)
        results = start.start_mixer(*given)
        du = [results[0], *tokens[:2]] if of_tokens else []
        dparts = [*results[-2:], *parts[4:]] if of_parts else []
        for dstream in (tokens[0], None) if of_tokens else (None,):
            backward = (du, dparts, dstream, 1e-5, 32, 3)
            torch.library.opcheck(start.start_mixer_backward, backward, test_utils=checks)


def of_kernels(**changes: object) -> MatMamba:
    torch.manual_seed(0)
    sizes = SMALL | {"depth": 2, "head_dim": 16, "d_state": 16} | changes
    return MatMamba(**sizes, ssd_backend="triton").to(DEVICE)


def images() -> Tensor:
    return torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(1)).to(DEVICE)


def gradients_of(model: MatMamba, width: str, call: Callable[..., Tensor] | None = None) -> list[Tensor]:
    """Logits and the gradients of all parameters that have one."""
    model.zero_grad()
    logits = (model if call is None else call)(images(), width=model.width(width))
    logits.float().square().sum().backward()
    return [logits, *(p.grad for p in model.parameters() if p.grad is not None)]


@pytest.fixture
def launches(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Gets an entry whenever the kernels' forward is launched."""
    launched, forward = list[int](), core.core_forward

    def count(*arguments: object) -> object:
        launched.append(1)
        return forward(*arguments)

    monkeypatch.setattr(core, "core_forward", count)
    return launched


@pytest.mark.parametrize(
    ("changes", "width", "fused"),
    [
        ({"depth": 1}, "full", 1),
        ({"scan": "flip"}, "1/4", 2),
        ({"depth": 1, "heads_per_group": 4}, "1/2", 1),
        ({"depth": 1, "mean_token": True}, "1/4", 1),
        ({"depth": 1, "scan": "bidirectional"}, "1/4", 0),
        ({"depth": 1, "head_dim": 8}, "1/4", 0),
    ],
    ids=str,
)
def test_a_model_is_trained_by_them(
    changes: dict[str, object], width: str, fused: int, launches: list[int]
) -> None:
    """Logits and gradients are those of the definition; what the kernels do not take, others do."""
    model = of_kernels(**changes)
    found = gradients_of(model, width)
    assert len(launches) == fused
    model.use_backend("reference")
    torch.testing.assert_close(found, gradients_of(model, width), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("rate", ["proj_drop_rate", "drop_path_rate"])
def test_what_is_dropped_stands_between_update_and_stream(rate: str, launches: list[int]) -> None:
    model, found = of_kernels(**{rate: 0.5}), list[list[Tensor]]()
    for backend in ("triton", "reference"):
        model.use_backend(backend)
        torch.manual_seed(3)
        found.append(gradients_of(model, "1/4"))
    assert len(launches) == 2
    torch.testing.assert_close(*found, rtol=1e-3, atol=1e-4)


@pytest.mark.skipif(DEVICE == "cuda", reason="the interpreter tells what it launches")
@FORMS
def test_a_block_is_nine_launches_and_six_products_or_eleven(
    longest: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of two blocks, the first of which is counted; forward and backward. Eleven where there are states."""
    from triton.runtime.interpreter import GridExecutor

    config = replace(configs.default_training_config(torch.float32), longest_quadratic=longest)
    monkeypatch.setattr(core, "default_training_config", lambda dtype: config)
    launched, launch = Counter[str](), GridExecutor.__call__

    def count(self: Any, *arguments: Any, **options: Any) -> None:
        launched[self.fn.__name__] += 1
        launch(self, *arguments, **options)

    monkeypatch.setattr(GridExecutor, "__call__", count)
    counts, products = [], []
    for depth in (1, 2):
        launched.clear()
        with torch.profiler.profile() as profile:
            gradients_of(of_kernels(depth=depth), "1/8")
        counts.append(launched.copy())
        products.append(sum(event.name in ("aten::mm", "aten::addmm") for event in profile.events()))
    kernels = counts[1] - counts[0]
    assert kernels.pop("states_of_tiles_kernel", 0) == (0 if longest else 2)
    assert set(kernels.values()) == {1}
    assert len(kernels) == 9
    assert products[1] - products[0] == 6


def test_without_gradients_other_kernels_serve(launches: list[int]) -> None:
    model = of_kernels(depth=1)
    with torch.no_grad():
        model(images(), width=model.width("1/4"))
    assert not launches


def test_blocks_that_are_computed_again_give_the_same(launches: list[int]) -> None:
    model = of_kernels(depth=1)
    found = gradients_of(model, "1/4")
    model.set_grad_checkpointing()
    again = gradients_of(model, "1/4")
    assert len(launches) == 3
    assert all(torch.equal(one, other) for one, other in zip(found, again, strict=True))


def test_a_compiled_model_takes_them_as_they_are(launches: list[int]) -> None:
    model = of_kernels(depth=1)
    expected = gradients_of(model, "1/4")
    compiled = torch.compile(model, backend="aot_eager", fullgraph=True)
    found = gradients_of(model, "1/4", compiled)
    assert len(launches) == 2
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


def test_under_autocast_products_are_in_halves() -> None:
    model = of_kernels(depth=1)
    exact = gradients_of(model, "1/4")
    with torch.autocast(DEVICE, torch.bfloat16):
        found = gradients_of(model, "1/4")
    for value, wanted in zip(found[1:], exact[1:], strict=True):
        assert value.dtype == torch.float32
        assert (value - wanted).abs().max() <= 0.1 * wanted.abs().max()


@pytest.mark.parametrize("heads", [2, 3])
def test_packed_weights_are_the_weights(heads: int) -> None:
    """One matrix of all, and the norm's weight in the output projection; leading heads are read in place."""
    generator = torch.Generator().manual_seed(0)
    shapes = ((3, 16, 20), (3, 16, 20), (32, 20), (3, 20), (20, 3, 16), (3, 16))
    weights = [torch.randn(shape, generator=generator).to(DEVICE).requires_grad_() for shape in shapes]
    z, x, shared, dt, out, norm_weight = weights
    parts = (z[:heads].flatten(0, 1), x[:heads].flatten(0, 1), shared, dt[:heads])
    last = (out[:, :heads].flatten(1), norm_weight[:heads].flatten())
    found = start.packed_once((*parts, *last), TypesOfStep(torch.bfloat16, torch.float32), None)
    wanted = torch.cat(parts).bfloat16(), last[0] * last[1]
    factors = [torch.randn(tensor.shape, generator=generator).to(tensor) for tensor in wanted]
    gradients = [torch.autograd.grad(both, weights, factors) for both in (found, wanted)]
    # Triton's interpreter cuts off where a GPU rounds.
    torch.testing.assert_close(found[0], wanted[0], rtol=2**-7, atol=0)
    assert torch.equal(found[1], wanted[1])
    torch.testing.assert_close(*gradients, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("shape", [(2, 5, 20), (70, 32)], ids=str)
def test_the_layer_norm_is_that_of_torch(shape: tuple[int, ...]) -> None:
    generator = torch.Generator().manual_seed(0)
    x, dout = (torch.randn(shape, generator=generator).to(DEVICE) for _ in range(2))
    torch_norm = torch.nn.LayerNorm(shape[-1], device=DEVICE)
    torch.nn.init.normal_(torch_norm.weight, generator=generator)
    torch.nn.init.normal_(torch_norm.bias, generator=generator)
    x.requires_grad_()
    given = [x, *torch_norm.parameters()]
    results = []
    for out in (start.trained_layer_norm(x, torch_norm), torch_norm(x)):
        results.append([out, *torch.autograd.grad(out, given, dout)])
    torch.testing.assert_close(*results, rtol=1e-5, atol=1e-5)


def compile_for(tmp_path: Path, *kind: str) -> str:
    """Compile all kernels for a kind of mixer, see `compile_training.py`, and give what it prints."""
    program = [sys.executable, str(Path(__file__).with_name("compile_training.py")), *kind]
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    environment["TRITON_CACHE_DIR"] = str(tmp_path)
    done = subprocess.run(program, capture_output=True, text=True, env=environment, timeout=900)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.slow
def test_the_kernels_compile_for_hopper(tmp_path: Path) -> None:
    """Nothing is spilled, and products go to tensor cores."""
    assert "90 scan_kernel" in compile_for(tmp_path, "90", "bfloat16", "16", "128")


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float32"])
@pytest.mark.parametrize(
    "kind", [("90", "16", "128"), ("90", "32", "64"), ("90", "64", "128"), ("80", "16", "128")]
)
def test_the_kernels_compile_for_other_mixers(kind: tuple[str, str, str], dtype: str, tmp_path: Path) -> None:
    gpu, head_dim, state = kind
    assert compile_for(tmp_path, gpu, dtype, head_dim, state)
