"""What the HTTP side of the service is told when it starts."""

from __future__ import annotations

import ipaddress
import re
import socket
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

from matmamba_common.settings import Bounds, check
from matmamba_datasets import Limits

from ...errors import ConfigError

MOST_MEGAPIXELS = 50.0
SHORTEST_TOKEN = 16
Positive = Annotated[float, Bounds(above=0)]
# What a browser sends as Origin, and what a Host header says before its port.
_ORIGIN = re.compile(r"https?://[^\s/?#@*]+")
_HOST = re.compile(r"[A-Za-z0-9._-]+|[0-9A-Fa-f:.]+")


@dataclass(frozen=True, kw_only=True)
class HttpOptions:
    """How requests are taken.

    Attributes:
        slo_ms: milliseconds in which a request has to be answered that says nothing else.
        max_upload_mb: 10^6 bytes of one request's body.
        max_megapixels: of one image; JPEGs beyond it are decoded smaller.
        memory_mb: 10^6 bytes of all uploads and decoded images together.
        token: that requests have to bear, "" for none.
        cors: origins whose pages may ask.
        allowed_hosts: names by which it is reached, beside those of loopback; without a token others are
            refused, for a page of elsewhere could have its own name lead here.
        root_path: under which a proxy shows it, such as "/search"; "" for its root.
        writable: whether images can be added and deleted.
        idle_s: seconds that a client may send nothing in the middle of a request.
        upload_s: seconds in which a request has to be there.
        drain_s: seconds that requests under way have to end when it stops.
        keep: folder in which images that are added are kept as files, None to keep their vectors alone.

    Raises:
        TypeError: a value of another type.
        ConfigError: a value that cannot be.
    """

    slo_ms: Positive = 100.0
    max_upload_mb: Positive = 32.0
    max_megapixels: Positive = MOST_MEGAPIXELS
    memory_mb: Positive = 1000.0
    token: str = field(default="", repr=False)
    cors: tuple[str, ...] = ()
    allowed_hosts: tuple[str, ...] = ()
    root_path: str = ""
    writable: bool = False
    idle_s: Positive = 10.0
    upload_s: Positive = 60.0
    drain_s: Annotated[float, Bounds(least=0)] = 10.0
    keep: Path | None = None

    def __post_init__(self) -> None:
        check(self)
        require_root_path(self.root_path)
        for origin in self.cors:
            if not _ORIGIN.fullmatch(origin):
                raise ConfigError(f"cors origin {origin!r}: it can be such as https://photos.example.org")
        for host in self.allowed_hosts:
            if not _HOST.fullmatch(host):
                raise ConfigError(f"allowed host {host!r}: it can be such as photos.example.org")

    @property
    def max_bytes(self) -> int:
        """Bytes of one request's body."""
        return int(self.max_upload_mb * 1e6)

    @property
    def limits(self) -> Limits:
        """Of one image."""
        return Limits(max_megapixels=self.max_megapixels, max_file_mb=self.max_upload_mb)


def read_token(file: Path) -> str:
    """The token that a file holds.

    Raises:
        ConfigError: no such file, or no token that nobody guesses.
    """
    try:
        token = file.read_text().strip()
    except (OSError, UnicodeDecodeError) as error:
        said = (error.strerror or str(error)).lower() if isinstance(error, OSError) else "it is no text"
        raise ConfigError(f"token file {file} cannot be read: {said}") from error
    if len(token) < SHORTEST_TOKEN or not token.isascii() or not token.isprintable() or " " in token:
        raise ConfigError(f"token file {file}: a token has {SHORTEST_TOKEN} or more letters, without spaces")
    return token


def require_guarded(host: str, token: str) -> None:
    """Raise `ConfigError` if others than this machine could ask without a token.

    Args:
        host: to listen at.
        token: that is asked for, "" for none.
    """
    if not token and not is_loopback(host):
        raise ConfigError(
            f"host {host} is seen by other machines: give a file with a token, or listen at 127.0.0.1"
        )


def is_loopback(host: str) -> bool:
    """Whether a host is this machine alone, by any of its addresses; `ConfigError` if it has none."""
    try:
        found = {str(entry[4][0]) for entry in socket.getaddrinfo(host or "::", None)}
    except OSError as error:
        raise ConfigError(f"host {host!r} is no address of this machine: {error.strerror}") from error
    return all(ipaddress.ip_address(address.partition("%")[0]).is_loopback for address in found)


def require_root_path(path: str) -> str:
    """A root path as the service takes it: "" or "/..." without a slash at its end.

    Raises:
        ConfigError: something else.
    """
    path = path.rstrip("/")
    if path and (not path.startswith("/") or "//" in path or any(letter in path for letter in "?# %")):
        raise ConfigError(f"root path {path!r}: it can be such as /search")
    return path
