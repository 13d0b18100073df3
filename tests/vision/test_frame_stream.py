"""State from frame to frame: a stream is one long sequence, at every width, in memory that does not grow."""

from __future__ import annotations

import gc
from typing import Any

import pytest
import torch
from matmamba_vision import ConfigError, MatMamba, Width, WidthError
from matmamba_vision.native import why_missing
from matmamba_vision.ops import BACKENDS, convolve_carried, reference, scan_carried
from matmamba_vision.width import WidthLike
from small import SMALL
from torch import Tensor

# Agreement of a stream with one long sequence, absolute, in float32.
STREAMED = 1e-4
FRAMES = 4
WIDTHS: tuple[WidthLike, ...] = ("full", "1/2", "1/4", "1/8", [8, 2, 5], [1, 0, 3])
# What changes the shapes of the state, or what is read between frames.
VARIANTS: dict[str, dict[str, Any]] = {
    "as it is": {},
    "head dim and state": {"head_dim": 8, "num_heads": 8, "d_state": [4, 16, 5]},
    "groups": {"heads_per_group": 3},
    "registers": {"reg_tokens": 3},
    "biases and MLPs": {"bias": True, "mlp_ratio": 2.0},
    "mean of patches": {"global_pool": "avg", "projection": 6},
    "six taps": {"d_conv": 6},
    "one tap": {"d_conv": 1},
    "longer than a frame": {"d_conv": 24},
}
WITHIN: dict[str, dict[str, Any]] = {
    "flip": {"scan": "flip"},
    "cross": {"scan": ["rows_reversed", "columns", "columns_reversed"]},
    "bidirectional": {"scan": "bidirectional", "reg_tokens": 2, "heads_per_group": 2},
}


def make(**options: Any) -> MatMamba:
    torch.manual_seed(0)
    model = MatMamba(**{**SMALL, "chunk_size": 8, **options}).eval()
    for parameter in model.parameters():
        # Nothing is to be 0 or 1 by chance of the initialisation.
        parameter.data += 0.1 * torch.randn_like(parameter)
    for name, parameter in model.named_parameters():
        # Half of the heads forget slowly, so that earlier frames are seen.
        if name.endswith("A_log"):
            parameter.data[::2] -= 5
    return model


def clips(videos: int = 2, frames: int = FRAMES) -> Tensor:
    return torch.randn(videos, frames, 3, 16, 16, generator=torch.Generator().manual_seed(1))


def token_by_token(model: MatMamba, frames: Tensor, width: WidthLike) -> Tensor:
    """Embeddings (B, T, E) by the recurrence over all tokens, without anything of the library's streams."""
    found = [model._tokens(frame)[0] for frame in frames.unbind(1)]
    length = found[0].shape[1]
    orders = model._orders(model.grid, found[0])
    x = torch.cat(found, dim=1)
    for block, active in zip(model.stack, model.active(width), strict=True):
        # Each frame in the block's order, one behind the other.
        at = (
            None if order is None else torch.cat([order.index + t * length for t in range(frames.shape[1])])
            for order in orders[block.scan]
        )
        of_block = tuple(_as_order(index) for index in at)
        x = block(x, *active, of_block)
    tokens = model.norm(x).unflatten(1, (frames.shape[1], length))
    return torch.stack([model._normalised(one, model.embedding_dim) for one in tokens.unbind(1)], dim=1)


def _as_order(index: Tensor | None) -> Any:
    from matmamba_vision.layers.order import TokenOrder

    return None if index is None else TokenOrder(index, index.argsort())


def streamed(model: MatMamba, frames: Tensor, width: WidthLike = "full", **options: Any) -> Tensor:
    stream = model.stream(width, **options)
    return torch.stack([stream.step(frame) for frame in frames.unbind(1)], dim=1)


@torch.no_grad()
@pytest.mark.parametrize(
    ("variant", "width"),
    [("as it is", width) for width in WIDTHS] + [(name, w) for name in VARIANTS for w in ("1/2", [3, 0, 8])],
    ids=str,
)
def test_a_stream_is_one_long_sequence(variant: str, width: WidthLike) -> None:
    model = make(**VARIANTS[variant])
    found = streamed(model, clips(), width)
    together = model.embed_clips(clips(), width)
    model.use_backend("reference")
    wanted = token_by_token(model, clips(), width)
    assert (found - wanted).abs().max() <= STREAMED
    assert (together - wanted).abs().max() <= STREAMED
    # What came before is seen at all: by far more than the tolerance.
    alone = model.embed(clips()[:, -1], width)
    assert (found[:, -1] - alone).abs().max() > 10 * STREAMED


