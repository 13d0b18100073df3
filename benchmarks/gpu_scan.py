"""The scan on a GPU: whether it is right, and how near it is to what memory and arithmetic allow."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial

import torch
from gpu_setting import Setting
from matmamba_vision.ops import BACKENDS, scan_macs, ssd
from measuring import Case, Plan, Ratio, measure_case, timed
from peers import CHUNK_SIZE
from torch import Tensor, nn

# Agreement with the recurrence in float64, relative to the largest value.
TOLERANCE = {torch.float32: 1e-4, torch.bfloat16: 4e-2, torch.float16: 4e-3}
# TFLOPS of the products of a block below which no scan leads to parity with the transformer.
ENOUGH_FOR_PARITY = 450
RESULTS_OF_A_SCAN = ("y", "dx", "ddt", "dA", "dB", "dC", "dD")


def correctness(plan: Plan, setting: Setting, name: str) -> Iterator[Case]:
    """Largest relative errors of a kernel's outputs and gradients; they are shown, whatever they are."""
    for length, head_dim, state_dim in setting.checked:
        inputs = scan_inputs(setting.device, 1, length, 2, head_dim, state_dim)
        exact = results_of("reference", inputs)
        for dtype, tolerance in TOLERANCE.items():
            found = results_of(name, [tensor.to(dtype) for tensor in inputs])
            errors = [_error(one, other) for one, other in zip(found, exact, strict=True)]
            label = f"correct, {name}, {str(dtype)[6:]}, {length} tokens, {head_dim} x {state_dim}"
            sides = dict(zip(RESULTS_OF_A_SCAN, map(_constant, errors), strict=True))
            settings = {"tolerance": tolerance, "agrees": max(errors) <= tolerance}
            yield measure_case(label, sides, [], Plan(0, 1), settings, unit="")


def _constant(value: float) -> Callable[[], float]:
    return lambda: value


def _error(found: Tensor, exact: Tensor) -> float:
    return float((found.double() - exact).abs().max() / exact.abs().max().clamp(min=0.1))


def scan_inputs(
    device: str, batch: int, length: int, heads: int, head_dim: int, state_dim: int
) -> list[Tensor]:
    """x, dt, A, B, C, D in float64, of the size that a trained block has them."""
    generator = torch.Generator(device).manual_seed(length)

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator, device=device, dtype=torch.float64)

    x, dt = normal(batch, length, heads, head_dim), nn.functional.softplus(normal(batch, length, heads) - 3)
    A = -torch.linspace(1, 16, heads, device=device, dtype=torch.float64)
    return [x, dt, A, normal(batch, length, state_dim), normal(batch, length, state_dim), normal(heads)]


def results_of(backend: str, inputs: Sequence[Tensor]) -> list[Tensor]:
    """Output and gradients of a scan."""
    inputs = [tensor.detach().requires_grad_() for tensor in inputs]
    y = ssd(*inputs, backend=backend)
    weight = torch.linspace(-1, 1, y.numel(), device=y.device).bfloat16().to(y.dtype).view_as(y)
    return [y.detach(), *torch.autograd.grad(y, inputs, weight)]


def roofline(plan: Plan, setting: Setting) -> Iterator[Case]:
    """The time that copying its inputs and outputs, or its products, would take, over that of the scan."""
    bandwidth, rate = copy_bandwidth(plan, setting), matrix_rate(plan, setting)
    for heads, head_dim, state_dim in setting.blocks:
        for length, batch in setting.scans:
            inputs = scan_inputs(setting.device, batch, length, heads, head_dim, state_dim)
            macs = batch * scan_macs(length, heads * head_dim, state_dim, CHUNK_SIZE)
            label = f"scan, {length} x {heads * head_dim}"
            yield against_bound(label, plan, _mixed(inputs, setting.dtype), macs, bandwidth, rate)


def _mixed(inputs: Sequence[Tensor], dtype: torch.dtype) -> list[Tensor]:
    """Inputs as a block in half precision has them: step sizes and what belongs to heads in float32."""
    x, dt, A, B, C, D = inputs
    given = x.to(dtype), dt.float(), A.float(), B.to(dtype), C.to(dtype), D.float()
    return [tensor.requires_grad_() for tensor in given]


