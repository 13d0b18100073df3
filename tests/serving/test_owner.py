"""The threads that compute what waits: one that is alone takes the threads of all."""

from __future__ import annotations

import threading
from typing import Any

import pytest
from matmamba_vision.serving import owner
from matmamba_vision.serving.owner import Owner


class Line:
    """What waits, one after the other."""

    def __init__(self) -> None:
        self.items, self.running = list[str](), dict[int, float]()

    def __len__(self) -> int:
        return len(self.items)

    def lost(self, now: float) -> list[Any]:
        return []

    def take(self, worker: int, now: float) -> str | None:
        if not self.items or worker in self.running:
            return None
        self.running[worker] = now
        return self.items.pop(0)

    def done(self, worker: int) -> None:
        del self.running[worker]

    def due(self) -> float:
        return float("inf")


def test_a_worker_that_is_alone_takes_the_threads_of_all(monkeypatch: pytest.MonkeyPatch) -> None:
    line, own, found = Line(), threading.local(), dict[str, tuple[int, bool]]()
    begun, end = {name: threading.Event() for name in "abc"}, threading.Event()
    monkeypatch.setattr(owner, "compute_on", lambda threads: setattr(own, "threads", threads))

    def compute(worker: int, chosen: Any, helped: bool) -> None:
        found[chosen] = own.threads, helped
        begun[chosen].set()
        assert end.wait(30)

    workers = Owner(line, compute, lambda lost: None)  # type: ignore[arg-type]

    def ask(*names: str) -> None:
        with workers.changing:
            line.items.extend(names)
            workers.changing.notify()
        for name in names:
            assert begun[name].wait(30)

    workers.start(workers=2, threads=2)
    try:
        ask("a")
        ask("b")
        end.set()
        while not workers.idle():
            pass
        end.clear()
        ask("c")
    finally:
        end.set()
        workers.stop()
    assert found == {"a": (4, True), "b": (2, False), "c": (4, True)}
