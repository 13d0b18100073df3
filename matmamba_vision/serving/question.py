"""What a request asks of the service, and what it is told: values, without HTTP."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ..errors import MatMambaError
from ..galleries.answers import Answer


class OverloadedError(MatMambaError):
    """It cannot be answered in time, not even by the narrowest width.

    Attributes:
        retry_after: seconds after which it may be asked again.
    """

    def __init__(self, message: str, retry_after: float) -> None:
        super().__init__(message)
        self.retry_after = retry_after


@dataclass(frozen=True, kw_only=True)
class Question:
    """One search of one gallery; images are decoded already.

    Attributes:
        gallery: its name in the service.
        image: asked with, upright RGB; None for none.
        id: of an image of the gallery that is asked with, "" for none.
        text: asked with, alone or joined with the image, "" for none.
        vector: (D,) float32 of length 1 that is asked with, None for none.
        like: ids of images of the gallery that answers should be like too.
        unlike: ids of images of the gallery that answers should not be like.
        where: condition in SQL that hits fulfil, "" for none.
        min_score: cosine similarity below which images are no hits, None for all.
        k: hits on a page.
        offset: hits before that page.
        strategy: auto, single-shot, shortlist or funnel.
        width: that has to encode the query, "" for whichever the load allows.
        min_width: narrowest that may encode it, "" for the narrowest there is.
        deadline: when it has to be answered, in seconds of `time.monotonic`.
        request_id: in logs and answers.
    """

    gallery: str
    image: Image.Image | None = None
    id: str = ""
    text: str = ""
    vector: NDArray[np.float32] | None = None
    like: tuple[str, ...] = ()
    unlike: tuple[str, ...] = ()
    where: str = ""
    min_score: float | None = None
    k: int = 10
    offset: int = 0
    strategy: str = "auto"
    width: str = ""
    min_width: str = ""
    deadline: float
    request_id: str = ""


@dataclass(frozen=True, kw_only=True)
class LiveRecall:
    """How often answers of a width had the hits of the exact one, of those that were asked again lately.

    Attributes:
        estimate: share of the first 10 hits that the exact answer at full width has, too.
        low: lower end of the Wilson interval at 95 %.
        high: upper end.
        same_first: share of answers whose first hit was the exact one.
        samples: answers that were asked again.
    """

    estimate: float
    low: float
    high: float
    same_first: float
    samples: int


@dataclass(frozen=True, kw_only=True)
class Reply:
    """What one question is told.

    Attributes:
        answer: the hits of the page, with strategy and cost.
        more: whether there are hits behind the page.
        width: that encoded the query; "" where nothing was encoded.
        sent_on: whether the query was encoded at full width as well, by a gate or to rerank.
        version: of the gallery that answered.
        queue_position: requests that were before it when it came.
        ms: milliseconds by stage: prepare (of its image, and what it asks by), queue, encode, the stages of
            the search, and total.
        recall: of this width lately, None where nothing is known yet.
    """

    answer: Answer
    more: bool
    width: str
    sent_on: bool
    version: str
    queue_position: int
    ms: Mapping[str, float] = field(default_factory=dict)
    recall: LiveRecall | None = None
