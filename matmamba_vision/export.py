"""Models for other runtimes: `torch.export` and ONNX, with a free batch size.

What is recorded is the straight path of `frozen`: few operations, right for decays of any strength.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path

import torch
from matmamba_common.errors import MatMambaError
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

from .frozen import PackedWidth, Straight, is_plain, pack
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
    try:
        # What cannot be packed, such as a model that keeps every token, is recorded as it is.
        module = _Logits(model.eval()) if is_plain(model) else model.eval()
        return _recorded(module, model.random_images(2))
    finally:
        model.train(was_training)


class _Logits(nn.Module):
    """Logits of images by the straight path."""

    def __init__(self, model: MatMamba) -> None:
        super().__init__()
        self.straight, self.head = Straight(pack(model, "full")), model.head

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.head(self.straight.features(images))
        return logits


def _recorded(module: nn.Module, images: Tensor) -> ExportedProgram:
    """The graph of a module in evaluation mode; of two images, as one would be recorded as a constant."""
    return torch.export.export(module.eval(), (images,), dynamic_shapes=({0: Dim("batch", min=1)},))


def export_onnx(model: MatMamba, file: Path | str) -> None:
    """Write `model` as one ONNX file with the input "images" and the output "logits", as `export_program`.

    Raises:
        ModuleNotFoundError: onnxscript is missing, which the extra `export` brings.
    """
    _write(export_program(model), file, "logits")


@torch.no_grad()
def export_network(network: nn.Module, images: Tensor, file: Path | str, output: str) -> None:
    """Write any network as one ONNX file: "images" as those given, (B, C, S, S), to `output`, any B.

    Raises:
        ModuleNotFoundError: onnxscript is missing, which the extra `export` brings.
    """
    _write(_recorded(network, images[:1].repeat(2, 1, 1, 1)), file, output)


@torch.no_grad()
def export_encoder(packed: PackedWidth, file: Path | str) -> None:
    """Write a packed width as one ONNX file: "images" (B, C, S, S) to "embeddings" (B, E) of length 1, any B.

    Raises:
        ModuleNotFoundError: onnxscript is missing, which the extra `export` brings.
    """
    images = torch.zeros(2, packed.channels, *packed.image_size)
    _write(_recorded(Straight(packed), images), file, "embeddings")


def _write(recorded: ExportedProgram, file: Path | str, output: str) -> None:
    # Here, because it is optional; PyTorch's own complaint would not name it.
    import onnxscript  # noqa: F401

    with warnings.catch_warnings():
        # The exporter copies with what PyTorch itself has deprecated.
        warnings.simplefilter("ignore", FutureWarning)
        program = torch.onnx.export(
            recorded,
            dynamo=True,
            dynamic_shapes=({0: "batch"},),
            input_names=["images"],
            output_names=[output],
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
