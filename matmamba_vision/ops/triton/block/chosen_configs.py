"""How the kernels of a block are launched here: the fixed choice, with what was measured and kept."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch

from ..candidates import HOPPER, OTHERS, Shapes, class_of_tokens, name_of, rows_of
from ..chosen import Options, launch_of
from ..launch import capability_of, precision_of
from .configs import (
    BlockConfig,
    BlockShape,
    NormConfig,
    QuadraticConfig,
    ScoresConfig,
    StateConfig,
    default_config,
)
from .training_configs import LaunchConfig, TrainingConfig

# Of the fields of a `TrainingConfig`, which kernels they launch.
TRAINING = {
    "prepare": "prepare_kernel",
    "states": "states_of_tiles_kernel",
    "scan": "scan_kernel",
    "gate_backward": "gate_backward_kernel",
    "scan_backward": "scan_backward_kernel",
    "conv": "conv_backward_kernel",
}


def shapes_of_block(
    dtype: torch.dtype, head_dim: int, state: int, length: int, capability: int = 0
) -> Shapes:
    """The class of a block; of the GPU's compute capability it matters whether it is Hopper's."""
    as_tf32 = dtype == torch.float32 and precision_of(dtype)[1] != "ieee"
    return Shapes(
        dtype="tf32" if as_tf32 else name_of(dtype),
        head_dim=head_dim,
        state_dim=state,
        tokens=class_of_tokens(length),
        gpu=capability and (HOPPER if capability == HOPPER else OTHERS),
    )


def chosen_config(shape: BlockShape) -> BlockConfig:
    """The fixed choice for a shape, but for kernels of which another launch was measured to be faster."""
    config = default_config(shape)
    shapes = shapes_of_block(shape.dtype, shape.head_dim, shape.state, shape.length, shape.capability)
    scan = "scan_quadratic_kernel" if isinstance(config.scan, QuadraticConfig) else "scan_state_kernel"
    # The kernel of the norm was measured on many tokens.
    many = config.norm.rows == rows_of("norm_residual_kernel", shapes)[0].constants["rows"]
    return BlockConfig(
        scores=replace(config.scores, **_changed("conv_scores_kernel", shapes)),
        scan=replace(config.scan, **_changed(scan, shapes)),
        norm=_norm(_changed("norm_residual_kernel", shapes)) if many else config.norm,
    )


def _changed(kernel: str, shapes: Shapes) -> dict[str, Any]:
    """How a kernel is launched where that is not the first row: that is what `default_config` has."""
    options = _launch(kernel, shapes)
    return {} if options == rows_of(kernel, shapes)[0].options else dict(options)


def _launch(kernel: str, shapes: Shapes) -> Options:
    # On the current GPU: launchers go to that of their tensors.
    return launch_of(kernel, shapes, torch.device("cuda" if torch.cuda.is_available() else "cpu"))


def _norm(options: Options) -> NormConfig:
    known = {"rows": 4, "num_warps": 4} | {name: options[name] for name in options if name != "num_stages"}
    return NormConfig(**known)


def config_of(shapes: Shapes, quadratic: bool) -> BlockConfig:
    """All by the table, for a block of many heads and tokens.

    Args:
        shapes: the class.
        quadratic: the form, which is else chosen by the number of programs.
    """
    scan: QuadraticConfig | StateConfig
    if quadratic:
        scan = QuadraticConfig(**_launch("scan_quadratic_kernel", shapes))
    else:
        scan = StateConfig(**_launch("scan_state_kernel", shapes))
    return BlockConfig(
        scores=ScoresConfig(**_launch("conv_scores_kernel", shapes)),
        scan=scan,
        norm=_norm(_launch("norm_residual_kernel", shapes)),
    )


def chosen_training_config(
    config: TrainingConfig, like_BLE: torch.Tensor, head_dim: int, state: int
) -> TrainingConfig:
    """The same with warps and stages as chosen here.

    Args:
        config: the fixed choice, whose tiles stay.
        like_BLE: the packed projection.
        head_dim: P.
        state: N.
    """
    capability = capability_of(like_BLE.device)
    shapes = shapes_of_block(like_BLE.dtype, head_dim, state, like_BLE.shape[1], capability)
    launches: dict[str, Any] = {
        field: LaunchConfig(**launch_of(kernel, shapes, like_BLE.device))
        for field, kernel in TRAINING.items()
    }
    return replace(config, **launches)
