"""Galleries carried to a Qdrant server, or to the same engine in a folder, and compared there."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

from matmamba_common.settings import require
from matmamba_retrieval import Gallery, GalleryError
from matmamba_retrieval.backends.address import open_store
from matmamba_retrieval.backends.comparison import PushCheck, compare
from matmamba_retrieval.backends.engine import Store
from matmamba_retrieval.backends.layout import Contents
from matmamba_retrieval.backends.pushing import Pushed, Pushing
from matmamba_retrieval.backends.wish import RECALL, Wish
from matmamba_retrieval.planning.planner import Goal

from ..errors import ConfigError
from ..given import require_texts, require_whole
from ..progress import Listener, Reporter
from ..public_call import public_call

# What a push can be asked for, in the words of plans.
TARGET, BUDGET = "recall", "memory_mb"
MIB = 2**20
T = TypeVar("T")


@public_call
def push(
    gallery: Gallery,
    to: str,
    *,
    dims: Sequence[int] = (),
    target: str | Sequence[str] = (),
    budget: str | Sequence[str] = (),
    replace: bool = False,
    progress: Listener | None = None,
) -> Pushed:
    """Carry a gallery to a Qdrant server, or to the same engine in a folder, and compare what is there then.

    Full vectors, and the prefixes that its plan compares; ids, paths, labels and metadata, with indexes for
    filters. The first push, and one of another generation, fills a collection beside the one that answers,
    and takes its place at the end; later ones carry over what was added and deleted. A push that was stopped,
    however, goes on where it was when it is called again.

    Args:
        gallery: an open one.
        to: `qdrant://host:port/collection`, `qdrants://...` for TLS, or `edge:FOLDER`. The key of a server is
            taken from the environment, QDRANT_API_KEY.
        dims: further prefixes, beside those of the plan.
        target: "recall=0.99": share of the 10 nearest by a prefix that a list of 100 has to hold; raise it
            where plans lose hits, to 1 for exact lists.
        budget: "memory_mb=512": MiB of prefixes, graphs and codes, which every query goes through.
        replace: whether the collection of another gallery may be replaced, or the same be made anew.
        progress: is told how far it is.

    Returns:
        What was done, and what is there now.

    Raises:
        MatMambaError: an address of another form; the server is down or too old; the collection is of
            another gallery or model, or no push made it; nothing to push; a disk is full; what is there
            differs from the gallery. What was acknowledged stays, and the next push goes on.
        TypeError: an argument is of another type.
    """
    require("to", to, str)
    require("replace", replace, bool)
    wish, report = _wish(dims, target, budget), Reporter(progress)
    return _with_store(to, True, lambda store: _pushed(gallery, store, wish, replace, report))


def _pushed(gallery: Gallery, store: Store, wish: Wish, replace: bool, report: Reporter) -> Pushed:
    with report.stage("choosing how to search"):
        pushing = Pushing(gallery, store, wish, replace=replace)
    with report.meter("pushing", pushing.total) as meter:
        meter.skip(pushing.there)
        pushing.carry(meter.advance)
    with report.stage("building indexes"):
        pushing.build()
    with report.stage("comparing"):
        found = pushing.check()
    pushed = pushing.publish(found)
    wanted = float(pushing.contents.wish["recall"]) or RECALL
    for name, value in pushed.recall.items():
        if value < wanted:
            report.say(
                f"a search of {name} finds {value:.4f} of the nearest here, less than {wanted:g}: plan longer"
                " lists, or push again with a larger memory_mb or a longer prefix"
            )
    return pushed


@public_call
def verify_pushed(gallery: Gallery, place: str, *, progress: Listener | None = None) -> PushCheck:
    """Compare a pushed gallery with where it was pushed: every key, and a sample of vectors and metadata.

    Args:
        gallery: that was pushed, an open one.
        place: as for `push`.
        progress: is told how far it is.

    Returns:
        What differs, and what came to the gallery, or went, since it was pushed.

    Raises:
        MatMambaError: nothing was pushed there, or another gallery; or as `push`.
        TypeError: an argument is of another type.
    """
    require("place", place, str)
    with Reporter(progress).stage("comparing"):
        return _with_store(place, False, lambda store: _compared(gallery, store))


def _compared(gallery: Gallery, store: Store) -> PushCheck:
    current = store.current()
    if current is None:
        raise GalleryError(f"{store.place} has no gallery: `push` (`matmamba gallery push`) brings one")
    contents = Contents.from_json(current.about(), store.place)
    if contents.generation != gallery.generation.number:
        raise GalleryError(
            f"{store.place} has generation {contents.generation} of the gallery {contents.folder}, and"
            f" {gallery.folder} is at {gallery.generation.number}: push it again"
        )
    return compare(gallery, current, contents, every_key=True)


def _with_store(address: str, write: bool, then: Callable[[Store], T]) -> T:
    store = open_store(address, write=write)
    try:
        return then(store)
    finally:
        store.close()


def _wish(dims: Sequence[int], target: str | Sequence[str], budget: str | Sequence[str]) -> Wish:
    require("dims", dims, Sequence[int])
    for dim in dims:
        require_whole("dims", dim, 1)
    targets = Goal.pairs(require_texts("target", target))
    budgets = Goal.pairs(require_texts("budget", budget))
    for given, known, name in ((targets, TARGET, "target"), (budgets, BUDGET, "budget")):
        if unknown := given.keys() - {known}:
            raise ConfigError(f"a push takes no {name} {min(unknown)!r}: it can be {known}=NUMBER")
        if not all(value > 0 for value in given.values()):
            raise ConfigError(f"{name} {known} is {given[known]:g}: it has to be above 0")
    return Wish(dims=tuple(dims), recall=targets.get(TARGET, 0.0), memory=budgets.get(BUDGET, 0.0) * MIB)
