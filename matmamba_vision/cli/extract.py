"""Write one width of a checkpoint as a smaller checkpoint of its own.

The smaller model computes what the width computes in its parent, which is checked on random images. It loads
wherever a checkpoint does.

examples:
  matmamba extract --checkpoint runs/photos --width 1/4 --output runs/photos-quarter
  matmamba extract --checkpoint runs/photos --width 4-4-8-16 --output small.safetensors
  matmamba extract --checkpoint runs/photos --width runs/photos/select/slice.yaml --output runs/photos-slice
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from rich.console import Console

from ..checkpoint import checkpoint_file, load_checkpoint, save_checkpoint
from ..evaluate import count_macs, count_parameters
from ..models import MatMamba
from ..submodel import extract
from ..width import Width
from .arguments import parse
from .config import ConfigError
from .slices import named_width


@dataclass
class Args:
    # Run folder or checkpoint file of the nested model.
    checkpoint: Path
    # A share such as 1/4, a head count per block such as 4-4-8-16, or a YAML file of `matmamba select`.
    width: str
    # Folder or .safetensors file to write.
    output: Path
    # Replace a checkpoint that is already there.
    overwrite: bool = False


def run(arguments: list[str]) -> None:
    """Extract, check, save."""
    args = parse(Args, "extract", __doc__, arguments)
    file = checkpoint_file(args.output)
    if file.exists() and not args.overwrite:
        raise ConfigError(f"{file} exists: choose another --output, or --overwrite")
    parent = load_checkpoint(args.checkpoint)
    width = named_width(args.width, parent)
    small = extract(parent.model, width)
    difference = _largest_difference(small, parent.model, width)
    save_checkpoint(file, small, parent.classes, parent.run)
    Console().print(
        f"{file}: width {parent.model.label(width)}, {count_parameters(small):,} of"
        f" {count_parameters(parent.model):,} parameters, {count_macs(small) / 1e6:,.1f} of"
        f" {count_macs(parent.model) / 1e6:,.1f} MMACs\n"
        f"largest difference of logits from the parent at that width, on 8 random images: {difference:g}",
        soft_wrap=True,
    )


@torch.inference_mode()
def _largest_difference(small: MatMamba, parent: MatMamba, width: Width) -> float:
    images = torch.randn(
        8, parent.in_chans, *parent.patch_embed.img_size, generator=torch.Generator().manual_seed(0)
    )
    return float((small(images) - parent(images, width)).abs().max())
