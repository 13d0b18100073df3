"""Whether the service is alive, ready, and how it fares."""

from __future__ import annotations

from prometheus_client import CONTENT_TYPE_LATEST
from starlette.responses import Response

from .refusals import json_response
from .work import Front


class OperationRoutes:
    """The routes for those who run the service.

    Args:
        front: the service as routes see it.
    """

    def __init__(self, front: Front) -> None:
        self._front = front

    async def alive(self) -> Response:
        """That the process responds."""
        return json_response({"alive": True})

    async def ready(self) -> Response:
        """Whether questions are answered: once each width has answered one, and until it stops."""
        waiting = self._front.waiting_for
        return json_response({"ready": not waiting, "waiting_for": waiting}, 503 if waiting else 200)

    async def status(self) -> Response:
        """How it fares: what waits, how long answers take, the mix of widths, and how good they are."""
        return json_response(await self._front.readers.run(self._front.service.status))

    async def metrics(self) -> Response:
        """The same and more, as Prometheus reads it."""
        text = await self._front.readers.run(self._front.metrics.text)
        return Response(text, media_type=CONTENT_TYPE_LATEST)
