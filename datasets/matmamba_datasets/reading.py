"""What of a place is read, and up to which size: the settings that every way to read images shares."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated

from matmamba_common.settings import Bounds, OneOf, require

# Links to folders: read what they lead to, or leave them out by name.
FOLLOW, SKIP = "follow", "skip"
Links = Annotated[str, OneOf((FOLLOW, SKIP))]
Positive = Annotated[float, Bounds(above=0, infinite=True)]


@dataclass
class Limits:
    """How large an image may be. One that is larger counts as broken."""

    # Megapixels of an image: decoding takes 4 to 8 bytes for each pixel. JPEGs beyond it are decoded at 1/2,
    # 1/4 or 1/8 of their size, and measured then.
    max_megapixels: Positive = 500.0
    # Size of an image file, in 10^6 bytes, beyond which it is not read.
    max_file_mb: Positive = 2000.0

    def __post_init__(self) -> None:
        require("max_megapixels", self.max_megapixels, Positive)
        require("max_file_mb", self.max_file_mb, Positive)

    @property
    def max_bytes(self) -> int:
        """The most bytes that a file may have."""
        return int(self.max_file_mb * 1e6)


@dataclass
class Reading(Limits):
    """What is taken of a folder, an archive or a table. Whatever is not, is counted and named."""

    # Read only files that match one of these patterns, such as '*.jpg' or 'cats/*'. A pattern without a slash
    # is compared with names, others with the whole path below the folder.
    include: list[str] = field(default_factory=list)
    # Leave out files and folders that match one of these patterns.
    exclude: list[str] = field(default_factory=list)
    # Links to folders: follow reads what they lead to, each folder once; skip leaves them out.
    links: Links = FOLLOW

    def __post_init__(self) -> None:
        super().__post_init__()
        require("links", self.links, Links)


@dataclass
class TableReading(Reading):
    """The same, and of Parquet files the columns."""

    # Column of a Parquet file that holds the images; by default the one that its type or name says.
    image_column: str = ""
    # Column of a Parquet file that holds the labels; by default the one that its type or name says.
    label_column: str = ""
