"""Encoders that are not ours, made for tests: timm's, an ONNX file, a function with a text tower."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matmamba_vision as mv
import numpy as np
import onnx
import timm
import torch
from onnx import TensorProto, helper, numpy_helper
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor, nn

INPUT: dict[str, Any] = {
    "input_size": [3, 48, 48], "mean": [0.4] * 3, "std": [0.3] * 3, "interpolation": "bicubic",
    "crop_pct": 1.0,
}  # fmt: skip
COLOURS = {"blue": (20, 40, 200), "green": (30, 180, 40), "red": (200, 30, 30)}
# What it gives for a colour, mean by mean.
DIM = 3


def timm_folder(folder: Path, seed: int = 0, architecture: str = "resnet10t", **input: Any) -> str:
    """A small network of timm's in a folder, with a transform of its own, as `timm:local-dir:FOLDER`."""
    folder.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(seed)
    network = timm.create_model(architecture, num_classes=4)
    save_file(network.state_dict(), folder / "model.safetensors")
    default: Any = network.default_cfg
    own = {key: default[key] for key in ("classifier", "first_conv")}
    known = {**INPUT, "num_classes": 4} | own | input
    written = {"architecture": architecture, "num_classes": 4, "pretrained_cfg": known}
    (folder / "config.json").write_text(json.dumps(written))
    return f"timm:local-dir:{folder}"


class MeanColour(nn.Module):
    """Pooled features of an image: its mean colour, moved a little so that no image gives zeros."""

    def forward(self, images: Tensor) -> Tensor:
        return images.mean((2, 3)) + 0.1


def colour_texts(texts: Sequence[str]) -> Tensor:
    """The vector of the colour that a text names first; of grey for none."""
    names = [next((name for name in COLOURS if name in text), "") for text in texts]
    pixels = torch.tensor([COLOURS.get(name, (128, 128, 128)) for name in names]) / 255
    return (pixels - torch.tensor(INPUT["mean"])) / torch.tensor(INPUT["std"]) + 0.1


def onnx_file(file: Path) -> Path:
    """`MeanColour` in an ONNX file, node by node: an export of PyTorch takes seconds."""
    nodes = [
        helper.make_node("ReduceMean", ["images", "axes"], ["means"], keepdims=0),
        helper.make_node("Add", ["means", "little"], ["colours"]),
    ]
    constants = [
        numpy_helper.from_array(np.array([2, 3]), "axes"),
        numpy_helper.from_array(np.array(0.1, dtype=np.float32), "little"),
    ]
    images = helper.make_tensor_value_info("images", TensorProto.FLOAT, ["batch", *INPUT["input_size"]])
    colours = helper.make_tensor_value_info("colours", TensorProto.FLOAT, ["batch", DIM])
    graph = helper.make_graph(nodes, "colour", [images], [colours], constants)
    opset = helper.make_opsetid("", 18)
    onnx.save(helper.make_model(graph, opset_imports=[opset], ir_version=10), file)
    return file


def student_run(folder: Path, teacher: str, photos: Path, seed: int = 0) -> Path:
    """A small student of a teacher, in a run's folder."""
    config = {
        "teacher": teacher, "images": [str(photos)], "output": str(folder), "dim": 16, "threads": 1,
        "seed": seed, "rotation_images": 20, "trackers": [],
        "model": {"name": "matmamba_nano_patch4_32", "patch_size": 8},
        "data": {"batch_size": 12, "decoded": 36},
        "optim": {"epochs": 6, "lr": 0.003, "warmup_epochs": 0},
    }  # fmt: skip
    mv.distill(config)
    return folder


def coloured(
    root: Path, count: int = 6, seed: int = 0, *, spread: float = 40, size: tuple[int, int] = (50, 50)
) -> Path:
    """Noise around a colour, a folder for each; heights and least widths by `size`."""
    noise = np.random.default_rng(seed)
    for name, colour in COLOURS.items():
        (root / name).mkdir(parents=True)
        for number in range(count):
            shape = (size[0], size[1] + number, 3)
            pixels = np.clip(noise.normal(colour, spread, shape), 0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(root / name / f"{number}.png")
    return root


def clip_folder(folder: Path, seed: int = 0, **config: Any) -> str:
    """A two-tower network of open_clip's, with weights drawn by chance, as `open_clip:local-dir:FOLDER`."""
    import open_clip

    towers: dict[str, Any] = {
        "embed_dim": 16,
        "vision_cfg": {"image_size": 48, "layers": 1, "width": 32, "patch_size": 16, "head_width": 16},
        "text_cfg": {"context_length": 16, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 1},
        **config,
    }
    folder.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(seed)
    save_file(open_clip.CLIP(**towers).state_dict(), folder / "open_clip_model.safetensors")
    input = {
        "mean": INPUT["mean"],
        "std": INPUT["std"],
        "interpolation": "bicubic",
        "resize_mode": "shortest",
    }
    written = {"model_cfg": towers, "preprocess_cfg": input}
    (folder / "open_clip_config.json").write_text(json.dumps(written))
    return f"open_clip:local-dir:{folder}"
