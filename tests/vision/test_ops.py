"""The choice of a backend, and the scan at its edges."""

from __future__ import annotations

import resource
from collections.abc import Callable

import pytest
import torch
from matmamba_vision import MatMamba
from matmamba_vision.native import why_missing
from matmamba_vision.ops import BackendError, Setting, chunked, linear, reference, resolve, ssd
from matmamba_vision.ops.chunked import separable
from matmamba_vision.ops.chunked.masked import ssd_masked
from matmamba_vision.ops.chunked.quadratic import ssd_quadratic
from matmamba_vision.ops.chunked.separable import chunk_slices, running_steps, spans, ssd_separable


def zeros(batch: int, length: int) -> list[torch.Tensor]:
    return [
        torch.zeros(batch, length, 2, 4),
        torch.ones(batch, length, 2),
        -torch.ones(2),
        torch.zeros(batch, length, 3),
        torch.zeros(batch, length, 3),
        torch.ones(2),
    ]


def test_auto_takes_the_best_on_a_cpu_and_says_so(caplog: pytest.LogCaptureFixture) -> None:
    best = "chunked" if why_missing() else "native"
    with caplog.at_level("INFO"):
        assert resolve("auto", Setting(head_dim=12)).name == best
        assert resolve("auto", Setting(head_dim=12, dtype=torch.float64)).name == "chunked"
    assert best in caplog.text
    assert "not native: its kernels take float32, not float64" in caplog.text


def test_an_unknown_backend_is_named() -> None:
    with pytest.raises(BackendError, match=r"'fast'.*chunked"):
        resolve("fast", Setting())


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


def random_inputs(length: int, dtype: torch.dtype = torch.float64) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(length)
    shapes = ((2, length, 3, 4), (2, length, 3), (3,), (2, length, 5), (2, length, 5), (3,))
    x, dt, A, B, C, D = (torch.rand(shape, generator=generator, dtype=dtype) for shape in shapes)
    return [tensor.requires_grad_() for tensor in (x, dt, -A, B, C, D)]


WAYS: tuple[Callable[..., torch.Tensor], ...] = (ssd_separable, ssd_quadratic, ssd_masked)


