"""Trials of a block's kernels, in inference and in training, beside the definition in float64."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import torch
from torch import Tensor
from torch.nn import functional as F

from ... import reference
from .. import trials
from ..candidates import HOPPER, Shapes
from ..trials import EPSILON, TAPS, KernelTrial, TrialInputs
from .chosen_configs import TRAINING, config_of, shapes_of_block
from .configs import LONGEST_QUADRATIC
from .mixed import mixed
from .norm_residual import norm_residual
from .packing import BlockWeights, pack_block
from .training_core import KeptScan, core_backward, core_forward, sizes_of

DIM = 512
FORWARD, BACKWARD = ("prepare", "scan"), ("gate_backward", "scan_backward", "conv")


def block_trials(
    dtype: torch.dtype, head_dim: int, state: int, length: int, batch: int, gpu: int = HOPPER
) -> list[KernelTrial]:
    """One block, such as of `small`: inference, and both directions of training.

    Args:
        dtype: of the tokens.
        head_dim: P.
        state: N.
        length: L.
        batch: images that fill a GPU.
        gpu: its compute capability.
    """
    sizes = (dtype, head_dim, state, length)
    shapes = shapes_of_block(*sizes, gpu)
    # Only longer sequences have states.
    states = () if length <= LONGEST_QUADRATIC else ("states",)
    scan = "scan_quadratic_kernel" if length <= LONGEST_QUADRATIC else "scan_state_kernel"
    inference = KernelTrial(
        name="block",
        shapes=shapes,
        kernels=("conv_scores_kernel", scan, "norm_residual_kernel"),
        batch=batch,
        prepare=partial(_prepare_block, *sizes, shapes),
    )
    training = [
        KernelTrial(
            name=f"block in training, {name}",
            shapes=shapes,
            kernels=tuple(TRAINING[field] for field in fields),
            batch=max(1, batch // 2),
            prepare=partial(_prepare_training, *sizes, name == "backward"),
        )
        for name, fields in (("forward", FORWARD), ("backward", states + BACKWARD))
    ]
    return [inference, *training]


def _normal(device: torch.device, seed: int) -> Callable[..., Tensor]:
    return partial(torch.randn, generator=torch.Generator(device).manual_seed(seed), device=device)


def _rates(heads: int, device: torch.device) -> Tensor:
    return torch.linspace(1, 16, heads, device=device)


def _prepare_block(
    dtype: torch.dtype,
    head_dim: int,
    state: int,
    length: int,
    shapes: Shapes,
    device: torch.device,
    batch: int,
    checked: bool,
) -> TrialInputs:
    heads, quadratic = trials.heads_of(checked), length <= LONGEST_QUADRATIC
    length = trials.tokens_of(length, checked)
    normal = _normal(device, length)
    weights = _weights(normal, heads, head_dim, state, dtype, device)
    u, x = (normal(batch, length, DIM).to(dtype) for _ in range(2))

    def work() -> Sequence[Tensor]:
        config = config_of(shapes, quadratic)
        return norm_residual(
            x,
            mixed(u, weights, config),
            weights.out_bias,
            None,
            inner=heads * head_dim,
            gate_epsilon=weights.gate_epsilon,
            epsilon=EPSILON,
            candidate=config.norm,
        )

    return TrialInputs(work=work, expected=partial(_exact_block, x, u, weights))


def _weights(
    normal: Callable[..., Tensor],
    heads: int,
    head_dim: int,
    state: int,
    dtype: torch.dtype,
    device: torch.device,
) -> BlockWeights:
    inner, shared = heads * head_dim, 2 * state
    bias = normal(2 * inner + shared + heads) / 10
    # Steps as trained models have them.
    bias[-heads:] -= 3
    return pack_block(
        project=normal(2 * inner + shared + heads, DIM) / DIM**0.5,
        project_bias=bias,
        conv=normal(inner + shared, TAPS) / 2,
        conv_bias=normal(inner + shared) / 10,
        rates=-_rates(heads, device),
        skip=normal(heads),
        out=normal(DIM, inner) / inner**0.5,
        out_bias=normal(DIM) / 10,
        heads=heads,
        head_dim=head_dim,
        state=state,
        heads_per_group=heads,
        gate_epsilon=EPSILON,
        dtype=dtype,
    )


def _exact_block(x: Tensor, u: Tensor, weights: BlockWeights) -> Sequence[Tensor]:
    """The stream and its LayerNorm, with the weights as they are packed."""
    heads, inner, state = weights.heads, weights.heads * weights.head_dim, weights.state
    row = F.linear(u.double(), weights.project.double(), weights.project_bias.double())
    packed = row[..., : 2 * inner + 2 * state + heads]
    rates = weights.rates.double() * torch.log(torch.tensor(2.0, dtype=torch.float64))
    gated = _gated(
        packed, weights.taps.T.double(), weights.conv_bias.double(), weights.dt_bias.double(), rates,
        weights.skip.double(),
    )  # fmt: skip
    normed = gated * (gated.square().mean(-1, keepdim=True) + weights.gate_epsilon).rsqrt()
    bias = None if weights.out_bias is None else weights.out_bias.double()
    stream = x.double() + F.linear(normed, weights.out.double(), bias)
    return stream, F.layer_norm(stream, stream.shape[-1:], eps=EPSILON)


def _gated(
    packed: Tensor, taps: Tensor, conv_bias: Tensor, dt_bias: Tensor, rates: Tensor, skip: Tensor
) -> Tensor:
    """(B, L, I) of rows of z, x, B, C and dt, by the recurrence; taps (X, K)."""
    heads, convolved = len(skip), len(taps)
    inner = packed.shape[-1] - convolved - heads
    z, xBC, dt = packed.split([inner, convolved, heads], dim=-1)
    xBC = reference.conv_silu_reference(xBC, taps, conv_bias)
    state = (convolved - inner) // 2
    x, B, C = xBC.split([inner, state, state], dim=-1)
    step = F.softplus(dt + dt_bias)
    y = reference.ssd_reference(x.unflatten(-1, (heads, -1)), step, rates, B, C, skip)
    return y.flatten(2) * F.silu(z)


def _prepare_training(
    dtype: torch.dtype,
    head_dim: int,
    state: int,
    length: int,
    backward: bool,
    device: torch.device,
    batch: int,
    checked: bool,
) -> TrialInputs:
    heads, long = trials.heads_of(checked), length
    length = trials.tokens_of(length, checked)
    normal, inner = _normal(device, long), heads * head_dim
    convolved = inner + 2 * state
    packed = normal(batch, length, inner + convolved + heads).to(dtype)
    rest = (
        normal(convolved, TAPS) / 2,
        normal(convolved) / 10,
        normal(heads) / 10 - 3,
        _rates(heads, device).log(),
        normal(heads),
    )
    sizes = partial(sizes_of, packed, heads, head_dim, state, heads, None)
    if not backward:
        return TrialInputs(
            work=lambda: _summed(core_forward(packed, *rest, sizes())),
            expected=partial(_exact_forward, packed, rest),
        )
    dgated, dsums = normal(batch, length, inner).to(sizes().wide), normal(batch, 1, length) / 10
    dsums = dsums.expand(batch, sizes().places, length)

    def work() -> Sequence[Tensor]:
        # One kernel is launched in both directions.
        *_, kept = core_forward(packed, *rest, sizes())
        return core_backward(dgated, dsums, packed, *rest, kept, sizes())

    exact = partial(_exact_backward, packed, rest, dgated, dsums[:, 0])
    return TrialInputs(work=work, expected=exact, sums=(1, 2))


def _summed(found: tuple[Tensor, Tensor, KeptScan]) -> Sequence[Tensor]:
    return found[0], found[1].sum(1)


def _exact_forward(packed: Tensor, rest: Sequence[Tensor]) -> Sequence[Tensor]:
    taps, conv_bias, dt_bias, A_log, skip = (tensor.double() for tensor in rest)
    gated = _gated(packed.double(), taps, conv_bias, dt_bias, -A_log.exp(), skip)
    return gated, gated.square().sum(-1)


def _exact_backward(
    packed: Tensor, rest: Sequence[Tensor], dgated: Tensor, dsquares: Tensor
) -> Sequence[Tensor]:
    """Gradients of the packed projection; of taps and bias (5, X); of A_log, D and dt's bias (3, H)."""
    exact = [tensor.double().requires_grad_() for tensor in (packed, *rest)]
    with torch.enable_grad():
        gated, squares = _exact_forward(exact[0], exact[1:])
        loss = (gated * dgated.double()).sum() + (squares * dsquares.double()).sum()
        dpacked, dtaps, dbias, ddt_bias, dA_log, dD = torch.autograd.grad(loss, exact)
    return dpacked, torch.cat([dtaps.T, dbias[None]]), torch.stack([dA_log, dD, ddt_bias])
