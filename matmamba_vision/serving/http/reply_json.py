"""A reply of the service as JSON holds it."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any
from urllib.parse import quote

from ...galleries.answers import Hit
from ...galleries.strategies import settings_of
from ..question import Reply


def reply_body(reply: Reply, *, gallery: str, request_id: str, offset: int) -> dict[str, Any]:
    """As JSON holds it.

    Args:
        reply: of the service.
        gallery: its name.
        request_id: of the request.
        offset: hits before this page.
    """
    answer = reply.answer
    return {
        "request_id": request_id,
        "gallery": gallery,
        "version": reply.version,
        "hits": [_hit(hit) for hit in answer.hits],
        "next_offset": offset + len(answer.hits) if reply.more and answer.hits else None,
        "reason": answer.reason,
        "width": reply.width,
        "encoded_by": answer.encoded_by.get(reply.width, ""),
        "sent_on": reply.sent_on,
        "strategy": settings_of(answer.strategy),
        "gmacs": answer.cost.macs / 1e9,
        "ms": {stage: round(value, 3) for stage, value in reply.ms.items()},
        "queue_position": reply.queue_position,
        "recall": None if reply.recall is None else asdict(reply.recall),
    }


def _hit(hit: Hit) -> dict[str, Any]:
    return {
        "rank": hit.rank,
        "id": hit.id,
        "label": hit.label,
        "metadata": dict(hit.metadata),
        "score": hit.score,
        "thumbnail": f"thumbnail?id={quote(hit.id, safe='')}",
    }
