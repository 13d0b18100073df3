"""A Ray cluster: which one, how much of it is used, and the connection to it."""

from __future__ import annotations

import logging
import os
import re
import signal
import socket
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

from matmamba_common.lazy import Deferred
from matmamba_common.settings import Bounds, check

from ..errors import MatMambaError

if TYPE_CHECKING:
    import ray
else:
    ray = Deferred("ray")

# Bytes of shared memory that Ray starts with on this machine, beside the list of images: nothing else is
# kept there.
STORE_BYTES = 128 * 2**20
# An address that names a machine and a port, and how long an answer may take.
_HOST = re.compile(r"(ray://)?(?P<host>\[[0-9A-Fa-f:.]+\]|[^:/@\s]+):(?P<port>\d{1,5})")
LISTEN_SECONDS = 10.0
# What Ray does by itself unless it is told not to, and what it says to programmers.
QUIET = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_DEDUP_LOGS": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_DISABLE_IMPORT_WARNING": "1",
}


class ClusterError(MatMambaError):
    """A cluster that cannot be reached, has no room, loses its workers, or whose machines share no folder."""


@dataclass(frozen=True, kw_only=True)
class RayCluster:
    """Which machines encode, and how much of them.

    Raises:
        ConfigError: a number that cannot be.
        TypeError: a value of another type.
    """

    # Of a Ray cluster that runs: auto for the one of this machine, HOST:6379, or ray://HOST:10001. By default
    # Ray is started on this machine, for this call alone.
    address: str = ""
    # Processes that encode; 0 for as many as the cluster has room for.
    processes: Annotated[int, Bounds(least=0)] = 0
    # Cores of each process, which are its threads, too.
    cpus: Annotated[int, Bounds(least=1)] = 1
    # GPUs of each process; a part of one, such as 0.5, lets several share it. With 0 it encodes on its cores.
    gpus: Annotated[float, Bounds(least=0)] = 0.0
    # Parts into which the images are cut, each done by one process at a time; 0 for four for each process.
    shards: Annotated[int, Bounds(least=0)] = 0

    def __post_init__(self) -> None:
        check(self)

    @property
    def each(self) -> str:
        """What a process needs, in words."""
        cores = "a core" if self.cpus == 1 else f"{self.cpus} cores"
        return f"{cores} and {self.gpus:g} GPU" if self.gpus else cores


@contextmanager
def connected(cluster: RayCluster, store_bytes: int) -> Iterator[None]:
    """A connection to the cluster while the block runs; one that a program has already is used and stays.

    Args:
        cluster: which one.
        store_bytes: that are to be shared by its processes; of a cluster that is started here.

    Raises:
        ClusterError: there is none at its address, or it does not fit.
    """
    if ray.is_initialized():
        yield
        return
    before = signal.getsignal(signal.SIGTERM)
    with _surroundings(QUIET):
        _connect(cluster, store_bytes)
    # Whoever replaces a process that died says so; Ray would print a paragraph, and has no setting for it.
    ray._private.worker._worker_logs_enabled = False
    try:
        yield
    finally:
        ray.shutdown()
        ray._private.worker._worker_logs_enabled = True
        # Ray's own handler would stay: whoever called decides what SIGTERM does from here on.
        if before is not None and threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, before)


def _require_listener(address: str) -> None:
    """Raise `OSError` where nobody listens: Ray asks for minutes, and logs each attempt."""
    if found := _HOST.fullmatch(address):
        socket.create_connection((found["host"].strip("[]"), int(found["port"])), LISTEN_SECONDS).close()


def _connect(cluster: RayCluster, store_bytes: int) -> None:
    options: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
    if not cluster.address:
        options |= {"object_store_memory": STORE_BYTES + 2 * store_bytes, "include_dashboard": False}
        # Where a cluster runs here already, this one is apart from it.
        options["address"] = "local"
    try:
        _require_listener(cluster.address)
        ray.init(**{"address": cluster.address, **options})
    # A version that differs, a name that leads nowhere, a server that does not answer: each is told apart.
    except (OSError, RuntimeError, ValueError) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        where = f"no Ray cluster at {cluster.address}" if cluster.address else "Ray cannot be started here"
        raise ClusterError(f"{where}: {reason}") from error


@contextmanager
def _surroundings(values: Mapping[str, str]) -> Iterator[None]:
    """Variables that processes started within the block inherit."""
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def room_for(cluster: RayCluster) -> int:
    """How many processes the machines that are there have room for, whoever else uses them."""
    found = 0
    for node in ray.nodes():
        has = node["Resources"] if node["Alive"] else {}
        fits = has.get("CPU", 0.0) // cluster.cpus
        if cluster.gpus:
            # A tenth goes into 1 ten times, not nine times as by rounding.
            fits = min(fits, (has.get("GPU", 0.0) + 1e-6) // cluster.gpus)
        found += int(fits)
    return found
