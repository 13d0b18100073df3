"""Teacher vectors that are computed once: the same however they came to be, and never those of another."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from encoders_made import INPUT, onnx_file
from matmamba_datasets import JoinedImages, eval_transform, open_training_images
from matmamba_vision.encoders import Encoder, open_encoder
from matmamba_vision.progress import Reporter
from matmamba_vision.rotation import FILE_NAME, fit_rotation
from matmamba_vision.runs import teacher_cache, teaching
from matmamba_vision.runs.teacher_cache import image_keys
from matmamba_vision.training import VectorCache, vector_cache
from matmamba_vision.training.folder import hold
from PIL import Image
from safetensors.torch import load_file, save_file
from teachers import distill, write_photos, write_teacher
from torch import Tensor

PROGRAM = Path(__file__).parents[1] / "killed_filling.py"
CROPS = ["--crops", "3", "--optim.epochs", "2"]


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_photos(tmp_path_factory.mktemp("photos"))


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> str:
    return write_teacher(tmp_path_factory.mktemp("teacher"))


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, teacher: str, photos: Path) -> Path:
    """A run that filled a cache of its own."""
    run = tmp_path_factory.mktemp("runs") / "run"
    with pytest.MonkeyPatch.context() as small:
        small.setattr(vector_cache, "TOGETHER", 30)
        assert distill(teacher, photos, run, *CROPS, "--optim.lr", "0.003") == 0
    return run


@pytest.fixture(autouse=True)
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Four parts of 36 images."""
    monkeypatch.setattr(vector_cache, "TOGETHER", 30)


def parts(folder: Path) -> list[Path]:
    return sorted(folder.rglob("part-*.safetensors"))


def contents(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in parts(folder)}


def refused(capsys: pytest.CaptureFixture[str], status: int) -> str:
    assert status == 2
    error = capsys.readouterr().err.strip()
    assert "\n" not in error
    return error


def losses(run: Path) -> list[float]:
    found = map(json.loads, (run / "metrics.jsonl").read_text().splitlines())
    return [row["loss"] for row in found if row["event"] == "epoch"]


def same_weights(one: Path, other: Path) -> bool:
    first, second = (load_file(run / "model.safetensors") for run in (one, other))
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


def test_kept_vectors_are_the_teachers_of_the_views(run: Path, teacher: str, photos: Path) -> None:
    files = parts(run)
    assert len(files) == 4
    values = torch.cat([load_file(file)["values"] for file in files])
    assert values.shape == (36, 3, 512)
    assert values.dtype == torch.float16
    images, encoder = open_training_images(photos), open_encoder(teacher)
    # The first view of a photo is what a search sees: its middle.
    transform = eval_transform(encoder.input)
    whole = encoder.embed(torch.stack([transform(images[index].image) for index in range(36)]))
    assert float((values[:, 0].float() * whole).sum(1).min()) > 0.999
    assert float((values[:, 1].float() * values[:, 0].float()).sum(1).max()) < 0.9999
    assert losses(run)[-1] < losses(run)[0]


