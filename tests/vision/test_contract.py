"""timm's contract, at every trained width of every kind of model; `make test-timm` runs timm's own tests."""

from __future__ import annotations

import copy
import json
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from matmamba_vision import MatMamba, load_checkpoint, save_checkpoint
from matmamba_vision.models import default_cfgs
from small import create
from timm.models import get_notrace_functions, get_notrace_modules, group_parameters
from torchvision.models.feature_extraction import NodePathTracer, create_feature_extractor

WIDTHS = ("full", "1/2", "1/4", "1/8")
# All kinds of blocks and scans, in small; (variant, arguments).
KINDS: dict[str, tuple[str, dict[str, Any]]] = {
    "matmamba": ("matmamba_nano_patch4_32", {}),
    "hybrid with MLP": ("matmamba_hybrid_nano_patch4_32", {"mlp_ratio": 2.0}),
    "matvit": ("matvit_nano_patch4_32", {}),
    "mamba2": ("mamba2_nano_patch4_32", {}),
    "flip, mean, registers": (
        "matmamba_nano_patch4_32",
        {"scan": "flip", "mean_token": True, "reg_tokens": 2, "drop_path_rate": 0.1, "bias": True},
    ),
    "cross, groups": ("matmamba_nano_patch4_32", {"scan": "cross", "heads_per_group": 4}),
    "bidirectional": ("matmamba_nano_patch4_32", {"scan": "bidirectional", "global_pool": "avg"}),
}
# Each kind at two widths, which are every pair in turn; at the others it is slow.
PAIRS = [*combinations(WIDTHS, 2)]
each = pytest.mark.parametrize(
    ("kind", "width"),
    [
        pytest.param(kind, width, marks=[] if width in PAIRS[number % len(PAIRS)] else pytest.mark.slow)
        for number, kind in enumerate(KINDS)
        for width in WIDTHS
    ],
)


def make(kind: str, width: str, **changes: Any) -> MatMamba:
    name, arguments = KINDS[kind]
    torch.manual_seed(0)
    small: dict[str, Any] = (
        {"img_size": 16, "depth": 3} if "matvit" not in name and "hybrid" not in name else {"img_size": 16}
    )
    return create(name, width=width, num_classes=7, **{**small, **arguments, **changes})


def images(count: int = 2, size: int = 16) -> torch.Tensor:
    return torch.randn(count, 3, size, size, generator=torch.Generator().manual_seed(1))


@each
def test_attributes_and_arguments(kind: str, width: str) -> None:
    model = make(kind, width)
    assert (model.num_classes, model.in_chans) == (7, 3)
    assert (
        model.num_features
        == model.embed_dim
        == model.head_hidden_size
        == model.get_parameter("norm.weight").numel()
    )
    assert [info["module"] for info in model.feature_info] == [
        f"blocks.{i}" for i in range(len(model.blocks))
    ]
    assert all(info["reduction"] == 4 and info["num_chs"] == model.embed_dim for info in model.feature_info)
    default_cfg: Any = model.default_cfg
    assert default_cfg["classifier"] == "head"
    assert (
        MatMamba(**json.loads(json.dumps(model.arguments)), trained_widths=["full"]).arguments
        == model.arguments
    )


@each
def test_every_parameter_gets_a_gradient(kind: str, width: str) -> None:
    model = make(kind, width, global_pool="token")
    model.train()(images()).square().sum().backward()
    missing = [
        name for name, tensor in model.named_parameters() if tensor.grad is None or not tensor.grad.any()
    ]
    # A softmax does not change when all keys move together.
    assert not [name for name in missing if "qkv_bias" not in name]


@each
def test_meta_and_bfloat16(kind: str, width: str) -> None:
    model = make(kind, width, device="meta")
    assert {tensor.device.type for tensor in model.state_dict().values()} == {"meta"}
    assert model(images().to("meta")).shape == (2, 7)
    real = make(kind, width).bfloat16().eval()
    assert real(images().bfloat16()).dtype == torch.bfloat16


