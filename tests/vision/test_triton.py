"""Triton's kernels equal the definitions: in its interpreter on a CPU, and as they are on a GPU."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest
import torch
from matmamba_vision import MatMamba
from matmamba_vision.ops import BACKENDS, BackendError, Setting, reference, resolve, ssd
from small import SMALL

triton_ssd = pytest.importorskip("matmamba_vision.ops.triton.ssd", reason="triton is not installed")
oldest = pytest.importorskip("matmamba_vision.ops.triton.oldest")
conv_and_norm_kernels = pytest.importorskip("matmamba_vision.ops.triton.conv_and_norm_kernels")

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
# Agreement with the definition in float64, relative to the largest value, by dtype.
TOLERANCE = {torch.float32: 1e-5, torch.bfloat16: 2e-2, torch.float16: 2e-3}
# A's gradient is a sum over all tokens of numbers of either sign, most of which cancel.
TOLERANCE_OF_SUMS = {torch.float32: 1e-4, torch.bfloat16: 4e-2, torch.float16: 4e-3}


def scan_inputs(
    batch: int, length: int, heads: int, head_dim: int, state_dim: int, decay: float = 1.0
) -> list[torch.Tensor]:
    """Random inputs in float64; `decay` multiplies the decay of every second head."""
    generator = torch.Generator().manual_seed(length)

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=generator, dtype=torch.float64)

    x, dt = normal(batch, length, heads, head_dim), torch.nn.functional.softplus(normal(batch, length, heads))
    A, B, C, D = -normal(heads).exp(), *normal(2, batch, length, state_dim), normal(heads)
    A[1::2] *= decay
    return [x, dt, A, B, C, D]


def outputs_and_gradients(
    function: Callable[..., torch.Tensor], inputs: list[torch.Tensor]
) -> list[torch.Tensor]:
    inputs = [tensor.detach().requires_grad_() for tensor in inputs]
    y = function(*inputs)
    # Rounded as the coarsest type does, so that every type weighs alike.
    weight = torch.linspace(-1, 1, y.numel()).bfloat16().to(y.device, y.dtype).view_as(y)
    return [y, *torch.autograd.grad((y * weight).sum(), inputs)]


def assert_as_defined(
    function: Callable[..., torch.Tensor],
    definition: Callable[..., torch.Tensor],
    inputs: list[torch.Tensor],
    dtype: torch.dtype,
    sums: tuple[int, ...] = (),
) -> None:
    """Outputs and all gradients agree; `sums` are the inputs whose gradients get the tolerance of sums."""
    given = [tensor.to(DEVICE, dtype) for tensor in inputs]
    found = outputs_and_gradients(function, given)
    wanted = outputs_and_gradients(definition, [tensor.cpu().double() for tensor in given])
    for index, (value, exact) in enumerate(zip(found, wanted, strict=True), start=-1):
        assert value.dtype == dtype
        tolerance = (TOLERANCE_OF_SUMS if index in sums else TOLERANCE)[dtype]
        difference = (value.cpu().double() - exact).abs().max()
        assert difference <= tolerance * exact.abs().max().clamp(min=0.1), index


def assert_scans(sizes: tuple[int, ...], dtype: torch.dtype, decay: float = 1.0) -> None:
    batch, length, heads, head_dim, state_dim = sizes
    inputs = scan_inputs(batch, length, heads, head_dim, state_dim, decay)
    assert_as_defined(triton_ssd.ssd_triton, reference.ssd_reference, inputs, dtype, sums=(2,))


@pytest.fixture
def short_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Chunks of two tiles, so that a short sequence has several, and states between them."""
    monkeypatch.setattr(triton_ssd, "LARGEST_SINGLE_CHUNK", 0)
    monkeypatch.setattr(triton_ssd, "CHUNK", 64)


@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
@pytest.mark.parametrize("sizes", [(1, 1, 1, 8, 16), (2, 7, 3, 16, 24), (1, 70, 2, 24, 16)], ids=str)
def test_a_single_chunk_is_the_recurrence(sizes: tuple[int, ...], dtype: torch.dtype) -> None:
    assert_scans(sizes, dtype)


