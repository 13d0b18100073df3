"""Convert a data set to shards, check one, or measure how fast it is read.

  matmamba data prepare   write WebDataset shards of any data set
  matmamba data verify    decode every image, check the checksums of shards, list what is broken
  matmamba data speed     measure images/s with the training transform

examples:
  matmamba data prepare --data.name folder --data.root PHOTOS --output SHARDS
  matmamba data verify --data.name shards --data.root SHARDS
  matmamba data speed --data.name shards --data.root SHARDS --data.workers 0 2 4

Each has more examples: `matmamba data prepare --help`.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from shlex import quote
from typing import Annotated

from matmamba_common.counts import counted
from matmamba_common.settings import CREW, Bounds
from matmamba_datasets import BrokenTally, DataConfig, TableReading, left_out_text
from rich.table import Table

from ..data import prepare_shards, reading_rates, verify_data
from .arguments import check_flags, dispatch, parse
from .bars import Shown, reporter
from .console import Console, say

_PREPARE = """Write a data set as WebDataset shards, train-*.tar and val-*.tar.

Beside the shards lie classes.json and index.json (counts, sizes, SHA-256), with which they open at once.
Image files are copied byte for byte; every image is decoded once, and broken ones are left out and listed.
The same command continues a run that was stopped, and gives the same shards as an unbroken one. Then:
matmamba train --data.name shards --data.root SHARDS

examples:
  matmamba data prepare --data.name folder --data.root PHOTOS --output SHARDS
  matmamba data prepare --data.name imagenet --data.root ILSVRC --output SHARDS --data.workers 8
  matmamba data prepare --data.name parquet --data.root cifar10 --output SHARDS --shard-mb 64
"""
_VERIFY = """Decode every image of a data set, and check the checksums of shards. What is broken is listed.

The exit status is 0 if all is well, 1 if anything is broken, 2 if the data set cannot be opened.

examples:
  matmamba data verify --data.name folder --data.root PHOTOS --data.workers 4
  matmamba data verify --data.name shards --data.root SHARDS
  matmamba data verify --data.name shards --data.root "s3://bucket/photos/train-{000000..000099}.tar"
"""
_SPEED = """Measure how many training images a second are read, decoded and augmented, without a model.

examples:
  matmamba data speed --data.name folder --data.root PHOTOS --data.workers 0 2 4
  matmamba data speed --data.name shards --data.root SHARDS --input-size 384 --no-draft --json
