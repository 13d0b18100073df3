"""Exported models compute what the model computes, at any batch size."""

from __future__ import annotations

from pathlib import Path

import onnxruntime
import pytest
import torch
from matmamba_vision import MatMamba, extract
from matmamba_vision.export import ONNX_TOLERANCE, ExportError, check_onnx, export_onnx, export_program
from matmamba_vision.layers import Mixer
from small import SMALL

# Float32: the recorded scan adds up in another order than the one that PyTorch takes eagerly.
TOLERANCE = 1e-5


KINDS: list[tuple[dict[str, object], str]] = [
    ({}, "8-0-8"),
    ({}, "2-0-5"),
    ({"scan": "cross", "mean_token": True, "reg_tokens": 2}, "0-4-8:4-4-4"),
    ({"scan": "bidirectional", "heads_per_group": 4, "bias": True}, "5-0-0"),
    ({"attention_blocks": [1], "mlp_ratio": 2.0}, "1/4"),
]


@pytest.fixture(params=KINDS, ids=str)
def exported(request: pytest.FixtureRequest) -> MatMamba:
    """Submodels of two or three blocks; several chunks, some of their decays strong."""
    torch.manual_seed(0)
    kind, width = request.param
    model = MatMamba(**SMALL, chunk_size=8, **kind)
    for block in model.stack:
        if isinstance(block.mixer, Mixer):
            torch.nn.init.constant_(block.mixer.get_parameter("A_log")[0], 6.0)
    return extract(model, width).eval()


@torch.no_grad()
def test_a_program_equals_its_model_at_any_batch_size(exported: MatMamba) -> None:
    program = export_program(exported.train())
    assert exported.training
    exported.eval()
    for size in (1, 2, 5):
        images = torch.randn(size, 3, 16, 16)
        torch.testing.assert_close(program.module()(images), exported(images), rtol=0, atol=TOLERANCE)
    called = [node.target for node in program.graph.nodes if node.op == "call_function"]
    assert not [target for target in called if "matmamba" in str(target)]


def test_onnx_equals_its_model_at_any_batch_size(exported: MatMamba, tmp_path: Path) -> None:
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
