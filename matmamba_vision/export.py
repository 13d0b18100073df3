"""Models for other runtimes: `torch.export` and ONNX, with a free batch size.

Both record the scan of `ops.chunked.masked`, which serves decays of any strength.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path

import torch
from matmamba_common.errors import MatMambaError
from torch import Tensor
from torch.export import Dim, ExportedProgram

from .models import MatMamba

# Largest difference of a logit between ONNX Runtime and PyTorch, float32.
ONNX_TOLERANCE = 1e-4


class ExportError(MatMambaError):
    """An exported model that does not compute what it was exported from."""


def largest_difference(one: Tensor, other: Tensor) -> float:
    """Largest absolute difference of two tensors of equal shape; not a number if either holds such."""
    return float((one - other).abs().max())


@torch.no_grad()
def export_program(model: MatMamba) -> ExportedProgram:
    """The graph of `model` in evaluation mode, from images (B, in_chans, S, S) to logits (B, num_classes).

    Full width: `extract` a smaller one first. The graph has operations of PyTorch only, and any batch size B.
    """
    was_training = model.training
    # Of two images, because a batch of one would be recorded as a constant.
    images, batch = model.random_images(2), Dim("batch", min=1)
    try:
        return torch.export.export(model.eval(), (images,), dynamic_shapes=({0: batch},))
    finally:
        model.train(was_training)


def export_onnx(model: MatMamba, file: Path | str) -> None:
    """Write `model` as one ONNX file with the input "images" and the output "logits", as `export_program`.

    Raises:
        ModuleNotFoundError: onnxscript is missing, which the extra `export` brings.
    """
    # Here, because it is optional; PyTorch's own complaint would not name it.
    import onnxscript  # noqa: F401

    with warnings.catch_warnings():
        # The exporter copies with what PyTorch itself has deprecated.
        warnings.simplefilter("ignore", FutureWarning)
        program = torch.onnx.export(
            export_program(model),
            dynamo=True,
            dynamic_shapes=({0: "batch"},),
            input_names=["images"],
            output_names=["logits"],
            verbose=False,
        )
    assert program is not None
    for node in program.model.graph.all_nodes():
        # Source lines and folders of this machine, a quarter of a small file.
        node.metadata_props.clear()
    program.save(file, external_data=False)


@torch.inference_mode()
def check_onnx(model: MatMamba, file: Path | str, batch_sizes: Sequence[int] = (1, 3)) -> float:
    """Largest difference between ONNX Runtime's logits and PyTorch's, on random images, on the CPU.

    Args:
        file: what `export_onnx` wrote of `model`.
        batch_sizes: numbers of images, one run for each.

    Raises:
        ExportError: the difference is above `ONNX_TOLERANCE`, or not a number.
        ModuleNotFoundError: onnxruntime is missing, which the extra `query` brings.
    """
    import onnxruntime

    session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
    differences = []
    for size in batch_sizes:
        images = model.random_images(size)
        (logits,) = session.run(["logits"], {"images": images.cpu().numpy()})
        differences.append(largest_difference(torch.from_numpy(logits), model(images).cpu()))
    # As a tensor, because its maximum keeps what is not a number.
    largest = float(torch.tensor(differences).max())
    if not largest <= ONNX_TOLERANCE:
        raise ExportError(f"{file} differs from PyTorch by {largest:g}, more than {ONNX_TOLERANCE:g}")
    return largest
