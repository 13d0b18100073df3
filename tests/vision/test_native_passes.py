"""The backend "native": its passes equal their definitions, outputs and gradients, wherever they serve."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from matmamba_common.native import loading
from matmamba_vision import MatMamba
from matmamba_vision.native import Library, why_missing
from matmamba_vision.ops import BackendError, Setting, chunked, native, reference, resolve, ssd
from matmamba_vision.ops.chunked import separable
from matmamba_vision.ops.native import convolve_and_gate, scan
from torch import Tensor

built = pytest.mark.skipif(why_missing() is not None, reason=f"no kernels: {why_missing()}")

NAMES = ["avx512", "avx2", "neon"]
# Largest difference from float64, over the largest value: gradients of a norm over 3 channels nearly cancel.
TOLERANCE = 2e-5
# Of the scan: the gradient of a rate gathers what the decays of a whole sequence leave of sums.
SCAN_TOLERANCE = 1e-4
EPSILON = 1e-5
# Batch, tokens, channel dimensions, taps: of neither vectors, bands nor steps a multiple, and of all of them.
SHAPES: list[tuple[int, int, tuple[int, ...], int]] = [
    (2, 9, (3, 4), 4),
    (2, 2, (6,), 4),
    (1, 1, (3,), 4),
    (3, 197, (16, 16), 4),
    (2, 30, (133,), 7),
    (5, 17, (200,), 1),
    (2, 13, (5,), 8),
    (1, 70, (8, 33), 2),
]
each_shape = pytest.mark.parametrize(("batch", "length", "channels", "taps"), SHAPES)
Pass = Callable[..., Tensor]


def convolution_inputs(batch: int, length: int, channels: tuple[int, ...], taps: int) -> list[Tensor]:
    generator = torch.Generator().manual_seed(length)
    shapes = ((batch, length, *channels), (*channels, taps), channels)
    return [torch.randn(shape, generator=generator).requires_grad_() for shape in shapes]


def gate_inputs(batch: int, length: int, channels: tuple[int, ...]) -> list[Tensor]:
    generator = torch.Generator().manual_seed(length)
    shapes = ((batch, length, *channels), (batch, length, *channels), channels)
    return [torch.randn(shape, generator=generator).requires_grad_() for shape in shapes]


def gate(inputs: list[Tensor]) -> Tensor:
    y, z, weight = inputs
    return native.gated_rms_norm(y, z, weight, EPSILON)


def gate_reference(inputs: list[Tensor]) -> Tensor:
    y, z, weight = inputs
    return reference.gated_rms_norm_reference(y, z, weight, EPSILON)


def output_and_gradients(call: Callable[[list[Tensor]], Tensor], inputs: list[Tensor]) -> list[Tensor]:
    y = call(inputs)
    weight = torch.randn(y.shape, generator=torch.Generator().manual_seed(1)).to(y.dtype)
    return [y, *torch.autograd.grad(y, inputs, weight)]


def assert_equal_definition(
    call: Callable[[list[Tensor]], Tensor],
    definition: Callable[[list[Tensor]], Tensor],
    inputs: list[Tensor],
    tolerance: float = TOLERANCE,
) -> None:
    wide = [tensor.detach().double().requires_grad_() for tensor in inputs]
    pairs = zip(output_and_gradients(call, inputs), output_and_gradients(definition, wide), strict=True)
    for found, wanted in pairs:
        assert found.shape == wanted.shape
        # A gradient that is exactly 0, as that of a rate for one token, is found up to rounding.
        assert (found - wanted).abs().max() <= tolerance * wanted.abs().max().clamp(min=0.1)


@pytest.fixture(params=NAMES)
def every_set(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each instruction set of this processor in turn."""
    try:
        kernels = Library(instructions=request.param)
    except OSError:
        pytest.skip(f"this processor has no {request.param}")
    for module in (convolve_and_gate, scan):
        monkeypatch.setattr(module, "library", lambda: kernels)


@pytest.fixture
def missing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """As if the library had not been built."""
    monkeypatch.setattr(loading, "FILE", tmp_path / "none.so")
    resolve.cache_clear()
    yield
    resolve.cache_clear()


