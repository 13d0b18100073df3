"""The body of a request: read within limits of bytes and time, its parts taken out of it as it comes."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header
from starlette.requests import Request

from .limits import Holding
from .options import HttpOptions
from .refusals import RequestError

# Bytes of the part that says what is asked.
MOST_REQUEST_BYTES = 4_000_000
IMAGE, REQUEST = b"image", b"request"
FORM, JSON = "multipart/form-data", "application/json"


class ClientGoneError(Exception):
    """Whoever asked has hung up, and nobody is there to be answered."""


@dataclass(frozen=True)
class Upload:
    """What a request brought.

    Attributes:
        images: files, in their order.
        request: JSON that says what is asked, b"" for nothing.
    """

    images: list[bytes] = field(default_factory=list)
    request: bytes = b""


async def read_upload(request: Request, options: HttpOptions, holding: Holding, images: int) -> Upload:
    """The parts of a multipart body, or a JSON body alone.

    Args:
        request: whose body is read.
        options: its limits.
        holding: counts the bytes while they come.
        images: that there may be.

    Raises:
        RequestError: another content type, too many bytes or parts, too slow, or no multipart at all.
        OverloadedError: there is no memory for it.
    """
    kind, parameters = parse_options_header(request.headers.get("content-type", ""))
    name = kind.decode("latin-1").lower()
    if name not in (FORM, JSON):
        raise RequestError(
            "unsupported", f"content type {name[:80] or 'missing'}: it can be {FORM} or {JSON}"
        )
    body = _Body(request, options, holding)
    if name == JSON:
        return Upload(request=await _whole(body))
    parts = _Parts(images)
    await _parse(parts, parameters.get(b"boundary", b""), body)
    return Upload(parts.images, bytes(parts.request))


async def _whole(body: _Body) -> bytes:
    found = bytearray()
    async for chunk in body.chunks(MOST_REQUEST_BYTES):
        found += chunk
    return bytes(found)


async def _parse(parts: _Parts, boundary: bytes, body: _Body) -> None:
    try:
        parser = MultipartParser(boundary, parts.callbacks())  # type: ignore[arg-type]
        async for chunk in body.chunks():
            parser.write(chunk)
        parser.finalize()
    except FormParserError as error:
        raise RequestError("bad_request", f"this is no whole {FORM}: {error}") from error
    if not parts.ended:
        raise RequestError("bad_request", f"this {FORM} ends in the middle of a part")


class _Body:
    """The bytes of a request as they come, within limits."""

    def __init__(self, request: Request, options: HttpOptions, holding: Holding) -> None:
        self._request, self._options, self._holding = request, options, holding

    async def chunks(self, most: int = 0) -> AsyncIterator[bytes]:
        """The next bytes, as long as there are some; `most` of them, by default those of an upload.

        Raises:
            RequestError: too many, or too slow.
            OverloadedError: there is no memory for more.
            ClientGoneError: it has hung up.
        """
        most = min(most or self._options.max_bytes, self._options.max_bytes)
        self._require_length(most)
        seen, loop = 0, asyncio.get_running_loop()
        end = loop.time() + self._options.upload_s
        more = True
        while more:
            chunk, more = await self._next(min(self._options.idle_s, end - loop.time()))
            seen += len(chunk)
            if seen > most:
                raise _too_large(most)
            self._holding.grow(len(chunk))
            if chunk:
                yield chunk

    def _require_length(self, most: int) -> None:
        """What says beforehand that it is too large is not read."""
        length = self._request.headers.get("content-length", "")
        if re.fullmatch(r"\d{1,20}", length) and int(length) > most:
            raise _too_large(most)

    async def _next(self, seconds: float) -> tuple[bytes, bool]:
        try:
            async with asyncio.timeout(max(0.0, seconds)):
                message = await self._request.receive()
        except TimeoutError as error:
            slow = "the rest of the request did not come in time"
            raise RequestError("bad_request", slow, status=408) from error
        if message["type"] == "http.disconnect":
            raise ClientGoneError
        return message.get("body", b""), message.get("more_body", False)


def _too_large(most: int) -> RequestError:
    return RequestError("too_large", f"the request is larger than the {most / 1e6:g} MB allowed")


class _Parts:
    """Takes the parts out of a multipart body.

    Attributes:
        images: files.
        request: JSON.
        ended: whether the last part was whole.
    """

    def __init__(self, images: int) -> None:
        self.images, self.request, self.ended = list[bytes](), bytearray(), False
        self._most, self._part = images, bytearray()
        self._name, self._header, self._value, self._disposition = b"", b"", b"", b""

    def callbacks(self) -> dict[str, Callable[..., None]]:
        """What a parser calls: made for it, for who holds methods of his own is never let go."""
        return {
            "on_part_begin": self._begin,
            "on_part_data": self._data,
            "on_part_end": self._end,
            "on_header_field": self._field,
            "on_header_value": self._more_value,
            "on_header_end": self._header_end,
            "on_headers_finished": self._named,
            "on_end": self._all,
        }

    def _begin(self) -> None:
        self._part, self._disposition = bytearray(), b""

    def _field(self, data: bytes, start: int, end: int) -> None:
        self._header += data[start:end]

    def _more_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]

    def _header_end(self) -> None:
        if self._header.lower() == b"content-disposition":
            self._disposition = self._value
        self._header = self._value = b""

    def _named(self) -> None:
        self._name = parse_options_header(self._disposition)[1].get(b"name", b"")
        if self._name not in (IMAGE, REQUEST):
            raise RequestError(
                "bad_request", f"a part is called {self._name[:80]!r}: it can be image or request"
            )
        if self._name == IMAGE and len(self.images) >= self._most:
            raise RequestError("bad_request", f"there are more images than the {self._most} allowed here")
        if self._name == REQUEST and self.request:
            raise RequestError("bad_request", "there are two parts called request")

    def _data(self, data: bytes, start: int, end: int) -> None:
        if self._name == REQUEST and len(self._part) + end - start > MOST_REQUEST_BYTES:
            raise _too_large(MOST_REQUEST_BYTES)
        self._part += data[start:end]

    def _end(self) -> None:
        if self._name == IMAGE:
            self.images.append(bytes(self._part))
        else:
            self.request = self._part
        self._part = bytearray()

    def _all(self) -> None:
        self.ended = True
