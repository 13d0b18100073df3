"""Qdrant's local mode behind HTTP, as a server answers: so that a network can be cut, and a server can fail.

It speaks as much of Qdrant's REST interface as galleries use. What it does with a request is left to
`ill`: by the number of the request it says "" for nothing, or what goes wrong.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any
from urllib.parse import urlsplit

from qdrant_client import QdrantClient
from qdrant_client import models as qm

VERSION = "1.18.0"
# What can go wrong: the connection ends before anything is done, or when it is done and not yet said, or in
# the middle of saying so; a proxy answers for the server; the disk is full.
CUT, UNSAID, HALF, PROXY, FULL = "cut", "unsaid", "half", "proxy", "full"
_PAGE = b"<html>\r\n<head><title>502 Bad Gateway</title></head>\r\n<body>\r\nnginx</body>\r\n</html>\r\n"
_NO_ROOM = (
    b'{"status":{"error":"Service internal error: No space left on device: WAL buffer size\\n exceeded"}}'
)


class FakeServer:
    """What a test looks at.

    Attributes:
        client: the local mode that holds all collections.
        address: that galleries are pushed to.
        asked: methods and paths of all requests.
        ill: what goes wrong with a request, by its number and path.
    """

    def __init__(self) -> None:
        self.client = QdrantClient(":memory:")
        self.address = ""
        self.asked: list[str] = []
        self.ill: Callable[[int, str], str] = lambda number, path: ""


@contextmanager
def fake_server(name: str = "photos") -> Iterator[FakeServer]:
    """A server on a port of its own, until the block ends."""
    fake = FakeServer()

    class Handler(_Handler):
        server_of_tests = fake

    server = HTTPServer(("127.0.0.1", 0), Handler)
    fake.address = f"qdrant://127.0.0.1:{server.server_port}/{name}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield fake
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class _Handler(BaseHTTPRequestHandler):
    server_of_tests: FakeServer

    def answer(self) -> None:
        fake, path = self.server_of_tests, urlsplit(self.path).path
        length = int(self.headers.get("Content-Length") or 0)
        body = json.loads(self.rfile.read(length) or b"null")
        fake.asked.append(f"{self.command} {path}")
        ill = fake.ill(len(fake.asked), f"{self.command} {path}")
        if ill == CUT:
            self.connection.close()
        elif ill in (PROXY, FULL):
            self.say(*((502, _PAGE) if ill == PROXY else (500, _NO_ROOM)))
        else:
            result = _done(fake.client, self.command, path.strip("/").split("/"), body)
            if ill == UNSAID:
                self.connection.close()
                return
            said = json.dumps({"result": result, "status": "ok", "time": 0.0}).encode()
            if not path.strip("/"):
                said = json.dumps({"title": "qdrant", "version": VERSION}).encode()
            self.say(200, said, half=ill == HALF)

    def say(self, status: int, said: bytes, *, half: bool = False) -> None:
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(said)))
        self.end_headers()
        self.wfile.write(said[: len(said) // 2] if half else said)

    do_GET = do_PUT = do_POST = do_PATCH = do_DELETE = answer

    def log_message(self, format: str, *args: Any) -> None:
        pass


def _done(client: QdrantClient, method: str, path: list[str], body: Any) -> Any:
    """The result of a request, as JSON holds it."""
    if path == [""]:
        return None
    if path[-1] == "aliases":
        if method == "POST":
            changes = [_change(each) for each in body["actions"]]
            return client.update_collection_aliases(change_aliases_operations=changes)
        return _plain(client.get_aliases())
    if path == ["collections"]:
        return _plain(client.get_collections())
    return _of_collection(client, path[1], f"{method} {'/'.join(path[2:])}".strip(), body)


def _change(values: dict[str, Any]) -> Any:
    if "delete_alias" in values:
        return qm.DeleteAliasOperation(**values)
    return qm.CreateAliasOperation(**values)


def _of_collection(client: QdrantClient, name: str, asked: str, body: Any) -> Any:
    if asked.startswith("DELETE index/"):
        return _plain(client.delete_payload_index(name, asked.partition("/")[2]))
    works: dict[str, Callable[[], Any]] = {
        "GET exists": lambda: {"exists": client.collection_exists(name)},
        "GET": lambda: _plain(client.get_collection(name)),
        "PUT": lambda: client.create_collection(name, **_settings(body)),
        "PATCH": lambda: client.update_collection(name, metadata=body.get("metadata")),
        "DELETE": lambda: client.delete_collection(name),
        "PUT points": lambda: _plain(client.upsert(name, qm.Batch(**body["batch"]))),
        "POST points/delete": lambda: _plain(client.delete(name, qm.PointIdsList(**body))),
        "POST points/count": lambda: _plain(client.count(name, _filter(body.get("filter")), exact=True)),
        "POST points/scroll": lambda: _scrolled(client, name, body),
        "POST points": lambda: [_plain(each) for each in client.retrieve(name, **_parts(body))],
        "POST points/query/batch": lambda: [
            _plain(each)
            for each in client.query_batch_points(name, [qm.QueryRequest(**one) for one in body["searches"]])
        ],
        "PUT index": lambda: _plain(
            client.create_payload_index(name, body["field_name"], body["field_schema"])
        ),
    }
    return works[asked]()


def _settings(body: dict[str, Any]) -> dict[str, Any]:
    vectors = {name: qm.VectorParams(**each) for name, each in body["vectors"].items()}
    return {"vectors_config": vectors, "metadata": body.get("metadata")}


def _scrolled(client: QdrantClient, name: str, body: dict[str, Any]) -> dict[str, Any]:
    records, ahead = client.scroll(
        name,
        _filter(body.get("filter")),
        limit=body["limit"],
        offset=body.get("offset"),
        with_payload=body["with_payload"],
        with_vectors=body["with_vector"],
    )
    return {"points": [_plain(record) for record in records], "next_page_offset": ahead}


def _parts(body: dict[str, Any]) -> dict[str, Any]:
    return {"ids": body["ids"], "with_payload": body["with_payload"], "with_vectors": body["with_vector"]}


def _filter(values: Any) -> Any:
    return None if values is None else qm.Filter(**values)


def _plain(value: Any) -> Any:
    return value.model_dump(mode="json")
