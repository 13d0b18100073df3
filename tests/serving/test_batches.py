"""Batches: memory that does not suffice, tables of what they take, and who is encoded once more."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import matmamba_vision as mv
import numpy as np
import pytest
from matmamba_retrieval import Gallery, Gate, Plan, Strategy
from matmamba_vision.galleries import latency_table
from matmamba_vision.galleries.image_queries import ImageQueries
from matmamba_vision.galleries.latency_table import (
    AT_FIRST,
    MOST_RATIO,
    RATIOS,
    LatencyTable,
    table_of,
    time_batches,
)
from matmamba_vision.galleries.ways import way
from matmamba_vision.serving.answering import encoded, is_out_of_memory
from matmamba_vision.serving.question import Question, Reply
from matmamba_vision.serving.service import Service
from matmamba_vision.serving.trial import Crew, crews
from threadpoolctl import threadpool_info, threadpool_limits  # type: ignore[import-untyped]

from .conftest import picture

Serve = Callable[..., Service]
Floats = np.ndarray


class OutOfMemoryError(RuntimeError):
    """As PyTorch's is called."""


class SmallDevice:
    """Encodes up to some images at once."""

    def __init__(self, most: int, error: type[BaseException] = OutOfMemoryError) -> None:
        self.most, self.error, self.sizes = most, error, list[int]()

    def embed(self, images: Floats, width: str = "full") -> Floats:
        if len(images) > self.most:
            raise self.error("out of memory")
        self.sizes.append(len(images))
        return images.reshape(len(images), -1)[:, :4]

    def macs(self, width: str) -> float:
        return 1.0

    def encoded_by(self, width: str) -> str:
        return "a small device"

    def queries(self, images: Sequence[Any]) -> ImageQueries:
        return ImageQueries(self, np.stack(images))  # type: ignore[arg-type]


@pytest.mark.parametrize("error", [OutOfMemoryError, MemoryError])
def test_a_batch_without_enough_memory_is_halved(error: type[BaseException]) -> None:
    images = [np.full((1, 2, 2), number, np.float32) for number in range(13)]
    device, told = SmallDevice(4, error), list[int]()
    found = encoded(device, images, "full", told.append)  # type: ignore[arg-type]
    assert [float(one.encode("full").xq[0, 0]) for one in found] == list(range(13))
    assert sorted(device.sizes) == [3, 3, 3, 4]
    assert told[0] == 7
    assert min(told) == 3
    with pytest.raises(error):
        encoded(SmallDevice(0, error), images, "full", told.append)  # type: ignore[arg-type]


def test_other_errors_are_not_taken_for_want_of_memory() -> None:
    images = [np.zeros((1, 2, 2), np.float32)] * 4
    with pytest.raises(RuntimeError, match="out of memory"):
        encoded(SmallDevice(1, RuntimeError), images, "full", lambda _: None)  # type: ignore[arg-type]
    assert not is_out_of_memory(RuntimeError("out of memory"))


