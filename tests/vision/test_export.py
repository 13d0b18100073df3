"""Exported models compute what the model computes, at any batch size."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import onnx
import onnxruntime
import pytest
import torch
from matmamba_vision import MatMamba, extract
from matmamba_vision.export import (
    ONNX_TOLERANCE,
    ExportError,
    check_onnx,
    export_onnx,
    export_program,
)
from matmamba_vision.layers import Mixer
from small import SMALL

# Float32: the recorded scan adds up in another order than the one that PyTorch takes eagerly.
TOLERANCE = 1e-5


KINDS: list[tuple[dict[str, Any], str]] = [
    ({}, "8-0-8"),
    ({}, "2-0-5"),
    ({"scan": "cross", "mean_token": True, "reg_tokens": 2}, "0-4-8:4-4-4"),
    ({"scan": "bidirectional", "heads_per_group": 4, "bias": True}, "5-0-0"),
    ({"attention_blocks": [1], "mlp_ratio": 2.0}, "1/4"),
]


# Ten seconds each: one has blocks of both sorts; what differs in the others are orders of tokens, which their
# programs above have, too.
ONNX_KINDS = [
    pytest.param(kind, marks=[pytest.mark.slow] * ("attention_blocks" not in kind[0]), id=str(kind))
    for kind in KINDS
]


def submodel(kind: dict[str, Any], width: str) -> MatMamba:
    """Of two or three blocks; several chunks, some of their decays strong."""
    torch.manual_seed(0)
    model = MatMamba(**SMALL, chunk_size=8, **kind)
    for block in model.stack:
        if isinstance(block.mixer, Mixer):
            torch.nn.init.constant_(block.mixer.get_parameter("A_log")[0], 6.0)
    return extract(model, width).eval()


@torch.no_grad()
@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_a_program_equals_its_model_at_any_batch_size(kind: tuple[dict[str, Any], str]) -> None:
    exported = submodel(*kind)
    program = export_program(exported.train())
    assert exported.training
    exported.eval()
    for size in (1, 2, 5):
        images = torch.randn(size, 3, 16, 16)
        torch.testing.assert_close(program.module()(images), exported(images), rtol=0, atol=TOLERANCE)
    called = [node.target for node in program.graph.nodes if node.op == "call_function"]
    assert not [target for target in called if "matmamba" in str(target)]


def nodes_of(file: Path) -> Counter[str]:
    return Counter(node.op_type for node in onnx.load(file).graph.node)


# Of one chunk of tokens, and of three.
@pytest.mark.parametrize(("size", "most"), [(16, 52), pytest.param(56, 140, marks=pytest.mark.slow)])
def test_a_graph_is_small_and_asks_nothing(size: int, most: int, tmp_path: Path) -> None:
    torch.manual_seed(0)
    counts = []
    for depth in (1, 2):
        export_onnx(
            MatMamba(**SMALL | {"img_size": size, "depth": depth, "scan": "flip"}), tmp_path / "m.onnx"
        )
        counts.append(nodes_of(tmp_path / "m.onnx"))
        assert not counts[-1].keys() & {"TopK", "ScatterND", "If", "Loop", "NonZero"}
    assert counts[1].total() - counts[0].total() <= most


def test_a_model_that_keeps_every_token_is_recorded_as_it_is() -> None:
    model = MatMamba(**SMALL | {"global_pool": ""}).eval()
    images = model.random_images(3)
    found = export_program(model).module()(images)
    assert found.shape == (3, 17, 5)
    torch.testing.assert_close(found, model(images).detach(), rtol=0, atol=TOLERANCE)


@pytest.mark.parametrize("kind", ONNX_KINDS)
def test_onnx_equals_its_model_at_any_batch_size(kind: tuple[dict[str, Any], str], tmp_path: Path) -> None:
    exported = submodel(*kind)
    file = tmp_path / "model.onnx"
    export_onnx(exported, file)
    assert 0 < check_onnx(exported, file, batch_sizes=(1, 2, 5)) <= ONNX_TOLERANCE
    assert [*tmp_path.iterdir()] == [file]
    assert b"site-packages" not in file.read_bytes()
    session = onnxruntime.InferenceSession(file)
    assert [(value.name, value.shape) for value in (*session.get_inputs(), *session.get_outputs())] == [
        ("images", ["batch", 3, 16, 16]),
        ("logits", ["batch", 5]),
    ]
    for wrong in (1e-3, torch.nan):
        with torch.no_grad():
            exported.get_parameter("head.bias")[1] += wrong
        with pytest.raises(ExportError, match=r"model\.onnx differs"):
            check_onnx(exported, file)
