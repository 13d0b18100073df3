"""Some answers are given once more, exactly, while nobody waits: that says how good answers are."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from matmamba_retrieval import Strategy

from ..errors import MatMambaError
from ..galleries.cores import compute_on
from ..galleries.ways import FULL, way
from .asking import Inquiry
from .quality import DEPTH, Sampler, compared_hits
from .question import Question
from .served_version import ServedVersion

log = logging.getLogger(__name__)
# Seconds between two looks whether anyone waits, while there is something to compare, and while there is not.
SOON, LATER = 0.02, 0.25


@dataclass(frozen=True, kw_only=True)
class GivenAnswer:
    """An answer that is to be compared.

    Attributes:
        version: that gave it.
        question: what was asked.
        prepared: the image that was asked with.
        width: that encoded it.
        ids: of its first hits.
        busy: whether others waited when it was asked.
    """

    version: ServedVersion
    question: Question
    prepared: Any
    width: str
    ids: tuple[str, ...]
    busy: bool

    @property
    def depth(self) -> int:
        """Hits that are compared."""
        return min(DEPTH, self.question.k)


# The width, share of hits, and whether the first was the same, of one answer.
Comparison = tuple[str, float, bool]


def compare(given: GivenAnswer, on_trial: str) -> list[Comparison]:
    """Compare an answer with the exact one, and that of a width on trial as well.

    Args:
        given: the answer; its version is held.
        on_trial: label of a width that is not used at present; "" for none.

    Raises:
        MatMambaError: the full width is not to be had.
    """
    version, inquiry = given.version, Inquiry(given.question, given.version.gallery)
    assert version.encoder is not None
    image = version.encoder.queries([given.prepared])
    exact = [hit.id for hit in inquiry.answer(Strategy.single_shot(width=FULL), image)]
    found = [(given.width, *compared_hits(given.ids, exact, given.depth))]
    if on_trial not in ("", given.width):
        strategy = way(version.gallery, "auto", on_trial, inquiry.wanted, send_on=False)
        ids = [hit.id for hit in inquiry.answer(strategy, image)]
        found.append((on_trial, *compared_hits(ids, exact, given.depth)))
    return found


class Checker:
    """A thread that compares, whenever nobody waits.

    Args:
        sampler: has what is to be compared; it is touched only while `holding` is held.
        idle: whether nobody waits.
        on_trial: the width on trial of a gallery, by its name.
        told: is told what was found.
    """

    def __init__(
        self,
        sampler: Sampler[GivenAnswer],
        idle: Callable[[], bool],
        on_trial: Callable[[str], str],
        told: Callable[[GivenAnswer, list[Comparison]], None],
    ) -> None:
        self.sampler, self.holding = sampler, threading.Lock()
        self._idle, self._on_trial, self._told = idle, on_trial, told
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._work, name="matmamba-checker", daemon=True)

    def offer(self, given: GivenAnswer) -> None:
        """Have an answer compared, if its turn has come."""
        stratum = given.version.name, given.width, given.busy
        with self.holding:
            if self.sampler.takes(stratum):
                self.sampler.keep(given)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self) -> None:
        """End, once what is being compared is."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join()

    def _work(self) -> None:
        # What is left to others of the cores is more than half.
        compute_on(1)
        while not self._stop.wait(SOON if len(self.sampler) else LATER):
            while self._idle() and not self._stop.is_set() and self._one():
                pass

    def _one(self) -> bool:
        """Compare one answer; whether there was one."""
        with self.holding:
            given = self.sampler.pop()
        if given is None:
            return False
        # The answers of a version that is gone cannot be compared any more.
        if given.version.hold():
            try:
                self._told(given, compare(given, self._on_trial(given.version.name)))
            except MatMambaError as error:
                log.warning("%s: an answer cannot be compared: %s", given.version.name, error)
            finally:
                given.version.release()
        return True
