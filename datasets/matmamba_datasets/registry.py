"""Data sets by name."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from .cifar import open_cifar
from .folder import Folder, open_folder
from .imagenet import open_imagenet
from .sample import DataError, Images, Splits, split_by_id
from .shards import all_shards, open_shards
from .transforms import AugmentConfig


@dataclass
class DataConfig:
    """What to train on and how to read it."""

    # digits, folder, imagenet, shards, parquet, cifar10 or cifar100.
    name: str = "digits"
    # Folder of the data set; digits need none. Shards can also be named by URL or pattern:
    # s3://bucket/photos, PHOTOS/train-{000000..000009}.tar.
    root: str = ""
    # Share of each class that is held out where the data set has no split of its own.
    held_out: float = 0.2
    # Images per step of each process.
    batch_size: int = 32
    # Processes that decode images; 0 decodes in the main one.
    workers: int = 0
    # Share of images that may be unreadable before the run stops.
    max_broken: float = 0.01
    # Folder where remote shards are copied to when they are first read; by default ~/.cache/matmamba.
    cache: str = ""
    # Shorter edge in pixels, at most, at which training images are decoded once for all into the memory of
    # the device, where crops, flips and colours are made then; 0 to decode them anew in each epoch. Worth it
    # where a GPU waits for its images, and they fit: a photo of 144 x 192 takes 83 kB.
    decoded: int = 0
    # Augmentation of training images; names are timm's.
    augment: AugmentConfig = field(default_factory=AugmentConfig)


def _open_digits(config: DataConfig) -> Splits:
    from .digits import Digits

    return split_by_id(Digits(), config.held_out)


def _open_parquet(config: DataConfig) -> Splits:
    from .parquet import open_parquet

    return open_parquet(config.root, config.held_out)


# What needs an optional package is imported when it is asked for.
DATASETS: dict[str, Callable[[DataConfig], Splits]] = {
    "digits": _open_digits,
    "folder": lambda config: open_folder(config.root, config.held_out),
    "imagenet": lambda config: open_imagenet(config.root),
    "shards": lambda config: open_shards(config.root, config.held_out, config.cache),
    "parquet": _open_parquet,
    "cifar10": lambda config: open_cifar(config.root, "cifar10"),
    "cifar100": lambda config: open_cifar(config.root, "cifar100"),
}


def open_splits(config: DataConfig) -> Splits:
    """Training and held-out images of a data set.

    Raises:
        DataError: unknown name, missing root, or whatever the data set finds wrong with its files.
    """
    if config.name not in DATASETS:
        raise DataError(f"unknown data set {config.name!r}: one of {', '.join(DATASETS)}")
    if not config.root and config.name != "digits":
        raise DataError(f"data set {config.name!r} needs data.root, the folder to read")
    if not 0 < config.held_out < 1:
        raise DataError(f"data.held_out {config.held_out} is not a share between 0 and 1")
    return DATASETS[config.name](config)


def open_images(path: Path | str) -> Images:
    """All images of a place, to be indexed: a folder of images, shards or Parquet files, or one such file.

    Raises:
        DataError: nothing there.
    """
    place = Path(path)
    if str(path).endswith(".tar") or (place.is_dir() and any(place.glob("*.tar"))):
        return all_shards(str(path))
    if place.is_file() or (place.is_dir() and any(place.glob("*.parquet"))):
        from .parquet import Parquet, parquet_files

        return Parquet(parquet_files(place))
    return Folder(place)
