"""The models as timm sees them."""

from __future__ import annotations

import math
from functools import partial
from typing import Any

import pytest
import timm
import timm.optim
import torch
from matmamba_vision import MatMamba, extract
from matmamba_vision.layers import Mixer
from matmamba_vision.measures import count_macs, count_parameters, measure_latency, predict
from matmamba_vision.models import default_cfgs
from matmamba_vision.models.shipped import shipped_variants
from matmamba_vision.width import WidthLike
from small import SMALL, LabelledImages, create
from torch.utils.flop_counter import FlopCounterMode

PARAMETERS = {
    "matmamba_small_patch16_224": (35_916_008, 19_796_328, 11_736_488, 7_706_568),
    "matmamba_base_patch16_224": (134_716_136, 71_021_416, 39_174_056, 23_250_376),
}
QUICK = ("matmamba_nano_patch4_32", "matmamba_mini_patch8_64", "matmamba_tiny_patch16_224")
VARIANTS = (*QUICK, *PARAMETERS)


COUNTED: list[dict[str, Any]] = [
    {},
    {"scan": "flip", "mean_token": True, "reg_tokens": 4},
    {"scan": "bidirectional", "heads_per_group": 4, "bias": True},
    {"attention_blocks": [1], "mlp_ratio": 2.0},
    {"attention_blocks": [0, 1, 2], "mlp_ratio": 4.0, "nested_attention": False},
]


@pytest.mark.parametrize("name", PARAMETERS)
def test_parameters_are_the_published_ones(name: str) -> None:
    model = create(name, num_classes=1000, device="meta")
    assert tuple(count_parameters(model, width) for width in model.trained_widths) == PARAMETERS[name]


@torch.no_grad()
@pytest.mark.parametrize("name", QUICK)
def test_a_variant_runs_at_every_trained_width(name: str) -> None:
    model = create(name, num_classes=7).eval()
    images = torch.randn(1, *model.input["input_size"])
    for width in model.trained_widths:
        assert model(images, width=width).shape == (1, 7)
        embedding = model.embed(images, width=width, dim=16)
        assert embedding.dtype == torch.float32
        assert torch.allclose(embedding.norm(dim=-1), torch.ones(1))


def test_every_variant_is_registered() -> None:
    assert set(timm.list_models(module="registry")) == set(default_cfgs)
    assert sorted(timm.list_models(module="registry", pretrained=True)) == shipped_variants()


def test_unknown_arguments_are_refused() -> None:
    with pytest.raises(TypeError, match="colour"):
        timm.create_model("matmamba_nano_patch4_32", colour=3)
    with pytest.raises(ValueError, match="'max'"):
        create("matmamba_nano_patch4_32", global_pool="max")
    with pytest.raises(ValueError, match="'fast'"):
        create("matmamba_nano_patch4_32", ssd_backend="fast")


WRONG: dict[str, list[object]] = {
    "img_size": [30, 0, "32", (32, 16, 8)], "patch_size": [0, 5, "a"], "in_chans": [0, "3"],
    "depth": [-1, 1.5],
    "embed_dim": ["a", 0], "num_heads": [[1, 2], 0, 2.5], "expand": [1.37, "2"], "head_dim": [0],
    "d_state": [0, 1.5, [8]], "d_conv": [0], "heads_per_group": [0, 1.5], "bias": ["no"],
    "scan": [5, "spiral"], "trained_widths": [("full", "1/16")],
    "mean_token": ["yes"], "reg_tokens": [-1, 1.5], "attention_blocks": [[99], 2, ["a"], [1, 1]],
    "attn_head_dim": [0], "nested_attention": ["x"], "mlp_ratio": [-1, 0.3, math.nan, "a", True],
    "drop_rate": [1, "a"], "drop_path_rate": ["a", -0.1], "dynamic_img_size": ["no"], "chunk_size": [0],
    "global_pool": ["max"], "num_classes": [-1],
}  # fmt: skip


@pytest.mark.parametrize(
    ("name", "value"), [(name, value) for name, values in WRONG.items() for value in values], ids=str
)
def test_wrong_arguments_are_named(name: str, value: object) -> None:
    arguments = {**SMALL, name: value}
    if name == "expand":
        del arguments["num_heads"]
    with pytest.raises((ValueError, TypeError), match=name):
        MatMamba(**arguments)


