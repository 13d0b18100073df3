"""Makes the encoders that a gallery keeps, from its model."""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from matmamba_retrieval import GalleryError

from ..export import export_encoder
from ..frozen.native_width import network_arrays
from ..frozen.packed import pack
from ..models import MatMamba
from ..native import NetworkArrays, library, refusal, to_bytes
from .embedder import Embedder
from .light_encoder import Computes, computed_by, this_machine
from .light_files import NATIVE, ONNX, ONNX_INT8, LightHeader, write_light

# Largest difference of a coordinate between the model and an encoder of full precision.
TOLERANCE = 1e-4
_ROUNDS = 7


def make_light(gallery: Path, embedder: Embedder, width: str, kind: str) -> Path:
    """Make the encoder of a width: compared with the model, timed, and written into the gallery's folder.

    Args:
        gallery: its folder.
        embedder: of its model.
        width: its label.
        kind: one of `light_files.KINDS`.

    Raises:
        GalleryError: this width, or this machine, cannot have one of this kind; or it cannot be written.
    """
    model = _ours(embedder)
    content = _CONTENTS[kind](model, width)
    computes = computed_by(kind, content)
    if computes is None:
        raise GalleryError(f"an encoder of the kind {kind} cannot be tried here: what computes it is missing")
    images = model.random_images(1).cpu().float().numpy()
    # By the model itself: its frozen width may be computed by the very kernels that are to be tried.
    with torch.inference_mode():
        wanted = model.embed(torch.from_numpy(images).to(model.pos_embed), width).cpu().numpy()
    found = computes.embed(images)
    if kind != ONNX_INT8 and not np.abs(wanted - found).max() <= TOLERANCE:
        raise GalleryError(
            f"the encoder of the kind {kind} at width {width} does not give what the model gives"
        )
    spec = embedder.spec(width)
    header = LightHeader(
        kind=kind, width=spec.width, checkpoint=spec.checkpoint, transform=spec.transform, dim=spec.dim,
        macs=embedder.macs(width), input=_plain(model), machine=this_machine(),
        trained_widths=embedder.widths, ms=_milliseconds(computes, images),
    )  # fmt: skip
    return write_light(gallery, header, content)


def _ours(embedder: Embedder) -> MatMamba:
    if embedder.checkpoint is None:
        raise GalleryError(f"{embedder.place} is no model of ours: a gallery keeps encoders of nested widths")
    return embedder.checkpoint.model


def kinds_that_can_be(embedder: Embedder, width: str) -> list[str]:
    """What can be made here of a width without losing precision, the fastest first."""
    if embedder.checkpoint is None:
        return []
    model = embedder.checkpoint.model
    kinds = [NATIVE] if library() is not None and _native_arrays(model, width)[1] == "" else []
    try:
        import onnxruntime  # noqa: F401
        import onnxscript  # noqa: F401
    except ImportError:
        return kinds
    return [*kinds, ONNX]


def _native_arrays(model: MatMamba, width: str) -> tuple[NetworkArrays | None, str]:
    """A width for the kernels, and why they cannot compute it, "" if they can."""
    arrays = network_arrays(pack(model, width))
    return arrays, "they take blocks of plain Mamba2" if arrays is None else refusal(arrays) or ""


def _native(model: MatMamba, width: str) -> bytes:
    arrays, reason = _native_arrays(model, width)
    if arrays is None or reason:
        raise GalleryError(f"the kernels in C do not compute width {width} of this model: {reason}")
    return to_bytes(arrays)


def _onnx(model: MatMamba, width: str) -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "width.onnx"
        export_encoder(pack(model, width), file)
        return file.read_bytes()


def _onnx_int8(model: MatMamba, width: str) -> bytes:
    from onnxruntime.quantization import QuantType, quantize_dynamic

    with tempfile.TemporaryDirectory() as folder:
        file, smaller = Path(folder) / "width.onnx", Path(folder) / "width-int8.onnx"
        file.write_bytes(_onnx(model, width))
        # Products alone: convolutions of 8 bits are no faster here.
        quantize_dynamic(file, smaller, weight_type=QuantType.QInt8, op_types_to_quantize=["MatMul"])
        return smaller.read_bytes()


_CONTENTS: dict[str, Callable[[MatMamba, str], bytes]] = {
    NATIVE: _native, ONNX: _onnx, ONNX_INT8: _onnx_int8
}  # fmt: skip


def _plain(model: MatMamba) -> dict[str, object]:
    """The data configuration as JSON has it."""
    return {key: list(value) if isinstance(value, tuple) else value for key, value in model.input.items()}


def _milliseconds(computes: Computes, images: np.ndarray) -> float:
    seconds: Sequence[float] = [_seconds(computes, images) for _ in range(2 + _ROUNDS)]
    return 1e3 * statistics.median(seconds[2:])


def _seconds(computes: Computes, images: np.ndarray) -> float:
    start = time.perf_counter()
    computes.embed(images)
    return time.perf_counter() - start
