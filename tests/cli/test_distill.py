"""Students from the command line, of a teacher that is made here."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from encoders_made import timm_folder
from matmamba_datasets import eval_transform, make_loader, open_images
from matmamba_vision import load_checkpoint
from matmamba_vision.encoders import open_encoder
from matmamba_vision.rotation import FILE_NAME, load_rotation
from matmamba_vision.training import teacher_vectors
from safetensors.torch import load_file
from teachers import distill, write_photos, write_teacher


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_photos(tmp_path_factory.mktemp("photos"))


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> str:
    return write_teacher(tmp_path_factory.mktemp("teacher"))


def rows(run: Path) -> list[dict[str, float]]:
    found = map(json.loads, (run / "metrics.jsonl").read_text().splitlines())
    return [row for row in found if row["event"] == "epoch"]


@pytest.mark.parametrize(
    "how", [["--data.decoded", "36"], ["--labelled", "True"]], ids=["decoded", "labelled"]
)
def test_a_student_comes_into_its_teachers_space(
    teacher: str, photos: Path, tmp_path: Path, how: list[str]
) -> None:
    run = tmp_path / "run"
    assert distill(teacher, photos, run, "--optim.epochs", "6", "--optim.lr", "0.003", *how) == 0
    losses = [row["loss"] for row in rows(run)]
    assert losses[-1] < losses[0]
    checkpoint = load_checkpoint(run)
    model = checkpoint.model
    assert model.embedding_dim == 16
    encoder = open_encoder(teacher)
    rotation = load_rotation(run / FILE_NAME, encoder.digest)
    assert checkpoint.run["rotation_digest"] == rotation.digest
    assert checkpoint.run["teacher_digest"] == encoder.digest
    images = open_images(photos)
    gallery = rotation(
        teacher_vectors(encoder, make_loader(images, eval_transform(encoder.input), 12), "cpu"), 16
    )
    asked = torch.cat([batch.images for batch in make_loader(images, eval_transform(model.input), 12)])
    for width in ("full", "1/8"):
        with torch.no_grad():
            queries = model.embed(asked, width)
        # Nearer to the teacher's vector of the same image than an average one.
        near, average = (queries * gallery).sum(1).mean(), (queries @ gallery.T).mean()
        assert near > 0.9
        assert near > average


def test_a_student_goes_on_as_if_it_had_never_stopped(teacher: str, photos: Path, tmp_path: Path) -> None:
    more = ["--data.decoded", "36", "--labelled", "True", "--repeats", "2"]
    one, other = tmp_path / "one", tmp_path / "other"
    assert distill(teacher, photos, one, *more, "--optim.epochs", "2") == 0
    assert distill(teacher, photos, other, *more, "--optim.epochs", "2") == 0
    # Back to the end of the first epoch.
    newest = sorted((other / "checkpoints").iterdir())[-1]
    for file in newest.iterdir():
        if file.is_file():
            file.write_bytes(b"")
    assert distill(teacher, photos, other, *more, "--optim.epochs", "2", "--resume", "auto") == 0
    first, second = (load_file(run / "model.safetensors") for run in (one, other))
    assert all(torch.equal(tensor, second[name]) for name, tensor in first.items())


def test_another_teacher_is_not_gone_on_with(
    teacher: str, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    assert distill(teacher, photos, run, "--optim.epochs", "1") == 0
    capsys.readouterr()
    config = Path(teacher.removeprefix("timm:local-dir:")) / "config.json"
    before = config.read_text()
    config.write_text(before.replace("0.4", "0.45"))
    try:
        assert distill(teacher, photos, run, "--optim.epochs", "1", "--resume", "auto") == 2
    finally:
        config.write_text(before)
    assert "of another transform of images" in capsys.readouterr().err.replace("\n", " ")


def test_a_student_that_is_trained_on_stays_in_its_space(
    teacher: str, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first, others = tmp_path / "first", write_photos(tmp_path / "others", 9)
    assert distill(teacher, photos, first, "--optim.epochs", "1") == 0

    def trained_on(name: str, by: str) -> tuple[int, Path]:
        run = tmp_path / name
        return distill(by, others, run, "--optim.epochs", "1", "--model.init", str(first)), run

    def digest(run: Path) -> str:
        return str(load_checkpoint(run).run["rotation_digest"])

    assert distill(teacher, others, fresh := tmp_path / "fresh", "--optim.epochs", "1") == 0
    assert digest(fresh) != digest(first)
    status, second = trained_on("second", teacher)
    assert status == 0
    assert digest(second) == digest(first)
    assert load_rotation(second / FILE_NAME, open_encoder(teacher).digest).digest == digest(first)
    # Another teacher's space is another one.
    status, third = trained_on("third", timm_folder(tmp_path / "teacher", seed=1))
    assert status == 0
    assert digest(third) != digest(first)
    (first / FILE_NAME).unlink()
    capsys.readouterr()
    status, fourth = trained_on("fourth", teacher)
    assert status == 2
    assert "holds no rotation" in capsys.readouterr().err.replace("\n", " ")
    assert not fourth.exists()


def test_a_run_ends_when_its_time_is_up(teacher: str, photos: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    assert distill(teacher, photos, run, "--optim.epochs", "5000", "--optim.max-minutes", "0.001") == 0
    last = rows(run)[-1]
    assert last["epoch"] < 5000
    load_checkpoint(run)
    # Nothing is left to do.
    assert (
        distill(
            teacher, photos, run, "--optim.epochs", "5000", "--optim.max-minutes", "0.001", "--resume", "auto"
        )
        == 0
    )
    assert rows(run)[-1]["step"] == last["step"]


def test_what_is_no_image_is_named(
    teacher: str, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "photos").mkdir()
    for folder in photos.iterdir():
        (tmp_path / "photos" / folder.name).symlink_to(folder)
    (tmp_path / "photos" / "notes.txt").write_text("mine")
    assert distill(teacher, tmp_path / "photos", tmp_path / "run", "--optim.epochs", "1") == 0
    said = capsys.readouterr()
    assert "not an image (.txt): " in said.out + said.err


def test_stored_vectors_are_followed(photos: Path, tmp_path: Path) -> None:
    vectors = np.random.default_rng(0).standard_normal((36, 24)).astype(np.float32)
    np.save(tmp_path / "v.npy", vectors)
    run = tmp_path / "run"
    assert distill(str(tmp_path / "v.npy"), photos, run, "--labelled", "True", "--optim.epochs", "1") == 0
    assert load_checkpoint(run).model.embedding_dim == 16


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--dim", "2000"], "the teacher's vectors have 512 numbers"),
        (["--teacher", "timm:no_such_network"], "weights cannot be had"),
        (["--teacher", "nowhere"], "no checkpoint at"),
        (["--repeats", "1", "2"], "for each folder"),
        (["--images", "/no/such/folder"], "is not there"),
        (["--mix.mixup", "0.2"], "no teacher of their own"),
        (["--teacher", ""], "needs a teacher"),
        (["--follow.regression", "-1"], "follow.regression is -1.0: it can be 0 (none) or more"),
        (["--objective.width-weights", "1", "-1"], "objective.width_weights"),
        (
            ["--follow.regression", "0", "--follow.prefixes", "0", "--follow.similarity", "0"],
            "follows neither its teacher nor labels",
        ),
    ],
)
def test_bad_input_is_one_line_and_writes_nothing(
    teacher: str,
    photos: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    flags: list[str],
    said: str,
) -> None:
    run = tmp_path / "run"
    assert distill(teacher, photos, run, *flags) == 2
    error = capsys.readouterr().err.strip()
    assert said in error
    assert "\n" not in error
    assert not run.exists()
