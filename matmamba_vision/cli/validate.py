"""Measure a checkpoint at each width on held-out images.

Classification: top-1, top-5, expected calibration error (15 bins), negative log-likelihood, Brier score.
Retrieval, the held-out images asked, the training images the gallery, same class relevant: 1-NN and kNN
accuracy (votes weighted by exp(similarity / 0.07)), mAP@10 (MRL's, divided by 10) and hit@10, for each width
of the query, width of the gallery and embedding dim. Cost: parameters, multiply-adds, latency of one image.
What is a mean over the held-out images has a 95 % bootstrap interval; widths are tested against each other
in pairs, each p for one test alone.
The folder receives results.json, results.csv, heatmap.png and calibration.png. Data settings are those of
the training run unless flags change them.

examples:
  matmamba validate --checkpoint runs/photos
  matmamba validate --checkpoint runs/photos --widths full 1/4 3/16 --gallery-widths full --json
  matmamba validate --checkpoint runs/photos --compare 1/2 1/4 --dims 16 64 --probe
"""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import tyro
from matmamba_datasets import DataError, Images, Splits

from ..checkpoint import Checkpoint, checkpoint_file, load_checkpoint
from ..device import resolve_device
from ..errors import ConfigError
from ..measures import Predictions, predict
from ..measures.environment import environment
from ..measures.significance import RESAMPLES
from ..width import Width
from .arguments import parse
from .computing import Computing, require_least
from .console import Console, say
from .experiment import some
from .held_out import NamedData, data_config, open_data, watched_batches
from .measure import measure_widths
from .slices import named_width
from .validation import Encoded, Plan, assess
from .validation_report import print_validation, write_validation

SMALLEST_DIM = 8


@dataclass
class Args:
    # Run folder or checkpoint file.
    checkpoint: Path
    # Folder to write; by default the folder `validate` beside the checkpoint. An earlier validation there is
    # replaced.
    output: Path | None = None
    # The data set, if not the one of the training run.
    data: NamedData = field(default_factory=NamedData)
    # Widths to measure, or slices that `matmamba select` wrote; by default the widths that were trained.
    widths: list[str] = field(default_factory=list)
    # Widths of the gallery, the first for the paired tests; by default full and the widths to measure.
    gallery_widths: list[str] = field(default_factory=list)
    # Embedding dims; by default those of the MRL loss, or powers of two from 8, and all.
    dims: list[int] = field(default_factory=list)
    # Neighbours that vote in kNN classification; all, where the gallery has fewer.
    knn: list[int] = field(default_factory=lambda: [10, 20])
    # Two of the widths to test against each other; by default the first against each other one.
    compare: tuple[str, str] | None = None
    # Fit linear probes on the embeddings of each width and dim, which is slow; needs scikit-learn.
    probe: bool = False
    # Most images in the gallery, picked by chance; by default all.
    gallery_images: int | None = None
    # Of the computation.
    computing: tyro.conf.OmitArgPrefixes[Computing] = field(default_factory=Computing)


def run(arguments: list[str]) -> None:
    """Measure, write the folder, print tables or JSON."""
    args = parse(Args, "validate", __doc__, arguments)
    require_least(args, gallery_images=1, knn=1, dims=1)
    if args.probe:
        # Before the work, so that a missing package costs none.
        import sklearn  # noqa: F401
    console = args.computing.begin()
    checkpoint = load_checkpoint(args.checkpoint, resolve_device(args.computing.device))
    plan = _plan(args, checkpoint)
    splits = open_data(console, checkpoint, args.data.name, args.data.root)
    splits = Splits(some(splits.train, args.gallery_images, args.computing.seed), splits.held_out)
    output = args.output or checkpoint_file(args.checkpoint).parent / "validate"
    # Before the work, so that a folder that cannot be written costs none.
    output.mkdir(parents=True, exist_ok=True)
    results = _validate(args, plan, checkpoint, splits, console)
    write_validation(output, results)
    if args.computing.json:
        say(json.dumps(results, indent=2))
    else:
        print_validation(console, results, output)