@pytest.mark.usefixtures("short_chunks")
@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
@pytest.mark.parametrize("sizes", [(2, 64, 2, 8, 16), (1, 131, 3, 16, 40)], ids=str)
def test_several_chunks_are_the_recurrence(sizes: tuple[int, ...], dtype: torch.dtype) -> None:
    assert_scans(sizes, dtype)


@pytest.mark.usefixtures("short_chunks")
def test_wide_heads_and_large_states_are_the_recurrence() -> None:
    assert_scans((1, 66, 1, 128, 256), torch.float32)


@pytest.mark.parametrize("decay", [1e2, 1e5])
def test_strong_decays_are_the_recurrence(decay: float, short_chunks: None) -> None:
    assert_scans((1, 100, 4, 8, 16), torch.float32, decay)


def test_a_head_that_is_not_a_number_spoils_no_other() -> None:
    x, dt, A, B, C, D = (tensor.to(DEVICE, torch.float32) for tensor in scan_inputs(1, 70, 3, 8, 16))
    expected = triton_ssd.ssd_triton(x, dt, A, B, C, D)
    A[1] = float("nan")
    y = triton_ssd.ssd_triton(x, dt, A, B, C, D)
    assert torch.equal(y[:, :, [0, 2]], expected[:, :, [0, 2]])
    assert y[:, 1:, 1].isnan().all()


@pytest.mark.usefixtures("short_chunks")
def test_leading_heads_are_read_in_place() -> None:
    """A width is a view of every tensor, and gives to the bit what all heads give."""
    x, dt, A, B, C, D = (tensor.to(DEVICE, torch.float32) for tensor in scan_inputs(2, 70, 4, 8, 16))
    all_heads = triton_ssd.ssd_triton(x, dt, A, B, C, D)
    leading = triton_ssd.ssd_triton(x[:, :, :2], dt[:, :, :2], A[:2], B, C, D[:2])
    assert not x[:, :, :2].is_contiguous()
    assert torch.equal(leading, all_heads[:, :, :2])


def test_views_are_read_as_what_they_are() -> None:
    inputs = [tensor.to(DEVICE, torch.float32) for tensor in scan_inputs(1, 20, 2, 8, 16)]
    strided = [torch.stack([tensor, tensor + 1], dim=-1)[..., 0] for tensor in inputs]
    assert not strided[0].is_contiguous()
    results = (outputs_and_gradients(triton_ssd.ssd_triton, given) for given in (inputs, strided))
    for plain, seen in zip(*results, strict=True):
        assert torch.equal(plain, seen)


@pytest.mark.parametrize("shape", [(0, 5, 2, 8), (2, 0, 2, 8)])
def test_nothing_gives_nothing(shape: tuple[int, ...]) -> None:
    x, BC = torch.zeros(shape, device=DEVICE), torch.zeros(*shape[:2], 16, device=DEVICE)
    y = triton_ssd.ssd_triton(x, x[..., 0], x.new_ones(2), BC, BC, x.new_ones(2))
    assert y.shape == shape
    assert conv_and_norm_kernels.conv_silu_triton(x, x.new_ones(2, 8, 4), x.new_ones(2, 8)).shape == shape
    assert conv_and_norm_kernels.gated_rms_norm_triton(x, x, x.new_ones(2, 8), 1e-5).shape == shape


CONVOLUTIONS = [
    ((2, 9, 3, 4), (3, 4, 4), (3, 4)),
    ((2, 2, 6), (6, 3), (6,)),
    ((1, 20, 130), (130, 4), (130,)),
]


@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
@pytest.mark.parametrize("shapes", CONVOLUTIONS, ids=str)
def test_the_convolution_is_its_definition(shapes: tuple[tuple[int, ...], ...], dtype: torch.dtype) -> None:
    assert_as_defined(
        conv_and_norm_kernels.conv_silu_triton, reference.conv_silu_reference, normal(shapes), dtype
    )


