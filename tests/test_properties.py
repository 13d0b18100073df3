"""Laws 1 to 3 on architectures that nobody chose."""

from __future__ import annotations

from typing import Any

import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from matmamba_vision import MatMamba, Width, extract
from matmamba_vision.layers import SCANS, Mixer
from matmamba_vision.measures import count_macs, count_parameters

IMAGES = torch.randn(2, 3, 8, 12, generator=torch.Generator().manual_seed(0))


@st.composite
def architectures(draw: st.DrawFn) -> dict[str, Any]:
    """Arguments of small models that take images of 8 x 12 pixels, with any mix of options."""
    depth = draw(st.integers(1, 4))
    heads = draw(st.sampled_from([2, 4, 6]))
    attention = draw(st.sets(st.integers(0, depth - 1)))
    head_dim = draw(st.sampled_from([2, 4, 8]))
    expand = draw(st.sampled_from([1, 2]))
    # So many channels that `expand` and the heads agree.
    dim = heads * head_dim // expand if heads * head_dim % (2 * expand) == 0 else heads * head_dim
    mlp_ratio = draw(st.sampled_from([0.0, heads * 0.5]))
    arguments: dict[str, Any] = {
        "img_size": (8, 12), "patch_size": 4, "num_classes": 3, "embed_dim": dim, "depth": depth,
        "num_heads": heads, "head_dim": head_dim,
        "expand": draw(st.sampled_from([None, expand])) if dim * expand == heads * head_dim else None,
        "d_state": draw(st.sampled_from([2, 6, 8])),
        "d_conv": draw(st.integers(1, 4)), "heads_per_group": draw(st.sampled_from([None, 1, 2, 3])),
        "bias": draw(st.booleans()), "mean_token": draw(st.booleans()),
        "reg_tokens": draw(st.integers(0, 3)),
        "scan": draw(st.sampled_from([*SCANS])), "attention_blocks": sorted(attention),
        "attn_head_dim": draw(st.sampled_from([2, 4])),
        "global_pool": draw(st.sampled_from(["token", "avg"])),
        "mlp_ratio": mlp_ratio, "chunk_size": draw(st.sampled_from([2, 4, 64])),
    }  # fmt: skip
    if len(attention) == depth:
        # Refused, because no block scans.
        arguments |= {"scan": "raster", "mean_token": False, "heads_per_group": None, "bias": False}
    if attention and mlp_ratio and dim % arguments["attn_head_dim"] == 0:
        arguments["nested_attention"] = draw(st.booleans())
    return arguments


@st.composite
def models_and_widths(draw: st.DrawFn) -> tuple[MatMamba, Width]:
    """A model with random weights, and any of its widths: heads and states of each block by themselves."""
    torch.manual_seed(draw(st.integers(0, 100)))
    model = MatMamba(**draw(architectures()), trained_widths=("full",)).eval()
    for parameter in model.parameters():
        # Nothing is to be 0 or 1 by chance of the initialisation.
        parameter.data += 0.1 * torch.randn_like(parameter)
    heads = tuple(draw(st.integers(0, most)) for most in model.heads)
    states = tuple(draw(st.integers(min(1, most), most)) for most in model.full.states)
    return model, model.width(Width(heads, states if draw(st.booleans()) else ()))


SETTINGS = settings(
    max_examples=60, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow]
)


@SETTINGS
@given(models_and_widths())
def test_law_1_extraction_is_equal_to_the_bit(drawn: tuple[MatMamba, Width]) -> None:
    model, width = drawn
    small = extract(model, width)
    with torch.no_grad():
        assert torch.equal(small(IMAGES), model(IMAGES, width=width))
    again = MatMamba(**small.arguments, trained_widths=("full",))
    again.load_state_dict(small.state_dict())
    assert again.arguments == small.arguments
    assert sum(tensor.numel() for tensor in small.parameters()) == count_parameters(model, width)
    assert count_macs(small) == count_macs(model, width)


@SETTINGS
@given(models_and_widths())
def test_law_2_a_width_depends_on_its_own_weights_alone(drawn: tuple[MatMamba, Width]) -> None:
    model, width = drawn
    assert torch.equal(model(IMAGES), model(IMAGES, width="full"))
    before = model(IMAGES, width=width)
    before.square().sum().backward()
    active = extract(model, width)
    used = {name: tensor.isfinite() for name, tensor in _marked(model, width).items()}
    for name, tensor in model.named_parameters():
        outside = ~used.get(name, torch.ones_like(tensor, dtype=torch.bool))
        assert tensor.grad is None or not tensor.grad[outside].any(), name
        tensor.data[outside] = 1e6
    assert torch.equal(model(IMAGES, width=width), before)
    assert torch.equal(active(IMAGES), before)


def _marked(model: MatMamba, width: Width) -> dict[str, torch.Tensor]:
    """Of each parameter of a block, a copy that is NaN where the width does not reach."""
    marked = {}
    for index, (block, active) in enumerate(zip(model.stack, model.active(width), strict=True)):
        for name, tensor in block.named_parameters():
            outside = torch.full_like(tensor, torch.nan)
            original, tensor.data = tensor.data, outside
            for leading_name, leading in (block.leading(*active) if active[0] else {}).items():
                if leading_name == name:
                    _fill(block, name, leading, active, outside)
            tensor.data = original
            marked[f"blocks.{index}.{name}"] = outside
    return marked


def _fill(
    block: Any, name: str, leading: torch.Tensor, active: tuple[int, int], outside: torch.Tensor
) -> None:
    if leading.untyped_storage().data_ptr() == outside.untyped_storage().data_ptr():
        leading.data.zero_()
    else:
        # B and C with a smaller state are a copy.
        groups = len(block.mixer.setting.groups(active[0]))
        outside.unflatten(0, (-1, 2, block.state_dim))[:groups, :, : active[1]] = 0


@SETTINGS
@given(models_and_widths())
def test_law_3_the_chunked_scan_equals_the_recurrence(drawn: tuple[MatMamba, Width]) -> None:
    """Outputs and all gradients, in double precision."""
    model, width = drawn
    model.double()
    found = []
    for backend in ("reference", "chunked"):
        model.use_backend(backend)
        model.zero_grad()
        logits = model(IMAGES.double(), width=width)
        logits.square().sum().backward()
        gradients = [p.grad.clone() for p in model.parameters() if p.grad is not None]
        found.append([logits.detach(), *gradients])
    torch.testing.assert_close(found[0], found[1], rtol=1e-9, atol=1e-10)
    assert any(isinstance(block.mixer, Mixer) for block in model.stack) or torch.equal(
        found[0][0], found[1][0]
    )
