"""A block is launched as its kernels were written, unless another launch was measured and kept."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch

chosen = pytest.importorskip("matmamba_vision.ops.triton.chosen", reason="triton is not installed")
block_trials = pytest.importorskip("matmamba_vision.ops.triton.block.block_trials")
branch_trials = pytest.importorskip("matmamba_vision.ops.triton.block.branch_trials")
candidates = pytest.importorskip("matmamba_vision.ops.triton.candidates")
chosen_configs = pytest.importorskip("matmamba_vision.ops.triton.block.chosen_configs")
configs = pytest.importorskip("matmamba_vision.ops.triton.block.configs")
launch = pytest.importorskip("matmamba_vision.ops.triton.launch")
training_configs = pytest.importorskip("matmamba_vision.ops.triton.block.training_configs")
trials = pytest.importorskip("matmamba_vision.ops.triton.trials")

CPU = torch.device("cpu")
DTYPES = (torch.bfloat16, torch.float16, torch.float32)


def block_shape(length: int, head_dim: int, dtype: torch.dtype, batch: int = 64, capability: int = 90) -> Any:
    return configs.BlockShape(
        batch=batch,
        length=length,
        heads=64,
        head_dim=head_dim,
        state=128,
        heads_per_group=64,
        dtype=dtype,
        capability=capability,
    )


@pytest.mark.parametrize("capability", [80, 89, 90])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("head_dim", [16, 32, 64])
@pytest.mark.parametrize("length", [197, 1025, 4097])
def test_the_first_rows_are_the_fixed_choice(
    length: int, head_dim: int, dtype: torch.dtype, capability: int
) -> None:
    shape = block_shape(length, head_dim, dtype, capability=capability)
    shapes = chosen_configs.shapes_of_block(dtype, head_dim, 128, length, capability)
    default = configs.default_config(shape)
    assert chosen_configs.chosen_config(shape) == default
    assert chosen_configs.config_of(shapes, length <= configs.LONGEST_QUADRATIC) == default
    training = training_configs.default_training_config(dtype)
    like = torch.zeros(1, length, 1, dtype=dtype)
    found = chosen_configs.chosen_training_config(training, like, head_dim, 128)
    on_hopper = replace(shapes, gpu=90)
    for field, kernel in chosen_configs.TRAINING.items():
        first = candidates.rows_of(kernel, on_hopper)[0].options
        launched = getattr(found, field).options()
        assert launched == {
            "maxnreg" if name == "registers" else name: value for name, value in first.items()
        }
    assert replace(training, **{field: getattr(found, field) for field in chosen_configs.TRAINING}) == found


def test_another_row_changes_that_kernel_alone() -> None:
    shape, shapes = (
        block_shape(197, 16, torch.bfloat16),
        chosen_configs.shapes_of_block(torch.bfloat16, 16, 128, 197),
    )
    default = configs.default_config(shape)
    row = candidates.rows_of("scan_quadratic_kernel", shapes)[3]
    with chosen.trying("scan_quadratic_kernel", row):
        found = chosen_configs.chosen_config(shape)
    assert found == replace(default, scan=replace(default.scan, tile=64, exact=True, num_warps=8))
    row = candidates.rows_of("norm_residual_kernel", shapes)[1]
    with chosen.trying("norm_residual_kernel", row):
        assert chosen_configs.chosen_config(shape) == replace(default, norm=configs.NormConfig(rows=1))
        # It was measured on many tokens.
        few = replace(shape, batch=1)
        assert chosen_configs.chosen_config(few) == configs.default_config(few)
    training = training_configs.default_training_config(torch.bfloat16)
    row = candidates.rows_of("scan_backward_kernel", shapes)[1]
    with chosen.trying("scan_backward_kernel", row):
        like = torch.zeros(1, 197, 1, dtype=torch.bfloat16)
        found = chosen_configs.chosen_training_config(training, like, 16, 128)
    assert found.scan_backward == training_configs.LaunchConfig(num_warps=8, num_stages=2)


@pytest.mark.skipif(not launch.is_interpreted(), reason="on a GPU every row is compared in test_launches.py")
@pytest.mark.parametrize("length", [20, 530])
def test_what_is_expected_of_a_block_is_what_its_kernels_compute(
    length: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the quadratic form and in that with states, each kernel by its first row."""
    monkeypatch.setattr(trials, "CHECKED_HEADS", 2)
    monkeypatch.setattr(trials, "CHECKED_TOKENS", 20)
    monkeypatch.setattr(block_trials, "DIM", 32)
    for trial in block_trials.block_trials(torch.float32, 16, 16, length, 1):
        inputs = trial.prepare(CPU, 1, True)
        assert trials.fault_of(inputs.work, inputs.expected(), inputs.sums, trial.shapes) is None


@pytest.mark.skipif(not launch.is_interpreted(), reason="on a GPU every row is compared in test_launches.py")
def test_what_is_expected_where_a_mixer_begins_and_ends_is_what_its_kernels_compute(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """By each row, in both directions."""
    for name, value in {"HEADS": 2, "STATE": 16, "TOKENS": 9, "PLACES": 3}.items():
        monkeypatch.setattr(branch_trials, name, value)
    found = branch_trials.branch_trials(torch.float32, 24)
    assert [kernel for trial in found for kernel in trial.kernels] == [
        "start_kernel",
        "start_backward_kernel",
        "scale_rows_kernel",
        "scale_rows_backward_kernel",
    ]
    for trial in found:
        inputs = trial.prepare(CPU, 2, True)
        for row in candidates.rows_of(*trial.kernels, trial.shapes):
            with chosen.trying(*trial.kernels, row):
                assert trials.fault_of(inputs.work, inputs.expected(), inputs.sums, trial.shapes) is None
