"""An encoder in an ONNX file, and in a JSON file of the same name how it wants its images."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matmamba_common.words import shown
from numpy.typing import NDArray
from torch import Tensor

from .encoder import Encoder, EncoderError, Features, digests_of, require_pooled
from .names import place_of
from .preparation import require_input

# Entries of the JSON file that say nothing about how images are prepared.
_ABOUT = ("input", "output", "macs")


def open_onnx(file: Path) -> Encoder:
    """The encoder in an ONNX file, computed by ONNX Runtime on the CPU.

    Args:
        file: takes images (B, C, S, S) of float32, B free, and gives (B, D). FILE.json beside it has the keys
            of timm's data configuration: input_size [C, S, S], mean, std, and if need be interpolation,
            crop_pct and crop_mode; besides input and output, the names of what it takes and gives, and macs,
            the multiply-adds of one image.

    Raises:
        EncoderError: one of the files is missing or damaged, or it has no pooled features.
    """
    said = file.with_suffix(".json")
    if not file.is_file():
        raise EncoderError(f"no ONNX file {file}")
    about = _read(said)
    input = require_input({key: value for key, value in about.items() if key not in _ABOUT}, str(said))
    features = session_features(file, about)
    weights, digest, bare_digest = digests_of(input, file.read_bytes())
    dim = require_pooled(str(file), features, input, "cpu")
    return Encoder(
        name=str(file), place=place_of(str(file)), features=features, input=input, dim=dim, by="onnx",
        known_macs=about.get("macs"), weights=weights, digest=digest, bare_digest=bare_digest,
    )  # fmt: skip


def _read(file: Path) -> dict[str, Any]:
    try:
        about = json.loads(file.read_text())
    except FileNotFoundError as error:
        raise EncoderError(
            f"no {file}: it has to say how images are prepared, such as"
            ' {"input_size": [3, 224, 224], "mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225]}'
        ) from error
    except (OSError, ValueError) as error:
        raise EncoderError(f"{file} is no JSON: {error}") from error
    if not isinstance(about, dict):
        raise EncoderError(f"{file} holds no JSON object")
    if not isinstance(about.get("macs", 0), int):
        raise EncoderError(f"{file}: macs is {shown(about['macs'])}: it can be a whole number")
    return about


def session_features(file: Path, about: Mapping[str, Any]) -> Features:
    """Features of images by ONNX Runtime on the CPU; `about` may name the input and the output.

    Raises:
        EncoderError: ONNX Runtime is missing, or does not take the file.
    """
    try:
        import onnxruntime
    except ImportError as error:
        raise EncoderError(f"{file} needs ONNX Runtime: pip install onnxruntime") from error
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    try:
        session = onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
        taken = about.get("input") or session.get_inputs()[0].name
        given = about.get("output") or session.get_outputs()[0].name
    # Its own errors derive from nothing else.
    except Exception as error:
        reason = " ".join(str(error).split())
        raise EncoderError(
            f"ONNX Runtime {onnxruntime.__version__} does not take {file}: {reason}"
        ) from error

    def features(images: Tensor) -> Tensor:
        found: list[NDArray[np.floating]] = _run(session, given, taken, images)
        return torch.from_numpy(np.asarray(found[0], np.float32))

    return features


def _run(session: Any, given: str, taken: str, images: Tensor) -> list[Any]:
    try:
        found: list[Any] = session.run([given], {taken: images.cpu().float().numpy()})
    except Exception as error:
        raise ValueError(" ".join(str(error).split())) from error
    return found
