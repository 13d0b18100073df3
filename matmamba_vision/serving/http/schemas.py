"""Requests and responses as JSON holds them: checked when they come in, documented in OpenAPI."""

from __future__ import annotations

from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from .refusals import RequestError

MOST_QUERIES = 64
MOST_IDS = 100
MOST_DIMS = 65_536
LONGEST_TEXT, LONGEST_CONDITION, LONGEST_ID = 4_000, 10_000, 4_000
EXAMPLE: dict[str, Any] = {"k": 10, "where": "label = 'cat'", "min_width": "1/4"}
ANSWER: dict[str, Any] = {
    "request_id": "5b0f6c1d2e3a4b5c",
    "gallery": "photos",
    "version": "1.3",
    "hits": [
        {
            "rank": 1,
            "id": "cats/1.jpg",
            "label": "cats",
            "metadata": {"year": 2021},
            "score": 0.87,
            "thumbnail": "thumbnail?id=cats%2F1.jpg",
        }
    ],
    "next_offset": 1,
    "reason": "",
    "width": "1/2",
    "encoded_by": "native (avx512)",
    "sent_on": False,
    "strategy": {"name": "single-shot", "query_width": "1/2"},
    "gmacs": 0.21,
    "ms": {"decode": 0.4, "prepare": 0.6, "queue": 0.3, "encode": 5.7, "rerank": 0.1, "total": 8.0},
    "queue_position": 0,
    "recall": {"estimate": 0.93, "low": 0.9, "high": 0.95, "same_first": 0.9, "samples": 120},
}
Id = Annotated[str, Field(max_length=LONGEST_ID)]
M = TypeVar("M", bound="_Body")


class _Body(BaseModel):
    """A request's JSON: nothing in it is ignored, and nothing is taken for another type."""

    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)

    @classmethod
    def read(cls: type[M], text: bytes) -> M:
        """From JSON; empty stands for nothing said.

        Raises:
            RequestError: no JSON, an unknown key, or a value that cannot be; the message names them.
        """
        try:
            return cls.model_validate_json(text or b"{}")
        except ValidationError as error:
            raise RequestError("bad_request", _words(error)) from error


def _words(error: ValidationError) -> str:
    """The first things that are wrong, on one line."""
    found = error.errors(include_url=False, include_context=False, include_input=False)
    parts = [f"{'.'.join(map(str, one['loc'])) or 'request'}: {one['msg']}" for one in found[:3]]
    return "; ".join(parts)[:500]


class SearchBody(_Body):
    """What is asked; an image comes beside it, as a part of its own."""

    id: Id = Field("", description="of an image of the gallery that is asked with")
    text: str = Field(
        "", max_length=LONGEST_TEXT, description="what pictures should show, where that is taken"
    )
    vector: list[float] | None = Field(
        None, max_length=MOST_DIMS, description="of length 1, of the gallery's model"
    )
    like: list[Id] = Field([], max_length=MOST_IDS, description="ids that answers should be like, too")
    unlike: list[Id] = Field([], max_length=MOST_IDS, description="ids that answers should not be like")
    where: str = Field(
        "", max_length=LONGEST_CONDITION, description="condition in SQL over id, path, label and metadata"
    )
    min_score: float | None = Field(None, description="cosine similarity below which images are no hits")
    k: int = Field(10, ge=1, description="hits on a page")
    offset: int = Field(0, ge=0, description="hits before that page")
    strategy: Literal["auto", "single-shot", "shortlist", "funnel"] = "auto"
    width: str = Field(
        "", max_length=200, description="that has to encode the query; by default as load allows"
    )
    min_width: str = Field("", max_length=200, description="narrowest that may encode it")
    deadline_ms: float | None = Field(
        None, gt=0, le=600_000, description="milliseconds until it is of no use"
    )


class BatchBody(SearchBody):
    """Several questions: one for each of `queries`, or the same one for each image."""

    queries: list[SearchBody] = Field([], max_length=MOST_QUERIES)


class ItemBody(_Body):
    """What is known about one image that is added."""

    id: str = Field(min_length=1, max_length=LONGEST_ID)
    label: Annotated[str, Field(max_length=LONGEST_ID)] | None = None
    metadata: dict[str, Any] = {}


class ItemsBody(_Body):
    """Images that are added: of one its `id`, of several `items` in the order of the images."""

    id: Id = ""
    label: Annotated[str, Field(max_length=LONGEST_ID)] | None = None
    metadata: dict[str, Any] = {}
    items: list[ItemBody] = Field([], max_length=MOST_QUERIES)
    upsert: bool = Field(False, description="replace images that the gallery has")

    def listed(self) -> list[ItemBody]:
        """One for each image; `RequestError` unless either `id` or `items` says which."""
        if bool(self.id) == bool(self.items):
            raise RequestError("bad_request", "say either id, of one image, or items, of several")
        return self.items or [ItemBody(id=self.id, label=self.label, metadata=self.metadata)]


