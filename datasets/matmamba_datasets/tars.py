"""What lies where in a tar file of the WebDataset convention, so that any image can be read by its offset.

A sample's members share a key, the name up to the first dot of its last part: `dark/00.jpg`, `dark/00.cls`.
The label is the integer in `.cls`, or "label" in `.json`, an integer or the name of a class.
"""

from __future__ import annotations

import json
import tarfile
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import IO

import numpy as np
from numpy.typing import NDArray

from .classes import MOST_CLASSES
from .errors import DataError
from .kinds import IMAGE_SUFFIXES, reasons, suffix_of, why_no_member
from .left_out import left_out_text
from .names import is_text
from .sample import NO_LABEL, NoImagesError
from .texts import Packed

_BLOCK = 512
_COMPRESSED = {b"\x1f\x8b": "gzip", b"BZh": "bzip2", b"\xfd7zXZ": "xz", b"\x28\xb5\x2f\xfd": "zstd"}
Label = int | str


@dataclass(frozen=True)
class Members:
    """The images of a shard in their order.

    Attributes:
        ids: keys.
        offsets: (n,) int64, of the image's file in the tar file, in bytes.
        sizes: (n,) int64, of that file, in bytes.
        labels: (n,) int64.
        names: of classes, where labels are names: what the labels number.
        left_out: what is in the shard beside these images: reason by name.
    """

    ids: Packed
    offsets: NDArray[np.int64]
    sizes: NDArray[np.int64]
    labels: NDArray[np.int64]
    names: tuple[str, ...] = ()
    left_out: Mapping[str, str] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.ids)

    @classmethod
    def joined(cls, parts: Sequence[Members]) -> Members:
        """One after the other."""
        offsets, sizes, labels = (
            np.concatenate([getattr(part, name) for part in parts]) for name in ("offsets", "sizes", "labels")
        )
        return cls(Packed.joined([part.ids for part in parts]), offsets, sizes, labels)

    def part(self, start: int, stop: int) -> Members:
        """Those from `start` to `stop`."""
        offsets, sizes, labels = (array[start:stop] for array in (self.offsets, self.sizes, self.labels))
        return Members(self.ids.part(start, stop), offsets, sizes, labels)

    @classmethod
    def of(cls, rows: list[tuple[str, int, int, int]]) -> Members:
        """From rows of id, offset, size and label."""
        numbers = np.array([row[1:] for row in rows], dtype=np.int64).reshape(-1, 3)
        offsets, sizes, labels = np.ascontiguousarray(numbers.T)
        return cls(Packed.of(row[0] for row in rows), offsets, sizes, labels)

    def numbered(self, names: Sequence[str]) -> Members:
        """The same with labels that number `names`; labels without names stand for their digits."""
        number = {name: place for place, name in enumerate(names)}
        known = (
            dict(enumerate(self.names)) if self.names else {int(one): str(one) for one in set(self.labels)}
        )
        found = [NO_LABEL if one == NO_LABEL else number[known[int(one)]] for one in self.labels]
        return replace(self, labels=np.array(found, np.int64), names=tuple(names))

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
class _Image:
    """Where an image of a sample lies. plain: whether its name has no dot but the one before its suffix."""

    name: str
    offset: int
    size: int
    plain: bool


@dataclass
class _Found:
    """What is known of a sample while a tar file is read: labels and faults by kind of member."""

    images: list[_Image] = field(default_factory=list)
    labels: dict[str, Label] = field(default_factory=dict)
    faults: dict[str, str] = field(default_factory=dict)
    members: list[str] = field(default_factory=list)

    def label(self) -> Label:
        """That of `.cls` before that of `.json`; -1 if there is none."""
        return self.labels.get("cls", self.labels.get("json", NO_LABEL))

    def fault(self) -> str:
        """Why the sample cannot be used, "" if it can."""
        if self.faults and not self.labels:
            return next(iter(self.faults.values()))
        if self.images:
            return ""
        known = [reasons().get(suffix_of(f".{suffix}"), "") for suffix in self.members]
        # RAW and HEIC: the reason names the cure.
        photo = next((reason for reason in known if "photo" in reason), "")
        return photo or f"a sample without an image ({', '.join(sorted(self.members))})"


def read_members(file: Path, place: str) -> Members:
    """Read the headers and labels of a tar file.

    Args:
        place: what errors call it.

    Raises:
        DataError: it is missing, truncated or not a tar file.
        NoImagesError: there is no image in it.
    """
    reader = _Reader(place)
    if file.exists() and not file.is_file():
        raise DataError(f"{place} is not a file")
    try:
        with tarfile.open(file, "r:") as tar:
            for member in tar:
                reader.take(tar, member)
            end = tar.offset
        _require_end(file, end, place)
    except (OSError, tarfile.TarError, EOFError) as error:
        raise DataError(f"cannot read {place}: {_compressed(file) or error}") from error
    return reader.members()


