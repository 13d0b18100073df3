"""Work on single images dealt to processes, in order, without the libraries that models need."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

T = TypeVar("T")


def in_order(
    work: Callable[[int], T], which: Sequence[int], *, workers: int, together: int
) -> Iterator[list[T]]:
    """What `work` gives for each number, some of them at a time, in their order.

    Args:
        work: what is done; processes get it once, when they start.
        which: the numbers.
        workers: processes; with 0, this one does it.
        together: how many numbers at a time.
    """
    parts = [which[start : start + together] for start in range(0, len(which), together)]
    if not workers:
        yield from ([work(number) for number in part] for part in parts)
        return
    with multiprocessing.Pool(workers, _Worker.begin, (work,)) as pool:
        yield from pool.imap(_Worker.do, parts)


class _Worker:
    """What a process was started to do: kept there, because it is too large to be sent with each part."""

    work: Callable[[int], Any]

    @classmethod
    def begin(cls, work: Callable[[int], Any]) -> None:
        cls.work = work

    @classmethod
    def do(cls, part: Sequence[int]) -> list[Any]:
        return [cls.work(number) for number in part]
