"""Encoders that a gallery keeps: the model's own answers without PyTorch, and never another answer."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any

import matmamba_vision as mv
import numpy as np
import pytest
import torch
from encoders_made import coloured, timm_folder
from matmamba_vision import MatMamba
from matmamba_vision.checkpoint import save_checkpoint
from matmamba_vision.cli import main
from matmamba_vision.errors import ConfigError
from matmamba_vision.galleries import light_making
from matmamba_vision.galleries.light_files import (
    FOLDER,
    ONNX,
    LightFileError,
    light_files,
    read_header,
    read_light,
    write_light,
)
from matmamba_vision.native import Network, why_missing

KERNELS = pytest.mark.skipif(why_missing() is not None, reason=f"no kernels: {why_missing()}")
# Of ONNX Runtime against PyTorch, float32.
TOLERANCE = 1e-4
SIZES: dict[str, Any] = {
    "img_size": 16, "patch_size": 4, "embed_dim": 32, "depth": 2, "num_heads": 4, "head_dim": 16,
    "d_state": 16, "scan": "flip", "num_classes": 3,
}  # fmt: skip


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    model = MatMamba(**SIZES, trained_widths=("full", "1/2", "1/4")).eval()
    return save_checkpoint(tmp_path / "model.safetensors", model)


@pytest.fixture
def folder(tmp_path: Path, photos: Path, checkpoint: Path) -> Path:
    mv.index(photos, tmp_path / "gallery", model=checkpoint)
    return tmp_path / "gallery"


def answer(folder: Path, photo: Path, width: str = "1/4") -> mv.Answer:
    with mv.open_gallery(folder) as gallery:
        found = gallery.search(photo, k=3, strategy="single-shot", query_width=width)
    assert isinstance(found, mv.Answer)
    return found


def told_without_pytorch(arguments: list[str]) -> dict[str, Any]:
    """What a command says in a process of its own, which loads no PyTorch."""
    code = (
        "import sys, matmamba_vision.cli as cli\n"
        "status = cli.main(sys.argv[1:])\n"
        "assert not {'torch', 'timm', 'torchvision', 'matplotlib'} & set(sys.modules), sorted(sys.modules)\n"
        "sys.exit(status)"
    )
    done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    said: dict[str, Any] = json.loads(done.stdout)
    return said


def photo_in(photos: Path) -> Path:
    return next(iter(sorted(photos.rglob("*.jpg"))))


@KERNELS
@pytest.mark.parametrize("kinds", [("native",), ("onnx", "onnx-int8")])
def test_a_kept_encoder_answers_as_the_model(
    folder: Path, photos: Path, kinds: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    # Both kinds of ONNX are made of one export, which takes seconds.
    once = cache(light_making._onnx)
    monkeypatch.setattr(light_making, "_onnx", once)
    monkeypatch.setitem(light_making._CONTENTS, ONNX, once)
    photo = photo_in(photos)
    before = answer(folder, photo)
    assert before.encoded_by["1/4"] not in kinds
    with mv.open_gallery(folder, write=True) as gallery:
        made = gallery.freeze(["1/4"], kinds=kinds)
    assert [one.kind for one in made] == list(kinds)
    after = answer(folder, photo)
    assert [hit.id for hit in after] == [hit.id for hit in before]
    np.testing.assert_allclose([h.score for h in after], [h.score for h in before], atol=5e-3)
    assert after.encoded_by["1/4"].split(" ")[0] in kinds
    assert after.cost.macs == before.cost.macs


@KERNELS
def test_a_search_by_kept_encoders_loads_no_pytorch(folder: Path, photos: Path, checkpoint: Path) -> None:
    with mv.open_gallery(folder, write=True) as gallery:
        gallery.freeze(["full", "1/4"])
    # The checkpoint is not needed either.
    checkpoint.unlink()
    arguments = ["search", "--gallery", str(folder), str(photo_in(photos)), "--query-width", "1/4", "--json"]
    assert told_without_pytorch(arguments)["encoded_by"]["1/4"].startswith("native")


@pytest.fixture(scope="module")
def timm_name(tmp_path_factory: pytest.TempPathFactory) -> str:
    return timm_folder(tmp_path_factory.mktemp("timm"))


@pytest.fixture(scope="module")
def colours(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return coloured(tmp_path_factory.mktemp("colours"))


@pytest.fixture(scope="module")
def frozen_timm(tmp_path_factory: pytest.TempPathFactory, colours: Path, timm_name: str) -> Path:
    folder = tmp_path_factory.mktemp("frozen") / "gallery"
    mv.index(colours, folder, model=timm_name)
    with mv.open_gallery(folder, write=True) as gallery:
        (made,) = gallery.freeze()
    assert (made.kind, made.width) == ("onnx", "full")
    return folder


def test_a_gallery_of_a_timm_model_keeps_its_encoder_and_is_searched_without_pytorch(
    frozen_timm: Path, colours: Path, timm_name: str, tmp_path: Path
) -> None:
    photo = colours / "red" / "0.png"
    with mv.open_gallery(frozen_timm, model=timm_name) as gallery:
        wanted = gallery.search(photo, k=3)
    found = answer(frozen_timm, photo, "full")
    assert [hit.id for hit in found] == [hit.id for hit in wanted]
    np.testing.assert_allclose([h.score for h in found], [h.score for h in wanted], atol=TOLERANCE)
    assert (wanted.encoded_by["full"], found.encoded_by["full"]) == ("pytorch", "onnx")
    # The network is not needed either.
    Path(timm_name.rpartition(":")[2]).rename(away := tmp_path / "away")
    try:
        arguments = ["search", "--gallery", str(frozen_timm), str(photo), "--json"]
        told = told_without_pytorch(arguments)
    finally:
        away.rename(timm_name.rpartition(":")[2])
    assert told["encoded_by"] == {"full": "onnx"}


def test_a_damaged_encoder_of_a_timm_model_is_made_again(
    frozen_timm: Path, colours: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    shutil.copytree(frozen_timm, folder := tmp_path / "gallery")
    (file,) = light_files(folder)
    file.write_bytes(file.read_bytes()[:-9])
    assert answer(folder, colours / "red" / "0.png", "full").encoded_by["full"] == "pytorch"
    assert "damaged" in caplog.text
    read_light(file)


@KERNELS
def test_a_damaged_encoder_is_noticed_and_made_again(
    folder: Path, photos: Path, caplog: pytest.LogCaptureFixture
) -> None:
    photo = photo_in(photos)
    before = answer(folder, photo)
    with mv.open_gallery(folder, write=True) as gallery:
        (made,) = gallery.freeze(["1/4"])
    content = bytearray(made.file.read_bytes())
    content[-100] ^= 1
    made.file.write_bytes(content)
    assert not mv.open_gallery(folder).verify().whole
    found = answer(folder, photo)
    assert "damaged" in caplog.text
    np.testing.assert_allclose([h.score for h in found], [h.score for h in before], atol=TOLERANCE)
    read_light(made.file)
    assert answer(folder, photo).encoded_by["1/4"].startswith("native")


@KERNELS
def test_a_lost_encoder_is_made_again_beside_others(folder: Path, photos: Path) -> None:
    with mv.open_gallery(folder, write=True) as gallery:
        lost, _ = gallery.freeze(["1/4", "full"])
    lost.file.unlink()
    assert answer(folder, photo_in(photos)).encoded_by["1/4"] != "native"
    read_light(lost.file)


@KERNELS
def test_an_encoder_of_another_model_is_never_used(
    tmp_path: Path, folder: Path, photos: Path, caplog: pytest.LogCaptureFixture
) -> None:
    photo = photo_in(photos)
    before = answer(folder, photo)
    torch.manual_seed(1)
    other = save_checkpoint(
        tmp_path / "other.safetensors", MatMamba(**SIZES, trained_widths=("full", "1/4")).eval()
    )
    mv.index(photos, tmp_path / "other", model=other)
    with mv.open_gallery(tmp_path / "other", write=True) as gallery:
        (made,) = gallery.freeze(["1/4"])
    # As it is, and under the name that one of this gallery's model would have.
    (folder / FOLDER).mkdir()
    shutil.copy(made.file, folder / FOLDER / made.file.name)
    with mv.open_gallery(folder) as gallery:
        prefix = gallery.spec.checkpoint[:16]
    shutil.copy(made.file, folder / FOLDER / f"{prefix}{made.file.name[16:]}")
    found = answer(folder, photo)
    assert [hit.score for hit in found] == [hit.score for hit in before]
    assert "is not what its name says" in caplog.text


@KERNELS
def test_repair_removes_what_is_damaged(folder: Path) -> None:
    with mv.open_gallery(folder, write=True) as gallery:
        (made,) = gallery.freeze(["full"])
        made.file.write_bytes(b"nothing")
        (damage,) = gallery.verify().damages
        assert damage.file == made.file
        assert gallery.repair().whole
        assert gallery.verify().whole
    assert not light_files(folder)


def test_what_cannot_be_frozen_is_named(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with mv.open_gallery(folder, write=True) as gallery:
        with pytest.raises(ConfigError, match="kind 'torch' is none of native, onnx, onnx-int8"):
            gallery.freeze(kinds=["torch"])
        # One text is a list of one, as elsewhere.
        with pytest.raises(ConfigError, match="kind 'torch' is none of"):
            gallery.freeze("1/4", kinds="torch")
        with pytest.raises(mv.MatMambaError, match="'1/3'"):
            gallery.freeze("1/3")
        with pytest.raises(mv.MatMambaError, match="1/3"):
            gallery.freeze(["1/3"])
    with mv.open_gallery(folder) as gallery, pytest.raises(mv.MatMambaError, match="write=True"):
        gallery.freeze()
    assert main(["gallery", "freeze", str(folder), "--widths", "nonsense"]) == 2
    assert "nonsense" in capsys.readouterr().err
    assert not light_files(folder)


@KERNELS
def test_a_header_says_what_an_encoder_is(folder: Path) -> None:
    with mv.open_gallery(folder, write=True) as gallery:
        (made,) = gallery.freeze(["1/4"])
        spec = gallery.spec
    header = read_header(made.file)
    assert (header.checkpoint, header.dim, header.width) == (spec.checkpoint, spec.dim, "1/4")
    assert header.trained_widths == ("full", "1/2", "1/4")
    written = write_light(folder, header, b"something else")
    assert written == made.file
    made.file.write_bytes(made.file.read_bytes()[:-1])
    with pytest.raises(LightFileError, match="damaged"):
        read_light(made.file)


@KERNELS
def test_kernels_that_compute_something_else_are_refused(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    embed = Network.embed
    monkeypatch.setattr(Network, "embed", lambda network, images: embed(network, images)[:, ::-1])
    with (
        mv.open_gallery(folder, write=True) as gallery,
        pytest.raises(mv.MatMambaError, match="does not give what the model gives"),
    ):
        gallery.freeze(["1/4"], kinds=["native"])
    assert not light_files(folder)
