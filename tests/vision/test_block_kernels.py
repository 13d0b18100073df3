"""The kernels of a block's inference equal the definitions, in Triton's interpreter or on a GPU."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from matmamba_vision.ops import reference
from torch import Tensor
from torch.nn import functional as F

pytest.importorskip("triton", reason="triton is not installed")

from matmamba_vision.ops.triton.block.configs import (
    BlockShape,
    NormConfig,
    QuadraticConfig,
    ScoresConfig,
    StateConfig,
    default_config,
)
from matmamba_vision.ops.triton.block.conv_scores import conv_scores
from matmamba_vision.ops.triton.block.mixed import mixed, shape_of
from matmamba_vision.ops.triton.block.norm_residual import norm_residual
from matmamba_vision.ops.triton.block.packing import BlockWeights, pack_block, refusal
from matmamba_vision.ops.triton.block.scan_quadratic import scan_quadratic
from matmamba_vision.ops.triton.block.scan_state import scan_state
from matmamba_vision.ops.triton.launch import COMPILED_FOR

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
# Agreement with the definition in float64, relative to the largest value, by dtype.
TOLERANCE = {torch.float32: 1e-5, torch.bfloat16: 2e-2, torch.float16: 2e-3}
DIM, EPSILON = 24, 1e-5
# Small tiles, because the interpreter is slow.
QUADRATIC, STATE = QuadraticConfig(tile=16, columns=32), StateConfig(tile=16, columns=32)
Scan = QuadraticConfig | StateConfig


def weights_of(
    heads: int = 3, head_dim: int = 16, state: int = 16, per_group: int = 8, decay: float = 1.0, taps: int = 4
) -> dict[str, Any]:
    """Random weights in float64, as `pack_block` takes them; `decay` multiplies every second head's decay."""
    generator = torch.Generator().manual_seed(heads)

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator, dtype=torch.float64)

    inner, shared = heads * head_dim, 2 * state * -(-heads // per_group)
    rates = -normal(heads).exp()
    rates[::2] *= decay
    return {
        "project": normal(2 * inner + shared + heads, DIM) / DIM**0.5,
        "project_bias": normal(2 * inner + shared + heads),
        "conv": normal(inner + shared, taps) / 2,
        "conv_bias": normal(inner + shared),
        "rates": rates,
        "skip": normal(heads),
        "out": normal(DIM, inner) / inner**0.5,
        "out_bias": normal(DIM),
        "heads": heads,
        "head_dim": head_dim,
        "state": state,
        "heads_per_group": per_group,
        "gate_epsilon": EPSILON,
    }


def packed(given: dict[str, Any], dtype: torch.dtype = torch.float32) -> BlockWeights:
    return pack_block(**given, dtype=dtype).to(DEVICE)


def tokens(batch: int, length: int, dtype: torch.dtype = torch.float32) -> Tensor:
    """Rounded as the coarsest type does, so that every type is given the same."""
    drawn = torch.randn(batch, length, DIM, generator=torch.Generator().manual_seed(length))
    return drawn.bfloat16().to(DEVICE, dtype)


def by_definition(row_BLE: Tensor, given: dict[str, Any]) -> Tensor:
    """Gated outputs (B, L, I) of rows of z, x, B, C and dt, in float64, by the recurrence."""
    heads, head_dim, state, size = (given[name] for name in ("heads", "head_dim", "state", "heads_per_group"))
    inner, groups = heads * head_dim, -(-heads // size)
    z, convolved, dt = row_BLE.double().cpu().split([inner, inner + 2 * state * groups, heads], dim=-1)
    dt = F.softplus(dt + given["project_bias"][-heads:])
    convolved = reference.conv_silu_reference(convolved, given["conv"], given["conv_bias"])
    x, *BC = convolved.split([inner, *[state] * (2 * groups)], dim=-1)
    x = x.unflatten(-1, (heads, head_dim))
    outputs = []
    for group in range(groups):
        h, B, C = slice(group * size, min((group + 1) * size, heads)), BC[2 * group], BC[2 * group + 1]
        part = (x[:, :, h], dt[..., h], given["rates"][h], B, C, given["skip"][h])
        outputs.append(reference.ssd_reference(*part))
    return torch.cat(outputs, dim=2).flatten(2) * F.silu(z)


def scanned(row_BLE: Tensor, weights: BlockWeights, scan: Scan) -> tuple[Tensor, Tensor]:
    prepared = conv_scores(row_BLE, weights, scan=scan, candidate=ScoresConfig())
    if isinstance(scan, StateConfig):
        return scan_state(row_BLE, prepared, weights, candidate=scan)
    return scan_quadratic(row_BLE, prepared, weights, candidate=scan)


def assert_scans(
    scan: Scan, length: int, dtype: torch.dtype = torch.float32, batch: int = 1, **sizes: Any
) -> None:
    given = weights_of(**sizes)
    weights = packed(given, dtype)
    row_BLE = F.linear(tokens(batch, length, dtype), weights.project, weights.project_bias)
    g_BLI, sums = scanned(row_BLE, weights, scan)
    used = len(given["project"])
    exact = by_definition(row_BLE[..., :used], given)
    assert_near(g_BLI, exact, TOLERANCE[dtype])
    assert_near(sums.sum(-1), exact.square().sum(-1), 2 * TOLERANCE[dtype])


def assert_near(found: Tensor, exact: Tensor, tolerance: float) -> None:
    assert (found.cpu().double() - exact).abs().max() <= tolerance * exact.abs().max()


@pytest.mark.parametrize("length", [1, 15, 16, 17, 65])
@pytest.mark.parametrize("scan", [QUADRATIC, STATE], ids=["quadratic", "state"])
def test_the_scan_is_the_recurrence(scan: Scan, length: int) -> None:
    assert_scans(scan, length, batch=2 if length < 20 else 1)


SIZES: list[dict[str, Any]] = [
    {"heads": 1},
    {"heads": 1, "head_dim": 32, "state": 64},
    {"heads": 2, "head_dim": 64, "state": 128},
    {"heads": 5, "per_group": 2},
    {"heads": 5, "per_group": 3},
    {"heads": 5, "per_group": 3, "head_dim": 32, "state": 32},
    {"heads": 3, "taps": 2},
]


@pytest.mark.parametrize("sizes", SIZES, ids=str)
@pytest.mark.parametrize("scan", [QUADRATIC, STATE], ids=["quadratic", "state"])
def test_every_size_and_group_is_the_recurrence(scan: Scan, sizes: dict[str, Any]) -> None:
    columns = max(32, sizes.get("head_dim", 16))
    assert_scans(replace(scan, columns=columns), 35, **sizes)


def test_heads_are_read_in_parts() -> None:
    """Those of 64 channels by two programs each, the last one of a group as well."""
    assert_scans(STATE, 20, heads=3, head_dim=64, per_group=2)


@pytest.mark.parametrize("state", [32, 64, 128])
def test_states_that_are_read_by_halves_are_the_recurrence(state: int) -> None:
    """As GPUs other than Hopper's read them in float32, where they are large."""
    compiled_for = COMPILED_FOR.set(80)
    try:
        assert_scans(STATE, 35, state=state)
    finally:
        COMPILED_FOR.reset(compiled_for)


@pytest.mark.parametrize("exact", [True, False])
@pytest.mark.parametrize("decay", [30.0, 1e3, 1e6])
@pytest.mark.parametrize("scan", [QUADRATIC, STATE], ids=["quadratic", "state"])
def test_decays_of_any_strength_are_the_recurrence(scan: Scan, decay: float, exact: bool) -> None:
    """By 1,000 nats and more within a tile, beside heads that hardly forget."""
    assert_scans(replace(scan, exact=exact), 40, heads=4, decay=decay)


@pytest.mark.parametrize("scan", [QUADRATIC, STATE], ids=["quadratic", "state"])
def test_one_very_strong_decay_leaves_digits_to_those_behind_it(scan: Scan) -> None:
    """A token forgets by 300,000 nats and brings nothing; those behind it in its tile forget by one each."""
    given = weights_of(heads=2)
    x, dt = slice(32, 64), slice(96, 98)
    given["conv"][:32, :-1], given["conv_bias"][:32], given["project_bias"][dt] = 0, 0, 0
    given["rates"][:], given["skip"][:] = -1e4, 0
    weights = packed(given)
    row_BLE = F.linear(tokens(1, 35), weights.project, weights.project_bias)
    row_BLE[..., dt] = -9
    row_BLE[:, [3, 20], dt], row_BLE[:, [3, 20], x] = 30, 0
    found, _ = scanned(row_BLE, weights, scan)
    assert_near(found, by_definition(row_BLE[..., : len(given["project"])], given), TOLERANCE[torch.float32])


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("scan", [QUADRATIC, STATE], ids=["quadratic", "state"])
def test_halves_are_the_recurrence(scan: Scan, dtype: torch.dtype) -> None:
    assert_scans(scan, 35, dtype)
    assert_scans(scan, 35, dtype, decay=1e3)


@pytest.mark.slow
@pytest.mark.parametrize("length", [1, 31, 32, 33, 63, 64, 65, 197])
@pytest.mark.parametrize("head_dim", [16, 32, 64])
@pytest.mark.parametrize("state", [64, 128])
@pytest.mark.parametrize(
    "scan", [QuadraticConfig(), QuadraticConfig(tile=64), StateConfig(), StateConfig(tile=32)], ids=str
)
def test_the_tiles_of_a_gpu_are_the_recurrence(scan: Scan, state: int, head_dim: int, length: int) -> None:
    assert_scans(scan, length, heads=5, per_group=3, head_dim=head_dim, state=state)


@pytest.mark.parametrize("scan", [QUADRATIC, STATE], ids=["quadratic", "state"])
def test_a_head_that_is_not_a_number_spoils_no_other(scan: Scan) -> None:
    given = weights_of(heads=3)
    weights = packed(given)
    row_BLE = F.linear(tokens(1, 35), weights.project, weights.project_bias)
    expected = scanned(row_BLE, weights, scan)[0].unflatten(-1, (3, 16))
    weights.rates[1], weights.skip[1] = float("nan"), float("nan")
    found = scanned(row_BLE, weights, scan)[0].unflatten(-1, (3, 16))
    assert torch.equal(found[:, :, [0, 2]], expected[:, :, [0, 2]])
    assert found[:, :, 1].isnan().all()


def test_the_last_tile_alone_is_the_same() -> None:
    weights = packed(weights_of())
    u_BLD = tokens(2, 35)
    row_BLE = F.linear(u_BLD, weights.project, weights.project_bias)
    prepared = conv_scores(row_BLE, weights, scan=QUADRATIC, candidate=ScoresConfig())
    whole = scan_quadratic(row_BLE, prepared, weights, candidate=QUADRATIC)
    last = scan_quadratic(row_BLE, prepared, weights, candidate=QUADRATIC, last_tile=True)
    for one, other in zip(whole, last, strict=True):
        assert torch.equal(one[:, 32:], other[:, 32:])
    config = default_config(shape_of(u_BLD, weights))
    for one, other in zip(
        mixed(u_BLD, weights, config), mixed(u_BLD, weights, config, last_alone=True), strict=True
    ):
        assert other.shape[1] == 1
        torch.testing.assert_close(one[:, -1:], other)


def residual_inputs(dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    x, update = torch.randn(2, 3, 7, DIM, generator=generator).unbind()
    sums, bias = torch.rand(3, 7, 5, generator=generator) * 10, torch.randn(DIM, generator=generator)
    order = torch.tensor([6, 2, 0, 5])
    return tuple(t.to(DEVICE) for t in (x.to(dtype), update.to(dtype), sums, bias, order))  # type: ignore[return-value]


@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
@pytest.mark.parametrize("rows", [1, 4])
@pytest.mark.parametrize("given", ["update bias order", "update", "order", ""])
def test_norm_and_residual_are_their_definition(given: str, rows: int, dtype: torch.dtype) -> None:
    x, update, sums, bias, order = residual_inputs(dtype)
    pair = (update, sums) if "update" in given else None
    bias_D, order_L = bias if "bias" in given else None, order if "order" in given else None
    options: dict[str, Any] = {"inner": 40, "gate_epsilon": 0.1, "candidate": NormConfig(rows=rows)}
    found = norm_residual(x, pair, bias_D, order_L, epsilon=EPSILON, **options)
    exact = x.double()
    if pair is not None:
        exact = exact + update.double() * (sums.double().sum(-1, keepdim=True) / 40 + 0.1).rsqrt()
    exact = exact if bias_D is None else exact + bias_D.double()
    exact = exact if order_L is None else exact[:, order_L]
    assert found[0].dtype == found[1].dtype == dtype
    assert_near(found[0], exact.cpu(), TOLERANCE[dtype])
    assert_near(found[1], F.layer_norm(exact, (DIM,), eps=EPSILON).cpu(), TOLERANCE[dtype])
    stream, nothing = norm_residual(x, pair, bias_D, order_L, epsilon=None, **options)
    assert torch.equal(stream, found[0])
    assert nothing.numel() == 0


def as_called(name: str) -> tuple[Any, tuple[Any, ...]]:
    """An operation of a kernel, and arguments for it."""
    weights = packed(weights_of(heads=2))
    row = F.linear(tokens(1, 17), weights.project, weights.project_bias)
    convolution = (weights.taps, weights.conv_bias)
    form = STATE if name == "scan_state" else QUADRATIC
    prepared = conv_scores(row, weights, scan=form, candidate=ScoresConfig())
    x, update, sums, bias, order = residual_inputs(torch.float32)
    arguments: dict[str, tuple[Any, ...]] = {
        "conv_scores": (row, *convolution, weights.dt_bias, weights.rates, 2, 16, 16, 8, False, 16, 4, 2),
        "scan_quadratic": (row, *prepared, weights.skip, 2, 16, 8, False, 32, False, 4, 2),
        "scan_state": (row, *prepared, weights.skip, 2, 16, 16, 8, 32, False, 4, 2),
        "norm_residual": (x, update, sums, bias, order, 40, 0.1, EPSILON, 1, 4),
    }
    return getattr(torch.ops.matmamba, name).default, arguments[name]


@pytest.mark.parametrize("name", ["conv_scores", "scan_quadratic", "scan_state", "norm_residual"])
def test_a_kernel_is_an_operation_of_pytorch(name: str) -> None:
    operation, arguments = as_called(name)
    if name == "scan_quadratic":
        # The scores of later tiles are not written: compared are shapes.
        arguments = (*arguments[:3], arguments[3].nan_to_num(), *arguments[4:])
    torch.library.opcheck(operation, arguments, test_utils=("test_schema", "test_faketensor"))


@pytest.mark.parametrize("scan", [QUADRATIC, STATE], ids=["quadratic", "state"])
def test_a_block_is_one_compiled_graph(scan: Scan) -> None:
    weights = packed(weights_of())
    u_BLD, config = (
        tokens(2, 19),
        replace(default_config(shape_of(tokens(1, 19), packed(weights_of()))), scan=scan),
    )

    def block(u_BLD: Tensor) -> Tensor:
        update, sums = mixed(u_BLD, weights, config)
        options: dict[str, Any] = {"inner": 48, "gate_epsilon": EPSILON, "epsilon": EPSILON}
        return norm_residual(u_BLD, (update, sums), None, None, **options, candidate=NormConfig())[0]

    compiled = torch.compile(block, fullgraph=True, backend="aot_eager", dynamic=True)
    with torch.no_grad():
        torch.testing.assert_close(compiled(u_BLD), block(u_BLD))


@pytest.mark.parametrize("shape", [(0, 5), (2, 0)])
def test_nothing_gives_nothing(shape: tuple[int, int]) -> None:
    weights = packed(weights_of())
    row_BLE = torch.zeros(*shape, len(weights.project), device=DEVICE)
    for scan in (QUADRATIC, STATE):
        assert scanned(row_BLE, weights, scan)[0].shape == (*shape, 48)


def test_what_the_kernels_do_not_take_is_said() -> None:
    assert refusal(16, 128, torch.bfloat16) is None
    assert "head dims of 16, 32, 64, not 8" in (refusal(8, 128, torch.bfloat16) or "")
    assert "states of 16, 32, 64, 128, not 96" in (refusal(16, 96, torch.bfloat16) or "")
    assert "float64" in (refusal(16, 128, torch.float64) or "")


@pytest.mark.parametrize(
    ("batch", "length", "form"),
    [
        (128, 65, QuadraticConfig),
        (1, 197, QuadraticConfig),
        (128, 1025, StateConfig),
        (1, 1025, QuadraticConfig),
        (1, 4097, StateConfig),
    ],
)
def test_long_sequences_take_the_state_form(batch: int, length: int, form: type) -> None:
    shape = BlockShape(
        batch=batch, length=length, heads=64, head_dim=16, state=128, heads_per_group=64, dtype=torch.bfloat16
    )
    scan = default_config(shape).scan
    assert isinstance(scan, form)
    if isinstance(scan, StateConfig):
        # Products that go through registers leave less room for states.
        others = default_config(replace(shape, capability=80)).scan
        assert (scan.tile, others.tile, scan.columns, others.columns) == (64, 32, 64, 32)


@pytest.mark.parametrize(
    ("heads", "per_group", "columns"), [(1, 8, 16), (3, 8, 64), (64, 2, 32), (64, 64, 64)]
)
def test_few_heads_take_few_columns(heads: int, per_group: int, columns: int) -> None:
    shape = BlockShape(
        batch=1, length=9, heads=heads, head_dim=16, state=16, heads_per_group=per_group, dtype=torch.float32
    )
    scan = default_config(shape).scan
    assert scan.columns == columns
    if heads < 64:
        assert_scans(scan, 9, heads=heads, per_group=per_group)
