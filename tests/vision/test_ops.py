"""The choice of a backend, and the scan at its edges."""

from __future__ import annotations

import resource

import pytest
import torch
from matmamba_vision.ops import BackendError, resolve, ssd


def zeros(batch: int, length: int) -> list[torch.Tensor]:
    return [
        torch.zeros(batch, length, 2, 4),
        torch.ones(batch, length, 2),
        -torch.ones(2),
        torch.zeros(batch, length, 3),
        torch.zeros(batch, length, 3),
        torch.ones(2),
    ]


def test_auto_takes_chunked_on_a_cpu_and_says_so(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("INFO"):
        assert resolve("auto", "cpu").name == "chunked"
    assert "chunked" in caplog.text


def test_an_unknown_backend_is_named() -> None:
    with pytest.raises(BackendError, match=r"'fast'.*chunked"):
        resolve("fast")


@pytest.mark.parametrize("backend", ["chunked", "reference"])
@pytest.mark.parametrize(("batch", "length"), [(0, 5), (2, 0), (1, 1)])
def test_nothing_and_one_token_are_lengths_too(backend: str, batch: int, length: int) -> None:
    assert ssd(*zeros(batch, length), backend=backend).shape == (batch, length, 2, 4)


def test_the_chunk_size_changes_nothing() -> None:
    generator = torch.Generator().manual_seed(0)
    x, dt = torch.randn(1, 50, 2, 4, generator=generator), torch.rand(1, 50, 2, generator=generator)
    B, C = torch.randn(2, 1, 50, 3, generator=generator)
    inputs = (x, dt, -torch.ones(2), B, C, torch.ones(2))
    results = [ssd(*inputs, chunk_size=size, backend="chunked") for size in (1, 3, 16, 50, 64)]
    for result in results:
        torch.testing.assert_close(result, results[0], rtol=1e-5, atol=1e-5)


def test_strong_decay_gives_no_nan() -> None:
    """Differences of log-decays reach thousands, where naive quotients of exponentials overflow."""
    x, dt, _, B, C, D = (tensor.requires_grad_() for tensor in zeros(1, 64))
    A = torch.full((2,), -1e4, requires_grad=True)
    y = ssd(x, dt, A, B, C, D, chunk_size=64, backend="chunked")
    gradients = torch.autograd.grad(y.sum(), (x, dt, A, B, C, D))
    assert all(tensor.isfinite().all() for tensor in (y, *gradients))


@torch.no_grad()
def test_memory_grows_linearly_with_length() -> None:
    """A 32,768 x 32,768 matrix of one head alone would take 4 GiB; the whole scan stays far below that."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    ssd(*zeros(1, 32_768), backend="chunked")
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 1 * 2**20