@torch.no_grad()
@pytest.mark.parametrize("width", ["full", [3, 8, 5]], ids=str)
@pytest.mark.parametrize("variant", WITHIN)
def test_orders_within_frames_are_carried_on(variant: str, width: WidthLike) -> None:
    model = make(**WITHIN[variant])
    found = streamed(model, clips(), width, within_frames=True)
    together = model.embed_clips(clips(), width, within_frames=True)
    model.use_backend("reference")
    wanted = token_by_token(model, clips(), width)
    assert (found - wanted).abs().max() <= STREAMED
    assert (together - wanted).abs().max() <= STREAMED
    assert (found[:, -1] - model.embed(clips()[:, -1], width)).abs().max() > 10 * STREAMED


@torch.no_grad()
def test_smaller_states_are_carried_on() -> None:
    model = make()
    width = Width((8, 4, 2), (8, 3, 5))
    wanted = token_by_token(model, clips(), width)
    assert (streamed(model, clips(), width) - wanted).abs().max() <= STREAMED


@torch.no_grad()
@pytest.mark.parametrize("backend", ["auto", "chunked", "reference"])
@pytest.mark.parametrize("width", ["full", "1/8", [3, 0, 5]], ids=str)
def test_the_first_frame_is_an_image_to_the_bit(width: WidthLike, backend: str) -> None:
    model, frame = make(heads_per_group=3), clips()[:, 0]
    model.use_backend(backend)
    stream = model.stream(width, dim=7)
    assert torch.equal(stream.step(frame), model.embed(frame, width, dim=7))
    stream.step(frame)
    stream.reset()
    assert torch.equal(stream.step_features(frame), model.forward_features(frame, width))


@torch.no_grad()
def test_a_state_of_zeros_is_none() -> None:
    model, frame = make(), clips()[:, 0]
    stream = model.stream()
    stream.step(clips()[:, 1])
    stream.reset(range(2))
    assert (stream.step(frame) - model.embed(frame)).abs().max() <= 1e-6


@torch.no_grad()
def test_videos_do_not_see_each_other_and_are_reset_by_themselves() -> None:
    model, frames = make(), clips(3)
    stream = model.stream("1/2")
    together = streamed(model, frames, "1/2")
    for video in range(3):
        alone = streamed(model, frames[video : video + 1], "1/2")
        assert (together[video] - alone[0]).abs().max() <= STREAMED
    for t in range(FRAMES):
        if t == 2:
            stream.reset([1])
        found = stream.step(frames[:, t])
    assert (found[[0, 2]] - together[[0, 2], -1]).abs().max() <= 1e-6
    assert (found[1] - streamed(model, frames[1:2, 2:], "1/2")[0, -1]).abs().max() <= STREAMED
    assert (found[1] - together[1, -1]).abs().max() > 10 * STREAMED


@torch.no_grad()
def test_later_frames_change_nothing() -> None:
    model, frames = make(), clips()
    changed = torch.cat([frames[:, :2], frames[:, 2:] + 1], dim=1)
    before, after = model.embed_clips(frames), model.embed_clips(changed)
    assert (before[:, :2] - after[:, :2]).abs().max() <= STREAMED
    assert (before[:, 2:] - after[:, 2:]).abs().max() > 10 * STREAMED


