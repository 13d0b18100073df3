"""How exact gradients are where products take halves, which Triton's interpreter has to be taught."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from functools import partial

import pytest
import torch
from matmamba_vision.ops import reference
from mixer_core import defined
from torch import Tensor
from torch.nn import functional as F

triton = pytest.importorskip("triton", reason="triton is not installed")
tl = triton.language
from matmamba_vision.ops.triton import launch, ssd, ssd_kernels  # noqa: E402
from matmamba_vision.ops.triton.block import (  # noqa: E402
    training_backward_kernels,
    training_configs,
    training_core,
    training_parts,
)

# Of the gradient of a decay rate, relative: a sum over all tokens, most of which cancels.
OF_DECAYS = 2e-2

pytestmark = pytest.mark.skipif(not launch.is_interpreted(), reason="a GPU multiplies halves itself")


@triton.jit
def halved(t):  # type: ignore[no-untyped-def]
    """To the nearest bfloat16, ties to even; the interpreter's own conversion cuts off."""
    bits = t.to(tl.float32).to(tl.int32, bitcast=True)
    return ((bits + 32767 + ((bits >> 16) & 1)) & -65536).to(tl.float32, bitcast=True)


@triton.jit
def product_of_halves(a, b, DOT, PRECISION):  # type: ignore[no-untyped-def]
    return tl.dot(halved(a), halved(b))


@triton.jit
def as_halves(t, DOT):  # type: ignore[no-untyped-def]
    return halved(t)


def inputs_of(seed: int, length: int) -> list[Tensor]:
    """x, dt, A, B, C, D of one head and 16 states, numbers that bfloat16 has."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator, dtype=torch.float64)

    x, dt = normal(1, length, 1, 16), F.softplus(normal(1, length, 1))
    inputs = [x, dt, -normal(1).exp(), *normal(2, 1, length, 16), normal(1)]
    return [tensor.bfloat16().double() for tensor in inputs]


def gradient_of_rates(scan: object, inputs: list[Tensor], dtype: torch.dtype) -> Tensor:
    given = [tensor.to(dtype).requires_grad_() for tensor in inputs]
    y = scan(*given)  # type: ignore[operator]
    weight = torch.linspace(-1, 1, y.numel()).bfloat16().to(dtype).view_as(y)
    return torch.autograd.grad(y, given[2], weight)[0].double()


@pytest.mark.parametrize("seed", [4, 5])
def test_the_gradient_of_decays_survives_states_in_halves(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """What enters the sum over a chunk leaves it, to the bit: otherwise 0.2 and 0.08 of it are wrong."""
    monkeypatch.setattr(ssd_kernels, "_dot", product_of_halves)
    monkeypatch.setattr(ssd, "LARGEST_SINGLE_CHUNK", 0)
    monkeypatch.setattr(ssd, "CHUNK", 128)
    monkeypatch.setattr(ssd, "SMALL_TILE", 64)
    inputs = inputs_of(seed, 200)
    found = gradient_of_rates(ssd.ssd_triton, inputs, torch.float32)
    exact = gradient_of_rates(reference.ssd_reference, inputs, torch.float64)
    assert (found - exact).abs().max() <= OF_DECAYS * exact.abs().max()


@pytest.mark.parametrize("length", [65, 197])
@pytest.mark.parametrize("longest", [512, 0], ids=["quadratic", "states"])
def test_the_gradient_of_decays_of_a_trained_mixer_keeps_its_digits(
    length: int, longest: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a token does to itself is left out, and what cancels cancels in float32."""
    for module in (training_parts, training_backward_kernels):
        monkeypatch.setattr(module, "rounded", as_halves)
    config = replace(training_configs.default_training_config(torch.bfloat16), longest_quadratic=longest)
    monkeypatch.setattr(training_core, "default_training_config", lambda dtype: config)
    generator = torch.Generator().manual_seed(length)
    shapes = (1, length, 2 * 32 + 2 * 16 + 2), (32 + 2 * 16, 4), (32 + 2 * 16,), (2,), (2,), (2,)
    inputs = [torch.randn(shape, generator=generator, dtype=torch.float64) for shape in shapes]
    inputs = [tensor.bfloat16().double() for tensor in inputs]

    def gradient(function: Callable[..., tuple[Tensor, Tensor]], dtype: torch.dtype) -> Tensor:
        given = [tensor.to(dtype).requires_grad_() for tensor in inputs]
        gated, _ = function(*given)
        weight = torch.linspace(-1, 1, gated.numel()).bfloat16().to(dtype).view_as(gated)
        return torch.autograd.grad(gated, given[4], weight)[0].double()

    mixer = partial(training_core.mixer_core, head_dim=16, state=16, group_size=2)
    found = gradient(mixer, torch.float32)
    exact = gradient(lambda *given: defined(given, 16, 16, 2), torch.float64)
    assert (found - exact).abs().max() <= OF_DECAYS * exact.abs().max()


@pytest.mark.parametrize(
    ("switch", "precision"),
    [
        ("torch.set_float32_matmul_precision('high')", "tf32"),
        ("torch.backends.cuda.matmul.allow_tf32 = True", "tf32"),
        ("torch.backends.cuda.matmul.fp32_precision = 'tf32'", "tf32"),
        ("torch.backends.cuda.matmul.fp32_precision = 'ieee'", "ieee"),
        ("pass", "ieee"),
    ],
)
def test_each_switch_of_torch_for_tf32_is_heard(switch: str, precision: str) -> None:
    """The newer ones are not to be mixed with the older ones in one process."""
    program = (
        "import torch; from matmamba_vision.ops.triton.launch import precision_of; "
        f"{switch}; print(precision_of(torch.float32)[1])"
    )
    command = [sys.executable, "-c", program]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip() == precision
