"""What lies where in a tar file of the WebDataset convention, so that any image can be read by its offset.

A sample's members share a key, the name up to the first dot of its last part: `dark/00.jpg`, `dark/00.cls`.
The label is the integer in `.cls`, or "label" in `.json`.
"""

from __future__ import annotations

import json
import tarfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

import numpy as np
from numpy.typing import NDArray

from .sample import NO_LABEL, DataError
from .texts import Packed

IMAGE_SUFFIXES = ("jpg", "jpeg", "png", "webp", "bmp", "gif", "tif", "tiff", "ppm", "jp2", "avif")
_BLOCK = 512


@dataclass(frozen=True)
class Members:
    """The images of a shard in their order.

    Attributes:
        ids: keys. offsets, sizes: (n,) int64, of the image's file in the tar file, in bytes. labels: (n,)
            int64.
    """

    ids: Packed
    offsets: NDArray[np.int64]
    sizes: NDArray[np.int64]
    labels: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.ids)

    @classmethod
    def joined(cls, parts: Sequence[Members]) -> Members:
        """One after the other."""
        numbers = (
            np.concatenate([getattr(part, name) for part in parts]) for name in ("offsets", "sizes", "labels")
        )
        return cls(Packed.joined([part.ids for part in parts]), *numbers)

    def part(self, start: int, stop: int) -> Members:
        """Those from `start` to `stop`."""
        numbers = (array[start:stop] for array in (self.offsets, self.sizes, self.labels))
        return Members(self.ids.part(start, stop), *numbers)

    @classmethod
    def of(cls, rows: list[tuple[str, int, int, int]]) -> Members:
        """From rows of id, offset, size and label."""
        numbers = np.array([row[1:] for row in rows], dtype=np.int64).reshape(-1, 3)
        return cls(Packed.of(row[0] for row in rows), *np.ascontiguousarray(numbers.T))

    def save(self, file: IO[bytes]) -> None:
        """Write them as arrays."""
        np.savez(
            file,
            letters=self.ids.letters,
            ends=self.ids.ends,
            offsets=self.offsets,
            sizes=self.sizes,
            labels=self.labels,
        )

    @classmethod
    def load(cls, file: IO[bytes]) -> Members:
        """What `save` wrote."""
        with np.load(file) as arrays:
            ids = Packed(arrays["letters"], arrays["ends"])
            return cls(ids, arrays["offsets"], arrays["sizes"], arrays["labels"])


@dataclass
class _Found:
    """What is known of a sample while a tar file is read."""

    place: tuple[int, int] | None = None
    label: int = NO_LABEL
    members: list[str] = field(default_factory=list)


def scan_tar(file: Path, place: str) -> Members:
    """Read the headers and labels of a tar file.

    Args:
        place: what errors call it.

    Raises:
        DataError: it is missing, truncated or not a tar file, or a label is not an integer.
    """
    found: dict[str, _Found] = {}
    try:
        with tarfile.open(file, "r:") as tar:
            for member in tar:
                if member.isfile():
                    _take(found, tar, member, place)
            end = tar.offset
        _require_end(file, end, place)
    except (OSError, tarfile.TarError, EOFError) as error:
        raise DataError(f"cannot read {place}: {error}") from error
    rows = [(key, *sample.place, sample.label) for key, sample in found.items() if sample.place]
    if not rows:
        raise DataError(f"no images in {place}: its members should be called like KEY.jpg and KEY.cls")
    return Members.of(rows)


def _require_end(file: Path, end: int, place: str) -> None:
    """A tar file ends with blocks of zeros; one that is cut between two members is not complete, either."""
    with file.open("rb") as opened:
        opened.seek(end)
        if opened.read(_BLOCK) != bytes(_BLOCK):
            raise DataError(f"{place} is truncated: it does not end as a tar file does")


def _take(found: dict[str, _Found], tar: tarfile.TarFile, member: tarfile.TarInfo, place: str) -> None:
    folder, slash, name = member.name.rpartition("/")
    stem, _, suffix = name.partition(".")
    sample = found.setdefault(f"{folder}{slash}{stem}", _Found())
    suffix = suffix.lower()
    if suffix in sample.members:
        raise DataError(f"{place} has {member.name} twice")
    sample.members.append(suffix)
    if suffix in IMAGE_SUFFIXES:
        sample.place = member.offset_data, member.size
    elif suffix in ("cls", "json"):
        content = tar.extractfile(member)
        assert content is not None
        sample.label = _label(content.read(), suffix, f"{place}: {member.name}")


def _label(content: bytes, suffix: str, name: str) -> int:
    try:
        label = content.decode() if suffix == "cls" else json.loads(content).get("label", NO_LABEL)
        return int(label)
    except (ValueError, TypeError, AttributeError) as error:
        raise DataError(f"{name} holds no integer label: {content[:20]!r}") from error
