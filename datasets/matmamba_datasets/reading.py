"""What of a place is read, and up to which size: the settings that every way to read images shares."""

from __future__ import annotations

from dataclasses import dataclass, field

from .errors import DataError

# Links to folders: read what they lead to, or leave them out by name.
FOLLOW, SKIP = "follow", "skip"


@dataclass
class Limits:
    """How large an image may be. One that is larger counts as broken."""

    # Megapixels of an image: decoding takes 4 to 8 bytes for each pixel. JPEGs beyond it are decoded at 1/2,
    # 1/4 or 1/8 of their size, and measured then.
    max_megapixels: float = 500.0
    # Size of an image file, in 10^6 bytes, beyond which it is not read.
    max_file_mb: float = 2000.0

    def __post_init__(self) -> None:
        if not (self.max_megapixels > 0 and self.max_file_mb > 0):
            raise DataError("max_megapixels and max_file_mb have to be above 0")

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
    links: str = FOLLOW

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.links not in (FOLLOW, SKIP):
            raise DataError(f"links is {self.links!r}: it can be {FOLLOW} or {SKIP}")


@dataclass
class TableReading(Reading):
    """The same, and of Parquet files the columns."""

    # Column of a Parquet file that holds the images; by default the one that its type or name says.
    image_column: str = ""
    # Column of a Parquet file that holds the labels; by default the one that its type or name says.
    label_column: str = ""
