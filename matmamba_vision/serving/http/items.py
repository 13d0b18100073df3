"""Galleries, their images and small pictures of these, by id."""

from __future__ import annotations

from pathlib import Path, PurePath
from typing import Annotated, Any

from fastapi import Query
from matmamba_retrieval import Plan, Row
from matmamba_retrieval.strategies.searchable import Searchable
from starlette.requests import Request
from starlette.responses import Response

from ...galleries.plan_trials import kept_trials
from ...galleries.strategies import strategy_text
from ...upkeep.contents import keys_where
from .refusals import RequestError, json_response
from .schemas import LONGEST_CONDITION, LONGEST_ID
from .thumbnails import Thumbnails
from .work import Front, RequestNote

MOST_ITEMS = 1000
# The file of a run that a gallery names.
CHECKPOINT = "model.safetensors"
# Seconds for which a browser need not ask again.
FRESH = 600
AnyId = Annotated[str, Query(min_length=1, max_length=LONGEST_ID)]
Condition = Annotated[str, Query(max_length=LONGEST_CONDITION)]


class ItemRoutes:
    """The routes that read.

    Args:
        front: the service as routes see it.
    """

    def __init__(self, front: Front) -> None:
        self._front, self._thumbnails = front, Thumbnails(front.options.limits)

    async def galleries(self) -> Response:
        """All galleries that are served."""
        self._front.require_ready()
        names = self._front.service.names()
        found = await self._front.readers.run(lambda: [self._described(name) for name in names])
        return json_response({"galleries": found})

    async def gallery(self, gallery: str, request: Request) -> Response:
        """What a gallery holds, and what its widths cost."""
        name = self._named(gallery, request)
        return json_response(await self._front.readers.run(lambda: self._described(name)))

    def _described(self, name: str) -> dict[str, Any]:
        found = self._front.service.describe(name)
        return found | {"model": model_name(found["model"])}

    async def plan(self, gallery: str, request: Request) -> Response:
        """What the gallery's plan measured; no points without a plan."""
        name = self._named(gallery, request)
        return json_response(await self._front.readers.run(lambda: self._plan(name)))

    def _plan(self, name: str) -> dict[str, Any]:
        with self._front.reading(name) as gallery:
            return plan_report(gallery)

    async def items(
        self,
        gallery: str,
        request: Request,
        offset: Annotated[int, Query(ge=0)] = 0,
        limit: Annotated[int, Query(ge=1, le=MOST_ITEMS)] = 100,
        where: Condition = "",
    ) -> Response:
        """A page of the images that fulfil a condition, in the order in which they were added."""
        name = self._named(gallery, request)
        return json_response(await self._front.readers.run(lambda: self._page(name, offset, limit, where)))

    def _page(self, name: str, offset: int, limit: int, where: str) -> dict[str, Any]:
        with self._front.reading(name) as gallery:
            keys = keys_where(gallery, where)
            rows = gallery.rows(keys[offset : offset + limit])
        last = offset + len(rows)
        return {
            "items": [item_body(row) for row in rows],
            "next_offset": last if rows and last < len(keys) else None,
            "count": len(keys),
        }

    async def item(self, gallery: str, request: Request, id: AnyId) -> Response:
        """What is known about an image."""
        name = self._named(gallery, request)
        row = await self._front.readers.run(lambda: self._row(name, id))
        return json_response(item_body(row))

    async def thumbnail(
        self, gallery: str, request: Request, id: AnyId, size: Annotated[int, Query(ge=16, le=1024)] = 256
    ) -> Response:
        """A JPEG of an image, its longer side `size` pixels at most, and never larger than the image."""
        name = self._named(gallery, request)
        known = request.headers.get("if-none-match", "")
        return await self._front.readers.run(lambda: self._picture(name, id, size, known))

    def _picture(self, name: str, id: str, size: int, known: str) -> Response:
        path = self._row(name, id).path
        tag = self._thumbnails.tag(path, size) if path else ""
        kept = {"ETag": f'"{tag}"', "Cache-Control": f"private, max-age={FRESH}"}
        if tag and f'"{tag}"' in known:
            return Response(status_code=304, headers=kept)
        found = self._thumbnails.get(path, size) if tag else None
        if found is None:
            raise RequestError("not_found", f"the picture of {id!r} is gone, or was never a file here")
        return Response(found.content, headers=kept, media_type="image/jpeg")

    def _row(self, name: str, id: str) -> Row:
        with self._front.reading(name) as gallery:
            known = gallery.keys_of([id])
            if id not in known:
                raise RequestError("not_found", f"{name} has no image of id {id!r}")
            return gallery.rows([known[id]])[0]

    def _named(self, gallery: str, request: Request) -> str:
        name = RequestNote.of(request).gallery = self._front.require_gallery(gallery)
        return name


def model_name(place: str) -> str:
    """What a model is called: where its files lie is nobody's business.

    Args:
        place: as a gallery names it: a path, or a name such as timm:resnet50.
    """
    path = PurePath(place)
    if not path.is_absolute():
        return place
    return path.parent.name if path.name == CHECKPOINT else path.name


def item_body(row: Row) -> dict[str, Any]:
    """An image of a gallery as JSON holds it: its path is nobody's business."""
    return {"id": row.id, "label": row.label, "metadata": dict(row.metadata)}


def plan_report(gallery: Searchable) -> dict[str, Any]:
    """What was tried for a gallery's plan, or the choice alone where nobody kept the rest."""
    if not (stored := gallery.plan):
        return {"points": [], "chosen": ""}
    plan = Plan.from_json(stored)
    name = strategy_text(plan.strategy)
    return {"points": kept_trials(Path(gallery.folder), plan) or [_choice(name, plan)], "chosen": name}


def _choice(name: str, plan: Plan) -> dict[str, Any]:
    costs = {cost: plan.measured.get(cost, 0.0) for cost in ("ms", "gmacs", "recall")}
    return {"name": name, "width": plan.strategy.query_width, **costs, "chosen": True, "front": True}
