"""`matmamba gallery encoder`."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro
from matmamba_common.counts import counted
from matmamba_retrieval import Gallery
from matmamba_retrieval.storage.spec import ELSEWHERE, made_elsewhere

from ..upkeep.image_gallery import open_gallery
from .arguments import parse
from .console import Console, say

_ENCODER = """Say which encoder made the vectors of a gallery, or show it.

A gallery of vectors that were made elsewhere is searched by images, and where there is a text tower by texts,
once it is told which encoder made them: timm:NAME, open_clip:ARCH/TAG, an ONNX file, or a run or checkpoint.
Some of its images, those whose files are found, are encoded and compared with their vectors: a mean cosine
below 0.98 is refused, or one below 0.95 of the vectors less their mean, which tells these images apart, and
so are other dims. The gallery remembers the digests of weights and transform, and refuses others from then
on; a plan is dropped. Without an encoder it is shown what is known.

examples:
  matmamba gallery encoder G
  matmamba gallery encoder F timm:resnet50.a1_in1k
  matmamba gallery encoder F timm:resnet50.a1_in1k --images 100 --json
"""


@dataclass
class EncoderFlags:
    # Folder of the gallery.
    gallery: Annotated[Path, tyro.conf.Positional]
    # What made its vectors.
    encoder: Annotated[str, tyro.conf.Positional] = ""
    # To be encoded and compared, taken by chance.
    images: int = 16
    # Whatever the comparison says, and whatever the gallery knew before.
    force: bool = False
    # Print JSON.
    json: bool = False


def encoder(arguments: list[str]) -> int:
    """Tell a gallery what made its vectors, or say what it knows."""
    args = parse(EncoderFlags, "gallery encoder", _ENCODER, arguments)
    if not args.encoder:
        return _show(args)
    with open_gallery(args.gallery, write=True) as gallery:
        done = gallery.set_encoder(args.encoder, images=args.images, force=args.force)
    if args.json:
        say(json.dumps(done.to_dict(), indent=2))
        return 0
    compared = "none of its images could be compared"
    if done.cosine is not None:
        cosines = f"mean cosine {done.cosine:.4f}, least {done.least:.4f}"
        compared = f"{counted(done.compared, 'image')} compared: {cosines}"
    _say(f"{args.gallery}: vectors of {done.encoder}; {compared}")
    return 0


def _show(args: EncoderFlags) -> int:
    with Gallery(args.gallery) as gallery:
        spec, place = gallery.spec, gallery.checkpoint_path
    if args.json:
        known = None if made_elsewhere(spec) else place
        say(json.dumps({"gallery": str(args.gallery), "encoder": known, "checkpoint": spec.checkpoint}))
    elif made_elsewhere(spec):
        name = spec.checkpoint.removeprefix(ELSEWHERE)
        _say(f"{args.gallery}: vectors of {spec.dim} dims, made elsewhere by {name}; no encoder is known")
    else:
        _say(f"{args.gallery}: vectors of {spec.dim} dims by {place}, digest {spec.checkpoint[:12]}")
    return 0


def _say(line: str) -> None:
    Console(highlight=False).print(line, markup=False, soft_wrap=True)