def test_heads_can_be_asked_for_by_expansion() -> None:
    model = create("matmamba_nano_patch4_32", expand=3)
    assert model.heads == (24,) * 4
    with pytest.raises(ValueError, match="expand 3 and num_heads 8 do not agree"):
        create("matmamba_nano_patch4_32", expand=3, num_heads=8)


@pytest.mark.parametrize(
    "asked", [{"scan": "flip"}, {"mean_token": True}, {"heads_per_group": 2}, {"bias": True}], ids=str
)
def test_what_has_no_effect_is_refused(asked: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=f"{next(iter(asked))}.*no block scans"):
        create("matvit_nano_patch4_32", **asked)
    with pytest.raises(ValueError, match="nested_attention"):
        MatMamba(**SMALL, nested_attention=False)


def test_extraction_leaves_attention_alone_without_a_scan(images: torch.Tensor) -> None:
    model = MatMamba(**SMALL, attention_blocks=[1], scan="flip", mean_token=True).eval()
    assert torch.equal(extract(model, [0, 4, 0])(images), model(images, width=[0, 4, 0]))


@pytest.mark.parametrize("dim", [0, 33, -1])
def test_a_dim_beyond_the_embedding_is_refused(model: MatMamba, images: torch.Tensor, dim: int) -> None:
    with pytest.raises(ValueError, match=str(dim)):
        model.embed(images, dim=dim)


def test_without_pooling_there_are_tokens_and_no_embedding(model: MatMamba, images: torch.Tensor) -> None:
    model.reset_classifier(0, global_pool="")
    assert model(images).shape == (4, 17, 32)
    with pytest.raises(ValueError, match="global_pool"):
        model.embed(images)


def test_every_block_can_be_skipped(model: MatMamba, images: torch.Tensor) -> None:
    assert torch.equal(extract(model, [0, 0, 0])(images), model(images, width=[0, 0, 0]))


@pytest.mark.parametrize("widths", [(), ("1/2", "1/4"), ("full", "1/4", "1/2"), ("full", "full")], ids=str)
def test_trained_widths_go_from_large_to_small(widths: tuple[str, ...]) -> None:
    with pytest.raises(ValueError, match="full first"):
        MatMamba(**SMALL, trained_widths=widths)


def test_every_parameter_gets_a_gradient(model: MatMamba, images: torch.Tensor) -> None:
    model(images).square().sum().backward()
    assert not [
        name for name, tensor in model.named_parameters() if tensor.grad is None or not tensor.grad.any()
    ]


@pytest.mark.parametrize("width", ["full", "1/4"])
def test_checkpointing_changes_no_gradient(model: MatMamba, images: torch.Tensor, width: str) -> None:
    gradients = []
    for enable in (False, True):
        model.zero_grad()
        model.set_grad_checkpointing(enable)
        model(images, width=width).square().sum().backward()
        gradients.append([tensor.grad.clone() for tensor in model.parameters() if tensor.grad is not None])
    assert all(torch.equal(plain, again) for plain, again in zip(*gradients, strict=True))


def test_the_head_can_be_replaced(model: MatMamba, images: torch.Tensor) -> None:
    model.reset_classifier(3, global_pool="avg")
    assert model(images).shape == (4, 3)
    assert model.get_classifier().out_features == 3
    model.reset_classifier(0)
    assert model(images).shape == (4, 32)
    assert torch.equal(extract(model, "1/2")(images), model(images, width="1/2"))


@torch.no_grad()
def test_bfloat16_stays_bfloat16(model: MatMamba, images: torch.Tensor) -> None:
    assert model.bfloat16()(images.bfloat16(), width="1/2").dtype == torch.bfloat16


def test_vectors_have_no_weight_decay(model: MatMamba) -> None:
    groups = timm.optim.param_groups_weight_decay(model, 0.1, no_weight_decay_list=model.no_weight_decay())
    decayed = {id(tensor) for group in groups if group["weight_decay"] for tensor in group["params"]}
    names = {name.split(".")[-1] for name, tensor in model.named_parameters() if id(tensor) in decayed}
    assert names == {"in_z", "in_x", "in_dt", "in_BC", "conv_x", "conv_BC", "out", "weight"}


