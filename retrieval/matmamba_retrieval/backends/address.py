"""Which place an address means: `qdrant://host:port/collection` or `edge:FOLDER`."""

from __future__ import annotations

import os
import re
from pathlib import Path

from ..errors import GalleryError
from ..gallery.addresses import EDGE, SCHEMES, address_of
from .edge import EdgeStore
from .engine import Store
from .server import BETWEEN, ServerStore

# Names that every server takes, and that leave room for those beside them.
_SERVER = re.compile(
    r"(?P<scheme>qdrants?)://(?P<host>\[[0-9A-Fa-f:.]+\]|[^/:@\s]+)(:(?P<port>\d{1,5}))?"
    r"/(?P<name>[A-Za-z0-9_][A-Za-z0-9_.-]{0,99})"
)
FORMS = "qdrant://host:port/collection, qdrants://host:port/collection or edge:FOLDER"
PORT = 6333


def is_address(text: str) -> bool:
    """Whether a text means a place on an engine, well formed or not, and no folder."""
    return bool(address_of(text))


def open_store(address: str, *, write: bool = False) -> Store:
    """The place that an address names.

    Args:
        address: `qdrant://host:port/collection`, `qdrants://` for TLS, or `edge:FOLDER`. A server's key is
            taken from the environment, QDRANT_API_KEY.
        write: whether it is to be changed.

    Raises:
        GalleryError: an address of another form; a server that is down or too old; a folder that holds
            something else; a package is missing.
    """
    address = address_of(address) or address
    if address.startswith(EDGE) and address != EDGE:
        return EdgeStore(Path(address.removeprefix(EDGE)), write=write)
    found = _SERVER.fullmatch(address)
    if found is None or BETWEEN in found["name"]:
        raise GalleryError(f"{address!r} is no place for a gallery: give {FORMS}")
    url = f"{SCHEMES[found['scheme']]}://{found['host']}:{found['port'] or PORT}"
    return ServerStore.connect(url, found["name"], address, os.environ.get("QDRANT_API_KEY"))
