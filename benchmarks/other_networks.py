"""Networks of timm's on a CPU: by PyTorch, and by ONNX Runtime, which encodes collections by them.

Weights are random: what they are does not matter for the time. Batches are those of an index; one image is a
query to a gallery that keeps its encoder (`matmamba gallery freeze`). Seconds of the recording stand beside.
Writes results/other_networks.json.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

import timm
import torch
from matmamba_vision import Encoder, encoder_from
from matmamba_vision.encoders import for_many
from matmamba_vision.encoders.onnx_runtime import MANY
from measuring import Case, Plan, Ratio, compare, run

NETWORKS = (
    "efficientnet_lite0",
    "mobilenetv3_small_100",
    "resnet50",
    "convnext_nano",
    "vit_small_patch16_224",
)
BATCHES = (64, 1)


def main(arguments: Sequence[str] | None = None, networks: Sequence[str] = NETWORKS) -> None:
    """Measure, print and write."""
    run(__file__, __doc__, partial(cases, networks=networks), arguments)


def cases(plan: Plan, networks: Sequence[str]) -> Iterator[Case]:
    """A case for each network and number of images."""
    for name in networks:
        encoder = made(name)
        start = time.perf_counter()
        faster = for_many(encoder, MANY)
        recording = time.perf_counter() - start
        for count in BATCHES:
            images = torch.randn(count, *encoder.input["input_size"])
            sides = {"PyTorch": partial(encoder.embed, images), "ONNX Runtime": partial(faster.embed, images)}
            ratio = Ratio("ONNX Runtime / PyTorch", over="ONNX Runtime", under="PyTorch")
            settings = {"network": name, "images": count, "by": faster.by, "recording_s": recording}
            yield compare(f"{name}, {count}", sides, [ratio], plan.at_most(10), settings)


def made(name: str) -> Encoder:
    """A network of timm's at its own size."""
    torch.manual_seed(0)
    network: Any = timm.create_model(name, num_classes=0)
    return encoder_from(network, name, size=network.pretrained_cfg["input_size"][-1])


if __name__ == "__main__":
    main()
