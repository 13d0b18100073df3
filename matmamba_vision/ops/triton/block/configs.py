"""How the kernels of a block are launched: one fixed choice for each class of shapes.

Nothing is tuned when a user calls. Whoever has measured on a machine puts a table of his own before
`default_config`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import ceil
from typing import TypeAlias

import torch

# Up to so many tokens the quadratic form has less to compute than the state form.
LONGEST_QUADRATIC = 512
# Of longer sequences the quadratic form serves up to so many, where the state form has too few programs.
LONGEST_FEW_PROGRAMS = 2112
# Programs that a GPU wants: below it, most of its multiprocessors have nothing to do.
ENOUGH_PROGRAMS = 64
# Tokens of all images from which a program of the norm takes several.
MANY_TOKENS = 4096


@dataclass(frozen=True, kw_only=True)
class BlockShape:
    """What a block is launched for.

    Attributes:
        batch: B.
        length: L, tokens of an image.
        heads: H.
        head_dim: P.
        state: N.
        heads_per_group: consecutive heads that share B and C.
        dtype: of the tokens.
        capability: of the GPU to compute: 80 for an A100, 90 for an H100 or H200.
    """

    batch: int
    length: int
    heads: int
    head_dim: int
    state: int
    heads_per_group: int
    dtype: torch.dtype
    capability: int = 90


@dataclass(frozen=True, kw_only=True)
class ScoresConfig:
    """How `conv_scores` is launched; its tile is that of the scan.

    Attributes:
        num_warps: of a program.
        num_stages: of its software pipeline.
    """

    num_warps: int = 4
    num_stages: int = 1


@dataclass(frozen=True, kw_only=True)
class QuadraticConfig:
    """How `scan_quadratic` is launched.

    Attributes:
        tile: T, rows of tokens of a program: 16, 32 or 64.
        columns: channels of a program, whole heads: 16, 32, 64 or 128, at least P.
        exact: whether decays within a tile are always computed for each pair of tokens; otherwise only where
            they are too strong to be split into a scale of rows and one of columns.
        num_warps: of a program.
        num_stages: of its software pipeline.
    """

    tile: int = 32
    columns: int = 64
    exact: bool = False
    num_warps: int = 4
    num_stages: int = 2


@dataclass(frozen=True, kw_only=True)
class StateConfig:
    """How `scan_state` is launched; attributes as of `QuadraticConfig`, but columns may be part of a head."""

    tile: int = 64
    columns: int = 64
    exact: bool = False
    num_warps: int = 8
    num_stages: int = 2


@dataclass(frozen=True, kw_only=True)
class NormConfig:
    """How `norm_residual` is launched.

    Attributes:
        rows: tokens of a program.
        num_warps: of a program.
    """

    rows: int = 1
    num_warps: int = 4


@dataclass(frozen=True, kw_only=True)
class BlockConfig:
    """How all kernels of a block are launched.

    Attributes:
        scores: convolution, decays and scores.
        scan: which form of the scan, and how.
        norm: norm and residual stream.
    """

    scores: ScoresConfig = ScoresConfig()
    scan: QuadraticConfig | StateConfig = QuadraticConfig()
    norm: NormConfig = NormConfig()


# Chooses how a block is launched.
Choice: TypeAlias = Callable[[BlockShape], BlockConfig]


def default_config(shape: BlockShape) -> BlockConfig:
    """The fixed choice for a shape, made from what compilers and arithmetic say: not measured on a GPU."""
    many = shape.batch * shape.length >= MANY_TOKENS
    norm, columns = NormConfig(rows=4 if many else 1), _columns(shape)
    exact = shape.dtype == torch.float32
    if takes_quadratic(shape):
        return BlockConfig(scan=QuadraticConfig(columns=columns, num_warps=8 if exact else 4), norm=norm)
    if shape.dtype == torch.bfloat16 and shape.capability == 90:
        return BlockConfig(scores=ScoresConfig(num_warps=8), scan=StateConfig(columns=columns), norm=norm)
    scores = ScoresConfig(num_warps=8 if exact and shape.head_dim == 64 else 4)
    return BlockConfig(scores=scores, scan=_small_states(shape, columns), norm=norm)


def _small_states(shape: BlockShape, columns: int) -> StateConfig:
    """For operands of four bytes, exact products of float32, and GPUs whose products go through registers."""
    in_registers, halves = shape.capability != 90, shape.dtype == torch.bfloat16
    if shape.dtype == torch.float32:
        # Of heads of 64 a program has a half.
        columns = min(columns, 32)
        return StateConfig(tile=16, columns=columns, num_stages=1, num_warps=4 if in_registers else 8)
    if in_registers:
        columns = min(columns, max(32, shape.head_dim))
        tile = 32 if columns < 64 or halves else 16
        return StateConfig(tile=tile, columns=columns, num_stages=2 if halves else 1)
    return StateConfig(tile=32, columns=columns, num_stages=1)


def _columns(shape: BlockShape) -> int:
    """As many as a group has, if these are few."""
    there = min(shape.heads, shape.heads_per_group) * shape.head_dim
    return min(64, max(shape.head_dim, 1 << (there - 1).bit_length()))


def takes_quadratic(shape: BlockShape) -> bool:
    """Whether a sequence is short enough, or images are few enough, for the quadratic form."""
    if shape.length <= LONGEST_QUADRATIC:
        return True
    programs = shape.batch * ceil(shape.heads * shape.head_dim / _columns(shape))
    return programs < ENOUGH_PROGRAMS and shape.length <= LONGEST_FEW_PROGRAMS
