"""Who may ask: who bears the token, or without one, who is at this machine and no page of elsewhere."""

from __future__ import annotations

from hmac import compare_digest
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from .options import HttpOptions
from .refusals import RequestError, error_response
from .work import RequestNote

# Without the token: the page asks for it itself, and who watches the process has to see it.
OPEN = ("/", "/healthz", "/readyz")
OPEN_FOLDER = "/page/"
LOOPBACK = ("localhost", "127.0.0.1", "::1")
_SAFE = ("GET", "HEAD", "OPTIONS")


class Guard:
    """Turns away who may not ask, before anything is read.

    Args:
        app: what is guarded.
        options: token, hosts and origins.
    """

    def __init__(self, app: ASGIApp, options: HttpOptions) -> None:
        self._app, self._options = app, options
        self._wanted = options.token.encode()
        self._hosts = {*LOOPBACK, *(host.lower() for host in options.allowed_hosts)}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """As ASGI has it."""
        if scope["type"] != "http" or (refusal := self._refusal(scope)) is None:
            await self._app(scope, receive, send)
            return
        note = scope["matmamba.note"]
        assert isinstance(note, RequestNote)
        await error_response(refusal, note.request_id)(scope, receive, send)

    def _refusal(self, scope: Scope) -> RequestError | None:
        headers = Headers(scope=scope)
        if self._options.token:
            return None if self._is_open(scope["path"]) or self._bears_token(headers) else _unauthorised()
        host = _name(headers.get("host", ""))
        if host not in self._hosts:
            return RequestError("bad_request", f"host {host[:200]!r} is no name of this service", status=421)
        if scope["method"] not in _SAFE and self._from_elsewhere(headers):
            return RequestError(
                "unauthorised", "a page of another origin may not change or ask here", status=403
            )
        return None

    def _is_open(self, path: str) -> bool:
        root = self._options.root_path
        path = path.removeprefix(root) if root and path.startswith(f"{root}/") else path
        return path in OPEN or path.startswith(OPEN_FOLDER)

    def _bears_token(self, headers: Headers) -> bool:
        scheme, _, given = headers.get("authorization", "").partition(" ")
        known = compare_digest(given.encode("utf-8", "replace"), self._wanted)
        return known and scheme.lower() == "bearer"

    def _from_elsewhere(self, headers: Headers) -> bool:
        """Whether a browser sends this for a page of another origin, which its user may know nothing of."""
        origin, site = headers.get("origin", ""), headers.get("sec-fetch-site", "")
        if origin and origin in self._options.cors:
            return False
        if site:
            return site not in ("same-origin", "none")
        return bool(origin) and urlsplit(origin).netloc.lower() != headers.get("host", "").lower()


def _name(host: str) -> str:
    """Of a Host header, without its port."""
    try:
        return (urlsplit(f"//{host}").hostname or "").lower()
    except ValueError:
        return ""


def _unauthorised() -> RequestError:
    challenge = {"WWW-Authenticate": 'Bearer realm="matmamba"'}
    return RequestError("unauthorised", "this needs the token: Authorization: Bearer ...", headers=challenge)
