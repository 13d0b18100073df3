"""Move a gallery to another model: its images are read again from where they were, and encoded anew.

The gallery goes on answering with its old vectors until all of the new ones and their indexes are there; then
it changes in one moment. A run that was stopped goes on with the same command. Images that can no longer be
read are left out, counted and listed; the run stops if they are too many. A plan of the old model is dropped.
With the same model and other --widths, the gallery gets vectors of these widths.

examples:
  matmamba reindex --gallery G --checkpoint runs/better
  matmamba reindex --gallery G --checkpoint timm:resnet50.a1_in1k
  matmamba reindex --gallery G --checkpoint runs/better --widths 1/8 --max-broken 0.05
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from shlex import quote

import tyro
from matmamba_datasets import Limits

from ..upkeep.reindex import reindex
from .arguments import parse
from .bars import Shown
from .console import Console
from .summary import continuable, summarise


@dataclass
class ReindexFlags:
    # Folder of the gallery.
    gallery: Path
    # Run folder, checkpoint file, or the name of a model whose weights are shipped; or any encoder:
    # timm:NAME, open_clip:ARCH/TAG, or an ONNX file with a JSON file beside it.
    checkpoint: Path
    # Further widths at which each image gets a vector; by default those that the gallery has.
    widths: list[str] = field(default_factory=list)
    # Share of images that may be missing or unreadable before the run stops.
    max_broken: float = 0.01
    # Images encoded at once.
    batch_size: int = 64
    # Processes that decode images; with 0, a thread does.
    workers: int = 0
    # Threads that encode; 0 for as many as torch takes.
    threads: int = 0
    # Of every image.
    limits: tyro.conf.OmitArgPrefixes[Limits] = field(default_factory=Limits)


def run(arguments: list[str]) -> None:
    """Encode all images anew, switch, print a summary."""
    args = parse(ReindexFlags, "reindex", __doc__, arguments)
    console = Console()
    with continuable(args.gallery), Shown(console) as listener:
        done = reindex(
            args.gallery,
            args.checkpoint,
            widths=args.widths,
            max_broken=args.max_broken,
            batch_size=args.batch_size,
            workers=args.workers,
            threads=args.threads,
            limits=args.limits,
            progress=listener,
        )
    if not done.needed:
        console.print(f"{args.gallery} is of this model already: nothing to do", soft_wrap=True)
        return
    summarise(
        console,
        args.gallery,
        "encoded anew",
        count=done.encoded,
        total=done.total,
        seconds=done.seconds,
    )
    console.print(f"next: matmamba search --gallery {quote(str(args.gallery))} IMAGE", soft_wrap=True)