@each
@torch.no_grad()
def test_intermediates_and_pruning(kind: str, width: str) -> None:
    model, x = make(kind, width).eval(), images()
    tokens, taps = model.forward_intermediates(x)
    assert torch.equal(tokens, model.forward_features(x))
    assert all(tap.shape == (2, model.embed_dim, 4, 4) for tap in taps)
    model.set_grad_checkpointing()
    assert torch.equal(model.forward_features(x), tokens)
    for block in range(len(taps)):
        (early,) = model.forward_intermediates(x, indices=[block], stop_early=True, intermediates_only=True)
        assert torch.equal(early, taps[block])
        pruned = copy.deepcopy(model)
        assert pruned.prune_intermediate_layers([block]) == [block]
        assert len(pruned.blocks) == len(pruned.heads) == len(pruned.feature_info) == block + 1
        assert torch.equal(
            pruned.forward_intermediates(x, indices=1, intermediates_only=True)[0], taps[block]
        )
        assert pruned(x).shape == tokens.shape


@torch.no_grad()
def test_intermediates_in_every_form() -> None:
    model, x = make("flip, mean, registers", "full").eval(), images()
    tokens, pairs = model.forward_intermediates(
        x, [0, -1], return_prefix_tokens=True, norm=True, output_fmt="NLC"
    )
    last, others = pairs[1]
    assert torch.equal(torch.cat([others[:, :2], last, others[:, 2:]], dim=1), tokens)
    named = model.forward_intermediates(x, output_dict=True, return_prefix_tokens=True)
    assert {*named} == {"image_features", "image_intermediates", "image_intermediates_prefix"}
    half = model.forward_intermediates(x, width="1/2", intermediates_only=True)
    submodel = timm.create_model(
        "matmamba_nano_patch4_32", features_only=True, width="1/2", out_indices=[0, 2]
    )
    assert half[0].shape == (2, 128, 4, 4)
    assert [feature.shape for feature in submodel(images(1, 32))] == [(1, 128, 8, 8)] * 2
    with pytest.raises(ValueError, match="NHWC"):
        model.forward_intermediates(x, output_fmt="NHWC")
    for indices in ([3], 0, [-4], []):
        with pytest.raises(ValueError, match="indices"):
            model.forward_intermediates(x, indices)


@each
def test_fx_is_exactly_equal(kind: str, width: str) -> None:
    model = make(kind, width).eval()
    modules: Any = get_notrace_modules
    functions: Any = get_notrace_functions
    known = {"leaf_modules": modules(), "autowrap_functions": functions()}
    graph = NodePathTracer(**known).trace(model)
    last = [node.name for node in graph.nodes][-2]
    traced = create_feature_extractor(
        model, [last.replace("_", ".") if "." in last else last], tracer_kwargs=known
    )
    with torch.no_grad():
        assert torch.equal(next(iter(traced(images(3)).values())), model(images(3)))
    model.zero_grad()
    next(iter(traced(images()).values())).sum().backward()
    assert all(tensor.grad is not None for name, tensor in model.named_parameters() if name != "cls_token")


@each
def test_the_classifier_and_the_size_can_be_changed(kind: str, width: str) -> None:
    model = make(kind, width).requires_grad_(False).double()
    model.reset_classifier(0)
    model.reset_classifier(3, "avg")
    assert model.get_classifier().weight.dtype == torch.float64
    model.set_input_size(img_size=(24, 32))
    assert not [name for name, tensor in model.named_parameters() if tensor.requires_grad]
    assert model(torch.randn(2, 3, 24, 32, dtype=torch.float64)).shape == (2, 3)
    assert model.input["input_size"] == (3, 24, 32)
    assert MatMamba(**model.arguments, trained_widths=["full"]).pos_embed.shape == model.pos_embed.shape
    with pytest.raises(ValueError, match="max"):
        model.reset_classifier(3, "max")
    model.set_input_size(patch_size=8)
    assert model.forward_features(torch.randn(2, 3, 24, 32, dtype=torch.float64)).shape[1] >= 13