def test_a_second_run_needs_no_teacher_but_its_files(
    run: Path, teacher: str, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def absent(*_: object, **__: object) -> Encoder:
        raise AssertionError("loaded")

    for module in (teacher_cache, teaching):
        monkeypatch.setattr(module, "open_encoder", absent)
    shared = ["--cache", str(run / "teacher")]
    assert distill(teacher, photos, tmp_path / "run", *CROPS, *shared, "--optim.lr", "0.003") == 0
    assert same_weights(run, tmp_path / "run")
    # Moved photos are the same photos, and so is a teacher of another name.
    moved = shutil.copytree(photos, tmp_path / "elsewhere")
    folder = shutil.copytree(teacher.removeprefix("timm:local-dir:"), tmp_path / "teacher")
    assert distill(f"timm:local-dir:{folder}", moved, tmp_path / "again", *CROPS, *shared) == 0


def test_a_teacher_without_files_is_loaded_for_its_digest_alone(
    run: Path, teacher: str, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(images: Tensor) -> Tensor:
        raise AssertionError("computed")

    opened = list[Encoder]()

    def open_it(*given: Any, **known: Any) -> Encoder:
        opened.append(open_encoder(*given, **known))
        return replace(opened[-1], features=never)

    monkeypatch.setattr(teacher_cache, "open_encoder", open_it)
    monkeypatch.setattr(teacher_cache, "_files_of", lambda config: [])
    cache = shutil.copytree(run / "teacher", tmp_path / "cache")
    more = [*CROPS, "--cache", str(cache), "--optim.lr", "0.003"]
    assert distill(teacher, photos, tmp_path / "run", *more) == 0
    assert len(opened) == 1
    assert same_weights(run, tmp_path / "run")


@pytest.mark.parametrize("what", ["transform", "weights", "image", "seed", "crop"])
def test_vectors_of_something_else_lie_beside(
    run: Path, teacher: str, photos: Path, tmp_path: Path, what: str
) -> None:
    cache = shutil.copytree(run / "teacher", tmp_path / "cache")
    before = contents(cache)
    more = ["--cache", str(cache), "--crops", "3", "--optim.epochs", "1"]
    folder = shutil.copytree(teacher.removeprefix("timm:local-dir:"), tmp_path / "teacher")
    place = shutil.copytree(photos, tmp_path / "photos")
    if what == "transform":
        config = folder / "config.json"
        config.write_text(config.read_text().replace("0.4", "0.45"))
    elif what == "weights":
        change_weights(folder)
    elif what == "image":
        Image.new("RGB", (40, 36), (9, 9, 9)).save(place / "red" / "0.png")
    else:
        more += ["--crop-seed", "1"] if what == "seed" else ["--data.augment.scale", "0.5", "1.0"]
    assert distill(f"timm:local-dir:{folder}", place, tmp_path / "run", *more) == 0
    assert len({file.parent for file in parts(cache)}) == 2
    assert len(parts(cache)) == 8
    assert {
        file.name: file.read_bytes() for file in parts(cache) if file.read_bytes() in before.values()
    } == before


def test_an_onnx_file_teaches_and_is_known_by_its_files(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, cache = tmp_path / "encoder", tmp_path / "cache"
    folder.mkdir()
    file, said = onnx_file(folder / "colour.onnx"), folder / "colour.json"
    said.write_text(json.dumps(INPUT))
    more = [*CROPS, "--dim", "3", "--cache", str(cache)]
    assert distill(str(file), photos, tmp_path / "run", *more) == 0
    with monkeypatch.context() as patched:
        patched.delattr(teacher_cache, "open_encoder")
        assert distill(str(file), photos, tmp_path / "again", *more) == 0
    assert same_weights(tmp_path / "run", tmp_path / "again")
    said.write_text(json.dumps(INPUT | {"mean": [0.45] * 3}))
    assert distill(str(file), photos, tmp_path / "other", *more) == 0
    assert len({part.parent for part in parts(cache)}) == 2


def change_weights(folder: Path) -> None:
    weights = load_file(folder / "model.safetensors")
    weights["conv1.0.weight"] *= 1.01
    save_file(weights, folder / "model.safetensors")


def cut(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:5000])


def flip(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[-7] ^= 1
    file.write_bytes(content)


def empty(file: Path) -> None:
    file.write_bytes(b"")


@pytest.mark.parametrize("harm", [cut, flip, empty, Path.unlink])
def test_a_damaged_part_is_made_again(
    run: Path,
    teacher: str,
    photos: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    harm: Callable[[Path], None],
) -> None:
    cache = shutil.copytree(run / "teacher", tmp_path / "cache")
    before, file = contents(cache), parts(cache)[2]
    (file.parent / "part-00003.safetensors.partial").write_bytes(b"half")
    harm(file)
    more = [*CROPS, "--cache", str(cache), "--optim.lr", "0.003"]
    assert distill(teacher, photos, tmp_path / "run", *more) == 0
    assert contents(cache) == before
    assert not [*cache.rglob("*.partial")]
    assert same_weights(run, tmp_path / "run")
    assert ("damaged or half-written" in capsys.readouterr().out.replace("\n", " ")) == (
        harm is not Path.unlink
    )


def test_a_part_of_another_transform_is_refused(
    run: Path, teacher: str, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Even where it was put under the right name."""
    cache = shutil.copytree(run / "teacher", tmp_path / "cache")
    folder = shutil.copytree(teacher.removeprefix("timm:local-dir:"), tmp_path / "teacher")
    config = folder / "config.json"
    config.write_text(config.read_text().replace("0.4", "0.45"))
    more = ["--cache", str(cache), *CROPS]
    assert distill(f"timm:local-dir:{folder}", photos, tmp_path / "other", *more) == 0
    own = parts(run)[1]
    (theirs,) = [
        file for file in parts(cache) if file.name == own.name and file.parent.name != own.parent.name
    ]
    shutil.copyfile(theirs, cache / own.parent.name / own.name)
    capsys.readouterr()
    error = refused(capsys, distill(teacher, photos, tmp_path / "run", *more))
    assert "another teacher, or of another transform of images" in error
    assert not (tmp_path / "run").exists()


def program(folder: Path, *launcher: str) -> str:
    """What tests/killed_filling.py says."""
    command = [sys.executable, *launcher, str(PROGRAM), str(folder)]
    run = subprocess.run(
        command, check=True, timeout=600, stdout=subprocess.PIPE, text=True, cwd=PROGRAM.parent
    )
    return run.stdout


@pytest.mark.slow
def test_filling_that_was_killed_equals_an_unbroken_one(tmp_path: Path) -> None:
    done = program(tmp_path)
    assert done.endswith("done\n"), done
    counted = [int(line.split()[0]) for line in done.splitlines() if line.endswith(" parts")]
    # Each kill came later than the one before, three of them amid the parts.
    assert counted == [0, 1, 3, 5, 9]
    one, other = tmp_path / "unbroken", tmp_path / "broken"
    assert len(contents(one)) == 9
    assert contents(one) == contents(other)
    assert same_weights(one, other)
    # Two processes take parts in turn, and train.
    program(tmp_path, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")
    assert contents(tmp_path / "shared") == contents(one)
    assert (tmp_path / "shared" / "model.safetensors").is_file()


def test_filling_that_is_interrupted_goes_on(
    run: Path,
    teacher: str,
    photos: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    write, written = VectorCache.write, list[int]()

    def interrupted(self: VectorCache, part: int, vectors: Tensor) -> None:
        if len(written) == 2:
            raise KeyboardInterrupt
        written.append(part)
        write(self, part, vectors)

    with monkeypatch.context() as patched:
        patched.setattr(VectorCache, "write", interrupted)
        assert distill(teacher, photos, tmp_path / "run", *CROPS) == 130
    assert "the same command goes on from there" in capsys.readouterr().out.replace("\n", " ")
    assert len(parts(tmp_path / "run")) == 2
    kept = contents(tmp_path / "run")
    assert distill(teacher, photos, tmp_path / "run", *CROPS, "--optim.lr", "0.003") == 0
    assert kept.items() <= contents(tmp_path / "run").items()
    assert contents(tmp_path / "run") == contents(run)
    assert same_weights(run, tmp_path / "run")


def test_one_process_fills_at_a_time(
    teacher: str, photos: Path, run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cache = shutil.copytree(run / "teacher", tmp_path / "cache")
    lock = hold(parts(cache)[0].parent / ".lock", "unused")
    parts(cache)[0].unlink()
    try:
        more = ["--cache", str(cache), *CROPS]
        error = refused(capsys, distill(teacher, photos, tmp_path / "run", *more))
    finally:
        lock.close()
    assert "is in use by process" in error
    assert "wait for it, or name another cache" in error
    assert not (tmp_path / "run").exists()


def gone_wrong(kind: str, encoder: Encoder) -> Encoder:
    """A teacher that is not what it was when it was opened."""

    def features(images: Tensor) -> Tensor:
        found = encoder.features(images)
        if kind == "other":
            return found[:, :-1]
        if kind == "zeros":
            return torch.cat([found[:-1], torch.zeros_like(found[-1:])])
        found[-1, 3] = float("nan")
        return found

    return replace(encoder, features=features)


@pytest.mark.parametrize("crops", ["0", "2"])
@pytest.mark.parametrize(
    ("kind", "said"),
    [
        ("other", "not 512 for each"), ("nan", "features that are not numbers for "),
        ("zeros", "features of nothing but zeros for "),
    ],
)  # fmt: skip
def test_a_teacher_that_goes_wrong_writes_nothing(
    teacher: str,
    photos: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    kind: str,
    crops: str,
    said: str,
) -> None:
    def opened(*given: Any, **known: Any) -> Encoder:
        return gone_wrong(kind, open_encoder(*given, **known))

    for module in (teacher_cache, teaching):
        monkeypatch.setattr(module, "open_encoder", opened)
    more = ["--crops", crops, "--cache", str(tmp_path / "cache")] if crops != "0" else []
    assert said in refused(capsys, distill(teacher, photos, tmp_path / "run", *more))
    assert not (tmp_path / "cache").exists()
    assert not (tmp_path / "run").exists()


def test_a_cache_that_is_no_folder_is_refused_by_name(
    teacher: str, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "afile").write_text("")
    for cache in ("afile", "afile/below"):
        more = ["--cache", str(tmp_path / cache), *CROPS]
        error = refused(capsys, distill(teacher, photos, tmp_path / "run", *more))
        assert error.startswith("matmamba: error: cache ")
    assert not (tmp_path / "run").exists()


def test_a_teacher_without_pooled_features_is_refused(
    photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    unpooled = write_teacher(tmp_path / "teacher", model_args={"global_pool": ""})
    error = refused(capsys, distill(unpooled, photos, tmp_path / "run", *CROPS))
    assert "no pooled features" in error
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("crops", ["0", "3"])
def test_another_rotation_is_not_gone_on_with(
    teacher: str, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], crops: str
) -> None:
    run, more = tmp_path / "run", ["--crops", crops, "--optim.epochs", "1"]
    assert distill(teacher, photos, run, *more) == 0
    encoder = open_encoder(teacher)
    fit_rotation(torch.randn(600, 512), encoder.digest).save(run / FILE_NAME)
    before = (run / "model.safetensors").read_bytes()
    capsys.readouterr()
    error = refused(capsys, distill(teacher, photos, run, *more, "--resume", "auto"))
    assert "not the rotation that this run began with" in error
    assert (run / "model.safetensors").read_bytes() == before


def test_anchors_are_kept_with_the_run(teacher: str, photos: Path, tmp_path: Path) -> None:
    more = [*CROPS, "--follow.anchors", "1", "--follow.anchor-count", "8"]
    one, other = tmp_path / "one", tmp_path / "other"
    for run in (one, other):
        assert distill(teacher, photos, run, *more) == 0
    terms = [json.loads(line).get("terms", {}) for line in (one / "metrics.jsonl").read_text().splitlines()]
    assert any(row.get("anchors", 0) > 0 for row in terms)
    newest = sorted((other / "checkpoints").iterdir())[-1]
    for file in newest.iterdir():
        if file.is_file():
            file.write_bytes(b"")
    assert distill(teacher, photos, other, *more, "--resume", "auto") == 0
    assert same_weights(one, other)


def test_an_unreadable_image_has_no_vector(teacher: str, photos: Path, tmp_path: Path) -> None:
    place = shutil.copytree(photos, tmp_path / "photos")
    (place / "red" / "3.png").write_bytes(b"none")
    assert distill(teacher, place, tmp_path / "run", *CROPS, "--data.max-broken", "0.1") == 0
    values = torch.cat([load_file(file)["values"] for file in parts(tmp_path / "run")])
    assert (~values.any(-1)).sum() == 3
    joined = JoinedImages([open_training_images(place)], [1], [False])
    keys, _ = image_keys(joined, Reporter())
    assert len(np.unique(keys)) == len(keys) == 36


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--cache", "somewhere"], "nothing is kept where crops is 0"),
        (["--crops", "2", "--teacher", "v.npy"], "has one vector for each image"),
        (["--objective.mrl", "1"], "asks for labels"),
        (["--follow.anchors", "1"], "anchor_count is 512: there are 36 images"),
        (["--crops", "2", "--dim", "600"], "the teacher's vectors have 512 numbers"),
    ],
)
def test_settings_that_cannot_work_write_nothing(
    teacher: str,
    photos: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    flags: list[str],
    said: str,
) -> None:
    assert said in refused(capsys, distill(teacher, photos, tmp_path / "run", *flags))
    assert not (tmp_path / "run").exists()


def test_labels_that_are_not_there_are_refused(
    teacher: str, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flat = tmp_path / "flat"
    flat.mkdir()
    for file in (photos / "red").iterdir():
        shutil.copyfile(file, flat / file.name)
    error = refused(capsys, distill(teacher, flat, tmp_path / "run", "--labelled", "True"))
    assert "no image has one" in error
    assert not (tmp_path / "run").exists()
