"""Galleries of open_clip's networks: asked by images and by texts, without a network."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import matmamba_vision as mv
import pytest
import torch
from encoders_made import clip_folder, coloured, student_run
from matmamba_vision.cli.main import main
from PIL import Image
from torch.nn import functional as F

open_clip = pytest.importorskip("open_clip")


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return coloured(tmp_path_factory.mktemp("photos"))


@pytest.fixture(scope="module")
def towers(tmp_path_factory: pytest.TempPathFactory) -> str:
    return clip_folder(tmp_path_factory.mktemp("clip"))


def test_images_and_texts_are_encoded_as_by_open_clip_itself(photos: Path, towers: str) -> None:
    encoder = mv.open_encoder(towers)
    name = towers.removeprefix("open_clip:")
    network, preprocess = open_clip.create_model_from_pretrained(name)
    image = preprocess(Image.open(photos / "red" / "3.png").convert("RGB"))[None]
    with torch.inference_mode():
        wanted = F.normalize(network.eval().encode_image(image), dim=-1)
        words = F.normalize(network.encode_text(open_clip.get_tokenizer(name)(["a red bicycle"])), dim=-1)
    assert torch.allclose(encoder.embed(image), wanted, atol=1e-6)
    assert torch.allclose(encoder.embed_texts(["a red bicycle"]), words, atol=1e-6)
    assert (encoder.dim, encoder.size) == (16, 48)
    from matmamba_datasets import eval_transform

    with Image.open(photos / "red" / "3.png") as opened:
        prepared = torch.from_numpy(eval_transform(encoder.input).array(opened.convert("RGB")))
    assert (prepared - image[0]).abs().max() < 0.02


def test_a_gallery_of_two_towers_is_asked_by_image_and_by_text(
    photos: Path, towers: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    gallery = str(tmp_path / "g")
    assert main(["index", "--images", str(photos), "--gallery", gallery, "--checkpoint", towers]) == 0
    capsys.readouterr()
    red = str(photos / "red" / "0.png")
    assert main(["search", "--gallery", gallery, red, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["answers"][0]["hits"][0]["id"] == "red/0.png"
    assert main(["search", "--gallery", gallery, "--text", "a red bicycle", "--k", "3", "--json"]) == 0
    (answer,) = json.loads(capsys.readouterr().out)["answers"]
    encoder = mv.open_encoder(towers)
    with mv.open_gallery(gallery) as opened:
        assert opened.info()["takes_text"] is True
        wanted = opened.search(encoder.embed_texts(["a red bicycle"]).numpy()[0], k=3)
        assert [hit["id"] for hit in answer["hits"]] == [hit.id for hit in wanted]
    assert main(["search", "--gallery", gallery, red, "--text", "in snow"]) == 0
    assert "in snow" in capsys.readouterr().out


def test_other_weights_are_refused_and_none_are_said(
    photos: Path, towers: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    mv.index(photos, tmp_path / "g", model=towers)
    with pytest.raises(mv.MatMambaError, match="another checkpoint"):
        mv.open_gallery(tmp_path / "g", model=clip_folder(tmp_path / "other", seed=1))
    empty = tmp_path / "empty"
    empty.mkdir()
    for name in ("ViT-B-32", "ViT-B-32/none", "None/none", f"local-dir:{empty}", "local-dir:/no/such"):
        capsys.readouterr()
        command = ["index", "--checkpoint", f"open_clip:{name}", "--images", str(photos)]
        assert main([*command, "--gallery", str(tmp_path / "new")]) == 2
        said = capsys.readouterr().err
        assert said.startswith("matmamba: error: open_clip:")
        assert said.count("\n") == 1
    config = Path(towers.rpartition(":")[2]) / "open_clip_config.json"
    (empty / config.name).write_text(config.read_text())
    with pytest.raises(mv.EncoderError, match="weights cannot be had"):
        mv.open_encoder(f"open_clip:local-dir:{empty}")


def test_without_the_library_it_is_said_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "open_clip", None)
    with pytest.raises(mv.EncoderError, match=r"matmamba-vision\[clip\]"):
        mv.open_encoder("open_clip:ViT-B-32/openai")


def test_a_students_teacher_is_asked_by_texts_in_its_rotated_space(
    photos: Path, towers: str, tmp_path: Path
) -> None:
    """At the teacher's full length the rotation is an isometry: texts are as near as they were."""
    run = student_run(tmp_path / "run", towers, photos)
    mv.index(photos, tmp_path / "plain", model=towers)
    mv.index(photos, tmp_path / "turned", model=mv.with_teacher(run))
    with mv.open_gallery(tmp_path / "plain") as plain, mv.open_gallery(tmp_path / "turned") as turned:
        assert plain.spec.dim == turned.spec.dim == 16
        assert turned.takes_text()
        scores = [
            {hit.id: hit.score for hit in gallery.search(text="a red bicycle", k=18).hits}
            for gallery in (plain, turned)
        ]
    assert scores[1] == pytest.approx(scores[0], abs=2e-3)


def test_the_same_weights_with_another_activation_are_another_encoder(
    photos: Path, towers: str, tmp_path: Path
) -> None:
    mv.index(photos, tmp_path / "g", model=towers)
    other = clip_folder(tmp_path / "other", quick_gelu=True)
    assert mv.open_encoder(other).bare_digest == mv.open_encoder(towers).bare_digest
    with pytest.raises(mv.MatMambaError, match="another checkpoint"):
        mv.open_gallery(tmp_path / "g", model=other)
