"""What a run starts from."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import safetensors
import torch
from matmamba_vision import CheckpointError, MatMamba, load_official, save_checkpoint
from matmamba_vision.models import importance_of_weights
from matmamba_vision.training import ModelConfig
from matmamba_vision.training.build import build_model
from safetensors.torch import load_file
from small import create

GOLDEN = Path(__file__).parents[1] / "data" / "official_tiny.safetensors"
ORDINARY = "mamba2_nano_patch4_32"


@pytest.fixture
def ordinary(tmp_path: Path) -> MatMamba:
    """An ordinary Mamba2 for 5 classes, saved in a run's folder; its positions are larger than fresh ones."""
    torch.manual_seed(0)
    model = create(ORDINARY, num_classes=5, proj_drop_rate=0.2).eval()
    assert isinstance(model, MatMamba)
    model.pos_embed.data.mul_(20)
    save_checkpoint(tmp_path / "run", model, tuple("abcde"))
    return model


def started(tmp_path: Path, classes: int = 5, **config: Any) -> MatMamba:
    return build_model(ModelConfig(init=str(tmp_path / "run"), **config), classes)


def differing(one: MatMamba, other: MatMamba) -> set[str]:
    state = other.state_dict()
    return {name for name, tensor in one.state_dict().items() if not torch.equal(tensor, state[name])}


def test_a_warm_start_sees_what_the_checkpoint_sees_at_half_the_resolution(tmp_path: Path) -> None:
    torch.manual_seed(0)
    small = create("matmamba_nano_patch4_32", num_classes=5).eval()
    save_checkpoint(tmp_path / "run", small, tuple("abcde"))
    config = ModelConfig(
        name="matmamba_nano_patch4_32",
        img_size=64,
        patch_size=8,
        projection=24,
        warm_start=str(tmp_path / "run"),
    )
    model = build_model(config, 3).eval()
    assert (model.embedding_dim, model.num_classes, len(model.blocks)) == (24, 3, len(small.blocks))
    assert torch.equal(model.pos_embed, small.pos_embed)
    smooth = torch.randn(2, 3, 4, 4)
    images, larger = (
        torch.nn.functional.interpolate(smooth, size=size, mode="bilinear") for size in (32, 64)
    )
    seen, also = (one.forward_features(x).flatten(1) for one, x in ((small, images), (model, larger)))
    assert torch.nn.functional.cosine_similarity(seen, also).min() > 0.99


def test_a_warm_start_that_does_not_fit_is_refused(tmp_path: Path) -> None:
    save_checkpoint(tmp_path / "run", create("matmamba_nano_patch4_32", num_classes=5))
    with pytest.raises(ValueError, match=r"weights of .* do not fit this model, such as blocks\.0"):
        build_model(ModelConfig(name="matmamba_tiny_patch16_224", warm_start=str(tmp_path / "run")), 3)
    with pytest.raises(ValueError, match="one checkpoint"):
        build_model(ModelConfig(init="x", warm_start="y"), 3)


def test_a_fresh_model_is_the_variant_with_what_is_asked() -> None:
    config = ModelConfig(img_size=16, scan="raster", drop_rate=0.3, head_bias=-2.0, grad_checkpointing=True)
    model = build_model(config, 3)
    known = model.architecture
    assert (known.img_size, known.scan, known.drop_rate, known.num_classes) == ((16, 16), "raster", 0.3, 3)
    assert model.head_drop.p == 0.3
    assert model.get_parameter("head.bias").tolist() == [-2.0] * 3
    assert model.grad_checkpointing
    assert model.training
    assert model.input["input_size"] == (3, 16, 16)
    assert not build_model(ModelConfig(), 3).get_parameter("head.bias").any()


def test_a_checkpoint_with_the_same_classes_starts_where_it_ended(ordinary: MatMamba, tmp_path: Path) -> None:
    model = started(tmp_path, proj_drop_rate=0.1, drop_path_rate=0.3, name="matvit_nano_patch4_32")
    images = torch.randn(2, 3, 32, 32)
    assert torch.equal(model.eval()(images), ordinary(images))
    rates = {"proj_drop_rate": 0.1, "drop_path_rate": 0.3}
    assert model.arguments == ordinary.arguments | rates
    assert model.stack[1].proj_drop.p == 0.1
    assert model.stack[-1].drop_path.drop_prob == pytest.approx(0.3)
    assert [model.label(width) for width in model.trained_widths] == ["full"]


def test_other_classes_get_a_new_head_and_nothing_else(ordinary: MatMamba, tmp_path: Path) -> None:
    model = started(tmp_path, 7, head_bias=-math.log(7), grad_checkpointing=True)
    del model.head, ordinary.head
    assert differing(model, ordinary) == set()
    model = started(tmp_path, 7, head_bias=-math.log(7))
    weight = model.get_parameter("head.weight")
    assert weight.shape == (7, 128)
    assert 0 < weight.std() < 0.03
    assert model.get_parameter("head.bias").tolist() == pytest.approx([-math.log(7)] * 7)
    assert model.pretrained_cfg is not None
    assert model.num_classes == model.pretrained_cfg["num_classes"] == 7


