"""The owner of the model: the threads that compute, batch by batch, what waits."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence

from ..galleries.cores import compute_on
from .policy import Chosen, Ticket
from .waiting import Waiting

# What a worker that finds nothing looks again after, in seconds, if nobody wakes it.
LOOK_AGAIN = 0.5


class Owner:
    """Threads that take from what waits and compute it.

    Args:
        waiting: what waits, and who is next; it is touched only while `changing` is held.
        compute: answers what a worker, by its number, has taken, and is told whether it does so on more
            threads than it has of its own; it does not raise.
        give_up: tells requests that they cannot be answered in time; it does not raise.

    Attributes:
        changing: to be held while what waits is looked at or changed.
    """

    def __init__(
        self,
        waiting: Waiting,
        compute: Callable[[int, Chosen, bool], None],
        give_up: Callable[[Sequence[Ticket]], None],
    ) -> None:
        self.waiting, self.changing = waiting, threading.Condition()
        self._compute, self._give_up = compute, give_up
        self._threads: list[threading.Thread] = []
        self._stopped = False

    def start(self, workers: int, threads: int) -> None:
        """Begin to compute.

        Args:
            workers: how many batches at the same time.
            threads: that each batch is computed on; one that is alone takes those of all.
        """
        for number in range(workers):
            name, given = f"matmamba-worker-{number}", (number, threads, workers * threads)
            self._threads.append(threading.Thread(target=self._work, args=given, name=name, daemon=True))
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """End the threads, once what they compute is answered."""
        with self.changing:
            self._stopped = True
            self.changing.notify_all()
        for thread in self._threads:
            thread.join()

    def has_time(self, worker: int, ticket: Ticket, seconds: float) -> bool:
        """Whether a worker has time to do more, of some seconds, for a request that it computes."""
        with self.changing:
            return self.waiting.has_time(worker, ticket, seconds, time.monotonic())

    def idle(self) -> bool:
        """Whether nothing waits and nothing is computed."""
        with self.changing:
            return not len(self.waiting) and not self.waiting.running

    def _work(self, number: int, threads: int, most: int) -> None:
        while True:
            chosen, lost, alone = self._next(number)
            if lost:
                self._give_up(lost)
            if chosen is not None:
                taken = most if alone else threads
                # PyTorch may have been loaded since.
                compute_on(taken)
                try:
                    self._compute(number, chosen, taken > threads)
                finally:
                    with self.changing:
                        self.waiting.done(number)
            elif not lost:
                return

    def _next(self, number: int) -> tuple[Chosen | None, list[Ticket], bool]:
        """What a worker computes, and who is given up; neither, when it is to stop.

        And whether it is alone: nothing else is computed, or waits.
        """
        with self.changing:
            while not self._stopped:
                now = time.monotonic()
                lost = self.waiting.lost(now)
                chosen = self.waiting.take(number, now)
                if chosen is not None or lost:
                    if len(self.waiting):
                        self.changing.notify()
                    alone = len(self.waiting.running) == 1 and not len(self.waiting)
                    return chosen, lost, alone
                due = self.waiting.due() - now
                self.changing.wait(min(max(due, 1e-4), LOOK_AGAIN))
            return None, [], False
