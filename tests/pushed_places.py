"""Where galleries are pushed to in tests: a folder, Qdrant's local mode, and a server if one is named."""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from matmamba_retrieval.backends.address import open_store
from matmamba_retrieval.backends.comparison import PushCheck, compare
from matmamba_retrieval.backends.edge import EdgeStore
from matmamba_retrieval.backends.engine import Store
from matmamba_retrieval.backends.layout import Contents
from matmamba_retrieval.backends.pushing import Pushed, Pushing
from matmamba_retrieval.backends.server import BETWEEN, ServerStore
from matmamba_retrieval.backends.wish import Wish
from matmamba_retrieval.gallery.snapshot import Snapshot

# A server's address such as http://localhost:6333, for `make qdrant`.
URL = "QDRANT_URL"
KINDS = ["edge", "local", pytest.param("server", marks=pytest.mark.cluster)]


class Places:
    """One name on an engine of a kind, to be opened as often as wanted."""

    def __init__(self, kind: str, folder: Path) -> None:
        self.kind, self._folder = kind, folder
        self._name = f"matmamba-test-{uuid.uuid4().hex[:12]}"
        if kind == "server" and URL not in os.environ:
            pytest.skip(f"{URL} names no server")

    @property
    def address(self) -> str:
        """As users write it; the local mode has none."""
        if self.kind == "edge":
            return f"edge:{self._folder / 'pushed'}"
        scheme, rest = os.environ[URL].rstrip("/").split("://")
        return f"{ {'http': 'qdrant', 'https': 'qdrants'}[scheme] }://{rest}/{self._name}"

    @contextmanager
    def open(self, *, write: bool = True) -> Iterator[Store]:
        """The store, closed afterwards."""
        store: Store
        if self.kind == "edge":
            store = EdgeStore(self._folder / "pushed", write=write)
        elif self.kind == "local":
            from qdrant_client import QdrantClient

            client = QdrantClient(path=str(self._folder / "local"))
            store = ServerStore(client, self._name, f"qdrant://local/{self._name}")
        else:
            store = open_store(self.address, write=write)
        try:
            yield store
        finally:
            store.close()

    def remove(self) -> None:
        """Take from a server what a test has made."""
        if self.kind != "server":
            return
        with self.open() as store:
            assert isinstance(store, ServerStore)
            for each in store.client.get_collections().collections:
                if each.name.startswith(self._name + BETWEEN) or each.name == self._name:
                    store.client.delete_collection(each.name)


def push(gallery: Snapshot, places: Places, *, replace: bool = False, **wish: Any) -> Pushed:
    """A whole push, step by step."""
    with places.open() as store:
        pushing = Pushing(gallery, store, Wish(**wish), replace=replace)
        pushing.carry(lambda count: None)
        pushing.build()
        return pushing.publish(pushing.check())


def contents_of(places: Places) -> Contents:
    """What the place says of itself."""
    with places.open() as store:
        current = store.current()
        assert current is not None
        return Contents.from_json(current.about(), store.place)


def compared(gallery: Snapshot, places: Places) -> PushCheck:
    """The place against the gallery, every key of it."""
    with places.open() as store:
        current = store.current()
        assert current is not None
        return compare(gallery, current, Contents.from_json(current.about(), store.place), every_key=True)
