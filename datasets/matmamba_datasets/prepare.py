"""Write a data set as WebDataset shards, so that the same command goes on where a killed one stopped.

A shard is written in the folder `.unfinished`, flushed and moved beside the others; then a note of what is in
it is left there. The next run begins after the last shard that has its note. Which image goes into which
shard depends on the data set and the settings alone, so the shards of a continued run are those of an
unbroken one.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import shutil
import tarfile
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .archive import INDEX, INDEX_FORMAT, sha256_of
from .classes import CLASSES
from .errors import BrokenImageError, DataError
from .packing import Entry, entries, shard_keys
from .sample import NO_LABEL, Images
from .splits import Splits
from .tally import BrokenTally
from .tars import Members

UNFINISHED, _SETTINGS = ".unfinished", "settings.json"
_BLOCK = 512
Note = dict[str, Any]


@dataclass(frozen=True)
class PrepareSettings:
    """What shards depend on beside the images themselves.

    Attributes:
        name: of the data set, as in `DataConfig`.
        root: as in `DataConfig`.
        held_out: as in `DataConfig`.
        shard_mb: size in 10^6 bytes at which a shard is full.
        max_size: longer side in pixels beyond which an image is made smaller and encoded anew; 0 for none.
    """

    name: str
    root: str
    held_out: float
    shard_mb: float = 256
    max_size: int = 0


class Preparation:
    """Writes the shards of both splits, `train-*.tar` and `val-*.tar`, with `classes.json` and `index.json`.

    Training images are shuffled once, so that each shard has images of many classes.

    Attributes:
        remaining: images that are still to be read.
        broken: reasons by name of the images left out so far.

    Args:
        max_broken: share of a split's images that may be broken.

    Raises:
        DataError: the folder holds something else, or shards of other settings or images.
    """

    def __init__(
        self, splits: Splits, settings: PrepareSettings, output: Path, max_broken: float = 0.01
    ) -> None:
        self.output, self._unfinished = output, output / UNFINISHED
        self._splits = {"train": splits.train, "val": splits.held_out}
        self._settings, self._ours, self._left_out = settings, splits.ours, splits.left_out
        counts = {f"{name} images": _digest(images) for name, images in self._splits.items()}
        self._known = asdict(settings) | counts
        self.is_complete = _require_same(output, self._known)
        self._notes = {name: [] if self.is_complete else self._read_notes(name) for name in self._splits}
        self._tallies = {name: BrokenTally(len(images), max_broken) for name, images in self._splits.items()}
        for name, notes in self._notes.items():
            for note in notes:
                self._tallies[name].found |= note["broken"]
        self.remaining = 0
        if not self.is_complete:
            self.remaining = sum(len(images) - self._position(name) for name, images in self._splits.items())

    @property
    def broken(self) -> dict[str, str]:
        return {name: reason for tally in self._tallies.values() for name, reason in tally.found.items()}

    @property
    def foreign(self) -> dict[str, str]:
        """Reasons by name of what turned out to be no image at all, in this run."""
        return {name: reason for tally in self._tallies.values() for name, reason in tally.foreign.items()}

    def run(self, workers: int, advance: Callable[[int], None]) -> dict[str, list[Note]]:
        """Write what is missing; returns for each split a row for each shard: file, images, bytes, sha256.

        Args:
            advance: called with the number of images that were read since the last call.

        Raises:
            DataError: too many images are broken; what is complete stays, for a run that allows more.
        """
        if not self.is_complete:
            self._unfinished.mkdir(parents=True, exist_ok=True)
            write_file(self._unfinished / _SETTINGS, _json(self._known))
            for name in self._splits:
                self._write_split(name, workers, advance)
            self._write_index()
        shutil.rmtree(self._unfinished, ignore_errors=True)
        return json.loads((self.output / INDEX).read_bytes())["splits"]

    def _position(self, name: str) -> int:
        """How many images of a split the complete shards have used."""
        return self._notes[name][-1]["next"] if self._notes[name] else 0

    def _read_notes(self, name: str) -> list[Note]:
        """The notes of the complete shards, up to the first that is missing."""
        notes: list[Note] = []
        while (file := self._unfinished / f"{_shard_name(name, len(notes))}.json").is_file():
            note = json.loads(file.read_bytes())
            shard = self.output / note["file"]
            if not shard.is_file() or shard.stat().st_size != note["bytes"]:
                break
            notes.append(_compact(note))
        return notes

    def _write_split(self, name: str, workers: int, advance: Callable[[int], None]) -> None:
        images, tally = self._splits[name], self._tallies[name]
        position, keys, shard = self._position(name), shard_keys(images.ids), None
        broken: dict[str, str] = {}
        order = _order(name, len(images))[position:]
        for entry in entries(images, order, self._settings.max_size, workers):
            position += 1
            if isinstance(entry, BrokenImageError):
                tally.add([entry])
                broken = broken if entry.foreign else broken | {entry.name: entry.reason}
            else:
                shard = shard or _OpenShard(self._unfinished, _shard_name(name, len(self._notes[name])))
                shard.add(keys[entry.index], entry, int(images.labels[entry.index]))
                if shard.size >= self._settings.shard_mb * 1e6:
                    self._finish(name, shard, position, broken)
                    shard, broken = None, {}
            advance(1)
        if shard is not None:
            self._finish(name, shard, position, broken)
        if not self._notes[name]:
            raise DataError(f"no {name} image can be read\n{tally.listing()}")

    def _finish(self, name: str, shard: _OpenShard, position: int, broken: dict[str, str]) -> None:
        """The shard first, then its note: without one it is written again."""
        note = shard.close(self.output) | {"next": position, "broken": broken}
        write_file(self._unfinished / f"{shard.name}.json", _json(note))
        self._notes[name].append(_compact(note))

    def _write_index(self) -> None:
        """The index comes last: with it, the data set is complete."""
        for name, notes in self._notes.items():
            buffer = io.BytesIO()
            Members.joined([note["rows"] for note in notes]).save(buffer)
            write_file(self.output / f"{name}.npz", buffer.getvalue())
        write_file(self.output / CLASSES, _json(list(self._splits["train"].classes)))
        keep = ("file", "images", "bytes", "sha256")
        splits = {
            name: [{key: note[key] for key in keep} for note in notes] for name, notes in self._notes.items()
        }
        index = {"format": INDEX_FORMAT, "settings": self._known, "ours": self._ours, "splits": splits}
        index["broken"] = self.broken
        index["left_out"] = self._left_out
        write_file(self.output / INDEX, _json(index))


class _OpenShard:
    """A tar file that is being written. Nothing in it depends on when or by whom it is written."""

    def __init__(self, folder: Path, name: str) -> None:
        self.name, self._partial = name, folder / f"{name}.tar"
        self._file = self._partial.open("wb")
        # Closed when it is full.
        self._tar = tarfile.open(fileobj=self._file, mode="w", format=tarfile.PAX_FORMAT)  # noqa: SIM115
        self._rows: list[tuple[str, int, int, int]] = []

    @property
    def size(self) -> int:
        """Bytes so far."""
        return self._file.tell()

    def add(self, key: str, entry: Entry, label: int) -> None:
        """Append an image with its label."""
        if label != NO_LABEL:
            self._append(f"{key}.cls", str(label).encode())
        self._append(f"{key}.{entry.suffix}", entry.content)
        length = len(entry.content)
        # What was written last is the content, filled up to whole blocks.
        self._rows.append((key, self.size - length - -length % _BLOCK, length, label))

    def _append(self, name: str, content: bytes) -> None:
        member = tarfile.TarInfo(name)
        member.size = len(content)
        self._tar.addfile(member, io.BytesIO(content))

    def close(self, output: Path) -> Note:
        """Move the complete file to its place; returns what is in it."""
        self._tar.close()
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()
        note = {"file": self._partial.name, "images": len(self._rows), "sha256": sha256_of(self._partial)}
        note |= {"bytes": self._partial.stat().st_size, "rows": self._rows}
        self._partial.replace(output / self._partial.name)
        return note


def write_file(file: Path, content: bytes) -> None:
    """Replace a file by one that is complete, whenever the process ends."""
    partial = file.with_name(f"{file.name}.part")
    with partial.open("wb") as opened:
        opened.write(content)
        opened.flush()
        os.fsync(opened.fileno())
    partial.replace(file)


def _require_same(output: Path, known: dict[str, Any]) -> bool:
    """Whether the data set is there already, complete; refuses a folder of anything else."""
    index, begun = output / INDEX, output / UNFINISHED / _SETTINGS
    if index.is_file():
        before = json.loads(index.read_bytes()).get("settings", {})
    elif begun.is_file():
        before = json.loads(begun.read_bytes())
    elif output.exists() and any(entry.name != UNFINISHED for entry in output.iterdir()):
        raise DataError(f"{output} holds something else: choose another output")
    else:
        return False
    differing = [
        f"{key} was {before.get(key)}, now {value}"
        for key, value in known.items()
        if before.get(key) != value
    ]
    if differing:
        raise DataError(f"{output} holds shards of other settings: {'; '.join(differing)}")
    return index.is_file()


def _digest(images: Images) -> str:
    """Tells collections apart by their ids and labels."""
    digest = hashlib.sha256(np.ascontiguousarray(images.labels).tobytes())
    for image_id in images.ids:
        digest.update(image_id.encode(errors="surrogateescape") + b"\n")
    return f"{len(images)} ({digest.hexdigest()[:12]})"


def _order(name: str, count: int) -> NDArray[np.int64]:
    return np.random.default_rng(0).permutation(count) if name == "train" else np.arange(count)


def _shard_name(name: str, number: int) -> str:
    return f"{name}-{number:06d}"


def _compact(note: Note) -> Note:
    """The note with its rows as arrays: a million of them stay in memory until the end."""
    return note | {"rows": Members.of([tuple(row) for row in note["rows"]])}


def _json(content: object) -> bytes:
    return json.dumps(content, indent=1).encode()
