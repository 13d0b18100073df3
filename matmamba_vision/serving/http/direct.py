"""A search finds its route at once: the layers of a framework are a seventh of what Python does for it."""

from __future__ import annotations

import re
from collections.abc import Callable

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from ...errors import MatMambaError
from .searches import SearchRoutes

_SEARCH = re.compile(r"/v1/galleries/([^/]+)/search")


class Direct:
    """Answers searches, and hands everything else on.

    Args:
        app: answers the rest; it documents searches as well, and would answer them alike.
        routes: that search.
        refuse: the response to an error that a user caused.

    Attributes:
        path: of a search, as the document has it: what metrics and logs call its route.
    """

    path = "/v1/galleries/{gallery}/search"

    def __init__(
        self, app: ASGIApp, routes: SearchRoutes, refuse: Callable[[Request, Exception], Response]
    ) -> None:
        self._app, self._routes, self._refuse = app, routes, refuse

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """As ASGI has it."""
        found = _SEARCH.fullmatch(_path(scope)) if scope.get("method") == "POST" else None
        if found is None:
            await self._app(scope, receive, send)
            return
        scope["route"], request = self, Request(scope, receive)
        try:
            response = await self._routes.search(found[1], request)
        except MatMambaError as error:
            response = self._refuse(request, error)
        await response(scope, receive, send)


def _path(scope: Scope) -> str:
    """Below the one at which a proxy shows the service, whether it took that off or not."""
    path, root = str(scope["path"]), scope.get("root_path", "")
    return path.removeprefix(root) if root and path.startswith(f"{root}/") else path
