"""Requests over HTTP at stated times, whether or not earlier ones were answered; times count from these.

A client that waits for its answers asks less where a service is slow, and so hides it (coordinated omission).
A request takes a connection that is free, or opens another one.
"""

from __future__ import annotations

import asyncio
import json
import random
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

# Of every ten seconds, two have so many times the rate of the others.
BURST = 2.0
# After so long nobody waits for an answer any more.
PATIENCE_SECONDS = 10.0
BOUNDARY = "the-boundary-of-the-benchmark"


@dataclass(frozen=True)
class Response:
    """What was answered.

    Attributes:
        asked: which request it was.
        status: of HTTP; 0 where the connection failed, or nothing came in time.
        ms: milliseconds since it was to be sent.
        body: as it came.
    """

    asked: int
    status: int
    ms: float
    body: bytes


def arrivals(rate: float, seconds: float, seed: int, bursts: bool = True) -> list[float]:
    """Seconds at which requests come: a Poisson process of `rate` on the average.

    Args:
        rate: requests in a second.
        seconds: that they come for.
        seed: of what is left to chance.
        bursts: whether two of every ten seconds have twice the rate of the others.
    """
    rng, now, found = random.Random(seed), 0.0, list[float]()
    base = rate * 10 / (8 + 2 * BURST) if bursts else rate
    while now < seconds:
        now += rng.expovariate(base * (BURST if bursts and now % 10 < 2 else 1))
        found.append(now)
    return found[:-1]


def upload(host: str, gallery: str, image: bytes, asked: Mapping[str, Any]) -> bytes:
    """A request for a search, as it is sent: a JPEG and what is asked besides."""
    parts = [
        f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="image"; filename="query.jpg"\r\n'
        "Content-Type: image/jpeg\r\n\r\n".encode(),
        image,
        f'\r\n--{BOUNDARY}\r\nContent-Disposition: form-data; name="request"\r\n'
        f"Content-Type: application/json\r\n\r\n{json.dumps(asked)}\r\n--{BOUNDARY}--\r\n".encode(),
    ]
    body = b"".join(parts)
    head = (
        f"POST /v1/galleries/{gallery}/search HTTP/1.1\r\nHost: {host}\r\n"
        f"Content-Type: multipart/form-data; boundary={BOUNDARY}\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


class Connection(asyncio.Protocol):
    """One request after the other; answers have a length."""

    def __init__(self) -> None:
        self._buffer, self._answer = bytearray(), asyncio.get_running_loop().create_future()
        self._transport: asyncio.Transport | None = None
        self.usable = True

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """It can be written to."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def connection_lost(self, exc: Exception | None) -> None:
        """It cannot any more."""
        self.usable = False
        if not self._answer.done():
            self._answer.set_result((0, b""))

    def data_received(self, data: bytes) -> None:
        """Part of an answer."""
        self._buffer += data
        end = self._buffer.find(b"\r\n\r\n")
        if end < 0:
            return
        head = bytes(self._buffer[:end]).decode("latin-1").lower().split("\r\n")
        length = next(int(line[15:]) for line in head if line.startswith("content-length:"))
        if len(self._buffer) < end + 4 + length or self._answer.done():
            return
        body = bytes(self._buffer[end + 4 : end + 4 + length])
        del self._buffer[: end + 4 + length]
        self.usable = "connection: close" not in head
        self._answer.set_result((int(head[0].split(" ")[1]), body))

    async def ask(self, request: bytes) -> tuple[int, bytes]:
        """Send a request; status and body of the answer, 0 and nothing where there is none."""
        assert self._transport is not None
        self._answer = asyncio.get_running_loop().create_future()
        if not self.usable:
            return 0, b""
        self._transport.write(request)
        try:
            return await asyncio.wait_for(self._answer, PATIENCE_SECONDS)
        except TimeoutError:
            self.close()
            return 0, b""

    def close(self) -> None:
        """Use it no more."""
        self.usable = False
        if self._transport is not None:
            self._transport.close()


async def drive(host: str, port: int, times: Sequence[float], requests: Sequence[bytes]) -> list[Response]:
    """Send each request at its time, and return all answers in the order of the requests.

    Args:
        host: of the service.
        port: of it.
        times: seconds from now, ascending.
        requests: as they are sent; taken one after the other, and again from the first.
    """
    loop, free, start = asyncio.get_running_loop(), list[Connection](), time.perf_counter() + 0.05

    async def one(number: int, due: float) -> Response:
        while free and not free[-1].usable:
            free.pop()
        try:
            connection = free.pop() if free else (await loop.create_connection(Connection, host, port))[1]
        except OSError:
            return Response(number, 0, 1e3 * (time.perf_counter() - due), b"")
        status, body = await connection.ask(requests[number % len(requests)])
        if connection.usable:
            free.append(connection)
        return Response(number, status, 1e3 * (time.perf_counter() - due), body)

    asked = []
    for number, moment in enumerate(times):
        if (ahead := start + moment - time.perf_counter()) > 0:
            await asyncio.sleep(ahead)
        asked.append(asyncio.ensure_future(one(number, start + moment)))
    found = list(await asyncio.gather(*asked))
    for connection in free:
        connection.close()
    return found


def summary(
    responses: Sequence[Response], seconds: float, slo_ms: float, labels: Sequence[Any]
) -> dict[str, Any]:
    """What became of the requests of a run.

    Args:
        responses: all of them.
        seconds: that requests came for.
        slo_ms: milliseconds in which they were to be answered.
        labels: of the images that asked, in the order of the requests.
    """
    answers = [(one, json.loads(one.body)) for one in responses if one.status == 200]
    shed = sum(one.status == 503 for one in responses)
    ms, in_time = [one.ms for one, _ in answers], sum(one.ms <= slo_ms for one, _ in answers)
    widths = Counter(answer["width"] for _, answer in answers)
    right = [
        str(answer["hits"][0]["label"]) == str(labels[one.asked % len(labels)])
        for one, answer in answers
        if answer["hits"]
    ]
    asked = max(1, len(responses))
    return {
        "asked": len(responses),
        "in_time": in_time / asked,
        "in_time_of_not_shed": in_time / max(1, len(responses) - shed),
        "shed": shed / asked,
        "errors": len(responses) - len(answers) - shed,
        "answered_per_second": len(answers) / seconds,
        "in_time_per_second": in_time / seconds,
        "ms": {f"p{p}": float(np.percentile(ms, p)) if ms else None for p in (50, 95, 99)},
        "widths": {width: count / max(1, len(answers)) for width, count in widths.most_common()},
        "sent_on": sum(answer["sent_on"] for _, answer in answers) / max(1, len(answers)),
        "knn1": sum(right) / len(right) if right else None,
    }
