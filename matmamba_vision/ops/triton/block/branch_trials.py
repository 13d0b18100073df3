"""Trials of the kernels with which a mixer begins and ends in training, beside the definition in float64."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import torch
from torch import Tensor
from torch.nn import functional as F

from ..conv_and_norm_kernels import shapes_of_rows
from ..trials import EPSILON, HEADS, KernelTrial, TrialInputs
from .training_norm import rows_backward, rows_forward
from .training_start import start_mixer, start_mixer_backward

# P and N of what is packed, tokens, and places of sums.
HEAD_DIM, STATE, TOKENS, PLACES = 16, 128, 197, 16


def branch_trials(dtype: torch.dtype, dim: int, batch: int = 128) -> list[KernelTrial]:
    """LayerNorm, packed weights, and the norm's factor with the stream, in both directions.

    Args:
        dtype: of the tokens.
        dim: D.
        batch: images that fill a GPU.
    """
    kinds = {
        "start": ("start_kernel", _prepare_start, False),
        "start, backward": ("start_backward_kernel", _prepare_start, True),
        "end": ("scale_rows_kernel", _prepare_end, False),
        "end, backward": ("scale_rows_backward_kernel", _prepare_end, True),
    }
    return [
        KernelTrial(
            name=f"block in training, {name}",
            shapes=shapes_of_rows(dtype, dim),
            kernels=(kernel,),
            batch=batch,
            prepare=partial(prepare, dtype, dim, backward),
        )
        for name, (kernel, prepare, backward) in kinds.items()
    ]


def _gradients(
    definition: Callable[..., Sequence[Tensor]], given: Sequence[Tensor], outer: Sequence[Tensor]
) -> list[Tensor]:
    exact = [tensor.double().requires_grad_() for tensor in given]
    with torch.enable_grad():
        results = definition(*exact)
        return list(torch.autograd.grad(results, exact, [tensor.double() for tensor in outer]))


def _normal(device: torch.device, seed: int) -> Callable[..., Tensor]:
    return partial(torch.randn, generator=torch.Generator(device).manual_seed(seed), device=device)


def _wide(dtype: torch.dtype) -> torch.dtype:
    return torch.bfloat16 if dtype == torch.bfloat16 else torch.float32


def _prepare_start(
    dtype: torch.dtype, dim: int, backward: bool, device: torch.device, batch: int, checked: bool
) -> TrialInputs:
    normal, inner = _normal(device, dim), HEADS * HEAD_DIM
    x, stream = normal(2, batch, TOKENS, dim).to(dtype)
    tokens = (x, normal(dim), normal(dim))
    parts = [normal(rows, dim) / dim**0.5 for rows in (inner, inner, 2 * STATE, HEADS)]
    parts += [normal(dim, inner) / inner**0.5, normal(inner)]
    types = dtype, _wide(dtype)
    if not backward:
        return TrialInputs(
            work=lambda: start_mixer(tokens, parts, EPSILON, *types),
            expected=lambda: _started(*(tensor.double() for tensor in (*tokens, *parts)))[:3],
        )
    rows = sum(map(len, parts[:4]))
    du = normal(batch, TOKENS, dim).to(dtype)
    dproject, dfolded = normal(rows, dim).to(dtype), normal(dim, inner).to(types[1])

    def work() -> Sequence[Tensor]:
        given = (du, *tokens[:2]), (dproject, dfolded, *parts[4:])
        dx, partial_sums, *rest = start_mixer_backward(*given, stream, EPSILON, 2 * STATE, HEADS)
        return dx, *partial_sums.sum(0), *rest

    outer = du, dproject, dfolded, stream
    return TrialInputs(
        work=work, expected=lambda: _gradients(_started, (*tokens, *parts), outer), sums=(1, 2, 8)
    )


def _started(x: Tensor, weight: Tensor, bias: Tensor, *parts: Tensor) -> Sequence[Tensor]:
    *projections, out, norm = parts
    return F.layer_norm(x, weight.shape, weight, bias, EPSILON), torch.cat(projections), out * norm, x


def _prepare_end(
    dtype: torch.dtype, dim: int, backward: bool, device: torch.device, batch: int, checked: bool
) -> TrialInputs:
    normal, inner = _normal(device, dim), HEADS * HEAD_DIM
    update = normal(batch, TOKENS, dim).to(_wide(dtype))
    stream, dout = normal(2, batch, TOKENS, dim).to(dtype)
    # Of squares of `inner` numbers that are of the size of one.
    sums = inner / PLACES * (0.5 + normal(batch, PLACES, TOKENS).square())
    if not backward:
        return TrialInputs(
            work=lambda: (rows_forward(update, sums, stream, inner, EPSILON, dtype),),
            expected=lambda: _ended(update.double(), sums.double(), stream.double(), inner),
        )

    def expected() -> Sequence[Tensor]:
        dupdate, dsums, _ = _gradients(partial(_ended, inner=inner), (update, sums, stream), (dout,))
        # In the units in which a token's gradients are about one.
        return dupdate, inner * dsums[:, 0]

    def work() -> Sequence[Tensor]:
        dupdate, dsums = rows_backward(dout, update, sums, inner, EPSILON)
        return dupdate, inner * dsums

    return TrialInputs(work=work, expected=expected, sums=(1,))


def _ended(update: Tensor, sums: Tensor, stream: Tensor, inner: int) -> Sequence[Tensor]:
    factor = (sums.sum(1) / inner + EPSILON).rsqrt()
    return (stream + update * factor[..., None],)