def test_a_service_that_ran_out_of_memory_encodes_less_at_once(
    folder: Path, serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    service = serve(folder, workers=1)
    version = service._served["pictures"].present
    assert version.encoder is not None
    encoder, embed = version.encoder.encoder, version.encoder.encoder.embed

    def small(images: Any, width: str = "full") -> Any:
        if len(images) > 2:
            raise OutOfMemoryError("CUDA out of memory")
        return embed(images, width)

    monkeypatch.setattr(encoder, "embed", small)
    asked = {"gallery": "pictures", "deadline": time.monotonic() + 60, "width": "full"}
    futures = [service.submit(Question(image=picture(number), **asked)) for number in range(40)]  # type: ignore[arg-type]
    replies: list[Reply] = [future.result(60) for future in futures]
    assert [reply.answer[0].id for reply in replies] == [f"picture {number}" for number in range(40)]
    assert "there is memory for" in service.status()["notices"][0]
    assert service._owner.waiting.policy.most <= 4


def test_a_table_is_between_and_beyond_what_was_measured() -> None:
    samples = {(0, 1): [0.010, 0.012, 0.011], (0, 4): [0.041], (1, 1): [0.004], (1, 2): [0.006]}
    table = table_of(("full", "1/8"), 6, samples, {(1, 2): [0.008]})
    np.testing.assert_allclose(table.typical[0], [0.011, 0.021, 0.031, 0.041, 0.05125, 0.0615])
    np.testing.assert_allclose(table.typical[1], [0.004, 0.007, 0.0105, 0.014, 0.0175, 0.021])
    # The spread of all measurements: about 12 of 11.
    assert 1.05 <= table.seconds(0, 1) / 0.011 <= 8 / 7
    assert table.seconds(0, 12) == pytest.approx(2 * table.seconds(0, 6))
    assert set(table.to_dict()["full"]) == {"1", "2", "4"}


def test_a_table_of_single_images_grows_by_these() -> None:
    table = table_of(("full",), 3, {(0, 1): [0.01]})
    np.testing.assert_allclose(table.typical[0], [0.01, 0.02, 0.03])


def test_a_disturbed_measurement_makes_no_narrow_width_slow() -> None:
    table = table_of(("full", "1/8"), 2, {(0, 1): [0.01] * 9 + [1.0], (1, 1): [0.3], (0, 2): [0.02]})
    np.testing.assert_allclose(table.typical, [[0.01, 0.02], [0.01, 0.02]])
    assert table.seconds(0, 1) <= 0.02


def test_a_disturbed_measurement_makes_no_batch_slower_than_larger_ones_or_its_images_one_by_one() -> None:
    table = table_of(("full",), 8, {(0, 1): [0.01], (0, 2): [0.09], (0, 4): [0.03], (0, 8): [0.5]})
    np.testing.assert_allclose(table.typical[0], [0.01, 0.02, 0.025, 0.03, 0.0425, 0.055, 0.0675, 0.08])


def test_a_table_follows_what_is_seen() -> None:
    table = LatencyTable(("full",), np.array([[0.01, 0.02]]), 1.0)
    assert table.seconds(0, 2) == 0.02
    for _ in range(AT_FIRST):
        table.seen(0, 1, 0.02)
    assert table.ratio == pytest.approx(2.0)
    assert table.seconds(0, 2) == pytest.approx(0.04)
    for _ in range(RATIOS):
        table.seen(0, 2, 0.015)
    assert table.ratio == pytest.approx(0.75)
    # Something that stood still for a while does not send everybody away.
    for _ in range(RATIOS):
        table.seen(0, 1, 100.0)
    assert table.ratio == MOST_RATIO


def test_measuring_keeps_to_its_time(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr(latency_table, "time", SimpleNamespace(perf_counter=lambda: now[0]))

    def run(rank: int, count: int) -> None:
        now[0] += 0.002 * count / (rank + 1)

    found = time_batches(run, 3, 16, 0.25)
    assert now[0] <= 0.3
    assert {rank for rank, _ in found} == {0, 1, 2}
    assert all(len(found[rank, 1]) >= 2 for rank in range(3))
    assert (2, 16) in found
    # Each width once, though there is no time at all.
    assert [*time_batches(run, 3, 16, 0.0)] == [(0, 1), (1, 1), (2, 1)]


def test_cores_are_shared_as_asked_or_as_measured() -> None:
    assert crews(3, 6, "cpu") == [Crew(workers=3, threads=2)]
    assert crews(4, 2, "cpu") == [Crew(workers=4, threads=1)]
    assert crews(0, 4, "cuda") == [Crew(workers=1, threads=4)]
    assert crews(0, 1, "cpu") == [Crew(workers=1, threads=1)]
    assert crews(0, 2, "cpu") == [Crew(workers=1, threads=2), Crew(workers=2, threads=1)]


def test_products_take_as_many_threads_as_a_worker_while_it_serves(folder: Path, serve: Serve) -> None:
    """Else one for each core spins beside those who compute."""

    def threads() -> set[int]:
        return {one["num_threads"] for one in threadpool_info() if one["user_api"] == "blas"}

    with threadpool_limits(2, user_api="blas"):
        service = serve(folder, workers=2, threads=2)
        assert threads() == {1}
        service.close(1.0)
        assert threads() == {2}


@pytest.mark.parametrize("kind", ["auto", "single-shot", "shortlist", "funnel"])
def test_the_way_of_a_width_encodes_once_unless_it_is_sent_on(folder: Path, kind: str) -> None:
    with Gallery(folder) as gallery:
        for width in ("full", "1/4"):
            own = way(gallery, kind, width, 5, send_on=False)
            assert {own.query_width, *own.widths} == {width} or set(own.widths) <= {width, ""}
        sent = way(gallery, kind, "1/4", 5, send_on=True)
        assert sent.query_width == "1/4"
        library = mv.open_gallery(folder).search(picture(0), 5, strategy=kind, query_width="1/4").strategy
        assert sent == library


def test_a_gate_that_was_planned_is_followed_where_there_is_time(folder: Path, serve: Serve) -> None:
    gated = Strategy.gated(width="1/4", dim=8, length=40, gate=Gate("gap", 1e30))
    with Gallery(folder, write=True) as gallery:
        gallery.save_plan(Plan(strategy=gated, spec=gallery.spec, k=5, goal="a test").to_json())
    service = serve(folder)
    asked = {"gallery": "pictures", "image": picture(0), "k": 5}
    reply = service.submit(Question(deadline=time.monotonic() + 60, width="1/4", **asked)).result(60)  # type: ignore[arg-type]
    assert reply.sent_on
    assert reply.answer.strategy == gated
    assert set(reply.answer.encoded_by) == {"1/4", "full"}
    # By the table, a second encoding would be late.
    table = service._served["pictures"].present.lanes["image"].table
    ahead = table.seconds(2, 1) + service._margin() + 0.5 * table.seconds(0, 1)
    table.typical[:] = 10.0
    table._predicted = [[10.0] * 16] * 2 + [[ahead] * 16]
    table._ratios.extend([1.0] * RATIOS)
    table.ratio = 1.0
    reply = service.submit(Question(deadline=time.monotonic() + 5, width="1/4", **asked)).result(60)  # type: ignore[arg-type]
    assert not reply.sent_on
    assert reply.answer.strategy == gated.by_small_width
    assert set(reply.answer.encoded_by) == {"1/4"}