def _compressed(file: Path) -> str:
    """How to read a tar file that is compressed, whatever it is called; "" if it is not."""
    with suppress(OSError), file.open("rb") as opened:
        start = opened.read(8)
        for mark, name in _COMPRESSED.items():
            if start.startswith(mark):
                return f"it is compressed by {name}: unpack it, because images are found by their offsets"
    return ""


def _require_end(file: Path, end: int, place: str) -> None:
    """A tar file ends with blocks of zeros; one that is cut between two members is not complete, either."""
    with file.open("rb") as opened:
        opened.seek(end)
        if opened.read(_BLOCK) != bytes(_BLOCK):
            raise DataError(f"{place} is truncated: it does not end as a tar file does")


class _Reader:
    """Collects the samples of a tar file, and names what is none."""

    def __init__(self, place: str) -> None:
        self._place, self._found, self._left = place, dict[str, _Found](), dict[str, str]()

    def take(self, tar: tarfile.TarFile, member: tarfile.TarInfo) -> None:
        """Note one member."""
        if member.isdir():
            return
        reason = "" if member.isfile() else "a link or a device in an archive"
        reason = reason or why_no_member(member.name)
        if not is_text(member.name):
            reason = "its name is not UTF-8"
        if reason:
            self._leave(member.name, reason)
            return
        folder, slash, name = member.name.rpartition("/")
        stem, _, suffix = name.partition(".")
        sample = self._found.setdefault(f"{folder}{slash}{stem}", _Found())
        suffix = suffix.lower()
        if suffix in sample.members:
            self._leave(member.name, "a name that is there twice")
            return
        sample.members.append(suffix)
        if _is_image(name):
            sample.images.append(_Image(member.name, member.offset_data, member.size, "." not in suffix))
        elif suffix in ("cls", "json"):
            self._label(sample, suffix, tar, member)

    def _label(self, sample: _Found, suffix: str, tar: tarfile.TarFile, member: tarfile.TarInfo) -> None:
        content = tar.extractfile(member)
        assert content is not None
        text = content.read()
        try:
            label = _parsed(text, suffix)
        # The last two come from numbers without bounds and brackets without end.
        except (ValueError, TypeError, AttributeError, OverflowError, RecursionError):
            sample.faults[suffix] = f".{suffix} holds no integer label, nor the name of a class"
        else:
            if label != NO_LABEL:
                sample.labels[suffix] = label

    def _leave(self, name: str, reason: str) -> None:
        self._left[f"{self._place}#{name}"] = reason

    def members(self) -> Members:
        """The images, one a sample; `DataError` if there is none."""
        rows = list[tuple[str, int, int, Label]]()
        for key, sample in self._found.items():
            if fault := sample.fault():
                self._leave(key, fault)
                continue
            # The convention has one image a sample: the one whose name says nothing further.
            chosen = next((image for image in sample.images if image.plain), sample.images[0])
            for image in sample.images:
                if image is not chosen:
                    self._leave(image.name, "another image of a sample (a key ends at the first dot)")
            rows.append((key, chosen.offset, chosen.size, sample.label()))
        if not rows:
            listed = f"\n{left_out_text(self._left)}" if self._left else ""
            raise NoImagesError(
                f"no images in {self._place}: its members should be called like KEY.jpg and KEY.cls{listed}",
                self._left,
            )
        return replace(_numbered(rows), left_out=self._left)


def _is_image(name: str) -> bool:
    suffix = suffix_of(name)
    return suffix in IMAGE_SUFFIXES and suffix not in reasons()


def _numbered(rows: list[tuple[str, int, int, Label]]) -> Members:
    """Names of classes become numbers; where some labels are names, the others are, too."""
    labels = [row[3] for row in rows]
    if not any(isinstance(label, str) for label in labels):
        return Members.of([(key, offset, size, int(label)) for key, offset, size, label in rows])
    names = sorted({str(label) for label in labels if label != NO_LABEL})
    number = {name: place for place, name in enumerate(names)}
    plain = [(*row[:3], number.get(str(row[3]), NO_LABEL)) for row in rows]
    return replace(Members.of(plain), names=tuple(names))


def _parsed(content: bytes, suffix: str) -> Label:
    """The label in a member; `NO_LABEL` if a JSON object has none, or null."""
    if suffix == "cls":
        # Windows' editors begin a file with a mark.
        return _number(int(content.decode("utf-8-sig")))
    label = json.loads(content).get("label")
    if label is None:
        return NO_LABEL
    if isinstance(label, bool) or not isinstance(label, (int, float, str)) or label != label:
        raise ValueError("not a label")
    if isinstance(label, str) and not label.strip().lstrip("-").isdecimal():
        if not label.strip():
            raise ValueError("an empty name")
        return label.strip()
    if int(label) != float(label):
        raise ValueError("not an integer")
    return _number(int(label))


def _number(label: int) -> int:
    if not NO_LABEL <= label < MOST_CLASSES:
        raise ValueError("not the number of a class")
    return label