@torch.no_grad()
def test_the_state_of_a_width_is_leading_heads_in_the_first_block_alone() -> None:
    model = make()
    full, half = model.stream(), model.stream("1/2")
    for frame in clips().unbind(1):
        full.step(frame)
        half.step(frame)
    (whole,), (leading,) = full.states[0], half.states[0]
    torch.testing.assert_close(leading.scan_BHPN, whole.scan_BHPN[:, :4], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(leading.x_BKHP, whole.x_BKHP[:, :, :4], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(leading.BC_BKX, whole.BC_BKX, rtol=1e-4, atol=1e-5)
    (whole,), (leading,) = full.states[1], half.states[1]
    assert (leading.scan_BHPN - whole.scan_BHPN[:, :4]).abs().max() > 10 * STREAMED


@torch.no_grad()
@pytest.mark.parametrize("width", WIDTHS, ids=str)
@pytest.mark.parametrize("options", [{}, {"heads_per_group": 3}, {"scan": "bidirectional"}], ids=str)
def test_state_bytes_are_those_of_the_tensors(width: WidthLike, options: dict[str, Any]) -> None:
    model = make(**options)
    stream = model.stream(width, within_frames="scan" in options)
    known = stream.state_bytes
    for frame in clips(frames=3).unbind(1):
        stream.step(frame)
        found = sum(tensor.nbytes for states in stream.states for state in states for tensor in state)
        assert 2 * stream.state_bytes == found == 2 * known
    assert model.stream("1/2").state_bytes < model.stream().state_bytes if not options else True


def test_nothing_is_kept_of_a_thousand_frames() -> None:
    """With gradients recorded, as a user who forgot `no_grad` has it: the state alone lives on."""
    model = make(img_size=8, depth=1)
    frame = torch.randn(1, 3, 8, 8)
    stream = model.stream("1/4")
    found = stream.step(frame)

    def alive() -> int:
        gc.collect()
        return sum(1 for one in gc.get_objects() if type(one) is Tensor)

    after = {}
    for number in range(1, 1001):
        found = stream.step(frame)
        if number in (10, 1000):
            after[number] = alive()
    assert after[10] == after[1000]
    assert found.requires_grad
    assert not any(tensor.requires_grad for states in stream.states for state in states for tensor in state)
    # Nor has it blown up.
    assert all(tensor.isfinite().all() for states in stream.states for state in states for tensor in state)


@pytest.mark.parametrize("within_frames", [False, True])
def test_gradients_through_time_are_those_of_the_long_sequence(within_frames: bool) -> None:
    model = make(scan="flip" if within_frames else "raster", heads_per_group=3).double()
    frames = clips(1).double()
    options = {"within_frames": within_frames}
    gradients = []
    for found in (
        streamed(model, frames, "1/2", through_time=True, **options),
        model.embed_clips(frames, "1/2", **options),
    ):
        weight = torch.linspace(-1, 1, found.numel()).view_as(found)
        wanted = [one for one in model.parameters() if one.requires_grad]
        gradients.append(torch.autograd.grad((found * weight).sum(), wanted, allow_unused=True))
    some = [
        (one, other) for one, other in zip(*gradients, strict=True) if one is not None or other is not None
    ]
    for one, other in some:
        assert one is not None
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)


def test_gradients_stop_at_a_frame_unless_they_are_asked_for() -> None:
    model, frames = make(), clips(1).requires_grad_()
    for through_time in (False, True):
        found = streamed(model, frames, through_time=through_time)[:, -1]
        (gradient,) = torch.autograd.grad(found.square().sum() + found.sum(), frames)
        assert gradient[:, -1].any()
        assert bool(gradient[:, :-1].any()) is through_time


REFUSED: dict[str, dict[str, Any]] = {
    "scan 'flip'.*rows_reversed": {"scan": "flip"},
    "scan 'cross'.*columns, columns_reversed, rows_reversed": {"scan": "cross", "depth": 4},
    "scan 'bidirectional'.*both": {"scan": "bidirectional"},
    "scan: .*columns": {"scan": ["rows", "columns", "rows"]},
    "attention": {"attention_blocks": [1], "attn_head_dim": 4},
    "mean_token": {"mean_token": True},
}


@pytest.mark.parametrize("message", REFUSED)
def test_what_is_not_causal_is_refused_by_name(message: str) -> None:
    model = MatMamba(**{**SMALL, **REFUSED[message]})
    for call in (model.stream, lambda: model.embed_clips(clips())):
        with pytest.raises(ConfigError, match=message) as error:
            call()
        assert "\n" not in str(error.value)


@torch.no_grad()
def test_a_block_that_a_width_skips_need_not_be_causal() -> None:
    model = make(scan="flip")
    width = [8, 0, 8]
    wanted = token_by_token(model, clips(), width)
    assert (streamed(model, clips(), width) - wanted).abs().max() <= STREAMED


@torch.no_grad()
def test_what_cannot_be_is_said_and_changes_nothing() -> None:
    model, frames = make(), clips()
    stream = model.stream()
    stream.step(frames[:, 0])
    kept = [state for states in stream.states for state in states]
    with pytest.raises(ConfigError, match=r"3 videos.*seen 2"):
        stream.step(clips(3)[:, 1])
    with pytest.raises(ConfigError, match="32x32"):
        stream.step(torch.zeros(2, 3, 32, 32))
    assert all(
        one is other for one, other in zip(kept, [s for states in stream.states for s in states], strict=True)
    )
    with pytest.raises(ConfigError, match="dim 1000"):
        model.stream(dim=1000)
    with pytest.raises(WidthError):
        model.stream("1/3")
    model.reset_classifier(0, "")
    with pytest.raises(ConfigError, match="global_pool"):
        model.stream()


def scan_inputs(length: int, dtype: torch.dtype, decay: float) -> tuple[Tensor, ...]:
    generator = torch.Generator().manual_seed(length)

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator, dtype=torch.float64)

    x, dt = normal(2, length, 4, 3), torch.nn.functional.softplus(normal(2, length, 4))
    A, B, C, D = -normal(4).exp(), normal(2, length, 5), normal(2, length, 5), normal(4)
    A[1::2] *= decay
    return tuple(tensor.to(dtype).requires_grad_() for tensor in (x, dt, A, B, C, D, normal(2, 4, 3, 5)))


