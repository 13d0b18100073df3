"""Galleries of any encoder: timm's, an ONNX file, a Python function."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import huggingface_hub
import matmamba_vision as mv
import numpy as np
import pytest
import timm
import torch
from encoders_made import DIM, INPUT, MeanColour, coloured, onnx_file, timm_folder
from huggingface_hub.errors import LocalEntryNotFoundError
from matmamba_vision.cli.main import main
from matmamba_vision.encoders import open_encoder
from timm.data import create_transform, resolve_data_config
from torch.nn import functional as F


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return coloured(tmp_path_factory.mktemp("photos"))


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> str:
    return timm_folder(tmp_path_factory.mktemp("timm"))


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return onnx_file(tmp_path_factory.mktemp("onnx") / "colour.onnx")


@pytest.fixture
def colour(exported: Path, tmp_path: Path) -> Path:
    """A copy of the ONNX file, without what is to stand beside it."""
    return Path(shutil.copy(exported, tmp_path))


def described(file: Path, **about: object) -> Path:
    file.with_suffix(".json").write_text(json.dumps(INPUT | about))
    return file


def function(name: str = "mean colour", **more: object) -> mv.Encoder:
    return mv.encoder_from(MeanColour(), name, size=48, mean=INPUT["mean"], std=INPUT["std"], **more)  # type: ignore[arg-type]


def split(photos: Path, folder: Path) -> Path:
    """The photos as a training and a held-out part."""
    folder.mkdir()
    (folder / "train").symlink_to(photos)
    coloured(folder / "val", 3, seed=1)
    return folder


def test_a_timm_model_makes_a_gallery_of_its_own_features(photos: Path, teacher: str, tmp_path: Path) -> None:
    assert mv.index(photos, tmp_path / "g", model=teacher).added == 18
    network = timm.create_model(teacher.removeprefix("timm:"), pretrained=True, num_classes=0).eval()
    transform = create_transform(**resolve_data_config({}, model=network))  # type: ignore[no-untyped-call]
    from PIL import Image

    with torch.inference_mode():
        image = transform(Image.open(photos / "red" / "2.png").convert("RGB"))
        wanted = F.normalize(network(image[None]), dim=-1).numpy()
    with mv.open_gallery(tmp_path / "g") as gallery:
        answer = gallery.search(photos / "red" / "2.png", k=3)
        assert answer.hits[0].id == "red/2.png"
        assert answer.hits[0].score == pytest.approx(1, abs=2e-3)
        with gallery.reading() as opened:
            stored = opened.vectors(np.array([opened.keys_of(["red/2.png"])["red/2.png"]]))
        assert np.allclose(stored, wanted, atol=2e-3)
        assert gallery.spec.dim == 512


def test_the_same_gallery_opens_from_another_folder_and_by_its_command(
    photos: Path,
    teacher: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    folder = Path(teacher.rpartition(":")[2])
    monkeypatch.chdir(folder.parent)
    gallery = str(tmp_path / "g")
    command = ["index", "--images", str(photos), "--gallery", gallery]
    assert main([*command, "--checkpoint", f"timm:local-dir:{folder.name}"]) == 0
    monkeypatch.chdir(tmp_path)
    capsys.readouterr()
    assert main(["search", "--gallery", gallery, str(photos / "blue" / "1.png"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["answers"][0]["hits"][0]["id"] == "blue/1.png"
    assert main(["gallery", "verify", gallery, "--images", "3"]) == 0


@pytest.mark.parametrize("what", ["weights", "mean"])
def test_other_weights_or_another_transform_are_refused(
    photos: Path, teacher: str, tmp_path: Path, what: str
) -> None:
    mv.index(photos, tmp_path / "g", model=teacher)
    other = timm_folder(tmp_path / "other", **({"mean": [0.5] * 3} if what == "mean" else {"seed": 1}))
    said = "transformed in another way" if what == "mean" else "another checkpoint"
    with pytest.raises(mv.MatMambaError, match=said):
        mv.index(photos, tmp_path / "g", model=other)
    with pytest.raises(mv.MatMambaError, match=said):
        mv.open_gallery(tmp_path / "g", model=other)


def test_the_same_weights_in_another_architecture_are_another_encoder(photos: Path, tmp_path: Path) -> None:
    """Names and shapes of the weights are the same in timm's port of TensorFlow's; padding is not."""
    mv.index(photos, tmp_path / "g", model=timm_folder(tmp_path / "one", 0, "mobilenetv3_small_100"))
    other = timm_folder(tmp_path / "other", 0, "tf_mobilenetv3_small_100")
    shutil.copy(tmp_path / "one" / "model.safetensors", tmp_path / "other")
    with pytest.raises(mv.MatMambaError, match="another checkpoint"):
        mv.open_gallery(tmp_path / "g", model=other)
    one, two = (mv.open_encoder(f"timm:local-dir:{tmp_path / name}") for name in ("one", "other"))
    assert one.digest != two.digest
    # What students of version 0.1 knew.
    assert one.bare_digest == two.bare_digest


def test_modules_without_weights_are_told_apart_by_name(photos: Path, tmp_path: Path) -> None:
    def encoder(name: str, module: torch.nn.Module) -> mv.Encoder:
        return mv.encoder_from(torch.nn.Sequential(module, torch.nn.Flatten()), name, size=48)

    mean, peak = torch.nn.AdaptiveAvgPool2d(1), torch.nn.AdaptiveMaxPool2d(1)
    mv.index(photos, tmp_path / "g", model=encoder("mean", mean))
    mv.open_gallery(tmp_path / "g", model=encoder("mean", mean)).close()
    with pytest.raises(mv.MatMambaError, match="another checkpoint"):
        mv.open_gallery(tmp_path / "g", model=encoder("peak", peak))


def test_a_gallery_moves_between_encoders(photos: Path, teacher: str, tmp_path: Path) -> None:
    mv.index(photos, tmp_path / "g", model="matmamba_nano_patch4_32")
    assert mv.reindex(tmp_path / "g", teacher).encoded == 18
    assert not mv.reindex(tmp_path / "g", teacher).needed
    with mv.open_gallery(tmp_path / "g") as gallery:
        assert gallery.info()["checkpoint"] == teacher
        assert gallery.search(photos / "red" / "0.png").hits[0].id == "red/0.png"


def test_a_function_is_an_encoder_that_is_handed_over(photos: Path, tmp_path: Path) -> None:
    mv.index(photos, tmp_path / "g", model=function())
    with pytest.raises(mv.CheckpointError, match="Python function mean colour: give it as the model"):
        mv.open_gallery(tmp_path / "g").search(photos / "red" / "0.png")
    with pytest.raises(mv.MatMambaError, match="another checkpoint"):
        mv.open_gallery(tmp_path / "g", model=mv.encoder_from(lambda x: x.mean((2, 3)), "other", size=48))
    with mv.open_gallery(tmp_path / "g", model=function(), write=True) as gallery:
        assert gallery.spec.dim == DIM
        assert {hit.label for hit in gallery.search(photos / "red" / "0.png", k=6).hits} == {"red"}
        assert gallery.add(photos, prefix="more/").added == 18
        assert gallery.verify(images=4).whole


def test_a_function_alone_is_answered_by_what_makes_an_encoder_of_it(photos: Path, tmp_path: Path) -> None:
    for bare in (lambda images: images.mean((2, 3)), torch.nn.Flatten()):
        with pytest.raises(TypeError, match=r"model is .*: encoder_from makes an encoder of a function"):
            mv.index(photos, tmp_path / "g", model=bare)  # type: ignore[arg-type]
    assert not (tmp_path / "g").exists()


def test_an_onnx_file_says_beside_it_how_images_are_prepared(
    photos: Path, colour: Path, tmp_path: Path
) -> None:
    file = described(colour, macs=48 * 48 * 3)
    mv.index(photos, tmp_path / "g", model=file)
    with mv.open_gallery(tmp_path / "g") as gallery:
        answer = gallery.search(photos / "green" / "0.png", k=6)
        assert {hit.label for hit in answer.hits} == {"green"}
        assert answer.encoded_by == {"full": "onnx"}
        assert answer.cost.macs == 48 * 48 * 3
        ours = function().embed(torch.ones(2, 3, 48, 48))
        assert torch.allclose(mv.open_encoder(str(file)).embed(torch.ones(2, 3, 48, 48)), ours, atol=1e-6)
    described(file, mean=[0.5] * 3)
    with pytest.raises(mv.MatMambaError, match="transformed in another way"):
        mv.open_gallery(tmp_path / "g").search(photos / "green" / "0.png")


@pytest.mark.parametrize(
    ("about", "said"),
    [
        (None, "has to say how images are prepared"),
        ("{", "is no JSON"),
        ("[]", "no JSON object"),
        ({"std": None}, "std is nothing: it can be 3 numbers"),
        ({"std": [0, 1, 1]}, "numbers above 0"),
        ({"size": 48}, "'size' is none of"),
        ({"crop_mode": "left"}, "crop_mode is 'left': it can be center"),
        ({"input_size": [3, 48]}, "input_size"),
        ({"input_size": [1, 48, 48], "mean": [0.5], "std": [0.5]}, "no images of 48 pixels"),
        ({"output": "nothing"}, "nothing"),
    ],
)
def test_an_onnx_file_that_cannot_be_used_is_one_line_and_nothing_written(
    photos: Path, colour: Path, tmp_path: Path, about: Any, said: str
) -> None:
    if about is not None:
        text = about if isinstance(about, str) else json.dumps({**INPUT, **about})
        colour.with_suffix(".json").write_text(text)
    with pytest.raises(mv.EncoderError, match=said) as raised:
        mv.index(photos, tmp_path / "g", model=colour)
    assert "\n" not in str(raised.value)
    assert not (tmp_path / "g").exists()


@pytest.mark.parametrize(
    ("features", "said"),
    [
        (lambda images: images, "no pooled features"),
        (lambda images: images.mean((2, 3)) / 0, "not numbers"),
        (lambda images: images.mean(), "no pooled features"),
        (lambda images: images.new_empty(len(images), 0), "no pooled features"),
        (lambda images: None, r"gives nothing for two images: it can be a tensor \(2, D\)"),
        (lambda images: images.mean((2, 3)).numpy(), "gives an array of float32, .* it can be a tensor"),
    ],
)
def test_a_function_without_one_vector_for_each_image_is_refused(features: object, said: str) -> None:
    with pytest.raises(mv.EncoderError, match=said):
        mv.encoder_from(features, "wrong", size=48)  # type: ignore[arg-type]


def test_features_that_change_their_length_or_are_not_numbers_write_nothing(
    photos: Path, tmp_path: Path
) -> None:
    def changing(images: torch.Tensor) -> torch.Tensor:
        return torch.ones(len(images), 3 if len(images) == 2 else 4)

    def wrong(images: torch.Tensor) -> torch.Tensor:
        return torch.where(images.mean((2, 3)) == 0, 1.0, torch.nan)

    with pytest.raises(mv.EncoderError, match="not 3 for each"):
        mv.index(photos, tmp_path / "g", model=mv.encoder_from(changing, "changing", size=48))
    nan = mv.encoder_from(wrong, "nan", size=48, mean=(0.0, 0.0, 0.0))
    with pytest.raises(mv.MatMambaError, match="not numbers"):
        mv.index(photos, tmp_path / "g", model=nan)
    zeros = mv.encoder_from(lambda images: torch.zeros(len(images), 3), "zeros", size=48)
    with pytest.raises(mv.EncoderError, match=r"zeros gives nothing but zeros for blue/0\.png"):
        mv.index(photos, tmp_path / "g", model=zeros)
    assert not (tmp_path / "g").exists()
    mv.index(photos, tmp_path / "g", model=function())

    def found() -> list[str]:
        with mv.open_gallery(tmp_path / "g", model=function()) as gallery:
            return [hit.id for hit in gallery.search(photos / "red" / "2.png", k=5)]

    before = found()
    with pytest.raises(mv.EncoderError, match="zeros gives nothing but zeros for"):
        mv.reindex(tmp_path / "g", model=zeros)
    assert found() == before


def test_a_plan_for_one_width_chooses_among_searches(photos: Path, teacher: str, tmp_path: Path) -> None:
    mv.index(photos, tmp_path / "g", model=teacher)
    asked = coloured(tmp_path / "asked", 4, seed=2)
    with mv.open_gallery(tmp_path / "g", write=True) as gallery:
        plan = gallery.plan(asked, target={"recall": 0.9}, k=3)
        assert {row["query_width"] for row in plan.tried} == {"full"}
        with pytest.raises(mv.WidthError, match="no nested widths"):
            gallery.search(asked / "red" / "0.png", query_width="1/2", strategy="single-shot")
        with pytest.raises(mv.MatMambaError, match="nested networks of ours"):
            gallery.freeze(["full"], kinds=["native"])


def test_a_budget_of_multiply_adds_that_nobody_knows_is_refused(
    photos: Path, colour: Path, tmp_path: Path
) -> None:
    mv.index(photos, tmp_path / "g", model=described(colour))
    with mv.open_gallery(tmp_path / "g", write=True) as gallery:
        with pytest.raises(
            mv.ConfigError, match=r"budget gmacs: nobody knows .*colour\.onnx: say them as macs"
        ):
            gallery.plan(photos, budget={"gmacs": 0.1}, k=3)
        assert gallery.plan(photos, budget={"ms": 1000}, k=3).tried
    described(colour, macs=100)
    with mv.open_gallery(tmp_path / "g", write=True) as gallery:
        assert gallery.plan(photos, budget={"gmacs": 0.1}, k=3).tried


def test_a_study_and_a_validation_of_a_timm_model(photos: Path, teacher: str, tmp_path: Path) -> None:
    root = split(photos, tmp_path / "data")
    said: list[str] = []

    def listen(event: mv.Event) -> None:
        if isinstance(event, mv.Notice):
            said.append(event.text)

    study = mv.evaluate(teacher, data="folder", root=root, grid="quick", threads=1)
    assert {row["query_width"] for row in study.rows} == {"full"}
    assert study.images == {"gallery": 18, "queries": 9}
    found = mv.validate(teacher, data="folder", root=root, output=tmp_path / "v", threads=1, progress=listen)
    (row,) = found.widths
    assert row["knn1"] == 1.0
    assert row["params"] > 1e6
    assert row["gmacs"] > 0
    assert "top1" not in row
    assert found.calibration == []
    assert any("top-1 was skipped" in line for line in said)
    assert (tmp_path / "v" / "heatmap.png").is_file()
    assert not (tmp_path / "v" / "calibration.png").exists()
    with pytest.raises(mv.ConfigError, match="name the data set"):
        mv.validate(teacher)


def test_a_study_takes_nothing_that_another_transform_left(
    photos: Path, teacher: str, tmp_path: Path
) -> None:
    root, other = split(photos, tmp_path / "data"), timm_folder(tmp_path / "other", mean=[0.9, 0.1, 0.5])

    def study(model: str, output: str) -> list[Path]:
        mv.evaluate(model, data="folder", root=root, output=tmp_path / output, grid="quick", threads=1)
        return sorted((tmp_path / output / "encoded").glob("queries-*.npz"))

    (alone,), (first,) = study(other, "alone"), study(teacher, "shared")
    both = study(other, "shared")
    assert len(both) == 2
    (second,) = set(both) - {first}
    one, two, wanted = (np.load(file)["width full"] for file in (first, second, alone))
    assert np.array_equal(two, wanted)
    assert not np.allclose(one, two, atol=1e-3)


def test_a_study_takes_nothing_that_other_images_of_the_same_names_left(
    photos: Path, teacher: str, tmp_path: Path
) -> None:
    root = tmp_path / "data"
    root.mkdir()
    shutil.copytree(photos, root / "train")
    coloured(root / "val", 3, seed=1)

    def study() -> list[Path]:
        mv.evaluate(teacher, data="folder", root=root, output=tmp_path / "study", grid="quick", threads=1)
        return sorted((tmp_path / "study" / "encoded").glob("*-*.npz"))

    before = study()
    assert study() == before
    # Other pixels, the same names and numbers.
    shutil.rmtree(root / "val")
    coloured(root / "val", 3, seed=2)
    after = study()
    assert len(after) > len(before)


def test_weights_of_other_classes_are_validated_in_retrieval_alone(
    photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = split(photos, tmp_path / "data")
    flags = ["--name", "folder", "--root", str(root), "--output", str(tmp_path / "v"), "--threads", "1"]
    assert main(["validate", "--checkpoint", "matmamba_nano_patch4_32", *flags]) == 0
    said = capsys.readouterr()
    assert "top-1 was skipped" in said.out + said.err
    assert "1-NN" in said.out
    written = json.loads((tmp_path / "v" / "results.json").read_text())
    assert [row["width"] for row in written["widths"]] == ["full", "1/2", "1/4", "1/8"]
    assert "top1" not in written["widths"][0]
    assert "map10_p" in written["comparisons"][0]


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("timm:no_such_network", "weights cannot be had"),
        ("timm:local-dir:/no/such", "weights cannot be had"),
        ("nothing.onnx", "no ONNX file"),
        ("function:mine", "hand it over"),
        ("timm:beit3_giant_patch14_224", "weights cannot be had"),
    ],
)
def test_an_encoder_that_is_not_there_is_one_line(
    name: str, said: str, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    gallery = tmp_path / "g"
    assert main(["index", "--checkpoint", name, "--images", str(photos), "--gallery", str(gallery)]) == 2
    found = capsys.readouterr().err
    assert said in found
    assert found.startswith("matmamba: error: ")
    assert found.count("\n") == 1
    assert not gallery.exists()


@pytest.mark.parametrize("line", ["select --budget params=1M", "extract --width 1/2"])
def test_what_takes_nested_widths_alone_says_so(
    line: str, teacher: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = ["--checkpoint", teacher, "--output", str(tmp_path / "out")]
    assert main([*line.split(), *flags]) == 2
    assert "is no model of ours: it has no nested widths" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_what_is_wrong_with_a_folder_is_said_without_advice_about_networks(
    teacher: str, tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(teacher.rpartition(":")[2], tmp_path / "copy"))
    known = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({"pretrained_cfg": known["pretrained_cfg"]}))
    with pytest.raises(mv.EncoderError, match=r"cannot be had: no 'architecture'$"):
        mv.open_encoder(f"timm:local-dir:{folder}")


def test_a_library_that_lists_all_that_it_has_is_cut_short() -> None:
    pytest.importorskip("open_clip")
    with pytest.raises(mv.EncoderError, match=r"not found in built-ins.* Load it once") as raised:
        mv.open_encoder("open_clip:NONE/none")
    assert len(str(raised.value)) < 500


@pytest.mark.parametrize("name", ["timm:beit3_giant_patch14_224", "timm:resnet50.a1_in1k"])
def test_no_network_is_built_whose_weights_are_not_there(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """There are none; or the hub has them, and does not answer."""

    def unreachable(*asked: object, **more: object) -> str:
        raise LocalEntryNotFoundError("the hub does not answer")

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", unreachable)
    monkeypatch.setattr(timm, "create_model", lambda *asked, **more: pytest.fail("it was built"))
    with pytest.raises(mv.MatMambaError, match=r": (timm has none|the hub does not)"):
        open_encoder(name)
