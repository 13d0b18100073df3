"""Train a student of another network: every width answers in the teacher's space. No labels are needed.

The teacher is timm:NAME (any of timm's models; timm:local-dir:FOLDER and timm:hf-hub:NAME too),
open_clip:ARCH/TAG, an ONNX file, a run or checkpoint of ours, or a NumPy file with a vector for each image in
order. A network sees the very views that the student sees. Its space is rotated once, to its principal
directions (an isometry, kept in the run as rotation.safetensors), and the student learns the leading --dim of
the rotated coordinates: so short prefixes mean something for both. Labels, where --labelled says that there
are some, are a further term.

Where there is no GPU, let the teacher see fixed views: with --crops 4 its vectors of four views of each image
are computed once, in parts of a folder (--cache, by default teacher/ in the run), and kept; the student then
trains on these very views. What is cut off goes on where it was, other runs share the folder, and where all
vectors are there, the teacher is not loaded.

Of a folder with a split, the training part is taken; a share of the labelled images (data.held_out) is held
out to measure on. Everything else is as in `matmamba train`, whose run folder and --resume this shares.

examples:
  matmamba distill --teacher timm:resnet50.a1_in1k --images PHOTOS --output RUN
  matmamba distill --teacher runs/large --images PHOTOS --model matmamba_nano_patch4_32 --dim 64 --output RUN
  matmamba distill --teacher timm:local-dir:LITE2 --images PHOTOS MORE --repeats 5 1 --labelled True False
  matmamba distill --teacher timm:local-dir:LITE2 --images PHOTOS --crops 4 --cache VECTORS --output RUN
  matmamba distill --config configs/photos/mini.yaml --teacher timm:local-dir:LITE2 --images PHOTOS TINY
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import tyro

from ..config_file import load_into
from ..runs.train_config import DistillConfig, check_config
from .arguments import config_named, parse
from .bars import Shown
from .console import Console
from .train_command import say_what_next


@dataclass
class DistillFlags:
    # YAML file that replaces defaults; flags replace its values.
    config: Path | None = None
    # auto: go on from the newest complete checkpoint in the output folder, or start; a checkpoint's folder:
    # go on from that; no: start, and refuse a folder with a run in it.
    resume: str = "no"
    run: Annotated[DistillConfig, tyro.conf.arg(name="")] = field(default_factory=DistillConfig)


def run(arguments: list[str]) -> None:
    """Train as the flags say."""
    # The one setting of a model that everybody gives.
    arguments = ["--model.name" if argument == "--model" else argument for argument in arguments]
    file = config_named(arguments)
    default = DistillFlags(file, run=load_into(DistillConfig, file)) if file else DistillFlags()
    args = parse(DistillFlags, "distill", __doc__, arguments, default)
    check_config(args.run)
    from ..runs import distill

    console = Console()
    with Shown(console) as listener:
        say_what_next(console, distill(args.run, resume=args.resume, progress=listener))
