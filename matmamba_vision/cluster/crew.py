"""Processes of a cluster, each at one shard at a time; one that dies is replaced."""

from __future__ import annotations

import re
from collections import Counter, deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from matmamba_common.lazy import Deferred

from ..errors import MatMambaError
from ..progress import Reporter
from .ray_cluster import ClusterError
from .shard_folders import ShardFolders
from .shard_worker import ShardState

if TYPE_CHECKING:
    import ray
else:
    ray = Deferred("ray")

# Between two looks at how far each is.
LOOK_SECONDS = 0.5
# What is encoded is committed within this time when the caller stops.
STOP_SECONDS = 60.0
# So many processes may die at the same place before somebody has to look at it.
DEATHS = 3
# Before it is said that none has begun: loading a model takes some seconds.
PATIENT_LOOKS = 60
Told = Callable[[ShardState], None]


@dataclass
class _Member:
    """A process.

    Attributes:
        worker: its `ShardWorker`, by way of Ray.
        shard: at hand; 0 while it opens the model.
        host: the machine, once it is known.
    """

    worker: Any
    shard: int = 0
    host: str = "a machine"


class ShardCrew:
    """Processes that work off shards. When its block ends by an error they end, too, with all they have done.

    Args:
        hire: starts a `ShardWorker` in a process of the cluster.
        shards: numbers of the shards.
        folders: that they share with the caller.
        token: what they have to find there.
        report: is told of those that died.
    """

    def __init__(
        self,
        hire: Callable[[], Any],
        shards: Sequence[int],
        *,
        folders: ShardFolders,
        token: str,
        report: Reporter,
    ) -> None:
        self._hire, self._waiting = hire, deque(shards)
        self._folders, self._token, self._report = folders, token, report
        # By what Ray gives for that which a process does.
        self._busy: dict[Any, _Member] = {}
        self._deaths, self._reached = Counter[int](), Counter[int]()
        self._ready = False

    def __enter__(self) -> ShardCrew:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is not None:
            self._stop()

    def begin(self, processes: int) -> None:
        """Start so many processes; the first is ready when this returns.

        Raises:
            MatMambaError: what a user can cause, and one of the processes met.
            ClusterError: processes die before they are ready, or do not share the caller's folders.
        """
        for _ in range(min(processes, len(self._waiting))):
            self._begin()
        looks = 0
        while not self._ready:
            self._settle_done(lambda state: None)
            looks += 1
            if looks == PATIENT_LOOKS:
                self._report.say("no process is ready yet: the cluster may have no room for one now")

    def work_off(self, told: Told) -> None:
        """Have each shard indexed, however many processes die on the way.

        Args:
            told: is called with what a shard has reached, many times.

        Raises:
            MatMambaError: what a user can cause, and one of the processes met.
            ClusterError: processes die again and again.
        """
        while self._waiting or any(member.shard for member in self._busy.values()):
            self._settle_done(told)
            self._look(told)

    def _stop(self) -> None:
        """End what is at hand; what was encoded is committed, unless that takes very long."""
        at_hand = [ref for ref, member in self._busy.items() if member.shard]
        with suppress(ray.exceptions.RayError):
            for member in self._busy.values():
                member.worker.stop.remote()
            if at_hand:
                ray.wait(at_hand, num_returns=len(at_hand), timeout=STOP_SECONDS)
        for member in self._busy.values():
            ray.kill(member.worker)
        self._busy.clear()

    def _begin(self) -> None:
        worker = self._hire()
        self._busy[worker.prepare.remote(self._token)] = _Member(worker)

    def _settle_done(self, told: Told) -> None:
        """Wait a moment for processes that have done what they were told to."""
        for ref in ray.wait([*self._busy], timeout=LOOK_SECONDS)[0]:
            self._settle(ref, self._busy.pop(ref), told)

    def _settle(self, ref: Any, member: _Member, told: Told) -> None:
        """Take what a process has done, and give it the next shard; without one it ends."""
        try:
            answer = ray.get(ref)
        except (ray.exceptions.RayActorError, ray.exceptions.OutOfMemoryError) as error:
            self._replace(member, error)
            return
        if isinstance(answer, MatMambaError):
            raise answer
        if isinstance(answer, ShardState):
            told(answer)
        else:
            member.host, file = answer
            self._folders.require_answer(member.host, file)
            self._ready = True
        if self._waiting:
            member.shard = self._waiting.popleft()
            self._busy[member.worker.index.remote(member.shard)] = member

    def _replace(self, member: _Member, error: Exception) -> None:
        shard, why = member.shard, why_it_died(error)
        self._deaths[shard] += 1
        at = f"at shard {shard}" if shard else "before they began"
        if self._deaths[shard] >= DEATHS:
            raise ClusterError(f"{DEATHS} processes died {at}, the last on {member.host}: {why}")
        if shard:
            self._waiting.appendleft(shard)
            self._report.say(f"a process on {member.host} died ({why}): another goes on with shard {shard}")
        self._begin()

    def _look(self, told: Told) -> None:
        """See how far each process is."""
        asked = [member.worker.state.remote() for member in self._busy.values() if member.shard]
        for ref in ray.wait(asked, num_returns=len(asked), timeout=LOOK_SECONDS)[0] if asked else ():
            # Whoever waits for the shard of one that died learns of it.
            with suppress(ray.exceptions.RayError):
                state = ray.get(ref)
                if state.done > self._reached[state.number]:
                    # It got further than where others died.
                    self._reached[state.number], self._deaths[state.number] = state.done, 0
                told(state)


def why_it_died(error: Exception) -> str:
    """The reason in what Ray says of a process, in a few words."""
    text = str(error)
    if found := re.search(r"exit detail: ([^.\n]+)", text):
        return found[1]
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__
