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
from typing import TYPE_CHECKING

import tyro
from rich.table import Table

from ..checkpoint import checkpoint_file
from .arguments import parse
from .bars import Shown
from .computing import Computing, NamedData
from .console import Console, say
from .measured_model import require_model

if TYPE_CHECKING:
    from ..widths.select import Selected


@dataclass
class SelectFlags:
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
    args = parse(SelectFlags, "select", __doc__, arguments)
    require_model(args.checkpoint)
    from ..widths.select import select

    console = args.computing.console()
    with Shown(console) as listener:
        found = select(
            args.checkpoint,
            args.budget,
            output=args.output or checkpoint_file(args.checkpoint).parent / "select",
            overwrite=args.overwrite,
            data=args.data.name,
            root=args.data.root,
            images=args.images,
            evaluations=args.evaluations,
            profile_batch=args.profile_batch,
            skip_blocks=args.skip_blocks,
            **args.computing.settings(),
            progress=listener,
        )
    if args.computing.json:
        say(json.dumps(found.to_dict(), indent=2))
    else:
        _print(console, found)
    if found.cut_short:
        raise KeyboardInterrupt


def _print(console: Console, found: Selected) -> None:
    """The Pareto front and the trained widths as a table, then the choice and what comes next."""
    console.print(_table(found))
    following = f"matmamba extract --checkpoint {found.checkpoint} --width {found.slice} --output SMALL"
    for line in (
        *_summary(found),
        f"slice: {found.slice}; also candidates.json and pareto.png",
        f"next: {following}",
    ):
        console.print(line, soft_wrap=True, markup=False)


def _table(found: Selected) -> Table:
    title = f"Pareto front (•) and trained widths, on the {found.images[0]:,} images of the search"
    names = ("", "width", "by", "MMACs", "params", "ms", "MiB", "top-1", "log-lik.")
    table = Table(*names, title=title)
    for column in table.columns[3:]:
        column.justify, column.no_wrap = "right", True
    table.columns[1].overflow, table.columns[2].no_wrap = "fold", True
    for row in found.shown:
        costs, score = row["costs"], row["search"]
        table.add_row(
            "•" if row["on_front"] else "",
            row["width"],
            row["found_by"],
            f"{1e3 * costs['gmacs']:,.2f}",
            f"{costs['params']:,}",
            f"{costs['latency_ms']['median']:.2f}",
            f"{costs['memory_mb']:.2f}",
            f"{score['top1']:.3f}",
            f"{score['log_likelihood']:.4f}",
            style="bold" if row["width"] == found.label else "" if row["within_budget"] else "dim",
        )
    return table


def _summary(found: Selected) -> list[str]:
    costs, spread, others = found.costs, found.costs["latency_ms"], found.accuracy
    short = ", cut short" if found.cut_short else ""
    evaluated = f"{len(found.candidates)} widths evaluated{short}"
    own = found.accuracy_of_search
    return [
        f"chosen for {found.budget}: {found.label}, by {found.found_by}; {evaluated}",
        _against_rule(found),
        f"costs: {costs['gmacs']:.4g} GMACs, {costs['params']:,} parameters, {costs['memory_mb']:.2f} MiB,"
        f" {spread['median']:.2f} ms (quartiles {spread['low']:.2f} to {spread['high']:.2f}),"
        f" measured on {costs['device']}, batch {costs['batch']}",
        f"accuracy: top-1 {others['top1']:.3f}, log-likelihood {others['log_likelihood']:.4f} on"
        f" {found.images[1]:,} images held back from the search; on its own {found.images[0]:,}:"
        f" {own['top1']:.3f}, {own['log_likelihood']:.4f}",
    ]


def _against_rule(found: Selected) -> str:
    against = found.search_against_rule
    if found.rule is None:
        return "no uniform width, and none of the rule, is within the budget"
    if against is None:
        return "the search found nothing better"
    gain, error = against["log_likelihood_gain"], against["standard_error"]
    other = f"{against['rule']} by {found.rule['found_by']}"
    on_other = f"on images held back: {gain:+.4f} ± {error:.4f} nats per image"
    if against["used"]:
        clearly = "it beats" if gain > error else "it is no worse than, but not clearly better than,"
        return f"{clearly} the best without search, {other}, {on_other}"
    return f"the search found {against['found']}, which does not beat {other} {on_other}; so that is used"