@each
@torch.no_grad()
def test_other_sizes_by_interpolated_positions(kind: str, width: str) -> None:
    model = make(kind, width, dynamic_img_size=True).eval()
    other = copy.deepcopy(model)
    other.set_input_size((24, 8))
    x = torch.randn(2, 3, 24, 8)
    assert torch.equal(model(x), other(x))
    assert torch.equal(model(images()), make(kind, width).eval()(images()))
    with pytest.raises(ValueError, match="18x16"):
        model(torch.randn(1, 3, 18, 16))
    with pytest.raises(ValueError, match="24x24"):
        make(kind, width)(torch.randn(1, 3, 24, 24))


@each
def test_parameter_groups(kind: str, width: str) -> None:
    model = make(kind, width)
    names = {name for name, _ in model.named_parameters()}
    assert model.no_weight_decay() <= names
    groups = group_parameters(model, model.group_matcher(), reverse=True)
    assert {*groups} == names
    assert groups["blocks.0.norm.weight"] < groups["blocks.1.norm.weight"] < groups["head.weight"]


@pytest.mark.parametrize("in_chans", [1, 5])
def test_other_channels(in_chans: int) -> None:
    model = make("matmamba", "1/4", in_chans=in_chans)
    assert model(torch.randn(1, in_chans, 16, 16)).shape == (1, 7)
    assert model.input["input_size"] == (in_chans, 16, 16)


@pytest.mark.parametrize("kind", KINDS)
def test_fresh_weights_after_to_empty(kind: str) -> None:
    """`init_weights` leaves nothing as it was."""
    model = make(kind, "full", device="meta").to_empty(device="cpu").eval()
    with torch.no_grad():
        for tensor in [*model.parameters(), *model.buffers()]:
            tensor.fill_(torch.nan)
    model.init_weights()
    assert all(tensor.isfinite().all() for tensor in [*model.parameters(), *model.buffers()])
    assert model(images()).isfinite().all()


@pytest.mark.parametrize("name", default_cfgs)
def test_every_variant_on_meta(name: str) -> None:
    """All sizes, at all of their trained widths, without weights; the configuration names what there is."""
    full = create(name, device="meta")
    widths = [full.label(width) for width in full.trained_widths]
    for width in widths:
        model = create(name, width=width, device="meta", num_classes=3)
        cfg: Any = model.default_cfg
        state = model.state_dict()
        assert cfg["architecture"] == name
        assert f"{cfg['first_conv']}.weight" in state
        assert f"{cfg['classifier']}.weight" in state
        # Those in between go through the same blocks.
        if width in (widths[0], widths[-1]):
            assert model(torch.empty(2, *cfg["input_size"], device="meta")).shape == (2, 3)
    with pytest.raises(TypeError, match="not_a_model_arg"):
        timm.create_model(name, device="meta", not_a_model_arg=1)


@each
def test_saved_and_loaded_bit_for_bit(kind: str, width: str, tmp_path: Path) -> None:
    model = make(kind, width).eval()
    save_checkpoint(tmp_path, model)
    assert torch.equal(load_checkpoint(tmp_path).model(images()), model(images()))
    timm.models.save_for_hf(model, str(tmp_path / "hub"))
    loaded = create(f"local-dir:{tmp_path / 'hub'}", pretrained=True).eval()
    assert torch.equal(loaded(images()), model(images()))


@torch.no_grad()
def test_weights_of_another_size_are_interpolated(tmp_path: Path) -> None:
    model = make("matmamba", "full").eval()
    timm.models.save_for_hf(model, str(tmp_path))
    larger = create(f"local-dir:{tmp_path}", pretrained=True, img_size=24, patch_size=8).eval()
    model.set_input_size(24, 8)
    torch.testing.assert_close(larger(images(2, 24)), model(images(2, 24)), rtol=1e-4, atol=1e-5)
    submodel = create(f"local-dir:{tmp_path}", pretrained=True, width="1/4").eval()
    assert torch.equal(submodel(images()), make("matmamba", "1/4").eval()(images()))
