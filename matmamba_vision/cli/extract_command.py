"""Write one width of a checkpoint as a smaller model of its own.

The smaller model computes what the width computes in its parent, which is checked on random images. The
output is a folder that timm loads and the Hugging Face Hub takes (model.safetensors, config.json, and
README.md, a model card with what was measured), or a .safetensors file alone. Either loads wherever a
checkpoint does.

examples:
  matmamba extract --checkpoint runs/photos --width 1/4 --output runs/photos-quarter
  matmamba extract --checkpoint runs/photos --width 1/4 --output runs/photos-quarter --onnx --overwrite
  matmamba extract --checkpoint runs/photos --width 4-4-8-16 --output small.safetensors
  matmamba extract --checkpoint runs/photos --width runs/photos/select/slice.yaml --output runs/photos-slice
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from .arguments import parse
from .bars import Shown
from .computing import NamedData
from .console import Console
from .measured_model import require_model

if TYPE_CHECKING:
    from ..widths.extract import Extracted


@dataclass
class ExtractFlags:
    # Run folder or checkpoint file of the nested model.
    checkpoint: Path
    # A share such as 1/4, a head count per block such as 4-4-8-16, or a YAML file of `matmamba select`.
    width: str
    # Folder or .safetensors file to write.
    output: Path
    # Replace what an earlier extraction wrote there; other files stay.
    overwrite: bool = False
    # Write model.onnx too, and compare it with PyTorch in ONNX Runtime.
    onnx: bool = False
    # Measure accuracy for the model card.
    measure: bool = True
    # The data set, if not the one of the training run.
    data: NamedData = field(default_factory=NamedData)
    # Images encoded at once.
    batch_size: int = 64
    # Processes that decode images.
    workers: int = 0


def run(arguments: list[str]) -> None:
    """Extract, check, measure, save, and say what was written."""
    args = parse(ExtractFlags, "extract", __doc__, arguments)
    require_model(args.checkpoint)
    from ..widths.extract import extract

    console = Console()
    with Shown(console) as listener:
        found = extract(
            args.checkpoint,
            args.width,
            output=args.output,
            overwrite=args.overwrite,
            onnx=args.onnx,
            measure=args.measure,
            data=args.data.name,
            root=args.data.root,
            batch_size=args.batch_size,
            workers=args.workers,
            progress=listener,
        )
    for line in _lines(found):
        console.print(line, soft_wrap=True, markup=False)


def _lines(found: Extracted) -> list[str]:
    lines = [
        f"{found.file}: width {found.width}, {found.parameters:,} of {found.parent_parameters:,} parameters,"
        f" {found.macs / 1e6:,.1f} of {found.parent_macs / 1e6:,.1f} MMACs",
        "largest difference of logits from the parent at that width, on 8 random images:"
        f" {found.difference:g}",
    ]
    if found.onnx is not None:
        lines.append(f"largest difference of ONNX Runtime's logits from PyTorch's: {found.onnx:g}")
    if found.accuracy is not None:
        top1, knn1 = found.accuracy["top1"], found.accuracy["knn1"]
        lines.append(f"held-out top-1 {top1:.4f}, 1-NN {knn1:.4f}")
    elif found.not_measured:
        lines.append(f"accuracy not measured: {found.not_measured}")
    return lines