def against_bound(
    name: str, plan: Plan, inputs: Sequence[Tensor], macs: int, bandwidth: float, rate: float
) -> Case:
    """The scan, forward and with backward, beside what memory or arithmetic would take for the forward."""
    scan = BACKENDS["triton"].scan
    moved = sum(tensor.numel() * tensor.element_size() for tensor in (*inputs, inputs[0]))
    by_bytes, by_operations = moved / bandwidth, 2 * macs / rate
    sides = {
        "scan": timed(torch.no_grad()(partial(scan, *inputs, chunk_size=CHUNK_SIZE)), calls=10),
        "bound": _constant(1e3 * max(by_bytes, by_operations)),
        "forward + backward": timed(partial(_scan_step, scan, inputs), calls=3),
    }
    settings = {
        "bytes": moved,
        "multiply_adds": macs,
        "copy_bytes_per_second": bandwidth,
        "matrix_operations_per_second": rate,
        "bounded_by": "bytes" if by_bytes >= by_operations else "operations",
    }
    return measure_case(name, sides, [Ratio("bound / scan", "bound", "scan")], plan, settings)


def _scan_step(scan: Callable[..., Tensor], inputs: Sequence[Tensor]) -> None:
    y = scan(*inputs, chunk_size=CHUNK_SIZE)
    torch.autograd.grad(y, inputs, torch.ones_like(y))


def rates(plan: Plan, setting: Setting) -> Iterator[Case]:
    """What everything else is bounded by: a copy, and PyTorch's products at the shapes of a block.

    Settings say whether parity with the transformer is within reach: below `ENOUGH_FOR_PARITY` it is not, and
    the GPU is throttled, shared, or another one than figures are published of.
    """
    copied = copy_bandwidth(plan, setting) / 1e9
    yield measure_case("copy", {"copy": _constant(copied)}, [], Plan(0, 1), {}, unit="GB/s")
    shape, tokens = setting.block, setting.block.batch * setting.block.tokens
    sides = {}
    for width, heads in shape.widths().items():
        inner = heads * shape.head_dim
        packed = 2 * inner + 2 * shape.state_dim + heads
        sides[f"input projection, {width}"] = _product(setting, plan, tokens, shape.dim, packed)
        sides[f"output projection, {width}"] = _product(setting, plan, tokens, inner, shape.dim)
    found = {name: _constant(rate / 1e12) for name, rate in sides.items()}
    slowest = min(sides["input projection, full"], sides["output projection, full"]) / 1e12
    settings = {
        **shape.settings(dtype=str(setting.dtype)[6:]),
        "enough_for_parity": slowest >= ENOUGH_FOR_PARITY,
    }
    if setting.device == "cuda" and slowest < ENOUGH_FOR_PARITY:
        needed = f"{ENOUGH_FOR_PARITY} are needed for parity"
        settings["throttled"] = f"the GPU is throttled: products reach {slowest:.0f} TFLOPS, {needed}"
    yield measure_case("products", found, [], Plan(0, 1), settings, unit="TFLOPS")


def _product(setting: Setting, plan: Plan, rows: int, inner: int, columns: int) -> float:
    """Operations per second of (rows, inner) times (inner, columns)."""
    # Rows of a packed projection begin at multiples of 16 bytes.
    columns += -columns % 8
    left = torch.zeros(rows, inner, dtype=setting.dtype, device=setting.device)
    right = torch.zeros(columns, inner, dtype=setting.dtype, device=setting.device)
    work = partial(nn.functional.linear, left, right)
    ms = min(timed(work, calls=10)() for _ in range(plan.repeats))
    return 2 * rows * inner * columns / ms * 1e3


def copy_bandwidth(plan: Plan, setting: Setting) -> float:
    """Bytes read and written per second by a copy."""
    source = torch.zeros(setting.copied, dtype=torch.float32, device=setting.device)
    target = torch.empty_like(source)
    ms = min(timed(lambda: target.copy_(source), calls=3)() for _ in range(plan.repeats))
    return 2 * source.numel() * source.element_size() / ms * 1e3


def matrix_rate(plan: Plan, setting: Setting) -> float:
    """Operations per second of a large square product: a multiply-add is two."""
    left = torch.zeros(setting.edge, setting.edge, dtype=setting.dtype, device=setting.device)
    ms = min(timed(lambda: left @ left, calls=3)() for _ in range(plan.repeats))
    return 2 * setting.edge**3 / ms * 1e3