class ErrorDetail(BaseModel):
    """What went wrong."""

    code: Literal[
        "too_large", "bad_request", "not_found", "unauthorised", "overloaded", "unsupported", "read_only",
        "not_ready", "internal",
    ]  # fmt: skip
    message: str
    request_id: str


class ErrorReport(BaseModel):
    """Every response that is no success."""

    error: ErrorDetail


class ServedWidth(BaseModel):
    """A width that encodes queries."""

    width: str = Field(examples=["1/2"])
    gmacs: float
    ms: float | None = Field(description="median of one image, measured when the service started")


class GalleryReport(BaseModel):
    """A gallery that is served."""

    name: str
    images: int
    version: str
    dim: int
    model: str
    takes_text: bool
    writable: bool
    labels: bool
    fields: list[str] = Field(description="names that a condition may use")
    max_k: int
    widths: list[ServedWidth]
    strategies: list[str]
    plan: str | None
    min_width: str = Field(description='narrowest that is used while narrower ones are too bad, "" for all')
    state: Literal["ready", "no images yet"]


class GalleryReports(BaseModel):
    """All galleries."""

    galleries: list[GalleryReport]


class PlanPoint(BaseModel):
    """A strategy that was measured."""

    name: str
    ms: float
    gmacs: float
    recall: float
    width: str
    chosen: bool
    front: bool


class PlanReport(BaseModel):
    """What a plan measured."""

    points: list[PlanPoint]
    chosen: str


class StoredItem(BaseModel):
    """An image of a gallery."""

    id: str
    label: str | None
    metadata: dict[str, Any]


class StoredItems(BaseModel):
    """A page of them."""

    items: list[StoredItem]
    next_offset: int | None
    count: int


class FoundItem(StoredItem):
    """A hit."""

    rank: int
    score: float
    thumbnail: str = Field(description="relative to v1/galleries/{gallery}/")


class RecallReport(BaseModel):
    """How good answers of this width were lately."""

    estimate: float
    low: float
    high: float
    same_first: float
    samples: int


class AnswerReport(BaseModel):
    """An answer."""

    model_config = ConfigDict(json_schema_extra={"examples": [ANSWER]})

    request_id: str
    gallery: str
    version: str
    hits: list[FoundItem]
    next_offset: int | None
    reason: str = Field(description="why there are fewer hits than asked for")
    width: str = Field(description='that encoded the query, "" where nothing was encoded')
    encoded_by: str
    sent_on: bool = Field(description="whether the query was encoded at full width as well")
    strategy: dict[str, Any]
    gmacs: float
    ms: dict[str, float]
    queue_position: int
    recall: RecallReport | None


class AnswerReports(BaseModel):
    """An answer, or what went wrong, for each question."""

    answers: list[AnswerReport | ErrorReport]


class ChangeReport(BaseModel):
    """What a change did."""

    changed: int
    version: str


class StatusReport(BaseModel):
    """How the service fares; what is of the last minute is null where there was nothing."""

    ready: bool
    slo_ms: float
    queue: int = Field(description="questions that wait")
    in_flight: int = Field(description="questions under way that wait no more")
    busy_workers: int
    workers: int
    threads: int = Field(description="of each worker")
    uptime_s: float
    per_second: float = Field(description="answers in the last minute")
    p50_ms: float | None
    p95_ms: float | None
    p99_ms: float | None
    in_time: float | None = Field(description="share of what was asked in the last minute")
    shed: int = Field(description="questions that were turned away in the last minute")
    widths: dict[str, float] = Field(
        description="shares of the last minute's answers", examples=[{"full": 1}]
    )
    min_width: str = Field(description='narrowest that is used while narrower ones are too bad, "" for all')
    notices: list[str]
    recall: dict[str, RecallReport | None] = Field(description="by width")
    table: dict[str, dict[str, float]] = Field(
        description="milliseconds by width and images at once, as predicted now",
        examples=[{"full": {"1": 9}}],
    )
    galleries: dict[str, str] = Field(description="version of each", examples=[{"photos": "1.3"}])


class AliveReport(BaseModel):
    """That the process responds."""

    alive: bool


class ReadyReport(BaseModel):
    """Whether questions are answered."""

    ready: bool
    waiting_for: str = Field(description='what is missing until then, "" for nothing')