def measure_checkpoint(
    checkpoint: Checkpoint,
    widths: Sequence[Width],
    splits: Splits,
    console: Console,
    batch_size: int,
    workers: int,
) -> list[dict[str, Any]]:
    """`measure_widths` on images prepared as the model wants them; `DataError` if too many are broken."""
    batches = [
        watched_batches(console, "encoding", checkpoint, images, batch_size, workers)
        for images in (splits.train, splits.held_out)
    ]
    return measure_widths(checkpoint.model, widths, *batches)


def _plan(args: Args, checkpoint: Checkpoint) -> Plan:
    model = checkpoint.model
    widths = _named(args.widths, checkpoint) or list(model.trained_widths)
    gallery = _named(args.gallery_widths, checkpoint) or list(dict.fromkeys([model.width("full"), *widths]))
    pairs = [(widths[0], width) for width in widths[1:]]
    if args.compare:
        first, second = (named_width(width, checkpoint) for width in args.compare)
        for width in (first, second):
            if width not in widths:
                known = ", ".join(map(model.label, widths))
                raise ConfigError(f"--compare {model.label(width)}: it can be one of the widths {known}")
        pairs = [(first, second)]
    dims = _dims(args, checkpoint)
    return Plan(widths, gallery, dims, sorted(set(args.knn)), pairs, args.probe, args.computing.seed)


def _named(names: Sequence[str], checkpoint: Checkpoint) -> list[Width]:
    return list(dict.fromkeys(named_width(name, checkpoint) for name in names))


def _dims(args: Args, checkpoint: Checkpoint) -> list[int]:
    longest = checkpoint.model.embedding_dim
    if args.dims:
        if max(args.dims) > longest:
            raise ConfigError(f"--dims {max(args.dims)}: embeddings of this checkpoint have {longest} dims")
        return sorted(set(args.dims))
    powers = [SMALLEST_DIM << power for power in range(longest.bit_length())]
    known = checkpoint.run.get("objective", {}).get("mrl_dims") or powers
    return sorted({*(dim for dim in known if dim < longest), longest})


def _validate(
    args: Args, plan: Plan, checkpoint: Checkpoint, splits: Splits, console: Console
) -> dict[str, Any]:
    start = time.monotonic()
    encoded = _encode(args, plan, checkpoint, splits, console)
    middle = time.monotonic()
    tables = assess(checkpoint.model, plan, encoded, console)
    end = time.monotonic()
    images = {
        name: len(next(iter(found.values())).labels)
        for name, found in (("gallery", encoded.gallery), ("queries", encoded.queries))
    }
    data = data_config(checkpoint, args.data.name, args.data.root)
    return {
        "checkpoint": str(checkpoint.path),
        "digest": checkpoint.digest,
        "data": {"name": data.name, "root": data.root},
        "images": images,
        "settings": {
            "knn": list(plan.knn),
            "dims": list(plan.dims),
            "seed": plan.seed,
            "resamples": RESAMPLES,
        },
        **tables,
        "seconds": {"encode": round(middle - start, 2), "assess": round(end - middle, 2)},
        **environment(),
    }


def _encode(args: Args, plan: Plan, checkpoint: Checkpoint, splits: Splits, console: Console) -> Encoded:
    """Both sides, each image read once."""

    def encode(what: str, images: Images, widths: Sequence[Width]) -> dict[Width, Predictions]:
        batches = watched_batches(
            console, f"encoding {what}", checkpoint, images, args.computing.batch_size, args.computing.workers
        )
        found = predict(checkpoint.model, batches, widths)
        if not found:
            said = (
                f"no image of the {what} can be read"
                if len(images)
                else f"there are no images for the {what}"
            )
            raise DataError(f"{said}: name others by --data.name and --data.root")
        return dict(zip(widths, found, strict=True))

    # A probe learns from the training images at the width that it is for.
    stored = list(dict.fromkeys([*plan.gallery_widths, *(plan.widths if plan.probe else ())]))
    return Encoded(encode("queries", splits.held_out, plan.widths), encode("gallery", splits.train, stored))
