"""Data sets by name."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

from matmamba_common.settings import CREW, Bounds, check

from .cifar import open_cifar
from .errors import DataError
from .folder import Folder, open_folder, split_folders
from .imagenet import open_imagenet
from .kinds import SHARD, TABLE, is_image_name, is_shard, is_table, reasons, suffix_of
from .listing import Listing
from .reading import TableReading
from .remote import is_url
from .sample import Images
from .shards import all_shards, open_shards, read_index
from .splits import Splits, split_by_id
from .transforms import AugmentConfig
from .url_folder import UrlFolder, UrlListing


@dataclass
class DataConfig(TableReading):
    """What to train on and how to read it."""

    # digits, folder, imagenet, shards, parquet, cifar10 or cifar100.
    name: str = "digits"
    # Folder of the data set; digits need none. Shards can also be named by URL or pattern:
    # s3://bucket/photos, PHOTOS/train-{000000..000009}.tar.
    root: str = ""
    # Share of each class that is held out where the data set has no split of its own.
    held_out: Annotated[float, Bounds(above=0, below=1)] = 0.2
    # Images per step of each process.
    batch_size: Annotated[int, Bounds(least=1)] = 32
    # Processes that decode images; 0 decodes in the main one.
    workers: Annotated[int, CREW] = 0
    # Share of images that may be unreadable before the run stops.
    max_broken: Annotated[float, Bounds(least=0, most=1)] = 0.01
    # Folder where remote shards are copied to when they are first read; by default ~/.cache/matmamba.
    cache: str = ""
    # Shorter edge in pixels, at most, at which training images are decoded once for all into the memory of
    # the device, where crops, flips and colours are made then; 0 to decode them anew in each epoch. Worth it
    # where a GPU waits for its images, and they fit: a photo of 144 x 192 takes 83 kB.
    decoded: Annotated[int, Bounds(least=0, zero="not kept")] = 0
    # Augmentation of training images; names are timm's.
    augment: AugmentConfig = field(default_factory=AugmentConfig)


def _open_digits(config: DataConfig) -> Splits:
    from .digits import Digits

    return split_by_id(Digits(), config.held_out)


def _open_parquet(config: DataConfig) -> Splits:
    from .parquet import open_parquet

    return open_parquet(config.root, config.held_out, config)


# What needs an optional package is imported when it is asked for.
DATASETS: dict[str, Callable[[DataConfig], Splits]] = {
    "digits": _open_digits,
    "folder": lambda config: open_folder(config.root, config.held_out, config),
    "imagenet": lambda config: open_imagenet(config.root, config),
    "shards": lambda config: open_shards(config.root, config.held_out, config.cache, config),
    "parquet": _open_parquet,
    "cifar10": lambda config: open_cifar(config.root, "cifar10"),
    "cifar100": lambda config: open_cifar(config.root, "cifar100"),
}
"""How each data set is opened, by its name."""


def open_splits(config: DataConfig) -> Splits:
    """Training and held-out images of a data set.

    Raises:
        ConfigError: a setting that cannot work.
        DataError: unknown name, missing root, or whatever the data set finds wrong with its files.
    """
    if config.name not in DATASETS:
        raise DataError(f"unknown data set {config.name!r}: one of {', '.join(DATASETS)}")
    if not config.root and config.name != "digits":
        raise DataError(f"data set {config.name!r} needs data.root, the folder to read")
    check(config, "data.")
    return DATASETS[config.name](config)


def folders_read(config: DataConfig) -> tuple[Path, ...]:
    """The folders whose image files a data set is made of, whatever they are called; none of most kinds."""
    return split_folders(config.root) if config.name == "folder" and config.root else ()


def open_images(path: Path | str, reading: TableReading | None = None) -> Images:
    """All images of a place, to be indexed: a folder of images, shards or Parquet files, or one such file.

    Images and shards also by any URL that fsspec knows. A folder is one of shards or of Parquet files only if
    there are no images in it. Whatever is not read is in `left_out` of what is returned.

    Raises:
        DataError: nothing there.
    """
    place = Path(path)
    # A folder may be called like an archive.
    if is_url(str(path)):
        return _open_url(str(path), reading)
    if is_shard(str(path)) and not place.is_dir():
        return all_shards(str(path), reading=reading)
    if place.is_file():
        return _open_file(place, reading)
    if not place.is_dir():
        raise DataError(f"{place} is {'neither a file nor a folder' if place.exists() else 'not there'}")
    listing = Listing(place, reading)
    if len(listing.images) or not (listing.shards or listing.tables):
        return Folder(place, reading=reading, listing=listing)
    if listing.shards and listing.tables:
        raise DataError(
            f"{place} holds both shards, such as {listing.shards[0]}, and Parquet files, such as"
            f" {listing.tables[0]}: name one of them"
        )
    if listing.shards:
        return all_shards(str(path), reading=reading)
    from .parquet import all_parquet

    return all_parquet(place, reading, listing)


def _open_url(url: str, reading: TableReading | None) -> Images:
    if is_table(url):
        raise DataError(f"{url}: Parquet files are read on this machine alone: copy it here")
    if is_shard(url) or any(sign in url for sign in "{*"):
        return all_shards(url, reading=reading)
    # What lists its shards need not be listed, which some servers cannot be.
    if read_index(url):
        return all_shards(url, reading=reading)
    listing = UrlListing(url, reading)
    if listing.shards and not len(listing.images):
        return all_shards(url, reading=reading)
    return UrlFolder(url, reading, listing)


def _open_file(place: Path, reading: TableReading | None) -> Images:
    from .parquet import all_parquet

    if suffix_of(place.name) != TABLE and (is_image_name(place.name) or reasons().get(suffix_of(place.name))):
        raise DataError(f"{place} is neither a folder, nor a shard (*{SHARD}), nor a Parquet file")
    return all_parquet(place, reading)