@pytest.mark.parametrize("length", [1, 5, 6, 7, 21, 48])
def test_all_ways_of_the_chunked_scan_agree(length: int) -> None:
    inputs = random_inputs(length)
    results = []
    for scan in WAYS:
        y = scan(*inputs, 6)
        weight = torch.linspace(-1, 1, y.numel(), dtype=y.dtype).view_as(y)
        results.append((y, *torch.autograd.grad((y * weight).sum(), inputs)))
    torch.testing.assert_close(results[0], results[2], rtol=1e-11, atol=1e-11)
    torch.testing.assert_close(results[1], results[2], rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("scan", WAYS)
def test_gradients_are_those_of_finite_differences(scan: Callable[..., torch.Tensor]) -> None:
    assert torch.autograd.gradcheck(lambda *inputs: scan(*inputs, 3), random_inputs(7))


def test_a_head_that_is_not_a_number_spoils_no_other() -> None:
    x, dt, A, B, C, D = (tensor.detach() for tensor in random_inputs(20))
    expected = ssd(x, dt, A, B, C, D, backend="reference")
    A[1] = float("nan")
    y = ssd(x, dt, A, B, C, D, chunk_size=8, backend="chunked")
    torch.testing.assert_close(y[:, :, [0, 2]], expected[:, :, [0, 2]])
    assert y[:, 1:, 1].isnan().all()


def test_views_are_read_as_what_they_are() -> None:
    """Every input strided, as a width's leading heads or half of a projection are."""
    inputs = [tensor.detach() for tensor in random_inputs(20)]
    strided = [torch.stack([tensor, tensor + 1], dim=-1)[..., 0] for tensor in inputs]
    assert not strided[0].is_contiguous()
    for backend in ("chunked", "reference"):
        torch.testing.assert_close(
            ssd(*strided, chunk_size=8, backend=backend), ssd(*inputs, backend=backend)
        )


POINTWISE = {
    "conv_silu": ((2, 9, 3, 4), (3, 4, 4), (3, 4)),
    "conv_silu short": ((2, 2, 6), (6, 4), (6,)),
    "gated_rms_norm": ((2, 9, 3, 4), (2, 9, 3, 4), (3, 4)),
}


@pytest.mark.parametrize("name", POINTWISE)
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 1e-5)], ids=str)
def test_what_stands_beside_the_scan_equals_its_definition(
    name: str, dtype: torch.dtype, tolerance: float
) -> None:
    generator = torch.Generator().manual_seed(0)
    inputs = [torch.randn(shape, generator=generator, dtype=dtype) for shape in POINTWISE[name]]
    inputs = [tensor.requires_grad_() for tensor in inputs]
    name = name.split()[0]
    more = (1e-5,) if name == "gated_rms_norm" else ()
    results = []
    for function in (getattr(chunked, name), getattr(reference, f"{name}_reference")):
        y = function(*inputs, *more)
        results.append((y, *torch.autograd.grad(y.square().sum(), inputs)))
    torch.testing.assert_close(*results, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("shape", [(0, 5, 3, 4), (2, 0, 3, 4)])
def test_nothing_is_convolved_and_normalised_to_nothing(shape: tuple[int, ...]) -> None:
    t = torch.zeros(shape)
    assert chunked.conv_silu(t, torch.ones(3, 4, 4), torch.ones(3, 4)).shape == shape
    assert chunked.gated_rms_norm(t, t, torch.ones(3, 4), 1e-5).shape == shape


def test_autocast_changes_the_precision_and_not_the_result(model: MatMamba, images: torch.Tensor) -> None:
    with torch.autocast("cpu", dtype=torch.bfloat16):
        half = model(images)
        half.float().square().sum().backward()
    assert (half.float() - model(images)).abs().max() < 2e-2 * half.abs().max()
    gradients = [parameter.grad for parameter in model.parameters()]
    assert all(gradient is not None and gradient.isfinite().all() for gradient in gradients)


@torch.no_grad()
def test_memory_grows_linearly_with_length() -> None:
    """A 32,768 x 32,768 matrix of one head alone would take 4 GiB; the whole scan stays far below that."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    ssd(*zeros(1, 32_768), backend="chunked")
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 1 * 2**20


@torch.no_grad()
@pytest.mark.parametrize("shape", [(1, 1025, 64, 1024), (3, 343, 1024, 64), (2, 7, 16, 8)], ids=str)
def test_a_product_is_the_same_by_either_library(shape: tuple[int, ...]) -> None:
    """Odd lengths, large and small; cut weights give to the bit what a copy gives, as extraction needs."""
    batch, length, dim, channels = shape
    generator = torch.Generator().manual_seed(0)
    t = torch.randn(batch, length, dim, generator=generator)
    weight = torch.randn(channels, dim + 8, generator=generator)[:, :dim] / dim**0.5
    bias = torch.randn(channels, generator=generator)
    y = linear(t, weight, bias)
    assert y.is_contiguous()
    assert torch.equal(y, linear(t, weight.contiguous(), bias))
    torch.testing.assert_close(y, torch.nn.functional.linear(t, weight, bias), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("length", [1, 8, 13, 16, 31])
def test_spans_are_those_of_the_chunks(length: int) -> None:
    generator = torch.Generator().manual_seed(length)
    dt, A = torch.rand(2, length, 3, generator=generator), -torch.rand(3, generator=generator)
    wanted = torch.stack([dt[:, tokens].sum(1).amax(0) for tokens in chunk_slices(length, 8)]).amax(0) * -A
    torch.testing.assert_close(spans(running_steps(dt), A, 8), wanted)


@pytest.mark.parametrize("decay", [1.0, 8.0, 12.0, 30.0])
def test_short_sequences_of_any_decay_equal_the_definition(decay: float) -> None:
    """Chunks of twice the size, of the size, and some heads by a matrix: 8 tokens span 8 times `decay`."""
    x, dt, A, B, C, D = (tensor.detach() for tensor in random_inputs(12))
    dt, A = torch.ones_like(dt), -torch.tensor([decay, decay / 2, 0.1], dtype=A.dtype)
    y = ssd(x, dt, A, B, C, D, chunk_size=8, backend="chunked")
    torch.testing.assert_close(y, ssd(x, dt, A, B, C, D, backend="reference"), rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("scan", [ssd_separable, ssd_quadratic])
def test_groups_of_heads_equal_all_heads(
    scan: Callable[..., torch.Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A single image on several threads: six heads in three groups, as many as divide them."""
    monkeypatch.setattr(separable, "_GROUP_CHANNELS", 4)
    inputs = [tensor.detach() for tensor in random_inputs(20)]
    x, dt, B, C = (
        torch.cat([t, t + 0.1], dim=2) if t.dim() > 2 else t for t in (inputs[i][:1] for i in (0, 1, 3, 4))
    )
    A, D = (torch.cat([inputs[i], inputs[i] * 0.9]) for i in (2, 5))
    expected = scan(x, dt, A, B, C, D, 6)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 5)
    assert separable._head_groups(x) == 3
    torch.testing.assert_close(scan(x, dt, A, B, C, D, 6), expected, rtol=1e-12, atol=1e-12)
    assert separable._head_groups(x.expand(2, -1, -1, -1)) == 1
