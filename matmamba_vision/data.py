"""What is done with a data set before training: written as shards, checked, and timed."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any, TypeAlias

from matmamba_common.settings import Bounds, check, require, require_crew, require_least
from matmamba_common.words import shown
from matmamba_datasets import (
    AugmentConfig,
    DataConfig,
    DataError,
    Images,
    open_splits,
)
from matmamba_datasets.prepare import Preparation, PrepareSettings
from matmamba_datasets.remote import is_url
from matmamba_datasets.shards import find_shards
from matmamba_datasets.verify import damaged_shards, decode_all

from .config_file import filled
from .given import require_folder, require_lists
from .progress import Listener, Reporter
from .public_call import public_call

DataLike: TypeAlias = DataConfig | Mapping[str, Any]
AboveZero = Annotated[float, Bounds(above=0)]
MaxSize = Annotated[int, Bounds(least=0, zero="any")]


@dataclass(frozen=True)
class PreparedSplit:
    """What was written of one split.

    Attributes:
        name: train or val.
        images: that it has.
        shards: that they are in.
        bytes: of these.
    """

    name: str
    images: int
    shards: int
    bytes: int


@dataclass(frozen=True)
class Prepared:
    """A data set as shards.

    Attributes:
        folder: where.
        splits: what was written of each.
        broken: reasons by name of the images that were left out.
        foreign: reasons by name of what turned out to be no image at all.
    """

    folder: Path
    splits: list[PreparedSplit]
    broken: dict[str, str]
    foreign: dict[str, str]

    def to_dict(self) -> dict[str, Any]:
        """As JSON holds it."""
        return {**asdict(self), "folder": str(self.folder)}


@dataclass
class CheckedData:
    """What a check of a data set found.

    Attributes:
        shards: how many there are; None where there are none.
        summed: how many of these have a checksum.
        damaged: what is wrong with shards as files, by place.
        images: how many there are, by split.
        broken: reasons by name of the images that cannot be decoded, by split.
        left_out: what the place holds beside its images, by reason.
    """

    shards: int | None = None
    summed: int = 0
    damaged: dict[str, str] = field(default_factory=dict)
    images: dict[str, int] = field(default_factory=dict)
    broken: dict[str, dict[str, str]] = field(default_factory=dict)
    left_out: dict[str, str] = field(default_factory=dict)

    @property
    def whole(self) -> bool:
        """Whether nothing is damaged or broken."""
        return not self.damaged and not any(self.broken.values())

    def to_dict(self) -> dict[str, Any]:
        """As JSON holds it."""
        return {"whole": self.whole, **asdict(self)}


def _config_of(data: DataLike) -> DataConfig:
    """Settings of a data set, checked; `TypeError` if they are none."""
    if isinstance(data, Mapping):
        data = filled(DataConfig, dict(data), "data")
    if not isinstance(data, DataConfig):
        raise TypeError(f"data is {shown(data)}: it can be a DataConfig, or a mapping of its values")
    check(data, "data.")
    return data


@public_call
def prepare_shards(
    data: DataLike,
    output: str | os.PathLike[str],
    *,
    shard_mb: float = 256,
    max_size: int = 0,
    progress: Listener | None = None,
) -> Prepared:
    """Write a data set as WebDataset shards, train-*.tar and val-*.tar.

    Image files are copied byte for byte; every image is decoded once, and broken ones are left out. The same
    call continues one that was stopped, and gives the same shards as an unbroken one.

    Args:
        data: what to convert, a `DataConfig` or a mapping of its values, such as `{"name": "folder",
            "root": "PHOTOS"}`; its `max_broken` is the share of images that may be unreadable.
        output: folder to write; it can hold what a stopped call left.
        shard_mb: size at which a shard is full, in 10^6 bytes.
        max_size: longer side in pixels beyond which an image is made smaller, encoded as JPEG of quality 95;
            0 for none.
        progress: is told how far it is.

    Raises:
        DataError: no such data set, too many broken images, or a folder that holds something else.
        ConfigError: a number that cannot be.
        TypeError: an argument is of another type.
    """
    require("shard_mb", shard_mb, AboveZero)
    require("max_size", max_size, MaxSize)
    report, folder, data = Reporter(progress), require_folder("output", output), _config_of(data)
    elsewhere = not data.root or is_url(data.root)
    root = data.root if elsewhere else str(Path(data.root).absolute())
    splits = open_splits(data)
    report.left_out(splits.left_out)
    settings = PrepareSettings(data.name, root, data.held_out, shard_mb, max_size)
    preparation = Preparation(splits, settings, folder, data.max_broken)
    with report.meter("preparing", preparation.remaining) as meter:
        written = preparation.run(data.workers, meter.advance)
    found = [_split(name, shards) for name, shards in written.items()]
    return Prepared(folder, found, preparation.broken, preparation.foreign)


def _split(name: str, shards: Sequence[Mapping[str, Any]]) -> PreparedSplit:
    images, size = (sum(shard[key] for shard in shards) for key in ("images", "bytes"))
    return PreparedSplit(name, images, len(shards), size)


@public_call
def verify_data(data: DataLike, *, progress: Listener | None = None) -> CheckedData:
    """Decode every image of a data set, and compare shards with their checksums.

    Args:
        data: what to check, as of `prepare_shards`.
        progress: is told how far it is.

    Raises:
        DataError: no such data set, or one that cannot be opened though nothing of it is damaged.
        TypeError: `data` is of another type.
    """
    report, found, data = Reporter(progress), CheckedData(), _config_of(data)
    if data.name == "shards":
        _check_shards(data, found, report)
    try:
        splits = open_splits(data)
        for name, images in (("training", splits.train), ("held-out", splits.held_out)):
            found.images[name] = len(images)
            found.broken[name] = _decode(name, images, data.workers, report)
        found.left_out = dict(splits.left_out)
    except DataError:
        # What is damaged as a whole cannot be opened, and is the reason.
        if not found.damaged:
            raise
    return found


def _check_shards(data: DataConfig, found: CheckedData, report: Reporter) -> None:
    shards = find_shards(data.root, data.cache)
    found.shards, found.summed = len(shards), sum(bool(shard.sha256) for shard in shards)
    with report.meter("checking shards", len(shards), "shards") as meter:
        for place, fault in damaged_shards(shards, data.cache):
            meter.advance(1)
            if fault:
                found.damaged[place] = fault


def _decode(name: str, images: Images, workers: int, report: Reporter) -> dict[str, str]:
    broken: dict[str, str] = {}
    with report.meter(f"decoding {name} images", len(images)) as meter:
        for faults in decode_all(images, workers):
            broken |= {fault.name: fault.reason for fault in faults if fault is not None}
            meter.advance(len(faults), f"{len(broken)} broken" if broken else "")
    return broken


@public_call
def reading_rates(
    data: DataLike,
    *,
    workers: Sequence[int] = (0,),
    input_size: int = 224,
    seconds: float = 5.0,
    draft: bool = True,
) -> list[dict[str, Any]]:
    """How many training images a second are read, decoded and augmented, without a model.

    Args:
        data: what to read, as of `prepare_shards`.
        workers: numbers of processes that decode, measured in turn; 0 decodes in this one.
        input_size: height and width of the images that a model takes, in pixels.
        seconds: how long to measure each.
        draft: decode large JPEGs at a reduced size, as training does.

    Returns:
        For each number of processes `{"workers", "images_per_second"}`.

    Raises:
        DataError: no such data set, or no image can be read.
        ConfigError: a number that cannot be.
        TypeError: an argument is of another type.
    """
    from matmamba_datasets import make_loader, train_transform
    from matmamba_datasets.speed import reading_rate

    require_lists(workers=workers)
    require_least(1, input_size=input_size)
    require_crew(workers=workers)
    require("seconds", seconds, AboveZero)
    data = _config_of(data)
    images = open_splits(replace(data, workers=0)).train
    transform = train_transform({"input_size": (3, input_size, input_size)}, AugmentConfig(draft=draft))
    rows = []
    for count in workers:
        loader = make_loader(images, transform, data.batch_size, workers=count, shuffle=True)
        rows.append({"workers": count, "images_per_second": round(reading_rate(loader, seconds), 1)})
    return rows
