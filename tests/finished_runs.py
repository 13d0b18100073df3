"""What a run left behind, to be held against another."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from matmamba_vision.training import Saves
from safetensors.torch import load_file

# What a row says besides how long things took.
KEPT = ("event", "step", "epoch", "lr", "loss", "widths", "terms", "grad_norm", "top1")


def rows(run: Path) -> list[dict[str, Any]]:
    """The metrics of a run, without how long anything took."""
    lines = (run / "metrics.jsonl").read_text().splitlines()
    return [{name: row[name] for name in KEPT if name in row} for row in map(json.loads, lines)]


def weights(run: Path) -> dict[str, torch.Tensor]:
    """The model of the last epoch."""
    return load_file(run / "model.safetensors")


def optimiser(run: Path) -> dict[str, Any]:
    """The state of the optimiser at the end."""
    newest = Saves(run / "checkpoints").all()[-1]
    found: dict[str, Any] = torch.load(newest / "optimizer.bin")
    return found


def assert_same_run(one: Path, other: Path) -> None:
    """Metrics, weights and the state of the optimiser are equal to the bit."""
    assert rows(one) == rows(other)
    assert_equal(weights(one), weights(other))
    assert_equal(optimiser(one), optimiser(other))


def assert_equal(one: Any, other: Any) -> None:
    """Nested values, and the tensors among them, are equal to the bit."""
    assert type(one) is type(other)
    if isinstance(one, torch.Tensor):
        assert torch.equal(one, other)
    elif isinstance(one, dict):
        assert one.keys() == other.keys()
        for name, value in one.items():
            assert_equal(value, other[name])
    elif isinstance(one, list | tuple):
        assert len(one) == len(other)
        for first, second in zip(one, other, strict=True):
            assert_equal(first, second)
    else:
        assert one == other
