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

from dataclasses import dataclass, field, replace
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from matmamba_datasets import DataError

from ..checkpoint import Checkpoint, CheckpointError, checkpoint_file, load_checkpoint, save_checkpoint
from ..errors import ConfigError
from ..export import check_onnx, export_onnx, largest_difference
from ..hub import ONNX, occupied, require_architecture, save_for_hub
from ..measures import count_macs, count_parameters, measure_latency
from ..models import MatMamba, extract
from ..width import Width
from .arguments import parse
from .card import Facts, Measured, write_card
from .console import Console
from .held_out import NamedData, data_config, open_data
from .slices import named_width
from .validate import measure_checkpoint

# Largest difference of a logit from the parent's. Cut weights give the same bits, but a library may choose to
# multiply them in another order.
TOLERANCE = 1e-5
LATENCY_BATCH = 1


@dataclass
class Args:
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
    """Extract, check, measure, save."""
    args = parse(Args, "extract", __doc__, arguments)
    console = Console()
    _require_free(args)
    parent = load_checkpoint(args.checkpoint)
    width = named_width(args.width, parent)
    small = extract(parent.model, width)
    difference = _checked_difference(small, parent.model, width)
    said = (
        f"{checkpoint_file(args.output)}: width {parent.model.label(width)}, {count_parameters(small):,} of"
        f" {count_parameters(parent.model):,} parameters, {count_macs(small) / 1e6:,.1f} of"
        f" {count_macs(parent.model) / 1e6:,.1f} MMACs\n"
        f"largest difference of logits from the parent at that width, on 8 random images: {difference:g}"
    )
    if _is_file(args):
        save_checkpoint(args.output, small, parent.classes, parent.run)
    else:
        said += _save_folder(args, small, parent, width, difference, console)
    console.print(said, soft_wrap=True, markup=False)


def _is_file(args: Args) -> bool:
    return checkpoint_file(args.output) == args.output


def _require_free(args: Args) -> None:
    file = checkpoint_file(args.output)
    if _is_file(args) and args.onnx:
        raise ConfigError(f"--onnx needs a folder: --output {args.output} is a single file")
    if _is_file(args):
        taken = file if file.exists() and not args.overwrite else None
    else:
        taken = occupied(args.output, args.overwrite)
    if taken:
        raise ConfigError(f"{taken} exists: choose another --output, or --overwrite")
    if file.resolve() == checkpoint_file(args.checkpoint).resolve():
        raise ConfigError(
            f"--output {args.output} is the checkpoint itself, whose other widths would be lost"
        )


@torch.inference_mode()
def _checked_difference(small: MatMamba, parent: MatMamba, width: Width) -> float:
    images = parent.random_images(8)
    difference = largest_difference(small(images), parent(images, width))
    if not difference <= TOLERANCE:
        label = parent.label(width)
        raise ConfigError(f"extracted logits differ by {difference:g} from those of width {label}: not saved")
    return difference


def _save_folder(
    args: Args, small: MatMamba, parent: Checkpoint, width: Width, difference: float, console: Console
) -> str:
    """Write the folder; returns what else there is to say."""
    require_architecture(small)
    with TemporaryDirectory() as scratch:
        file = Path(scratch) / ONNX
        onnx = _write_onnx(small, file, console) if args.onnx else None
        accuracy = _accuracy(args, replace(parent, model=small), console)
        (latency,) = measure_latency(small, ["full"], LATENCY_BATCH)
        facts = Facts(small, parent, width, difference, latency, LATENCY_BATCH, accuracy, onnx)
        attach = [file] if args.onnx else []
        card = write_card(facts)
        save_for_hub(args.output, small, parent.classes, card, parent.run, attach, args.overwrite)
    said = "" if onnx is None else f"\nlargest difference of ONNX Runtime's logits from PyTorch's: {onnx:g}"
    return said + _describe(accuracy)


def _write_onnx(small: MatMamba, file: Path, console: Console) -> float:
    # Minutes for a model of 20 blocks.
    with console.status("exporting to ONNX"):
        export_onnx(small, file)
    return check_onnx(small, file)


def _accuracy(args: Args, small: Checkpoint, console: Console) -> Measured | str:
    """What was measured on held-out images, or why nothing was."""
    named = bool(args.data.name or args.data.root)
    if not args.measure:
        return "it was not asked for"
    if not named and "data" not in small.run:
        return "the checkpoint does not say on which images it was trained"
    try:
        return _measure(args, small, console)
    except (DataError, CheckpointError, OSError, ModuleNotFoundError) as error:
        if named:
            raise
        return " ".join(str(error).split())


def _measure(args: Args, small: Checkpoint, console: Console) -> Measured:
    name = data_config(small, args.data.name, args.data.root).name
    splits = open_data(console, small, args.data.name, args.data.root)
    full = [small.model.width("full")]
    (row,) = measure_checkpoint(small, full, splits, console, args.batch_size, args.workers)
    return Measured(name, len(splits.train), len(splits.held_out), row)


def _describe(accuracy: Measured | str) -> str:
    if isinstance(accuracy, str):
        return f"\naccuracy not measured: {accuracy}"
    return f"\nheld-out top-1 {accuracy.row['top1']:.4f}, 1-NN {accuracy.row['knn1']:.4f}"
