"""What a service is given is looked at first: an error names what cannot be, and nothing has begun."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from matmamba_vision.errors import ConfigError, MatMambaError
from matmamba_vision.serving.question import Question
from matmamba_vision.serving.service import Service
from matmamba_vision.serving.settings import Settings

from .conftest import picture

Serve = Callable[..., Service]
OTHER = object()


@pytest.mark.parametrize("name", [*Settings.__dataclass_fields__])
def test_a_setting_of_another_type_is_named(name: str) -> None:
    with pytest.raises(TypeError, match=f"^{name} is an object: it can be "):
        Settings(**{name: OTHER})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("bad", "said"),
    [
        ({"slo_ms": 0}, "slo_ms is 0"),
        ({"slo_ms": float("inf")}, "slo_ms is inf: it can be above 0"),
        ({"poll_s": float("inf")}, "poll_s is inf"),
        ({"measure_s": float("nan")}, "measure_s is nan"),
        ({"workers": -1}, "workers is -1"),
        ({"quality_share": 2}, "quality_share is 2"),
        ({"max_batch_size": 0}, "max_batch_size is 0"),
    ],
)
def test_settings_that_cannot_be_are_named(bad: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=f"^{said}"):
        Settings(**bad)


@pytest.mark.parametrize(
    ("bad", "said"),
    [
        ({"galleries": "g"}, "galleries is 'g': it can be folders by"),
        ({"galleries": {"a": 5}}, r"galleries\['a'\] is 5: it can be a path"),
        ({"galleries": {5: "g"}}, "a name of galleries is 5: it can be text"),
        ({"galleries": {"": "g"}}, "a name of galleries is empty"),
        ({"galleries": {}}, "galleries is empty"),
        ({"settings": None}, "settings is nothing: it can be a Settings"),
        ({"device": OTHER}, "device is an object: it can be text"),
    ],
)
def test_a_service_of_what_cannot_be_is_refused(bad: dict[str, Any], said: str) -> None:
    given: dict[str, Any] = {"galleries": {"a": "g"}, "settings": Settings()} | bad
    with pytest.raises((TypeError, ConfigError), match=f"^{said}"):
        Service(**given)


def test_each_call_of_a_service_names_what_is_of_another_type(folder: Path, serve: Serve) -> None:
    service, images = serve(folder, writable=True), [picture(900)]
    wrong: dict[str, Callable[[], Any]] = {
        "question": lambda: service.submit(OTHER),  # type: ignore[arg-type]
        "gallery": lambda: service.require_room(OTHER, 1.0),  # type: ignore[arg-type]
        "deadline": lambda: service.require_room("pictures", OTHER),  # type: ignore[arg-type]
        "name": lambda: service.describe(OTHER),  # type: ignore[arg-type]
        "ids": lambda: service.delete("pictures", OTHER),  # type: ignore[arg-type]
        "metadata": lambda: service.add("pictures", images, ["new"], metadata=OTHER),  # type: ignore[arg-type]
        "upsert": lambda: service.add("pictures", images, ["new"], upsert=OTHER),  # type: ignore[arg-type]
        "listener": lambda: service.on_event(OTHER),  # type: ignore[arg-type]
        "drain_s": lambda: service.close(OTHER),  # type: ignore[arg-type]
    }
    before = service.describe("pictures")
    for name, call in wrong.items():
        with pytest.raises(TypeError, match=f"^{name} is an object: it can be "):
            call()
    for value in (float("nan"), OTHER):
        with pytest.raises(ConfigError, match=r"^metadata\[0\] is no JSON: "):
            service.add("pictures", images, ["new"], metadata=[{"seen": value}])
    assert service.describe("pictures") == before


def test_what_a_question_has_of_another_type_is_named(folder: Path, serve: Serve) -> None:
    service = serve(folder)
    for name in Question.__dataclass_fields__:
        asked: dict[str, Any] = {"gallery": "pictures", "deadline": time.monotonic() + 60} | {name: OTHER}
        with pytest.raises(TypeError, match=f"^{name} is an object: it can be "):
            service.submit(Question(**asked)).result(timeout=60)


def test_a_service_starts_once(folder: Path, serve: Serve) -> None:
    service = serve(folder)
    for _ in range(2):
        with pytest.raises(MatMambaError, match=r"^a service starts once: make another one"):
            service.start()
        service.close()