def test_another_image_size_gets_interpolated_positions(ordinary: MatMamba, tmp_path: Path) -> None:
    """The same image enlarged, seen through patches as enlarged: nearly the same tokens on a finer grid."""
    model = started(tmp_path, img_size=64)
    assert differing(model, ordinary) == {"pos_embed"}
    assert model.pretrained_cfg is not None
    assert model.input["input_size"] == model.pretrained_cfg["input_size"] == (3, 64, 64)
    old = ordinary.pos_embed[:, :-1].mT.unflatten(-1, (8, 8))
    new = model.pos_embed[:, :-1].mT.unflatten(-1, (16, 16))
    again = torch.nn.functional.avg_pool2d(new, 2)
    assert torch.corrcoef(torch.stack([again.flatten(), old.flatten()]))[0, 1] > 0.9
    assert torch.equal(model.pos_embed[:, -1], ordinary.pos_embed[:, -1])
    both = started(tmp_path, img_size=64, patch_size=8)
    assert differing(both, ordinary) == {"patch_embed.proj.weight"}
    save_checkpoint(tmp_path / "again", model)
    assert build_model(ModelConfig(init=str(tmp_path / "again")), 5).arguments["img_size"] == [64, 64]


def test_an_ordinary_checkpoint_becomes_a_nested_model(ordinary: MatMamba, tmp_path: Path) -> None:
    model = started(tmp_path, sort_heads=True)
    assert [model.label(width) for width in model.trained_widths] == ["full", "1/2", "1/4", "1/8"]
    images = torch.randn(2, 3, 32, 32)
    torch.testing.assert_close(model.eval()(images), ordinary(images), atol=1e-5, rtol=0)
    for values in importance_of_weights(model).values():
        assert (values.diff() <= 0).all()
    other = started(tmp_path, sort_heads=True, trained_widths=["full", "3/4"])
    assert [other.label(width) for width in other.trained_widths] == ["full", "3/4"]


def test_a_published_checkpoint_is_a_start_too(tmp_path: Path) -> None:
    folder = tmp_path / "published"
    folder.mkdir()
    weights = {k.removeprefix("param."): v for k, v in load_file(GOLDEN).items() if k.startswith("param.")}
    with safetensors.safe_open(GOLDEN, "pt") as file:
        (folder / "config.json").write_text(file.metadata()["config"])
    for name in ("pytorch_model.bin", "model.safetensors"):
        file = folder / name
        torch.save(weights, file) if file.suffix == ".bin" else safetensors.torch.save_file(weights, file)
        classes = json.loads((folder / "config.json").read_text())["n_classes"]
        for start in (folder, file):
            model = build_model(ModelConfig(init=str(start)), classes)
            assert differing(model, load_official(folder)) == set()


@pytest.mark.parametrize(
    ("config", "classes", "said"),
    [
        (
            {"scan": "cross", "reg_tokens": 4},
            5,
            "model.scan cross, model.reg_tokens 4: .*have scan flip, reg_",
        ),
        ({"mlp_ratio": 0.33}, 5, "model.mlp_ratio 0.33"),
        ({"mean_token": True}, 5, "model.mean_token True"),
        ({"head_bias": 1.0}, 5, "model.head_bias: .*keeps its head"),
        ({"img_size": 30}, 5, "img_size 30"),
        ({"trained_widths": ["full", "1/3"]}, 5, "1/3"),
    ],
)
@pytest.mark.usefixtures("ordinary")
def test_what_does_not_go_with_a_checkpoint_is_named(
    tmp_path: Path, config: dict[str, Any], classes: int, said: str
) -> None:
    with pytest.raises(ValueError, match=said):
        started(tmp_path, classes, **config)
    # What says the same as the checkpoint is no contradiction.
    started(tmp_path, scan="flip", mlp_ratio=0.0, mean_token=False, reg_tokens=0)


def test_a_start_that_is_none_is_named(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="nowhere"):
        build_model(ModelConfig(init=str(tmp_path / "nowhere")), 5)
    with pytest.raises(ValueError, match=r"model\.init: timm:resnet10t is no model of ours"):
        build_model(ModelConfig(init="timm:resnet10t"), 5)
    (tmp_path / "empty").mkdir()
    with pytest.raises(CheckpointError, match="empty"):
        build_model(ModelConfig(init=str(tmp_path / "empty")), 5)
    with pytest.raises(ValueError, match=r"model\.init"):
        build_model(ModelConfig(sort_heads=True), 5)
    with pytest.raises(ValueError, match="matmamba_tiny_patch16_224"):
        build_model(ModelConfig(name="resnet18"), 5)
    with pytest.raises(ValueError, match="model: reg_tokens"):
        build_model(ModelConfig(reg_tokens="two"), 5)  # type: ignore[arg-type]


def test_weights_alone_start_the_model_that_is_named(tmp_path: Path) -> None:
    """As `torch.save` writes them after training on several processes; other classes get a new head."""
    name = "matmamba_nano_patch4_32"
    torch.manual_seed(0)
    trained = create(name, num_classes=4)
    state = {f"module.{key}": tensor for key, tensor in trained.state_dict().items()}
    torch.save({"model": state, "epoch": 3}, tmp_path / "weights.pth")
    init = str(tmp_path / "weights.pth")
    assert not differing(trained, build_model(ModelConfig(name=name, init=init), 4))
    assert differing(trained, build_model(ModelConfig(name=name, init=init), 4 + 1)) >= {"head.weight"}
    with pytest.raises(
        CheckpointError, match=r"weights\.pth does not hold the weights of matvit.*lacks blocks\.0"
    ):
        build_model(ModelConfig(name="matvit_nano_patch4_32", init=init), 4)
