"""The kernels of mamba-ssm (arXiv 2405.21060) and causal-conv1d, for those who have them installed.

mamba-ssm's kernels for this are written in Triton and work without its CUDA extension, which its package
demands when it is imported: then the modules are imported without it.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

# Tokens of a chunk, as in mamba-ssm's own modules.
CHUNK = 256


def ssd_mamba_ssm(
    x_BLHP: Tensor,
    dt_BLH: Tensor,
    A_H: Tensor,
    B_BLN: Tensor,
    C_BLN: Tensor,
    D_H: Tensor,
    *,
    chunk_size: int = 64,
) -> Tensor:
    """Scan by `mamba_chunk_scan_combined`; arguments and result as in `ssd_reference`.

    Args:
        chunk_size: unused, part of the common signature: the kernels are made for chunks of 256.
    """
    if x_BLHP.numel() == 0:
        return torch.empty_like(x_BLHP)
    # Under autocast B and C may be of another type than x; the kernels have one group of heads at least.
    B_BLGN, C_BLGN = (tensor.to(x_BLHP.dtype)[:, :, None] for tensor in (B_BLN, C_BLN))
    combined = _load("ssd_combined").mamba_chunk_scan_combined
    result: Tensor = combined(x_BLHP, dt_BLH, A_H.float(), B_BLGN, C_BLGN, CHUNK, D=D_H.float())
    return result


def gated_rms_norm_mamba_ssm(y_BLX: Tensor, z_BLX: Tensor, weight_X: Tensor, epsilon: float) -> Tensor:
    """RMSNorm of y SiLU(z), times weight; arguments and result as in `pointwise.gated_rms_norm`."""
    if y_BLX.numel() == 0:
        return torch.empty_like(y_BLX)
    norm = _load("layernorm_gated").rmsnorm_fn
    flat = norm(
        y_BLX.flatten(2), weight_X.flatten(), None, z=z_BLX.flatten(2), eps=epsilon, norm_before_gate=False
    )
    result: Tensor = flat.view(y_BLX.shape)
    return result


def conv_silu_cuda(t_BLX: Tensor, kernel_XK: Tensor, bias_X: Tensor) -> Tensor:
    """Depthwise causal convolution + SiLU by causal-conv1d; arguments and result as `pointwise.conv_silu`."""
    if t_BLX.numel() == 0:
        return torch.empty_like(t_BLX)
    convolve = importlib.import_module("causal_conv1d").causal_conv1d_fn
    parameters = (kernel_XK.flatten(0, -2).to(t_BLX.dtype), bias_X.flatten().to(t_BLX.dtype))
    result: Tensor = convolve(t_BLX.flatten(2).transpose(1, 2), *parameters, activation="silu").transpose(
        1, 2
    )
    return result.contiguous().view(t_BLX.shape)


def inner_mamba_ssm(
    zxBCdt_BLE: Tensor,
    kernel_XK: Tensor,
    bias_X: Tensor,
    dt_bias_H: Tensor,
    A_H: Tensor,
    D_H: Tensor,
    norm_I: Tensor,
    epsilon: float,
) -> Tensor:
    """Everything between a mixer's projections by `mamba_split_conv1d_scan_combined`.

    Args:
        zxBCdt_BLE: the packed input projection, as in the published layout: z (I), x (I), B (N), C (N),
            dt (H), dt before bias and softplus. kernel_XK, bias_X: of the convolution over x, B, C, so that
            X = I + 2 N. A_H: negative. norm_I: weight of the norm.

    Returns:
        (B, L, I): what the output projection takes.
    """
    combined = _load("ssd_combined").mamba_split_conv1d_scan_combined
    result: Tensor = combined(
        zxBCdt_BLE, kernel_XK, bias_X, dt_bias_H, A_H.float(), D_H.float(), CHUNK,
        rmsnorm_weight=norm_I, rmsnorm_eps=epsilon, headdim=norm_I.numel() // D_H.numel(),
        norm_before_gate=False,
    )  # fmt: skip
    return result


def inner_where_it_fits(taps: int, channels: int, row: int) -> Callable[..., Tensor] | None:
    """`inner_mamba_ssm`, where causal-conv1d is there and takes the layout, otherwise None.

    Args:
        taps: of the convolution. channels: convolved. row: numbers of a token in the packed projection.
    """
    # It takes 2 to 4 taps, and tokens that begin at multiples of 8.
    fits = 2 <= taps <= 4 and channels % 8 == 0 and row % 8 == 0
    return inner_mamba_ssm if fits and has_conv() else None


@lru_cache
def missing() -> str | None:
    """Why mamba-ssm's kernels cannot be had here, or None."""
    for package in ("triton", "mamba_ssm"):
        if importlib.util.find_spec(package) is None:
            return f"{package} is not installed"
    try:
        _load("ssd_combined")
    except (ImportError, AttributeError) as error:
        return f"mamba_ssm cannot be imported: {error}"
    return None


@lru_cache
def has_conv() -> bool:
    """Whether causal-conv1d is there with its CUDA extension."""
    return _importable("causal_conv1d")


def _importable(package: str) -> bool:
    try:
        importlib.import_module(package)
    except ImportError:
        return False
    return True


@lru_cache
def _load(module: str) -> Any:
    """A module of mamba_ssm.ops.triton, with or without the package's CUDA extension."""
    return _with_package(lambda: importlib.import_module(f"mamba_ssm.ops.triton.{module}"))


def _with_package(load: Callable[[], ModuleType]) -> ModuleType:
    if _importable("mamba_ssm"):
        return load()
    # The package's own code fails without the extension; its modules need only the folder. The stand-in does
    # not stay: whoever imports the package later is told what is missing.
    spec = importlib.util.find_spec("mamba_ssm")
    if spec is None or spec.origin is None:
        raise ImportError("mamba_ssm is not installed")
    stand_in = ModuleType("mamba_ssm")
    stand_in.__path__ = [str(Path(spec.origin).parent)]
    sys.modules["mamba_ssm"] = stand_in
    try:
        return load()
    finally:
        del sys.modules["mamba_ssm"]