@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
@pytest.mark.parametrize("shape", [(2, 9, 3, 4), (1, 70, 300)], ids=str)
def test_the_gated_norm_is_its_definition(shape: tuple[int, ...], dtype: torch.dtype) -> None:
    inputs = normal((shape, shape, shape[2:]))
    functions = (conv_and_norm_kernels.gated_rms_norm_triton, reference.gated_rms_norm_reference)
    fixed = [lambda y, z, weight, norm=norm: norm(y, z, weight, 1e-5) for norm in functions]
    assert_as_defined(fixed[0], fixed[1], inputs, dtype)


def normal(shapes: tuple[tuple[int, ...], ...]) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(shape, generator=generator, dtype=torch.float64) for shape in shapes]


@pytest.mark.parametrize("width", ["full", "1/2", [8, 1, 0]], ids=str)
def test_a_model_computes_the_same_by_triton(width: object) -> None:
    results = []
    for backend in ("triton", "reference"):
        torch.manual_seed(0)
        model = MatMamba(**SMALL | {"head_dim": 8, "d_state": 16}, ssd_backend=backend).to(DEVICE)
        images = torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(1)).to(DEVICE)
        logits = model(images, width=width)
        logits.square().sum().backward()
        gradients = [p.grad for p in model.parameters() if p.grad is not None]
        results.append([logits, *gradients])
    torch.testing.assert_close(*results, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("setting", "reason"),
    [
        (Setting(device="cuda", dtype=torch.float64), "float64"),
        (Setting(device="cuda", head_dim=4), "head dims of 8 to 128, not 4"),
        (Setting(device="cuda", state_dim=300), "states of 16 to 256, not 300"),
    ],
    ids=str,
)
def test_what_a_kernel_does_not_take_is_said(
    setting: Setting, reason: str, caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(BackendError, match=f"'triton' cannot be used: .*{reason}"):
        resolve("triton", setting)
    with caplog.at_level("INFO"):
        assert resolve("auto", setting).name == "chunked"
    assert reason in caplog.text


@pytest.mark.parametrize(
    ("version", "on_hopper", "reason"),
    [
        ("3.5.1", False, "triton 3.5.1 is installed, 3.6 or newer is needed"),
        ("3.6.0", False, None),
        ("3.7.0+git1234", True, "triton 3.7.0.git1234 .* wrong gradients for Hopper GPUs: 3.7.1 or newer"),
        ("3.7.1", True, None),
        ("3.10.0", True, None),
    ],
)
def test_a_triton_with_known_faults_counts_as_missing(
    version: str, on_hopper: bool, reason: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(oldest.triton, "__version__", version)
    monkeypatch.setattr(oldest, "_has_hopper", lambda: on_hopper)
    refusal = BACKENDS["triton"].refusal(Setting(device="cuda", dtype=torch.bfloat16))
    assert refusal is None if reason is None else re.match(reason, refusal or "")


def test_inputs_that_a_kernel_does_not_take_raise() -> None:
    inputs = [tensor.to(DEVICE) for tensor in scan_inputs(1, 5, 2, 8, 16)]
    with pytest.raises(BackendError, match="float64"):
        ssd(*inputs, backend="triton")


def test_auto_takes_it_on_a_gpu_and_never_on_a_cpu() -> None:
    assert resolve("auto", Setting(device="cuda", dtype=torch.bfloat16)).name in ("triton", "mamba_ssm")
    assert not resolve("auto", Setting(device="cpu")).gpu
    assert BACKENDS["triton"].gpu


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
@pytest.mark.parametrize("length", [1, 64, 197, 577, 1025, 1500, 4097])
@pytest.mark.parametrize(("head_dim", "state_dim"), [(8, 16), (16, 128), (32, 128), (128, 256)])
def test_on_a_gpu_it_is_the_recurrence(
    length: int, head_dim: int, state_dim: int, dtype: torch.dtype
) -> None:
    assert_scans((1, length, 2, head_dim, state_dim), dtype)


@pytest.mark.gpu
def test_a_captured_graph_gives_the_same() -> None:
    torch.manual_seed(0)
    model = MatMamba(**SMALL | {"head_dim": 8, "d_state": 16}, ssd_backend="triton").cuda().eval()
    images = torch.randn(2, 3, 16, 16, device="cuda")
    with torch.inference_mode():
        expected = model(images)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            captured = model(images)
        graph.replay()
    assert torch.equal(captured, expected)