"""


@dataclass(kw_only=True)
class NamedSource(TableReading):
    """A data set."""

    # Data set by name: digits, folder, imagenet, shards, parquet, cifar10 or cifar100.
    name: str
    # Its folder; digits need none. Shards can also be named by URL or pattern.
    root: str = ""
    # Share of each class that is held out where the data set has no split of its own.
    held_out: float = 0.2
    # Folder where remote shards are copied to; by default ~/.cache/matmamba.
    cache: str = ""


@dataclass(kw_only=True)
class Source(NamedSource):
    """A data set that is read by one number of processes."""

    # Processes that decode images; 0 decodes in the main one.
    workers: Annotated[int, CREW] = 0

    def config(self) -> DataConfig:
        """As the registry takes it."""
        return DataConfig(**vars(self))


@dataclass(kw_only=True)
class LimitedSource(Source):
    # Share of images that may be unreadable before the run stops.
    max_broken: Annotated[float, Bounds(least=0, most=1)] = 0.01


@dataclass(kw_only=True)
class PrepareFlags:
    # What to convert.
    data: LimitedSource
    # Folder to write; it can hold what a stopped run of the same command left.
    output: Path
    # Size at which a shard is full, in 10^6 bytes.
    shard_mb: Annotated[float, Bounds(above=0)] = 256
    # Longer side in pixels beyond which an image is made smaller, encoded as JPEG of quality 95; 0 for none.
    max_size: Annotated[int, Bounds(least=0, zero="any")] = 0


@dataclass(kw_only=True)
class VerifyDataFlags:
    # What to check.
    data: Source


@dataclass(kw_only=True)
class TimedSource(NamedSource):
    """A data set that is read by several numbers of processes."""

    # Numbers of processes that decode images, measured in turn; 0 decodes in the main one.
    workers: Annotated[list[int], CREW] = field(default_factory=lambda: [0])
    # Images per batch.
    batch_size: Annotated[int, Bounds(least=1)] = 64

    def config(self) -> DataConfig:
        """As the registry takes it."""
        return DataConfig(**{**vars(self), "workers": 0})


@dataclass(kw_only=True)
class SpeedFlags:
    # What to read.
    data: TimedSource
    # Height and width of the images that the model takes, in pixels.
    input_size: Annotated[int, Bounds(least=1)] = 224
    # How long to measure each.
    seconds: float = 5.0
    # Decode large JPEGs at a reduced size, as training does.
    draft: bool = True
    # Print JSON instead of a table.
    json: bool = False


def run(arguments: list[str]) -> int:
    """Run one action; returns the exit status."""
    return dispatch(_ACTIONS, "data", __doc__, arguments)


def _prepare(arguments: list[str]) -> int:
    args = parse(PrepareFlags, "data prepare", _PREPARE, arguments)
    check_flags(args)
    console = Console(highlight=False)
    with Shown(console) as listener:
        done = prepare_shards(
            args.data.config(),
            args.output,
            shard_mb=args.shard_mb,
            max_size=args.max_size,
            progress=listener,
        )
    for split in done.splits:
        size = f"{split.bytes / 1e6:,.1f} MB"
        console.print(
            f"{split.name}: {counted(split.images, 'image')} in {counted(split.shards, 'shard')}, {size}"
        )
    _list_broken(console, done.broken, "left out")
    reporter(console).left_out(done.foreign)
    console.print(
        f"next: matmamba train --data.name shards --data.root {quote(str(args.output))}", soft_wrap=True
    )
    return 0


def _verify(arguments: list[str]) -> int:
    args = parse(VerifyDataFlags, "data verify", _VERIFY, arguments)
    check_flags(args)
    console = Console(highlight=False)
    with Shown(console) as listener:
        found = verify_data(args.data.config(), progress=listener)
    if found.shards is not None:
        damaged = f"{found.summed} with a checksum, {len(found.damaged)} damaged"
        console.print(f"{counted(found.shards, 'shard')}, {damaged}", soft_wrap=True)
    for name, count in found.images.items():
        broken = found.broken.get(name, {})
        console.print(f"{name}: {counted(count, 'image')}, {len(broken)} broken", soft_wrap=True)
    # All of it: that is what it is asked for.
    if found.left_out:
        said = left_out_text(found.left_out, most=len(found.left_out))
        console.print(said, markup=False, soft_wrap=True)
    _list_broken(console, found.damaged, "(of shards) damaged")
    everything = {name: why for broken in found.broken.values() for name, why in broken.items()}
    _list_broken(console, everything, "broken")
    return 0 if found.whole else 1


def _speed(arguments: list[str]) -> int:
    args = parse(SpeedFlags, "data speed", _SPEED, arguments)
    check_flags(args)
    rows = reading_rates(
        args.data.config(),
        workers=args.data.workers,
        input_size=args.input_size,
        seconds=args.seconds,
        draft=args.draft,
    )
    if args.json:
        say(json.dumps({"name": args.data.name, "draft": args.draft, "rates": rows}))
        return 0
    table = Table("workers", "images/s", title=f"{args.data.name}, {args.input_size} px")
    for row in rows:
        table.add_row(str(row["workers"]), f"{row['images_per_second']:,.0f}")
    Console().print(table)
    return 0


def _list_broken(console: Console, broken: dict[str, str], what: str) -> None:
    if broken:
        listing = BrokenTally(0, 1.0, found=broken).listing(most=len(broken))
        console.print(f"{counted(len(broken), 'file')} {what}:\n{listing}", markup=False, soft_wrap=True)


_ACTIONS: dict[str, Callable[[list[str]], int]] = {
    "prepare": _prepare,
    "verify": _verify,
    "speed": _speed,
}
