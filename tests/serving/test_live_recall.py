"""Answers are given once more, exactly: what that says of each width, and that bad ones are left out."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import matmamba_vision as mv
import numpy as np
from matmamba_vision.serving.events import Checked, Widened
from matmamba_vision.serving.quality import DEPTH, ENOUGH
from matmamba_vision.serving.question import LiveRecall, Question, Reply
from matmamba_vision.serving.service import Service

from .conftest import picture

QUERIES = 40
Serve = Callable[..., Service]


def ask(service: Service, number: int, **asked: Any) -> Reply:
    image, deadline = picture(3000 + number), time.monotonic() + 60
    known: dict[str, Any] = {"gallery": "pictures", "deadline": deadline, "image": image}
    return service.submit(Question(**known | asked)).result(60)


def until(is_so: Callable[[], bool]) -> None:
    end = time.monotonic() + 30
    while not is_so():
        assert time.monotonic() < end
        time.sleep(0.01)


def recall(service: Service, width: str) -> LiveRecall | None:
    known = service.status()["recall"][width]
    return None if known is None else LiveRecall(**known)


def test_every_width_is_compared_with_the_exact_answer(folder: Path, serve: Serve) -> None:
    service, events = serve(folder, quality_share=1.0), list[Checked]()
    service.on_event(lambda event: events.append(event) if isinstance(event, Checked) else None)
    shares, firsts = list[float](), list[bool]()
    with mv.open_gallery(folder) as gallery:
        for number in range(QUERIES):
            exact, small = (
                [hit.id for hit in gallery.search(picture(3000 + number), DEPTH, query_width=width)]
                for width in ("full", "1/4")
            )
            shares.append(len({*exact} & {*small}) / DEPTH)
            firsts.append(exact[0] == small[0])
    for number in range(QUERIES):
        for width in ("full", "1/4"):
            ask(service, number, width=width)
    until(lambda: len(events) == 2 * QUERIES)
    small_recall, full_recall = recall(service, "1/4"), recall(service, "full")
    assert small_recall is not None
    assert full_recall is not None
    assert small_recall.samples == full_recall.samples == QUERIES
    assert abs(small_recall.estimate - np.mean(shares)) < 1e-9
    assert abs(small_recall.same_first - np.mean(firsts)) < 1e-9
    assert full_recall.estimate == full_recall.same_first == 1
    assert small_recall.low < small_recall.estimate < small_recall.high
    assert recall(service, "1/2") is None
    # What is known is told with the next answer.
    assert ask(service, 0, width="1/4").recall == small_recall


def test_only_a_share_is_compared_and_only_images(folder: Path, serve: Serve) -> None:
    service, events = serve(folder, quality_share=0.1), list[Checked]()
    service.on_event(lambda event: events.append(event) if isinstance(event, Checked) else None)
    for number in range(50):
        ask(service, number, width="1/4")
        ask(service, number, image=None, id="picture 1")
    until(lambda: len(events) >= 5)
    time.sleep(0.3)
    assert len(events) == 5
    assert {event.width for event in events} == {"1/4"}


def test_a_width_below_the_floor_is_left_out_and_said(folder: Path, serve: Serve) -> None:
    service, widened = serve(folder, quality_share=1.0, quality_floor=1.0), list[Widened]()
    service.on_event(lambda event: widened.append(event) if isinstance(event, Widened) else None)
    for number in range(ENOUGH + 5):
        ask(service, number, width="1/4")
    until(lambda: len(widened) == 1)
    assert widened[0].min_width == service.status()["min_width"] == "1/2"
    assert "1/4" in service.status()["notices"][0]
    assert service.describe("pictures")["min_width"] == "1/2"
    # It is still compared with each answer, so that it can come back; asked for by name, it answers.
    trial = recall(service, "1/4")
    assert trial is not None
    ask(service, 0, width="full")

    def is_tried() -> bool:
        known = recall(service, "1/4")
        return known is not None and trial is not None and known.samples > trial.samples

    until(is_tried)
    assert ask(service, 0, width="1/4").width == "1/4"
    assert ask(service, 0, min_width="1/4").width != "1/4"
