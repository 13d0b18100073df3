"""Makes the encoders that a gallery keeps, from its model."""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TypeAlias

import numpy as np
import torch
from matmamba_retrieval import GalleryError
from numpy.typing import NDArray

from ..encoders import Encoder
from ..encoders.onnx_runtime import record
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
# A nested network of ours, or another network.
Side: TypeAlias = MatMamba | Encoder


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
    side = require_side(embedder)
    content = _CONTENTS[kind](side, width)
    computes = computed_by(kind, content)
    if computes is None:
        raise GalleryError(f"an encoder of the kind {kind} cannot be tried here: what computes it is missing")
    images = np.random.default_rng(0).standard_normal((1, *side.input["input_size"]), np.float32)
    wanted = _embedded(side, images, width)
    found = computes.embed(images)
    if kind != ONNX_INT8 and not np.abs(wanted - found).max() <= TOLERANCE:
        raise GalleryError(
            f"the encoder of the kind {kind} at width {width} does not give what the model gives"
        )
    spec = embedder.spec(width)
    header = LightHeader(
        kind=kind, width=spec.width, checkpoint=spec.checkpoint, transform=spec.transform, dim=spec.dim,
        macs=embedder.macs(width), input=_plain(side.input), machine=this_machine(),
        trained_widths=embedder.widths, ms=_milliseconds(computes, images),
    )  # fmt: skip
    return write_light(gallery, header, content)


def require_side(embedder: Embedder) -> Side:
    """The network that encodes, a nested one or another; `GalleryError` where there is none, or two."""
    if embedder.checkpoint is not None:
        return embedder.checkpoint.model
    encoder = embedder.encoder if embedder.taught is None else None
    if encoder is None or encoder.network is None:
        why = "two models" if embedder.taught else "no network of PyTorch"
        raise GalleryError(f"{embedder.place} is {why}: a gallery keeps encoders of one network")
    return encoder


def kinds_that_can_be(embedder: Embedder, width: str) -> list[str]:
    """What can be made here of a width without losing precision, the fastest first."""
    side = require_side(embedder)
    kinds = [NATIVE] if library() is not None and _native_arrays(side, width)[1] == "" else []
    try:
        import onnxruntime  # noqa: F401
        import onnxscript  # noqa: F401
    except ImportError:
        return kinds
    return [*kinds, ONNX]


@torch.inference_mode()
def _embedded(side: Side, images: NDArray[np.float32], width: str) -> NDArray[np.float32]:
    """By the network itself: a frozen width may be computed by the very kernels that are to be tried."""
    if isinstance(side, MatMamba):
        given = torch.from_numpy(images).to(side.pos_embed)
        return side.embed(given, width).float().cpu().numpy()
    return side.embed(torch.from_numpy(images).to(side.device)).cpu().numpy()


def _native_arrays(side: Side, width: str) -> tuple[NetworkArrays | None, str]:
    """A width for the kernels, and why they cannot compute it, "" if they can."""
    if not isinstance(side, MatMamba):
        return None, "they are for nested networks of ours"
    arrays = network_arrays(pack(side, width))
    return arrays, "they take blocks of plain Mamba2" if arrays is None else refusal(arrays) or ""


def _native(side: Side, width: str) -> bytes:
    arrays, reason = _native_arrays(side, width)
    if arrays is None or reason:
        raise GalleryError(f"the kernels in C do not compute width {width} of this model: {reason}")
    return to_bytes(arrays)


def _onnx(side: Side, width: str) -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "width.onnx"
        if isinstance(side, MatMamba):
            export_encoder(pack(side, width), file)
        else:
            _record(side, file)
        return file.read_bytes()


def _record(encoder: Encoder, file: Path) -> None:
    try:
        record(encoder, file)
    # Whatever PyTorch says of another library's network that no graph can hold.
    except Exception as error:
        said = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise GalleryError(f"{encoder.name} cannot be exported to ONNX: {said}") from error


def _onnx_int8(side: Side, width: str) -> bytes:
    from onnxruntime.quantization import QuantType, quantize_dynamic

    with tempfile.TemporaryDirectory() as folder:
        file, smaller = Path(folder) / "width.onnx", Path(folder) / "width-int8.onnx"
        file.write_bytes(_onnx(side, width))
        # Products alone: convolutions of 8 bits are no faster here.
        quantize_dynamic(file, smaller, weight_type=QuantType.QInt8, op_types_to_quantize=["MatMul"])
        return smaller.read_bytes()


_CONTENTS: dict[str, Callable[[Side, str], bytes]] = {
    NATIVE: _native, ONNX: _onnx, ONNX_INT8: _onnx_int8
}  # fmt: skip


def _plain(input: Mapping[str, object]) -> dict[str, object]:
    """A data configuration as JSON has it."""
    return {key: list(value) if isinstance(value, tuple) else value for key, value in input.items()}


def _milliseconds(computes: Computes, images: np.ndarray) -> float:
    seconds: Sequence[float] = [_seconds(computes, images) for _ in range(2 + _ROUNDS)]
    return 1e3 * statistics.median(seconds[2:])


def _seconds(computes: Computes, images: np.ndarray) -> float:
    start = time.perf_counter()
    computes.embed(images)
    return time.perf_counter() - start
