"""WebDataset shards, here or at any URL that fsspec knows, read like any other collection."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from .archive import INDEX, INDEX_FORMAT, Shard, size_fault
from .classes import CLASSES, class_names
from .errors import BrokenImageError, DataError
from .folder import HELD_OUT_NAMES, TRAIN_NAMES
from .kinds import is_shard
from .left_out import left_out_text
from .listing import Listing, absolute, beside_nothing
from .reading import Reading
from .regular import open_regular, said, too_large
from .remote import expand, is_url, join, list_places, local_copy, read_small
from .sample import NO_LABEL, Images, NoImagesError
from .splits import Splits, given_splits, split_by_id, with_labels
from .tars import Members, read_members
from .texts import Prefixed


class Shards(Images):
    """The images of some shards. Any of them is read by its offset; ids are the keys in the tar files.

    Where two shards have the same key, ids are "shard/key". Class names come from `classes.json` beside the
    shards, or are the numbers themselves.

    Args:
        cache: folder where remote shards are copied to when they are first needed.
        reading: limits of sizes.
        strays: what lies beside the shards: reason by path.

    Raises:
        DataError: a shard that is not as long as its index says.
    """

    def __init__(
        self,
        shards: Sequence[Shard],
        classes: tuple[str, ...],
        cache: str = "",
        reading: Reading | None = None,
        strays: Mapping[str, str] | None = None,
    ) -> None:
        self._cache, self.classes = cache, classes
        self.limits = reading or Reading()
        self.left_out: Mapping[str, str] = dict(strays or {})
        for shard in shards:
            self.left_out |= shard.members.left_out
        shards = [shard for shard in shards if len(shard.members)]
        if not shards:
            raise DataError(f"no images\n{left_out_text(self.left_out)}")
        for shard in shards:
            if not is_url(shard.place) and (fault := size_fault(shard, Path(shard.place))):
                raise DataError(f"{shard.place}: {fault}")
        self._shards = tuple(shards)
        self.groups: Sequence[int] = [len(shard.members) for shard in shards]
        self._ends = np.cumsum(self.groups)
        self._members = Members.joined([shard.members for shard in shards])
        self.labels = self._members.labels
        self.ids: Sequence[str] = self._members.ids
        if not all(shard.sha256 for shard in shards) and len(set(self.ids)) < len(self.ids):
            self.ids = Prefixed(_stems(self.places), self.ids, self.groups)
        places = [place if is_url(place) else str(absolute(Path(place))) for place in self.places]
        self.paths: Sequence[str] = Prefixed(
            [f"{place}#" for place in places], self._members.ids, self.groups
        )

    @property
    def places(self) -> list[str]:
        """Paths or URLs of the shards."""
        return [shard.place for shard in self._shards]

    def __len__(self) -> int:
        return len(self._members)

    def stored(self, index: int) -> bytes:
        shard = self._shards[int(np.searchsorted(self._ends, index, side="right"))]
        size = int(self._members.sizes[index])
        if size > self.limits.max_bytes:
            raise BrokenImageError(self.paths[index], too_large(size, self.limits.max_bytes))
        try:
            with open_regular(shard.file(self._cache)) as opened:
                opened.seek(int(self._members.offsets[index]))
                content = opened.read(size)
        except BrokenImageError as error:
            raise BrokenImageError(self.paths[index], error.reason) from error
        except (OSError, DataError) as error:
            reason = said(error) if isinstance(error, OSError) else str(error)
            raise BrokenImageError(self.paths[index], reason) from error
        if len(content) < size:
            raise BrokenImageError(self.paths[index], "the shard is truncated")
        return content


def _stems(places: Sequence[str]) -> list[str]:
    """What tells the shards apart, with the folder's name where their own is not enough."""
    stems = [f"{Path(place).stem}/" for place in places]
    if len(set(stems)) == len(stems):
        return stems
    return [f"{Path(place).parent.name}/{stem}" for place, stem in zip(places, stems, strict=True)]


def open_shards(root: str, held_out: float, cache: str = "", reading: Reading | None = None) -> Splits:
    """Splits of shards: by file names (`train-*`; `val-*`, `heldout-*`), else by id.

    Args:
        root: folder or URL of a folder, or a pattern of tar files: `URL/train-{000000..000009}.tar`,
            `PATH/*.tar`.

    Raises:
        DataError: no shards there, one that is unreadable or truncated, no labels, or a class that is in the
            given held-out split only.
    """
    shards, strays = find_shards(root, cache), strays_of(root)
    shards, classes = _numbered(shards, _class_file(shards))
    train, val = (
        [shard for shard in shards if _split_name(shard.place).startswith(names)]
        for names in (TRAIN_NAMES, HELD_OUT_NAMES)
    )
    if train and val:
        others = {shard.place: "neither a train-* nor a val-* shard" for shard in shards}
        others = {
            place: why for place, why in others.items() if place not in {s.place for s in (*train, *val)}
        }
        parts = Shards(train, classes, cache, reading, strays | others), Shards(val, classes, cache, reading)
        return Splits(*parts, ours=True) if shards[0].ours else given_splits(*parts, root)
    images = Shards(shards, classes, cache, reading, strays)
    return split_by_id(with_labels(images, root), held_out)


