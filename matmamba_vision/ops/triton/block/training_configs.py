"""How the kernels of a mixer in training are launched: one fixed choice for each type of numbers."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from .configs import LONGEST_QUADRATIC

# Columns of a program, whole heads.
COLUMNS = 64
# Decays of a tile up to so many nats are split into a scale of rows and one of columns.
SPAN = 80.0
# In float32, which is held to more digits: each scale is off by as much as its exponent is large.
FLOAT32_SPAN = 20.0


@dataclass(frozen=True, kw_only=True)
class LaunchConfig:
    """How one kernel is launched.

    Attributes:
        num_warps: of a program.
        num_stages: of its software pipeline.
        registers: the most that a thread gets, so that more programs fit; as the compiler likes by default.
    """

    num_warps: int = 4
    num_stages: int = 1
    registers: int | None = None

    def options(self) -> dict[str, int]:
        """What a launch is given."""
        options = {"num_warps": self.num_warps, "num_stages": self.num_stages}
        return options if self.registers is None else options | {"maxnreg": self.registers}


@dataclass(frozen=True, kw_only=True)
class TrainingConfig:
    """How all kernels of a mixer in training are launched.

    Attributes:
        tile: T, tokens that are read and written at once: 16, 32 or 64.
        longest_quadratic: tokens of the longest sequence in which each tile reads all before it by scores,
            which are fewer bytes than the states between tiles of longer ones.
        span: the strongest decays of a tile, in nats, that are not computed for each pair of tokens.
        summed: tokens whose gradients of a convolution's taps are one partial sum.
        channels: of a program of the convolution's gradient.
        prepare: of convolution, decays and scores.
        states: of states and their gradients.
        scan: of the forward scan.
        gate_backward: of the gradients of z and of the scan.
        scan_backward: of the gradients of x, B, C and dt.
        conv: of the gradient of the convolution.
    """

    tile: int = 64
    longest_quadratic: int = LONGEST_QUADRATIC
    span: float = SPAN
    summed: int = 64
    channels: int = 256
    prepare: LaunchConfig = LaunchConfig()
    states: LaunchConfig = LaunchConfig(num_stages=2)
    scan: LaunchConfig = LaunchConfig(num_warps=8)
    gate_backward: LaunchConfig = LaunchConfig(num_warps=8)
    scan_backward: LaunchConfig = LaunchConfig(num_warps=8)
    conv: LaunchConfig = LaunchConfig(num_warps=2)


def default_training_config(dtype: torch.dtype) -> TrainingConfig:
    """The fixed choice of tiles for tokens of this type, made from what compilers say: not measured on a GPU.

    How each kernel is launched is the table's matter, see `chosen_configs.chosen_training_config`.
    """
    # Operands of four bytes fill shared memory and registers twice as fast, products in three parts again.
    if dtype == torch.float32:
        return TrainingConfig(tile=16, span=FLOAT32_SPAN)
    return TrainingConfig(tile={torch.bfloat16: 64, torch.float16: 32}.get(dtype, 16))
