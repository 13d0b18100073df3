"""A packed width as an ONNX graph: images in, embeddings out, any batch."""

from __future__ import annotations

import tempfile
import warnings
from pathlib import Path

import torch
from torch.export import Dim

from .packed import PackedWidth
from .straight import Straight


@torch.no_grad()
def onnx_width(packed: PackedWidth, input_name: str = "images", output_name: str = "embeddings") -> bytes:
    """The graph, with its weights.

    Args:
        packed: what it computes.
        input_name: of images (B, C, S, S).
        output_name: of embeddings (B, E) of length 1.

    Raises:
        ModuleNotFoundError: onnxscript is missing, which the extra `export` brings.
    """
    # Here, because it is optional; PyTorch's own complaint would not name it.
    import onnxscript  # noqa: F401

    # Of two images, because a batch of one would be recorded as a constant.
    images = torch.zeros(2, packed.channels, *packed.image_size)
    straight = Straight(packed).eval()
    with warnings.catch_warnings():
        # The exporter copies with what PyTorch itself has deprecated.
        warnings.simplefilter("ignore", FutureWarning)
        recorded = torch.export.export(straight, (images,), dynamic_shapes=({0: Dim("batch", min=1)},))
        program = torch.onnx.export(
            recorded,
            dynamo=True,
            dynamic_shapes=({0: "batch"},),
            input_names=[input_name],
            output_names=[output_name],
            verbose=False,
        )
    assert program is not None
    for node in program.model.graph.all_nodes():
        # Source lines and folders of this machine.
        node.metadata_props.clear()
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "width.onnx"
        program.save(file, external_data=False)
        return file.read_bytes()
