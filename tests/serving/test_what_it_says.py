"""What a service says: of settings that cannot be, of a question that cannot be asked, of where time went."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from matmamba_vision.errors import ConfigError, MatMambaError
from matmamba_vision.serving.question import Question, Reply
from matmamba_vision.serving.service import Service
from matmamba_vision.serving.settings import Settings

from .conftest import picture

Serve = Callable[..., Service]


def ask(service: Service, **asked: Any) -> Reply:
    return service.submit(Question(gallery="pictures", deadline=time.monotonic() + 60, **asked)).result(60)


def test_a_text_that_nothing_encodes_is_told_without_the_place_of_the_model(
    folder: Path, serve: Serve
) -> None:
    with pytest.raises(MatMambaError, match=r"^pictures has no text tower"):
        ask(serve(folder), text="a cat")


def test_an_answer_says_where_its_time_went(folder: Path, serve: Serve) -> None:
    ms = dict(ask(serve(folder), image=picture(0)).ms)
    total = ms.pop("total")
    assert list(ms)[:3] == ["prepare", "queue", "encode"]
    assert min(ms["prepare"], ms["encode"]) > 0
    assert sum(ms.values()) <= total


@pytest.mark.parametrize(
    "bad",
    [
        {"slo_ms": 0}, {"slo_ms": float("inf")}, {"workers": -1}, {"quality_share": 2}, {"max_batch_size": 0},
        {"max_wait_ms": float("nan")}, {"min_width": 0.5}, {"writable": "yes"}, {"max_queue": 1.5},
    ],
)  # fmt: skip
def test_settings_that_cannot_be_are_named(bad: dict[str, Any]) -> None:
    with pytest.raises((ConfigError, TypeError), match=next(iter(bad))):
        Settings(**bad)
