"""Several galleries into one: rows in the order of the galleries, vectors as they are."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import GalleryError
from ..gallery.destination import CHUNK, MERGE_COMMITS, SHARD, parse_shard, with_old_metadata
from ..gallery.gallery import Gallery
from ..gallery.merging import merge_segments
from ..storage.distinct import first_repeated
from ..storage.sources import known_facts, note_facts
from .parts import part_rows

# What a gallery notes of those that are copied into it: which ones, how many keys it had before, and whether
# that is done.
JOINING = "joining"
Ints = NDArray[np.int64]


def join(
    folders: Sequence[Path],
    into: Path,
    progress: Callable[[int], None] = lambda rows: None,
    *,
    replace: bool = False,
) -> int:
    """Copy the images of some galleries into another, made if it is not there; returns how many.

    Shards of a collection are taken in the order of their numbers, and all must be there; other galleries in
    the order given. Joining that was interrupted goes on when it is called in the same way; called once more
    for what was joined last, it does nothing and returns 0.

    Args:
        progress: told how many rows were copied, those of an interrupted joining first.
        replace: images take the place of those with the same ids in the gallery that they are copied into.

    Raises:
        GalleryError: the galleries are of different models or widths, have an id in common, or are not all
            shards of their collection; nothing was copied then.
    """
    with ExitStack() as opened:
        sources = _in_order([opened.enter_context(Gallery(folder)) for folder in folders])
        first = sources[0]
        for source in sources[1:]:
            source.require(first.spec)
            source.require_widths(first.generation.widths)
        if into.resolve() in {source.folder.resolve() for source in sources}:
            raise GalleryError(f"{into} cannot be merged into itself")
        target = opened.enter_context(
            Gallery.open_or_create(into, first.spec, first.checkpoint_path, first.generation.widths)
        )
        target.require_widths(first.generation.widths)
        done = _begin(target, sources, replace)
        joined = _noted(target)["done"]
        progress(done)
        _copy(sources, target, done, progress, replace)
        merge_segments(target)
        _note(target, {**_noted(target), "done": True})
        return 0 if joined else sum(map(len, sources))


def _in_order(sources: Sequence[Gallery]) -> list[Gallery]:
    """Shards by their numbers; `GalleryError` if one is missing or there twice."""
    if not sources:
        raise GalleryError("no gallery to merge is given")
    if (
        same := first_repeated(lambda: iter([[str(source.folder.resolve()) for source in sources]]))
    ) is not None:
        raise GalleryError(f"{same} is given twice")
    shards = [_shard_of(source) for source in sources]
    if not any(shards):
        return list(sources)
    numbers = dict[int, Gallery]()
    for shard, source in zip(shards, sources, strict=True):
        number, _, count = shard.partition("/")
        if not shard or shard.partition("/")[2] != max(shards).partition("/")[2]:
            named = f"holds shard {shard}" if shard else "is no shard"
            raise GalleryError(
                f"{source.folder} {named}, another holds {max(shards)}: merge shards of one run"
            )
        if int(number) in numbers:
            raise GalleryError(f"{source.folder} and {numbers[int(number)].folder} both hold shard {shard}")
        numbers[int(number)] = source
    missing = [f"{number}/{count}" for number in range(1, int(count) + 1) if number not in numbers]
    if missing:
        raise GalleryError(f"shard {', '.join(missing[:5])} of the collection is not among the galleries")
    return [numbers[number] for number in sorted(numbers)]


def _shard_of(source: Gallery) -> str:
    """Which shard a gallery holds, "" for none; `GalleryError` if that is no shard."""
    shard = source.catalog.about(SHARD)
    try:
        parse_shard(shard, 0)
    except ValueError as error:
        raise GalleryError(f"{source.catalog.file} is damaged: it holds shard {shard!r:.80}") from error
    return shard


def _begin(target: Gallery, sources: Sequence[Gallery], replace: bool) -> int:
    """Note what is being joined, or find how many rows an interrupted joining of the same has copied."""
    # With the time: other galleries of as many images may have lain in the same folders before.
    about = [
        [str(source.folder.resolve()), source.version.number, len(source), source.version.time]
        for source in sources
    ]
    noted = _noted(target)
    if noted and _are_same(noted["sources"], about):
        return sum(map(len, sources)) if noted["done"] else _copied(target, sources, noted["keys"])
    if noted and not noted["done"]:
        names = ", ".join(name for name, *_ in noted["sources"])
        raise GalleryError(f"{target.folder} holds part of {names}: merge these first, as they were then")
    owning = sources if replace else (target, *sources)
    twice = first_repeated(lambda: chain(*map(_ids, owning)))
    if twice is not None:
        owners = [str(owner.folder) for owner in owning if twice in owner.keys_of([twice])]
        raise GalleryError(f"the id {twice!r} is in {' and in '.join(owners)}: nothing was merged")
    _note(target, {"sources": about, "keys": target.key_count, "done": False})
    return 0


def _noted(target: Gallery) -> dict[str, Any]:
    """What was noted last of what is joined, {} if nothing was; `GalleryError` if that makes no sense."""
    text = target.catalog.about(JOINING)
    try:
        noted = json.loads(text or "{}")
        kinds = {"sources": list, "keys": int, "done": bool}
        right = isinstance(noted, dict) and all(isinstance(noted[name], kinds[name]) for name in noted)
        if right and noted.keys() in (set(), set(kinds)) and all(map(_is_source, noted.get("sources", ()))):
            return noted
    except (ValueError, KeyError, RecursionError):
        pass
    raise GalleryError(
        f"{target.catalog.file} is damaged: it is said to hold {text!r:.80} of other galleries"
    )


def _is_source(about: Any) -> bool:
    return isinstance(about, list) and len(about) in (3, 4) and isinstance(about[0], str)


def _are_same(noted: list[list[Any]], about: list[list[Any]]) -> bool:
    """Whether sources are those that were noted; earlier versions noted no time."""
    pairs = zip(noted, about, strict=False)
    return len(noted) == len(about) and all(now[: len(then)] == then for then, now in pairs)


def _note(target: Gallery, noted: dict[str, Any]) -> None:
    target.catalog.set_about(JOINING, json.dumps(noted))


def _copied(target: Gallery, sources: Sequence[Gallery], before: int) -> int:
    """How many rows an interrupted joining has copied; `GalleryError` if something else was added since."""
    copied = left = target.key_count - before
    for source in sources:
        if 0 < left <= len(source):
            ids = [
                next(iter(gallery.rows([key]))).id
                for gallery, key in ((source, source.live_keys()[left - 1]), (target, target.key_count - 1))
            ]
            if ids[0] == ids[1]:
                return copied
        left -= len(source)
    if copied:
        raise GalleryError(
            f"{target.folder} was changed since its merge was stopped: merge into another folder"
        )
    return 0


def _ids(gallery: Gallery) -> Iterator[list[str]]:
    keys = gallery.live_keys()
    for first in range(0, len(keys), CHUNK):
        yield [row.id for row in gallery.rows(keys[first : first + CHUNK])]


def _copy(
    sources: Sequence[Gallery], target: Gallery, done: int, progress: Callable[[int], None], replace: bool
) -> None:
    commits, skip = 0, done
    for source in sources:
        keys = source.live_keys()[skip:]
        skip = max(0, skip - len(source))
        for part in _parts(keys, target.spec.dim):
            small = {width: source.segments_of(width).read(part) for width in target.generation.widths}
            rows = source.rows(part)
            facts = known_facts(source.catalog, [row.id for row in rows])
            # Before the rows, which a kill in between would leave without them; but what is replaced must not
            # be said to be of the new file while it is of the old one.
            if not replace:
                note_facts(target.catalog, facts)
            target.add(
                with_old_metadata(target, rows) if replace else rows,
                source.segments.read(part),
                small,
                replace=replace,
            )
            if replace:
                note_facts(target.catalog, facts)
            progress(len(part))
            commits += 1
            if commits % MERGE_COMMITS == 0:
                merge_segments(target)


def _parts(keys: Ints, dim: int) -> Iterator[Ints]:
    rows = part_rows(dim)
    return (keys[first : first + rows] for first in range(0, len(keys), rows))