TOLERANCE = {torch.float64: 1e-12, torch.float32: 1e-5}
CPU_BACKENDS = [name for name, backend in BACKENDS.items() if not backend.gpu]


@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
@pytest.mark.parametrize("decay", [1, 1e5])
@pytest.mark.parametrize("length", [0, 1, 7, 33])
@pytest.mark.parametrize("backend", CPU_BACKENDS)
def test_a_scan_from_a_state_is_the_recurrence(
    backend: str, length: int, decay: float, dtype: torch.dtype
) -> None:
    """Outputs, the state that is left, and every gradient, that of the entering state included."""
    if backend == "native" and (why_missing() or dtype == torch.float64):
        pytest.skip("it has no kernels for this")
    inputs = scan_inputs(length, dtype, decay)
    exact_inputs = [tensor.detach().double().requires_grad_() for tensor in inputs]
    *given, start = inputs
    *exact_given, exact_start = exact_inputs
    x, dt, A, B, C, D = given
    scan = BACKENDS[backend].scan
    found = scan_carried(x, dt, A, B, C, D, start, scan=scan, chunk_size=16)
    exact = reference.ssd_reference_from(exact_start, *exact_given)
    sums = []
    for outputs in (found, exact):
        weighted = [
            (one * torch.linspace(-1, 1, one.numel()).view_as(one).to(one.dtype)).sum() for one in outputs
        ]
        sums.append(weighted[0] + weighted[1])
    gradients = [
        torch.autograd.grad(total, of, allow_unused=True)
        for total, of in zip(sums, (inputs, exact_inputs), strict=True)
    ]
    for one, wanted in zip((*found, *gradients[0]), (*exact, *gradients[1]), strict=True):
        if wanted is None or not wanted.numel():
            continue
        assert one.dtype == dtype
        scale = wanted.abs().max().clamp(min=0.1)
        assert (one.double() - wanted).abs().max() <= TOLERANCE[dtype] * scale


def test_two_halves_of_a_sequence_are_the_whole() -> None:
    *given, start = (tensor.detach() for tensor in scan_inputs(33, torch.float64, 1))
    scan = BACKENDS["chunked"].scan
    halves = []
    for part in (slice(20), slice(20, None)):
        x, dt, A, B, C, D = given
        y, start = scan_carried(
            x[:, part], dt[:, part], A, B[:, part], C[:, part], D, start, scan=scan, chunk_size=16
        )
        halves.append(y)
    *_, begun = (tensor.detach() for tensor in scan_inputs(33, torch.float64, 1))
    y, left = reference.ssd_reference_from(begun, *given)
    torch.testing.assert_close(torch.cat(halves, dim=1), y, rtol=1e-11, atol=1e-11)
    torch.testing.assert_close(start, left, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("taps", [1, 2, 4, 9])
@pytest.mark.parametrize("length", [1, 3, 8])
def test_a_convolution_goes_on(taps: int, length: int) -> None:
    generator = torch.Generator().manual_seed(0)
    t, kernel, bias = (
        torch.randn(shape, generator=generator) for shape in ((2, 3 * length, 5), (5, taps), (5,))
    )
    before, parts = None, []
    for part in t.split(length, dim=1):
        y, before = convolve_carried(part, kernel, bias, before, convolve=BACKENDS["chunked"].conv_silu)
        assert before.shape == (2, taps - 1, 5)
        parts.append(y)
    wanted = reference.conv_silu_reference(t, kernel, bias)
    torch.testing.assert_close(torch.cat(parts, dim=1), wanted, rtol=1e-5, atol=1e-5)