@torch.no_grad()
@pytest.mark.parametrize("width", ["full", "1/2:1/2", [8, 0, 2]], ids=str)
@pytest.mark.parametrize("size", [32, 64])
@pytest.mark.parametrize("kind", COUNTED, ids=str)
def test_counted_macs_agree_with_an_independent_counter(
    kind: dict[str, Any], width: WidthLike, size: int
) -> None:
    """torch counts the matrix products and convolutions that run, but no multiplications."""
    shape: dict[str, Any] = {"embed_dim": 128, "depth": 3, "num_heads": 8, "d_state": 32, "num_classes": 10}
    model = MatMamba(img_size=size, patch_size=4, **shape, **kind)
    for block in model.stack:
        # Slow decays, for which chunks are as large as they get.
        if isinstance(block.mixer, Mixer):
            block.mixer.get_parameter("A_log").fill_(-3)
    # What the counter does not know: a product in place, and attention on a CPU.
    unknown = {
        torch.ops.aten.baddbmm_: lambda c, a, b, **_: 2 * math.prod(a) * b[-1],
        torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: lambda q, k, *_, **__: (
            4 * math.prod(q) * k[-2]
        ),
    }
    counter = FlopCounterMode(display=False, custom_mapping=unknown)
    with counter:
        model.eval()(torch.randn(1, 3, size, size), width=width)
    assert count_macs(model, width) == pytest.approx(counter.get_total_flops() / 2, rel=0.01)


def test_latency_is_measured_for_each_width(model: MatMamba) -> None:
    for latency in measure_latency(model, ["full", "1/8"], repeats=4, warm_up=1):
        assert 0 < latency.low <= latency.median <= latency.high


def test_predictions_keep_the_mode_of_the_model(model: MatMamba, images: torch.Tensor) -> None:
    batch = LabelledImages(images, torch.tensor([0, 1, 2, 3]))
    model.train()
    full, small = predict(model, [batch, batch], ["full", "1/4"])
    assert model.training
    assert full.embeddings.shape == (8, 32)
    assert small.top1 == (small.classes == small.labels).mean()


@torch.no_grad()
def test_16384_tokens_are_no_hindrance() -> None:
    """Memory is measured by benchmarks/peak_memory.py."""
    model = MatMamba(**{**SMALL, "img_size": 512, "scan": "cross", "depth": 3}).eval()
    assert model(torch.randn(1, 3, 512, 512)).isfinite().all()


@pytest.mark.slow
@torch.no_grad()
@pytest.mark.parametrize(
    "kind",
    [{}, {"scan": "cross", "mean_token": True, "reg_tokens": 2}, {"attention_blocks": [1], "mlp_ratio": 2.0}],
    ids=str,
)
def test_a_model_is_one_graph_for_each_width_whatever_the_batch(kind: dict[str, Any]) -> None:
    torch.manual_seed(0)
    model = MatMamba(**SMALL, **kind).eval()
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    graphs = torch._dynamo.utils.counters["stats"]
    for count, width in enumerate(("full", "1/4"), start=1):
        compiled = torch.compile(partial(model, width=model.width(width)), fullgraph=True)
        for batch in (4, 3, 6):
            images = torch.randn(batch, 3, 16, 16)
            torch._dynamo.maybe_mark_dynamic(images, 0)
            torch.testing.assert_close(compiled(images), model(images, width=width), rtol=1e-4, atol=1e-5)
        assert graphs["unique_graphs"] == count


@pytest.mark.slow
def test_compiled_blocks_share_a_graph_for_each_width(images: torch.Tensor) -> None:
    """Outputs and gradients agree; four blocks and another batch size need no graph of their own."""
    torch.manual_seed(0)
    model = MatMamba(**SMALL | {"depth": 4}, drop_path_rate=0.1, chunk_size=8).eval()
    plain = {width: _results(model, images, width) for width in ("full", "1/2")}
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    model.compile_blocks()
    graphs = torch._dynamo.utils.counters["stats"]
    for count, (width, expected) in enumerate(plain.items(), start=1):
        torch.testing.assert_close(_results(model, images, width), expected, rtol=1e-4, atol=1e-5)
        assert graphs["unique_graphs"] == count
    torch.testing.assert_close(model(images[:3]), plain["full"][0][:3])
    assert graphs["unique_graphs"] == 2


def _results(model: MatMamba, images: torch.Tensor, width: str) -> list[torch.Tensor]:
    model.zero_grad()
    logits = model(images, width)
    logits.square().sum().backward()
    return [logits.detach(), *(p.grad.clone() for p in model.parameters() if p.grad is not None)]