@pytest.fixture
def unused(monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernels are there, and an error for whoever calls them."""

    def refuse(*arguments: Any) -> None:
        raise AssertionError("the kernels were called")

    for name in ("convolve", "gate", "weigh", "end_scan"):
        monkeypatch.setattr(Library, name, refuse)


@built
@pytest.mark.usefixtures("every_set")
@each_shape
def test_convolution_equals_its_definition(
    batch: int, length: int, channels: tuple[int, ...], taps: int
) -> None:
    inputs = convolution_inputs(batch, length, channels, taps)
    assert_equal_definition(
        lambda inputs: native.conv_silu(*inputs),
        lambda inputs: reference.conv_silu_reference(*inputs),
        inputs,
    )


@built
@pytest.mark.usefixtures("every_set")
@each_shape
def test_gate_and_norm_equal_their_definition(
    batch: int, length: int, channels: tuple[int, ...], taps: int
) -> None:
    assert_equal_definition(gate, gate_reference, gate_inputs(batch, length, channels))


def scan_inputs(batch: int, length: int, heads: int, head_dim: int, state: int) -> list[Tensor]:
    generator = torch.Generator().manual_seed(length)
    shapes = (
        (batch, length, heads, head_dim), (batch, length, heads), (heads,),
        (batch, length, state), (batch, length, state), (heads,),
    )  # fmt: skip
    x, dt, A, B, C, D = (torch.randn(shape, generator=generator) for shape in shapes)
    inputs = (x, torch.nn.functional.softplus(dt), -A.exp(), B / state**0.5, C / state**0.5, D)
    return [tensor.requires_grad_() for tensor in inputs]


def scan_by(backend: str) -> Callable[[list[Tensor]], Tensor]:
    return lambda inputs: ssd(*inputs, chunk_size=16, backend=backend)


# Batch, tokens, heads, head dim, state: those of a short sequence have no state, others do.
@built
@pytest.mark.usefixtures("every_set")
@pytest.mark.parametrize(
    "shape", [(2, 1, 3, 4, 5), (2, 13, 3, 5, 16), (3, 50, 2, 16, 64), (1, 90, 3, 33, 8), (2, 197, 4, 16, 32)]
)
def test_scan_equals_its_definition(shape: tuple[int, int, int, int, int]) -> None:
    assert_equal_definition(scan_by("native"), scan_by("reference"), scan_inputs(*shape), SCAN_TOLERANCE)


@built
@pytest.mark.parametrize("length", [30, 400])
def test_groups_of_heads_of_one_image_equal_all_heads(length: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(separable, "_GROUP_CHANNELS", 4)
    inputs = [tensor.detach() for tensor in scan_inputs(1, length, 6, 16, 32)]
    expected = scan_by("native")(inputs)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 3)
    assert separable._head_groups(inputs[0]) == 3
    torch.testing.assert_close(scan_by("native")(inputs), expected, rtol=1e-5, atol=1e-5)


@built
def test_gradients_are_those_of_finite_differences() -> None:
    """In float32: of a sum in float64 over both sides of steps that it can resolve."""
    convolution, gates = convolution_inputs(2, 6, (3,), 4), gate_inputs(2, 5, (4,))
    for call, inputs in ((lambda inputs: native.conv_silu(*inputs), convolution), (gate, gates)):
        y = call(inputs)
        weight = torch.randn(y.shape, generator=torch.Generator().manual_seed(1))
        for tensor, gradient in zip(inputs, torch.autograd.grad(y, inputs, weight), strict=True):
            for index in range(0, tensor.numel(), 5):
                found = gradient.flatten()[index].double()
                wanted = slope(lambda: (call(inputs).double() * weight).sum(), tensor, index)  # noqa: B023
                torch.testing.assert_close(found, wanted, rtol=2e-2, atol=2e-3)


@torch.no_grad()
def slope(value: Callable[[], Tensor], tensor: Tensor, index: int, step: float = 1e-2) -> Tensor:
    flat = tensor.view(-1)
    before, values = flat[index].clone(), []
    for sign in (1, -1):
        flat[index] = before + sign * step
        values.append(value())
    flat[index] = before
    return (values[0] - values[1]) / (2 * step)


@built
def test_views_are_read_as_what_they_are() -> None:
    """Every input strided, and a gradient that comes strided, too."""
    calls: list[tuple[Callable[[list[Tensor]], Tensor], list[Tensor]]] = [
        (lambda inputs: native.conv_silu(*inputs), convolution_inputs(2, 9, (3, 4), 4)),
        (gate, gate_inputs(2, 9, (3, 4))),
    ]
    for call, inputs in calls:
        strided = [
            torch.stack([tensor.detach(), tensor.detach() + 1], dim=-1)[..., 0].requires_grad_()
            for tensor in inputs
        ]
        assert not any(tensor.is_contiguous() for tensor in strided)
        y, expected = call(strided), call(inputs)
        weight = torch.randn(2, 9, 4, 3).transpose(2, 3)
        torch.testing.assert_close(y, expected, rtol=0, atol=0)
        found = torch.autograd.grad(y, strided, weight)
        wanted = torch.autograd.grad(expected, inputs, weight.contiguous())
        torch.testing.assert_close(found, wanted, rtol=0, atol=0)


@built
def test_nothing_depends_on_the_number_of_threads() -> None:
    # More numbers than one thread computes alone.
    convolution, gates = convolution_inputs(3, 197, (300,), 4), gate_inputs(3, 197, (300,))
    before, found = torch.get_num_threads(), []
    try:
        for threads in (1, 2, 3, 5):
            torch.set_num_threads(threads)
            found.append(
                output_and_gradients(lambda inputs: native.conv_silu(*inputs), convolution)
                + output_and_gradients(gate, gates)
            )
    finally:
        torch.set_num_threads(before)
    for other in found[1:]:
        assert all(map(torch.equal, found[0], other))


@built
@pytest.mark.parametrize("shape", [(0, 5, 3, 4), (2, 0, 3, 4)])
def test_nothing_gives_nothing(shape: tuple[int, ...]) -> None:
    t = torch.zeros(shape, requires_grad=True)
    for y in (
        native.conv_silu(t, torch.ones(3, 4, 4), torch.ones(3, 4)),
        native.gated_rms_norm(t, t, torch.ones(3, 4), EPSILON),
    ):
        assert y.shape == shape


@built
@pytest.mark.usefixtures("every_set")
def test_what_is_not_a_number_stays_none_and_spoils_nothing_before() -> None:
    t, kernel, bias = (tensor.detach() for tensor in convolution_inputs(2, 20, (21,), 4))
    t[1, 7, 20] = torch.nan
    y = native.conv_silu(t, kernel, bias)
    assert y[1, 7:11, 20].isnan().all()
    assert int(y.isnan().sum()) == 4
    out = native.gated_rms_norm(t, torch.ones_like(t), bias, EPSILON)
    assert out[1, 7].isnan().all()
    assert int(out.isnan().sum()) == 21


@built
@pytest.mark.usefixtures("every_set")
def test_large_numbers_overflow_nowhere_on_the_way() -> None:
    t = torch.tensor([-1e30, -200.0, -90.0, 90.0, 200.0, 1e30]).view(1, 6, 1).requires_grad_()
    y = native.conv_silu(t, torch.ones(1, 1), torch.zeros(1))
    (gradient,) = torch.autograd.grad(y.sum(), t)
    torch.testing.assert_close(y, torch.nn.functional.silu(t), rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(gradient.flatten(), torch.tensor([0.0, 0, 0, 1, 1, 1]), rtol=1e-6, atol=1e-6)


@built
def test_auto_takes_the_kernels_where_they_serve() -> None:
    assert resolve("auto", Setting()).name == "native"
    assert resolve("auto", Setting(dtype=torch.float64)).name == "chunked"
    assert resolve("auto", Setting(dtype=torch.bfloat16)).name == "chunked"
    assert resolve("auto", Setting(taps=9)).name == "chunked"


@built
@pytest.mark.parametrize(
    ("setting", "said"),
    [
        (Setting(device="cuda"), "cuda"),
        (Setting(dtype=torch.float64), "float64"),
        (Setting(taps=9), "8 taps"),
    ],
    ids=str,
)
def test_what_the_kernels_cannot_serve_is_named(setting: Setting, said: str) -> None:
    with pytest.raises(BackendError, match=rf"'native'.*{said}"):
        resolve("native", setting)


@pytest.mark.usefixtures("missing")
def test_without_the_library_there_is_one_line_of_notice_and_the_same_result(
    model: MatMamba, images: Tensor, caplog: pytest.LogCaptureFixture
) -> None:
    loading._notice.cache_clear()
    assert resolve("auto", Setting()).name == "chunked"
    with pytest.raises(BackendError, match=r"'native'.*make native"):
        resolve("native", Setting())
    found = model(images)
    model.use_backend("chunked")
    assert torch.equal(found, model(images))
    (record,) = (record for record in caplog.records if record.levelname == "WARNING")
    assert "make native" in record.message


@built
def test_a_model_trains_by_it_as_by_the_other_operations(model: MatMamba, images: Tensor) -> None:
    found = []
    for backend in ("native", "chunked"):
        model.use_backend(backend)
        model.zero_grad()
        logits = model(images)
        logits.square().sum().backward()
        found.append([logits, *(p.grad.clone() for p in model.parameters() if p.grad is not None)])
    # Of 1e-7 in each sum; gradients of the step sizes are small differences of large ones.
    for one, other in zip(*found, strict=True):
        assert (one - other).abs().max() <= 1e-3 * other.abs().max()


@built
@pytest.mark.usefixtures("unused")
def test_what_records_a_computation_never_meets_the_kernels(model: MatMamba, images: Tensor) -> None:
    from torch.fx.experimental.proxy_tensor import make_fx

    model = model.eval().requires_grad_(False)
    t, kernel, bias = (tensor.detach() for tensor in convolution_inputs(2, 9, (3, 4), 4))
    wanted = chunked.conv_silu(t, kernel, bias)
    inputs = [tensor.detach() for tensor in scan_inputs(2, 9, 3, 4, 5)]
    scanned = torch.jit.trace(lambda *inputs: scan_by("native")(list(inputs)), inputs, check_trace=False)
    torch.testing.assert_close(scanned(*inputs), scan_by("chunked")(inputs))
    recorded = [
        torch.jit.trace(native.conv_silu, (t, kernel, bias), check_trace=False),
        make_fx(native.conv_silu)(t, kernel, bias),
        torch.vmap(native.conv_silu, in_dims=(0, None, None)),
    ]
    for call in recorded[:2]:
        torch.testing.assert_close(call(t, kernel, bias), wanted)
    torch.testing.assert_close(recorded[2](t[:, None], kernel, bias)[:, 0], wanted)
    assert torch.export.export(model, (images,)).module()(images).isfinite().all()
    half = t.bfloat16()
    assert native.conv_silu(half, kernel, bias).dtype == torch.bfloat16


@built
def test_autocast_falls_back(model: MatMamba, images: Tensor) -> None:
    model.use_backend("auto")
    with torch.autocast("cpu", dtype=torch.bfloat16):
        expected = model(images)
        model.use_backend("chunked")
        assert torch.equal(model(images), expected)


@built
def test_memory_of_a_gradient_that_nobody_wants_is_not_needed() -> None:
    """Only some inputs want a gradient, as the weights of a frozen part do not."""
    t, kernel, bias = convolution_inputs(2, 9, (12,), 4)
    whole = torch.autograd.grad(native.conv_silu(t, kernel, bias).sum(), (t, kernel, bias))
    for index, tensor in enumerate((t, kernel, bias)):
        others = [other if other is tensor else other.detach() for other in (t, kernel, bias)]
        (gradient,) = torch.autograd.grad(native.conv_silu(*others).sum(), tensor)
        assert torch.equal(gradient, whole[index])
