"""The page and what it loads: files of the package, read once: no request names a file of the disk."""

from __future__ import annotations

import hashlib
import mimetypes
from dataclasses import dataclass
from pathlib import Path

from starlette.requests import Request
from starlette.responses import Response

from ...galleries.page import STYLE
from .refusals import RequestError

FOLDER = Path(__file__).parents[1] / "page"
# Nothing from elsewhere, and no script within the page: what a name holds is never run.
POLICY = (
    "default-src 'self'; img-src 'self' blob: data:; object-src 'none'; base-uri 'none'; form-action 'self';"
    " frame-ancestors 'none'"
)
_KINDS = {".js": "text/javascript", ".css": "text/css", ".html": "text/html", ".svg": "image/svg+xml"}


@dataclass(frozen=True)
class PageFile:
    """A file as it is sent.

    Attributes:
        content: of the file.
        kind: its media type.
        tag: of its content.
    """

    content: bytes
    kind: str
    tag: str

    @staticmethod
    def of(file: Path) -> PageFile:
        """From the disk."""
        content = file.read_bytes()
        guessed = mimetypes.guess_type(file.name)[0] or "application/octet-stream"
        tag = hashlib.blake2b(content, digest_size=12).hexdigest()
        return PageFile(content, _KINDS.get(file.suffix, guessed), f'"{tag}"')


def page_files() -> list[Path]:
    """All that the page consists of, on the disk; its style sheet is that of other pages, too."""
    return [STYLE, *(file for file in sorted(FOLDER.iterdir()) if file.is_file())]


class PageFiles:
    """The routes of the page."""

    def __init__(self) -> None:
        self._files = {file.name: PageFile.of(file) for file in page_files()}

    async def page(self, request: Request) -> Response:
        """The page."""
        return self._sent("index.html", request)

    async def file(self, file: str, request: Request) -> Response:
        """What the page loads."""
        return self._sent(file, request)

    def _sent(self, name: str, request: Request) -> Response:
        found = self._files.get(name)
        if found is None:
            raise RequestError("not_found", f"there is no file {name!r} of the page")
        headers = {"ETag": found.tag, "Cache-Control": "no-cache", "Content-Security-Policy": POLICY}
        if found.tag in request.headers.get("if-none-match", ""):
            return Response(status_code=304, headers=headers)
        return Response(found.content, headers=headers, media_type=found.kind)
