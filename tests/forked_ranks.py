"""The processes of a run, forked from one that has loaded everything, with what torchrun tells to each."""

from __future__ import annotations

import os
import socket
import sys
import traceback
from collections.abc import Callable


def run_ranks(work: Callable[[], object], layout: tuple[int, int]) -> None:
    """Do the work in so many machines and processes of each; all must come to the end."""
    machines, each = layout
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port = found.getsockname()[1]
    children = [
        _fork(work, machine, local, layout, port) for machine in range(machines) for local in range(each)
    ]
    statuses = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]
    assert statuses == [0] * len(children), (layout, statuses)


def _fork(work: Callable[[], object], machine: int, local: int, layout: tuple[int, int], port: int) -> int:
    child = os.fork()
    if child:
        return child
    status = 1
    try:
        machines, each = layout
        rank = machine * each + local
        known = {"RANK": rank, "LOCAL_RANK": local, "GROUP_RANK": machine, "MASTER_PORT": port}
        known |= {"WORLD_SIZE": machines * each, "LOCAL_WORLD_SIZE": each}
        os.environ.update({name: str(value) for name, value in known.items()}, MASTER_ADDR="127.0.0.1")
        work()
        status = 0
    except Exception:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        os._exit(status)
