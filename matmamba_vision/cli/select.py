"""Choose the best width within a budget, by measuring it on this machine and on held-out images.

Tried are the trained and uniform widths, MatFormer's rule for Mix'n'Match (head counts non-decreasing with
depth), then neighbours of the best. Half of the held-out images decide; accuracy is reported on the other
half, and a find of the search that is no better than the rule there is dropped for the rule. The folder
receives slice.yaml (which extract and validate take as a width), candidates.json and pareto.png.

budgets:
  gmacs=2.0       multiply-adds per image, billions
  params=5M       parameters: 5M, 500k or 5e6
  latency_ms=20   median for one batch of --profile-batch images, measured here; tried widths are predicted
                  from a profile of the blocks, and finalists are measured
  memory_mb=64    MiB of the weights and of the largest tensors alive at once in one such forward

examples:
  matmamba select --checkpoint runs/photos --budget gmacs=0.01
  matmamba select --checkpoint runs/photos --budget latency_ms=5 --threads 1 --output runs/photos/fast
  matmamba select --checkpoint runs/photos --budget params=300k --skip-blocks --evaluations 200 --json
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import tyro
from matmamba_datasets import DataError, Images, Subset

from ..batch import LabelledBatch
from ..checkpoint import Checkpoint, checkpoint_file, load_checkpoint
from ..device import resolve_device
from ..errors import ConfigError
from ..measures.budget import Budget, make_price, parse_budget, require_possible
from ..measures.choice import Measurements, choose
from ..measures.mixnmatch import Candidate, explore, head_levels, ranked, smallest_width, starting_widths
from ..measures.pareto import pareto_front
from ..measures.score import Score, score
from ..width import Width
from .arguments import parse
from .computing import Computing, require_least
from .console import Console, say
from .held_out import NamedData, open_data, watched_batches
from .progress import reporter
from .selection import Selection, print_selection, write_selection
from .slices import SLICE_FILE

# Search images below which a difference of some points is chance.
FEW = 200


@dataclass
class Args:
    # Run folder or checkpoint file of the nested model.
    checkpoint: Path
    # The most that the width may cost, such as gmacs=2.0; see above.
    budget: str
    # Folder to write; by default the folder `select` beside the checkpoint.
    output: Path | None = None
    # Replace a slice that is already there.
    overwrite: bool = False
    # The data set, if not the one of the training run.
    data: NamedData = field(default_factory=NamedData)
    # Most images in each half of the held-out ones; they are kept in memory.
    images: int = 1000
    # Widths to evaluate, those before the search included.
    evaluations: int = 60
    # Images in one forward when latency and memory are measured.
    profile_batch: int = 1
    # Let the search skip blocks.
    skip_blocks: bool = False
    # Of the computation.
    computing: tyro.conf.OmitArgPrefixes[Computing] = field(default_factory=Computing)


def run(arguments: list[str]) -> None:
    """Choose, write, and say what was chosen."""
    args = parse(Args, "select", __doc__, arguments)
    budget = parse_budget(args.budget)
    require_least(args, images=1, evaluations=1, profile_batch=1)
    output = args.output or checkpoint_file(args.checkpoint).parent / "select"
    if (output / SLICE_FILE).exists() and not args.overwrite:
        raise ConfigError(f"{output / SLICE_FILE} exists: choose another --output, or --overwrite")
    console = args.computing.begin()
    checkpoint = load_checkpoint(args.checkpoint, resolve_device(args.computing.device))
    selector = _Selector(args, budget, checkpoint, console)
    if selector.deciding < FEW:
        console.print(
            f"note: {selector.deciding} images decide, fewer than {FEW}: accuracies that differ by less than"
            f" {100 / selector.deciding**0.5:.0f} points are hardly told apart; --images, --data.root",
            soft_wrap=True,
        )
    # Before the work, so that a folder that cannot be written costs none.
    output.mkdir(parents=True, exist_ok=True)
    selection = selector.select()
    result = write_selection(output, selection, _flags(args))
    if args.computing.json:
        say(json.dumps(result, indent=2))
    else:
        print_selection(console, selection, output)
    if selection.cut_short:
        raise KeyboardInterrupt


def _flags(args: Args) -> dict[str, Any]:
    """All flags by name, those that are shared beside the others."""
    own = {name: value for name, value in vars(args).items() if name != "computing"}
    return own | vars(args.computing)


class _Selector:
    """Profiles, explores, and chooses; what was evaluated before an interruption is kept."""

    def __init__(self, args: Args, budget: Budget, checkpoint: Checkpoint, console: Console) -> None:
        self._args, self._budget, self._seed = args, budget, args.computing.seed
        self._checkpoint, self._model, self._console = checkpoint, checkpoint.model, console
        images = open_data(console, checkpoint, args.data.name, args.data.root).held_out
        self._levels = head_levels(self._model, args.skip_blocks)
        with console.status(f"profiling for {budget.key}"):
            self._price = make_price(self._model, budget.key, self._levels, args.profile_batch)
            smallest = smallest_width(self._model, self._levels, self._price)
            require_possible(budget, self._model, smallest, self._price)
            self._starts = starting_widths(self._model, self._levels, self._price, budget.limit)
        self._search_half, self._other_half = (self._read(half) for half in _halves(images, args))
        self._measurements = Measurements(self._model, args.profile_batch)
        self._candidates: list[Candidate] = []

    @property
    def deciding(self) -> int:
        """How many images the search decides by."""
        return sum(map(len, self._search_half))

    def select(self) -> Selection:
        """Explore and choose. Ctrl-C ends that early: the choice is then among what was evaluated."""
        try:
            self._explore()
            return self._conclude(cut_short=False)
        except KeyboardInterrupt:
            if not self._candidates:
                raise
            self._console.print("interrupted: choosing among what was evaluated; once more to leave")
            return self._conclude(cut_short=True)

    def _explore(self) -> None:
        images = sum(map(len, self._search_half))
        limit, evaluations = self._budget.limit, self._args.evaluations
        with reporter(self._console).meter("evaluating", evaluations * images) as bar:

            def evaluate(width: Width) -> Score:
                note = self._standing()
                return score(self._model, self._search_half, width, lambda done: bar.advance(done, note))

            for candidate in explore(
                self._starts, self._levels, self._price, limit, evaluate, evaluations, self._seed
            ):
                self._candidates.append(candidate)

    def _standing(self) -> str:
        within = ranked(known for known in self._candidates if known.cost <= self._budget.limit)
        best = f", best {within[0].score.log_likelihood:.4f} ({within[0].origin})" if within else ""
        return f"width {len(self._candidates) + 1} of {self._args.evaluations}{best}"

    def _conclude(self, cut_short: bool) -> Selection:
        status = "measuring finalists, and scoring them on the other half"
        with self._console.status(status):
            choice = choose(self._candidates, self._budget, self._measurements, self._score_held_back)
            known = [choice.chosen, choice.found, *([choice.rule] if choice.rule else [])]
            if not cut_short:
                known += pareto_front(self._candidates)
                known += [candidate for candidate in self._candidates if candidate.origin == "trained"]
            shown = sorted(dict.fromkeys(known), key=lambda candidate: candidate.cost)
            self._measurements.of([candidate.width for candidate in shown])
        halves = sum(map(len, self._search_half)), sum(map(len, self._other_half))
        return Selection(
            self._checkpoint,
            self._budget,
            choice,
            self._candidates,
            shown,
            self._measurements,
            halves,
            cut_short,
        )

    def _score_held_back(self, width: Width) -> Score:
        return score(self._model, self._other_half, width)

    def _read(self, images: Images) -> list[LabelledBatch]:
        args = self._args
        batches = watched_batches(
            self._console,
            "reading images",
            self._checkpoint,
            images,
            args.computing.batch_size,
            args.computing.workers,
        )
        read: list[LabelledBatch] = [batch for batch in batches if len(batch)]
        if not read:
            raise DataError(f"{args.data.root or self._checkpoint.path}: no held-out image can be read")
        return read


def _halves(images: Images, args: Args) -> tuple[Images, Images]:
    """Two halves by chance, of at most `args.images` each: one to search by, one to report on."""
    if len(images) < 2:
        raise DataError(f"the data set has {len(images)} held-out images: select needs at least 2")
    order = np.random.default_rng(args.computing.seed).permutation(len(images))
    first, second = np.array_split(order, 2)
    return Subset(images, np.sort(first[: args.images])), Subset(images, np.sort(second[: args.images]))
