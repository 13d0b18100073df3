"""One process that listens: bound, started, told by signals what to do, stopped without dropping anything."""

from __future__ import annotations

import asyncio
import logging
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

import uvicorn
from matmamba_datasets.image_file import formats
from uvicorn.protocols.http.h11_impl import H11Protocol

from ...errors import ConfigError
from .app import make_application
from .backend import Answering
from .logs import log_event
from .options import HttpOptions, require_guarded
from .work import Front

# Connections that are open at once; each takes a file descriptor, of which a process often has 1,024.
MOST_CONNECTIONS = 800
# Seconds that a connection stays open without a request: longer than proxies keep theirs.
KEEP_ALIVE = 75
BACKLOG = 512
# Seconds between two looks whether it has begun.
TICK = 0.01
# Bytes of a request's line and headers.
MOST_HEAD = 64 * 1024


class PatientProtocol(H11Protocol):
    """HTTP/1.1, whose clients have a limited time to send the head of a request."""

    head_s = 10.0
    _head: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """As asyncio has it."""
        super().connection_made(transport)
        self._expect_head()

    def data_received(self, data: bytes) -> None:
        """As asyncio has it."""
        before = self.cycle
        super().data_received(data)
        if self.cycle is not before:
            self._forget_head()
        elif self._head is None and (before is None or before.response_complete):
            self._expect_head()

    def connection_lost(self, exc: Exception | None) -> None:
        """As asyncio has it."""
        self._forget_head()
        super().connection_lost(exc)

    def _expect_head(self) -> None:
        self._head = self.loop.call_later(self.head_s, self.timeout_keep_alive_handler)

    def _forget_head(self) -> None:
        if self._head is not None:
            self._head.cancel()
            self._head = None


class Listener(uvicorn.Server):
    """uvicorn, that ends by a signal as by itself: what is under way is answered first.

    Args:
        front: the service as routes see it.
        config: of uvicorn.
    """

    def __init__(self, front: Front, config: uvicorn.Config) -> None:
        super().__init__(config)
        self._front = front

    def await_listening(self) -> None:
        """Return once connections are taken, or it is to stop."""
        while not (self.started or self.should_exit):
            time.sleep(TICK)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Stop; at once when told for the second time."""
        log_event("stopping", signal=signal.Signals(sig).name)
        self.force_exit = self.should_exit
        self.stop()

    def stop(self) -> None:
        """Take nothing more, answer what is under way, and end."""
        self._front.draining = True
        self.should_exit = True


class ServedHttp:
    """A service that listens.

    Args:
        service: that answers; it is started here, and closed at the end.
        options: how requests are taken.
        host: address to listen at.
        port: the same; 0 for any that is free.

    Attributes:
        port: that it listens at.

    Raises:
        ConfigError: others than this machine could ask without a token, or the port is taken.
    """

    def __init__(self, service: Answering, options: HttpOptions, *, host: str, port: int) -> None:
        require_guarded(host, options.token)
        self._socket = bound(host, port)
        self.host, self.port = host, int(self._socket.getsockname()[1])
        self._service, self._options = service, options
        self._front = Front(service, options)
        self._listener = Listener(self._front, self._config())
        self._failure: BaseException | None = None

    @property
    def url(self) -> str:
        """Where it is on this machine."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"http://{host}:{self.port}{self._options.root_path}/"

    def _config(self) -> uvicorn.Config:
        return uvicorn.Config(
            make_application(self._front),
            http=PatientProtocol,
            ws="none",
            loop="auto",
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            # The address of a client is what the connection says: a header could say anything.
            proxy_headers=False,
            limit_concurrency=MOST_CONNECTIONS,
            backlog=BACKLOG,
            timeout_keep_alive=KEEP_ALIVE,
            timeout_graceful_shutdown=int(self._options.drain_s) or 1,
            h11_max_incomplete_event_size=MOST_HEAD,
        )

    def run(self, ready: Callable[[ServedHttp], None] | None = None) -> None:
        """Listen until a signal or `stop` ends it.

        Args:
            ready: is called once questions are answered, by another thread.

        Raises:
            MatMambaError: what is served cannot be.
        """
        threading.Thread(target=self._start, args=(ready,), name="start", daemon=True).start()
        try:
            with refreshed_by_hangup(self._refresh):
                self._listener.run(sockets=[self._socket])
        finally:
            self._front.draining = True
            self._service.close(0.0 if self._listener.force_exit else self._options.drain_s)
            self._front.close()
            self._socket.close()
        if self._failure is not None:
            raise self._failure
        log_event("stopped")

    def stop(self) -> None:
        """Take nothing more, answer what is under way, and end."""
        self._listener.stop()

    def _start(self, ready: Callable[[ServedHttp], None] | None) -> None:
        try:
            formats()
            self._service.start()
            self._listener.await_listening()
            log_event("ready", url=self.url, galleries=self._service.names())
            if ready is not None:
                ready(self)
        # Whatever it is, the thread that listens raises it.
        except BaseException as error:
            self._failure = error
            self.stop()

    def _refresh(self) -> None:
        log_event("refreshing")
        threading.Thread(target=self._refreshed, name="refresh", daemon=True).start()

    def _refreshed(self) -> None:
        try:
            self._service.refresh()
        # The service goes on with the versions that it has.
        except Exception as error:
            log_event("refresh failed", level=logging.WARNING, error=error)


def bound(host: str, port: int) -> socket.socket:
    """A socket that listens nowhere yet, but has its address.

    Raises:
        ConfigError: it is taken, or no address of this machine.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
    except (OSError, UnicodeError) as error:
        raise ConfigError(f"host {host!r} is no address of this machine: {error}") from error
    found = socket.socket(family, kind, protocol)
    found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        found.bind(address)
    except OSError as error:
        found.close()
        said = (error.strerror or str(error)).lower()
        raise ConfigError(
            f"port {port} of {host}: {said}; another one may be free, and 0 takes any"
        ) from error
    return found


@contextmanager
def refreshed_by_hangup(refresh: Callable[[], None]) -> Iterator[None]:
    """SIGHUP calls something, for the block; only the main thread can be told of signals."""
    known = getattr(signal, "SIGHUP", None)
    if known is None or threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(known, lambda *_: refresh())
    try:
        yield
    finally:
        signal.signal(known, before)
