"""What a request may be: its type, bytes, pixels and time, and how many there may be at once."""

from __future__ import annotations

import gc
import io
import json
import socket
import struct
import threading
import time
import zlib
from collections.abc import Iterator
from dataclasses import replace
from importlib.util import find_spec
from typing import Any

import httpx
import pytest
from matmamba_datasets.kinds import HEIF_CURE
from matmamba_vision.serving.http.options import HttpOptions
from matmamba_vision.serving.http.server import PatientProtocol, ServedHttp
from PIL import Image
from served_http import SEARCH, FakeService, client_of, jpeg, listening, multipart
from starlette.testclient import TestClient


def refused(said: Any, status: int, code: str) -> str:
    """The message of a response that must refuse."""
    assert said.status_code == status, said.text
    error = said.json()["error"]
    assert error["code"] == code
    message = error["message"]
    assert isinstance(message, str)
    return message


@pytest.mark.parametrize("kind", ["", "text/plain", "image/jpeg", "application/x-www-form-urlencoded"])
def test_another_content_type_is_refused(client: TestClient, kind: str) -> None:
    headers = {"content-type": kind} if kind else {}
    said = client.post(SEARCH, content=jpeg(), headers=headers)
    assert "multipart/form-data" in refused(said, 415, "unsupported")


