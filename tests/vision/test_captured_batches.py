"""Batches by graphs: which sizes are captured, how batches are filled, and what happens where it fails."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from matmamba_vision.frozen.captured_batches import CapturedBatches, GraphMemory, UncapturedError
from played_graphs import Played
from torch import Tensor


class Doubled:
    """Work that notes the sizes of its batches."""

    def __init__(self) -> None:
        self.sizes: list[int] = []

    def __call__(self, batch: Tensor) -> Tensor:
        self.sizes.append(len(batch))
        return 2 * batch.flatten(1).sum(1, keepdim=True)


@pytest.fixture
def played() -> Played:
    return Played()


@pytest.fixture
def work() -> Doubled:
    return Doubled()


def batch_of(size: int) -> Tensor:
    return torch.arange(size * 6.0).view(size, 2, 3)


@pytest.mark.parametrize(
    ("size", "filled"),
    [(1, [1]), (2, [2]), (3, [4]), (65, [128]), (256, [256]), (257, [256, 1]), (600, [256, 256, 128])],
)
def test_batches_are_filled_up_to_a_size_that_has_a_graph(
    size: int, filled: list[int], played: Played, work: Doubled
) -> None:
    batches = CapturedBatches(work, played, "it")
    for _ in range(2):
        assert torch.equal(batches(batch_of(size)), Doubled()(batch_of(size)))
    # Each once when it is captured, and then for each batch.
    assert played.captured == len({*filled})
    assert sorted(work.sizes) == sorted([*{*filled}, *filled, *filled])


def test_a_result_is_its_own(played: Played, work: Doubled) -> None:
    batches = CapturedBatches(work, played, "it")
    first = batches(batch_of(3))
    kept = first.clone()
    batches(-batch_of(4))
    assert torch.equal(first, kept)


def test_nothing_is_captured_for_nothing_nor_within_another_capture(played: Played, work: Doubled) -> None:
    batches = CapturedBatches(work, played, "it")
    assert batches(batch_of(0)).shape == (0, 1)
    played.others_capture = True
    batches(batch_of(3))
    assert work.sizes == [0, 3]
    assert played.captured == 0


@pytest.mark.parametrize("refusal", [UncapturedError, torch.OutOfMemoryError])
def test_where_it_fails_batches_are_launched_and_one_line_says_so(
    refusal: type[Exception], played: Played, work: Doubled, caplog: pytest.LogCaptureFixture
) -> None:
    batches = CapturedBatches(work, played, "width 1/4")
    batches(batch_of(2))
    played.refuses = refusal
    for _ in range(3):
        assert torch.equal(batches(batch_of(3)), Doubled()(batch_of(3)))
    assert [record.getMessage() for record in caplog.records] == [
        "width 1/4, batches of 4: launched without a CUDA graph (not enough)"
    ]
    # As they are: unfilled. The size that was captured before goes on.
    assert work.sizes == [2, 2, 3, 3, 3]
    batches(batch_of(2))
    assert work.sizes[-1] == 2


def test_another_error_is_nobodys_to_hide(played: Played, work: Doubled) -> None:
    played.refuses = ValueError
    with pytest.raises(ValueError, match="not enough"):
        CapturedBatches(work, played, "it")(batch_of(1))


def test_threads_take_turns(played: Played, work: Doubled) -> None:
    """Two widths share the memory of graphs; no replay begins within another."""
    widths = [CapturedBatches(work, played, name) for name in ("full", "1/2")]
    batches = [batch_of(1 + number % 7) + number for number in range(60)]
    with ThreadPoolExecutor(8) as threads:
        found = list(threads.map(lambda n: widths[n % 2](batches[n]), range(60)))
    for result, batch in zip(found, batches, strict=True):
        assert torch.equal(result, Doubled()(batch))
    assert played.captured == 8


@pytest.mark.gpu
def test_a_gpu_captures_and_replays() -> None:
    memory = GraphMemory(torch.device("cuda", 0))
    weight = torch.randn(6, 5, device="cuda")
    batches = CapturedBatches(lambda batch: batch.flatten(1) @ weight, memory, "it")
    for size in (1, 3, 300, 3):
        batch = batch_of(size).cuda()
        torch.testing.assert_close(batches(batch), batch.flatten(1) @ weight)
