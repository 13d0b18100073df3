"""Measure once how the Triton kernels are launched best on this GPU, and keep that for this machine.

Candidates of a fixed table are compiled, compared with the definition and timed. The file that is written
holds for this GPU, version of Triton and version of torch, and is read when a kernel is first launched.
Without it kernels are launched by default; nothing is measured then.

examples:
  matmamba tune
  matmamba tune --dtypes bfloat16 float16 --json
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rich.table import Table

from .arguments import parse
from .bars import Shown
from .console import Console, say

if TYPE_CHECKING:
    from ..studies.tune import Tuned


@dataclass
class TuneFlags:
    # Of bfloat16, float16, float32; more of them take longer.
    dtypes: tuple[str, ...] = ("bfloat16",)
    # Head dims of the models that will be used.
    head_dims: tuple[int, ...] = (16, 32)
    # Print JSON instead of text.
    json: bool = False


def run(arguments: list[str]) -> None:
    """Measure, keep, and say what was chosen."""
    args = parse(TuneFlags, "tune", __doc__, arguments)
    from ..studies.tune import tune

    console = Console(stderr=args.json, highlight=False)
    with Shown(console) as listener:
        found = tune(dtypes=args.dtypes, head_dims=args.head_dims, progress=listener)
    if args.json:
        say(json.dumps(found.to_dict(), indent=2))
    else:
        _print(console, found)


def _print(console: Console, found: Tuned) -> None:
    """A row for each kernel and class of shapes, then what is to be known of it."""
    table = Table("kernel", "shapes", "launched with", "µs", "by default, µs")
    for choice in found.choices:
        first = next(iter(choice.microseconds.values()))
        taken = choice.microseconds[choice.candidate]
        table.add_row(choice.kernel, str(choice.shapes), choice.candidate, f"{taken:,.1f}", f"{first:,.1f}")
    console.print(table)
    for where, why in found.dropped.items():
        console.print(f"not used: {where}: {why}", markup=False, soft_wrap=True)
    counted = f"{found.changed} of {len(found.choices)} launches are not the default"
    console.print(f"{found.gpu}: {counted}; kept in {found.file}", markup=False, soft_wrap=True)