def test_a_truncated_image_is_refused_by_its_reason(service: FakeService, client: TestClient) -> None:
    whole = jpeg((64, 64))
    message = refused(client.post(SEARCH, **multipart(whole[: len(whole) // 2])), 400, "bad_request")
    assert "truncated" in message
    assert not service.asked


@pytest.mark.parametrize("content", [b"", b"hello", b"%PDF-1.4 ...", b"<svg onload='alert(1)'/>"])
def test_what_is_no_image_is_refused(client: TestClient, content: bytes) -> None:
    refused(client.post(SEARCH, **multipart(content)), 415, "unsupported")


def test_heic_is_read_or_says_what_is_missing(client: TestClient) -> None:
    head = struct.pack(">I", 24) + b"ftypheic" + bytes(4) + b"mif1heic"
    said = client.post(SEARCH, **multipart(head + bytes(200)))
    if find_spec("pillow_heif") is None:
        assert HEIF_CURE in refused(said, 415, "unsupported")
        return
    import pillow_heif

    buffer = io.BytesIO()
    pillow_heif.from_pillow(Image.new("RGB", (64, 64), "red")).save(buffer)
    assert client.post(SEARCH, **multipart(buffer.getvalue())).status_code == 200


def png_of(width: int, height: int) -> bytes:
    """The head of a PNG that says so large, and nothing that could be decoded."""
    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunk = b"IHDR" + head
    body = struct.pack(">I", len(head)) + chunk + struct.pack(">I", zlib.crc32(chunk))
    data = b"IDAT" + zlib.compress(bytes(100))
    body += struct.pack(">I", len(data) - 4) + data + struct.pack(">I", zlib.crc32(data))
    return b"\x89PNG\r\n\x1a\n" + body


def test_too_many_pixels_are_refused_before_they_are_decoded(client: TestClient) -> None:
    message = refused(client.post(SEARCH, **multipart(png_of(60_000, 60_000))), 413, "too_large")
    assert "3,600.0 megapixels" in message


def test_a_large_jpeg_is_decoded_smaller(service: FakeService) -> None:
    client = client_of(service, HttpOptions(slo_ms=10_000, max_megapixels=0.1))
    assert client.post(SEARCH, **multipart(jpeg((800, 600)))).status_code == 200
    image = service.asked[0].image
    assert image is not None
    assert image.size == (200, 150)


def test_a_request_has_one_image_and_known_parts(client: TestClient) -> None:
    files = [("image", ("a.jpg", jpeg(), "image/jpeg"))] * 2
    assert "more images" in refused(client.post(SEARCH, files=files), 400, "bad_request")
    said = client.post(SEARCH, files={"file": ("a.jpg", jpeg(), "image/jpeg")})
    assert "b'file'" in refused(said, 400, "bad_request")
    two = [("request", (None, b"{}", "application/json"))] * 2
    assert "two parts" in refused(client.post(SEARCH, files=two), 400, "bad_request")


def test_multipart_without_its_end_is_refused(client: TestClient) -> None:
    body = b'--b\r\nContent-Disposition: form-data; name="request"\r\n\r\n{}'
    for sent in (body, body + b"\r\n--b\r\n"):
        said = client.post(SEARCH, content=sent, headers={"content-type": "multipart/form-data; boundary=b"})
        assert "ends" in refused(said, 400, "bad_request")


def test_a_full_queue_says_when_to_come_again(service: FakeService, client: TestClient) -> None:
    service.overloaded = True
    said = client.post(SEARCH, **multipart(jpeg()))
    assert refused(said, 503, "overloaded") == "the queue is full"
    assert said.headers["retry-after"] == "3"
    assert 'matmamba_shed_total{where="entry"} 1.0' in client.get("/metrics").text
    answers = client.post(f"{SEARCH}/batch", json={"queries": [{"id": "id7"}]}).json()["answers"]
    assert answers[0]["error"]["code"] == "overloaded"


def test_a_flood_is_turned_away_when_memory_is_taken(service: FakeService) -> None:
    """Ten images of 0.4 MB when decoded, where there is memory for four."""
    service.go.clear()
    content, statuses = jpeg((400, 250)), list[int]()
    options = HttpOptions(slo_ms=10_000, memory_mb=4.5 * (0.4 + len(content) / 1e6))
    with listening(service, options) as served, httpx.Client(base_url=served.url, timeout=60) as client:

        def ask() -> None:
            statuses.append(client.post(SEARCH, **multipart(content)).status_code)

        threads = [threading.Thread(target=ask) for _ in range(10)]
        for thread in threads:
            thread.start()
        until(lambda: len(statuses) + len(service.asked) == 10)
        under_way = len(service.asked)
        # Uploads that were refused later count while they come.
        assert 1 <= under_way <= 4
        service.go.set()
        for thread in threads:
            thread.join()
        assert sorted(statuses) == [200] * under_way + [503] * (10 - under_way)
        # What was taken was given back.
        assert client.post(SEARCH, **multipart(content)).status_code == 200
        assert "matmamba_image_memory_bytes 0.0" in client.get("/metrics").text
        assert f'matmamba_shed_total{{where="memory"}} {10.0 - under_way}' in client.get("/metrics").text


def until(done: Any, seconds: float = 60.0) -> None:
    """Wait for something to come true."""
    end = time.monotonic() + seconds
    while not done():
        assert time.monotonic() < end
        time.sleep(0.01)


# What holds uploads and images, by the names of its types.
HEAVY = {"Upload", "_Parts", "Questioned", "Image"}


def test_what_a_request_brought_is_let_go_at_once(service: FakeService, client: TestClient) -> None:
    """Answered or refused, before Python looks for garbage: it seldom does, and an image is large."""
    content = jpeg((64, 61))
    gc.collect()
    gc.disable()
    try:
        for sent, overloaded in ((content, False), (content, True), (content[:900], False), (b"none", False)):
            service.overloaded = overloaded
            client.post(SEARCH, **multipart(sent))
            service.asked.clear()
            kept = [one for one in gc.get_objects() if type(one).__name__ in HEAVY]
            # Pillow and other tests have images of their own.
            kept = [one for one in kept if getattr(one, "size", (64, 61)) == (64, 61)]
            assert not kept, (len(sent), overloaded)
    finally:
        gc.enable()


HEAD = (
    b"POST /v1/galleries/photos/search HTTP/1.1\r\nHost: 127.0.0.1\r\n"
    b"Content-Type: multipart/form-data; boundary=b\r\n"
)
PART = b'--b\r\nContent-Disposition: form-data; name="image"; filename="a.jpg"\r\n\r\n'
# Times that no busy machine reaches; each test of a limit of time sets the one that it is about.
PATIENT = HttpOptions(slo_ms=10_000, max_upload_mb=1.0, idle_s=60.0, upload_s=120.0)
LONG = 60.0


@pytest.fixture
def options() -> HttpOptions:
    return PATIENT


@pytest.fixture
def served(service: FakeService, options: HttpOptions) -> Iterator[ServedHttp]:
    with listening(service, options) as found:
        yield found


def connected(served: ServedHttp) -> socket.socket:
    return socket.create_connection((served.host, served.port), timeout=LONG)


def response_of(connection: socket.socket) -> tuple[int, Any]:
    """Status and JSON of what a server says before it hangs up."""
    said = b""
    while part := connection.recv(65536):
        said += part
    head, _, body = said.partition(b"\r\n\r\n")
    assert b"connection: close" in head.lower()
    return int(head.split()[1]), json.loads(body)


def test_what_says_that_it_is_huge_is_not_read(served: ServedHttp) -> None:
    with connected(served) as connection:
        connection.sendall(HEAD + b"Content-Length: 5000000000\r\nExpect: 100-continue\r\n\r\n")
        status, said = response_of(connection)
    assert status == 413
    assert "1 MB" in said["error"]["message"]


def test_a_huge_upload_is_cut_early(served: ServedHttp) -> None:
    """Without a length: no more than twice what is allowed is taken, the rest of 100 MB never leaves."""
    chunk = b"10000\r\n" + bytes(0x10000) + b"\r\n"
    sent = 0
    with connected(served) as connection:
        connection.sendall(HEAD + b"Transfer-Encoding: chunked\r\n\r\n%x\r\n%s\r\n" % (len(PART), PART))
        try:
            while sent < 100e6:
                connection.sendall(chunk)
                sent += len(chunk)
        except OSError:
            pass
    # What systems hold between two sockets counts, too.
    assert 1e6 < sent < 30e6


def test_a_little_too_much_is_told_so(served: ServedHttp) -> None:
    said = httpx.post(served.url + SEARCH[1:], **multipart(bytes(1_500_000)), timeout=LONG)
    assert "1 MB" in refused(said, 413, "too_large")


@pytest.mark.parametrize("options", [replace(PATIENT, idle_s=0.3)])
def test_a_client_that_stops_in_the_middle_is_told_so(served: ServedHttp) -> None:
    with connected(served) as connection:
        connection.sendall(HEAD + b"Content-Length: 1000\r\n\r\n" + PART)
        start = time.monotonic()
        status, said = response_of(connection)
        # Long before all of the time for a request.
        assert time.monotonic() - start < LONG
    assert status == 408
    assert "in time" in said["error"]["message"]


@pytest.mark.parametrize("options", [replace(PATIENT, upload_s=1.0)])
def test_a_client_that_drips_is_told_so(served: ServedHttp) -> None:
    """A byte now and then, so that it never stops."""
    with connected(served) as connection:
        connection.sendall(HEAD + b"Content-Length: 1000\r\n\r\n" + PART)
        connection.setblocking(False)
        start, status = time.monotonic(), 0
        while time.monotonic() - start < LONG and not status:
            try:
                connection.send(b"x")
                time.sleep(0.05)
                status = int(connection.recv(65536).split()[1])
            except BlockingIOError:
                continue
    assert status == 408
    assert time.monotonic() - start > 0.9


def test_a_client_that_never_ends_its_head_is_hung_up_on(
    served: ServedHttp, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(PatientProtocol, "head_s", 0.3)
    with connected(served) as connection:
        start = time.monotonic()
        connection.sendall(HEAD)
        assert connection.recv(100) == b""
        assert 0.2 < time.monotonic() - start < LONG


def test_a_client_that_hangs_up_leaves_nothing_behind(service: FakeService, served: ServedHttp) -> None:
    with connected(served) as connection:
        connection.sendall(HEAD + b"Content-Length: 1000\r\n\r\n" + PART)
    with httpx.Client(base_url=served.url, timeout=60) as client:
        until(lambda: 'status="499"' in client.get("/metrics").text)
        assert "matmamba_image_memory_bytes 0.0" in client.get("/metrics").text
    assert not service.asked
