"""What a gallery answers, as values, and what it spent."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any, overload

from matmamba_common.settings import require
from matmamba_retrieval import Plan, Row, Strategy
from matmamba_retrieval.strategies.hits import Cost
from PIL import Image

from ..errors import ConfigError
from ..public_call import public_call
from .strategies import settings_of


@dataclass(frozen=True, kw_only=True)
class Hit:
    """An image that was found.

    Attributes:
        id: of the image in its gallery.
        path: of its file, or "file#name" in a larger one; "" if it was in memory when it was indexed.
        label: its class, None if it has none.
        score: cosine similarity of full-length embeddings, at most 1.
        rank: 1 for the best.
        metadata: what else is known about it.
    """

    id: str
    path: str
    label: str | None
    score: float
    rank: int
    metadata: Mapping[str, Any] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """As JSON holds it; the score is not rounded."""
        row = Row(self.id, self.path, self.label, self.metadata)
        return {"rank": self.rank, "score": self.score, **row_of(row)}


@dataclass(frozen=True, kw_only=True)
class Answer(Sequence[Hit]):
    """To one query: a sequence of hits, best first.

    Attributes:
        query: what the query is called.
        hits: the images that were found.
        strategy: that was followed.
        plan: stored with the gallery, if the strategy is that one's.
        cost: what it spent, per query of those that were asked together; milliseconds by stage.
        encoded_by: what computed each width that the query was encoded at, such as "native (avx512)".
        reason: why there are fewer hits than asked for, "" if there are not.
        error: why the query could not be read, "" if it could.
        by_full_width: whether the scores are of the full-width query; a gate can let the small one answer.
        source: path, file or pixels of the query's image, "" for a vector or a text.
        text: that was asked with, alone or together with the query; "" for none.
    """

    query: str
    hits: tuple[Hit, ...] = ()
    strategy: Strategy
    plan: Plan | None = None
    cost: Cost = field(default_factory=Cost)
    encoded_by: Mapping[str, str] = field(default_factory=dict)
    reason: str = ""
    error: str = ""
    by_full_width: bool = True
    source: str | bytes | Image.Image = field(default="", repr=False)
    text: str = ""

    def __len__(self) -> int:
        return len(self.hits)

    @overload
    def __getitem__(self, place: int) -> Hit: ...

    @overload
    def __getitem__(self, place: slice) -> tuple[Hit, ...]: ...

    def __getitem__(self, place: int | slice) -> Hit | tuple[Hit, ...]:
        return self.hits[place]

    @property
    def heading(self) -> str:
        """What was asked with: the query's name, and the text that it was joined with."""
        return f"{self.query} + {self.text!r}" if self.text not in ("", self.query) else self.query

    def to_dict(self) -> dict[str, Any]:
        """As JSON holds it."""
        asked = {"query": self.query} | ({"text": self.text} if self.text else {})
        if self.error:
            return {**asked, "error": self.error, "hits": []}
        hits = [hit.to_dict() for hit in self.hits]
        found = {**asked, "by_full_width": self.by_full_width, "hits": hits}
        return found | ({"reason": self.reason} if self.reason else {})


@public_call
def answers_to_dict(answers: Answer | Sequence[Answer]) -> dict[str, Any]:
    """Answers of one search as JSON holds them, with their strategy and what a query spent.

    Args:
        answers: one, or several.

    Raises:
        ConfigError: there is none.
        TypeError: it is none.
    """
    listed = listed_answers(answers)
    if not listed:
        raise ConfigError("answers is empty: a search has one answer or more")
    return {
        "strategy": settings_of(listed[0].strategy),
        "cost": cost_of(mean_cost(listed)),
        "encoded_by": {width: by for answer in listed for width, by in answer.encoded_by.items()},
        "answers": [answer.to_dict() for answer in listed],
    }


def listed_answers(answers: Answer | Iterable[Answer]) -> list[Answer]:
    """Answers of a search, one or several, in a list; `TypeError` if one is something else."""
    # An answer is a sequence, too: of hits.
    require("answers", answers, Answer | Iterable[Answer])
    listed = [answers] if isinstance(answers, Answer) else list(answers)
    for place, answer in enumerate(listed):
        require(f"answers[{place}]", answer, Answer)
    return listed


def mean_cost(answers: Iterable[Answer]) -> Cost:
    """What a query spent, on the average of those that could be read."""
    asked = [answer for answer in answers if not answer.error]
    spent, mean = Cost(), Cost()
    # Queries that were asked together share a cost.
    for _, together in groupby(asked, key=lambda answer: id(answer.cost)):
        members = list(together)
        spent.add(members[0].cost, len(members))
    mean.add(spent, 1 / max(1, len(asked)))
    return mean


def cost_of(cost: Cost) -> dict[str, Any]:
    """What was spent per query, for JSON; `macs` and `ms` by stage."""
    return {
        "encoder_gmacs": cost.macs / 1e9,
        "candidates": cost.candidates,
        "bytes_read": cost.bytes_read,
        "macs": {"encode": cost.macs, **cost.search_macs},
        "ms": {stage: round(value, 3) for stage, value in cost.ms.items()},
    }


def spent_text(cost: Cost) -> str:
    """Milliseconds and multiply-adds by stage."""
    macs = {"encode": cost.macs, **cost.search_macs}
    stages = [
        f"{stage} {ms:.2f} ms, {macs.get(stage, 0.0) / 1e6:,.3f} MMACs" for stage, ms in cost.ms.items()
    ]
    return "; ".join(stages) or "nothing"


def row_of(row: Row) -> dict[str, Any]:
    """An image of a gallery, for JSON."""
    shown = {"id": row.id, "path": row.path, "label": row.label}
    return shown | ({"metadata": dict(row.metadata)} if row.metadata else {})