def all_shards(root: str, cache: str = "", reading: Reading | None = None) -> Shards:
    """The images of all shards at a place, as `open_shards` finds them."""
    found = find_shards(root, cache)
    shards, classes = _numbered(found, _class_file(found))
    return Shards(shards, classes, cache, reading, strays_of(root))


def strays_of(root: str) -> dict[str, str]:
    """What a folder on this machine holds that belongs to no shard: reason by path."""
    if is_url(root) or not Path(root).is_dir():
        return {}
    listing, folder = Listing(root), absolute(Path(root))
    indexed = {_file_name(place) for place in read_index(root)}
    ours = {CLASSES, *(f"{name}.npz" for name in (*TRAIN_NAMES, *HELD_OUT_NAMES)), ".unfinished/"}
    ours |= {INDEX} if indexed else set()
    known = {str(folder / name) + ("/" if name.endswith("/") else "") for name in (*listing.shards, *ours)}
    found = {path: reason for path, reason in listing.left_out.items() if path not in known}
    unlisted = [name for name in listing.shards if indexed and name not in indexed]
    found |= {str(folder / name): f"a shard that {INDEX} does not list" for name in unlisted}
    return found | {str(folder / name): "an image beside shards" for name in listing.images}


def _split_name(place: str) -> str:
    """What says to which split a shard belongs: its name, or that of its folder."""
    name = _file_name(place)
    return name if name.startswith((*TRAIN_NAMES, *HELD_OUT_NAMES)) else Path(place).parent.name


def find_shards(root: str, cache: str = "") -> list[Shard]:
    """The shards at a place, by their index or by their headers; `DataError` as for `open_shards`."""
    places, indexes = list[str](), dict[str, dict[str, Shard]]()
    for part in expand(root):
        is_pattern = is_shard(part) and not Path(part).is_dir()
        folder = part.rpartition("/")[0] or "." if is_pattern else part
        if folder not in indexes:
            indexes[folder] = read_index(folder)
        if is_pattern:
            name = _file_name(part)
            places += list_places(folder, name) if "*" in name else [join(folder, name)]
        else:
            places += list(indexes[folder]) or _below(folder)
    if not places:
        here = Path(root).is_dir()
        raise DataError(f"no shards (*.tar) in {root}{beside_nothing(Listing(root)) if here else ''}")
    known = {place: shard for index in indexes.values() for place, shard in index.items()}
    return _opened(places, known, cache)


def _opened(places: Sequence[str], known: Mapping[str, Shard], cache: str) -> list[Shard]:
    """The shards at these places; one without images beside others holds none, and is named."""
    shards, without = list[Shard](), list[NoImagesError]()
    for place in places:
        try:
            shards.append(known.get(place) or Shard(place, read_members(local_copy(place, cache), place)))
        except NoImagesError as error:
            without.append(error)
            name = place if is_url(place) else str(absolute(Path(place)))
            left_out = error.left_out or {name: "an archive without images"}
            shards.append(Shard(place, replace(Members.of([]), left_out=left_out)))
    if len(without) == len(shards):
        raise without[0]
    return shards


def read_index(folder: str) -> dict[str, Shard]:
    """The shards that a folder's index lists, by place; none if there is no index, or it is somebody else's.

    Raises:
        DataError: the index is damaged, or of a format that is not known.
    """
    content = read_small(join(folder, INDEX))
    if content is None:
        return {}
    shards = {}
    try:
        index = json.loads(content)
        if not (isinstance(index, dict) and {"format", "splits"} & set(index)):
            return {}
        if index["format"] != INDEX_FORMAT:
            raise ValueError(f"format {index['format']} is not known")
        for name, listed in index["splits"].items():
            members = Members.load(io.BytesIO(read_small(join(folder, f"{name}.npz")) or b""))
            start = 0
            for row in listed:
                place, stop = join(folder, row["file"]), start + row["images"]
                part = members.part(start, stop)
                shards[place] = Shard(place, part, row["bytes"], row["sha256"], index["ours"])
                start = stop
    # Damaged files make numpy and zipfile raise nearly anything.
    except Exception as error:
        raise DataError(f"cannot read {join(folder, INDEX)} and what belongs to it: {error}") from error
    return shards


def _below(folder: str) -> list[str]:
    """The shards in a folder; on this machine also in the folders in it."""
    if is_url(folder) or not Path(folder).is_dir():
        return list_places(folder, "*.tar")
    return [join(folder, name) for name in Listing(folder).shards]


def _class_file(shards: Sequence[Shard]) -> bytes | None:
    folder = shards[0].place.rpartition("/")[0] or "."
    return read_small(join(folder, CLASSES))


def _numbered(shards: Sequence[Shard], listed: bytes | None) -> tuple[list[Shard], tuple[str, ...]]:
    """The shards with labels that mean the same in all of them, and the names of the classes."""
    if not any(shard.members.names for shard in shards):
        return list(shards), class_names(listed, np.concatenate([shard.members.labels for shard in shards]))
    found = set[str]()
    for shard in shards:
        numbers = {str(one) for one in set(shard.members.labels.tolist()) if one != NO_LABEL}
        found |= set(shard.members.names) or numbers
    names = class_names(listed, np.empty(0, np.int64))
    names = names if found <= set(names) else tuple(sorted(found))
    return [replace(shard, members=shard.members.numbered(names)) for shard in shards], names


def _file_name(place: str) -> str:
    return place.rsplit("/", 1)[-1]
