"""Galleries that a teacher encodes and its student asks."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import matmamba_vision as mv
import numpy as np
import pytest
import torch
from encoders_made import INPUT, MeanColour, colour_texts, coloured, student_run, timm_folder
from matmamba_datasets import eval_transform, read_image
from matmamba_vision.cli.main import main
from matmamba_vision.galleries.taught import rotated
from matmamba_vision.rotation import FILE_NAME, Rotation, fit_rotation, load_rotation
from numpy.typing import NDArray
from torch import Tensor

# Stored vectors are rounded to float16.
ROUNDED = 2e-3
DIM = 16
WIDTHS = ("full", "student", "student 1/2", "student 1/4", "student 1/8")


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return coloured(tmp_path_factory.mktemp("photos"))


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> str:
    return timm_folder(tmp_path_factory.mktemp("timm"))


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, teacher: str, photos: Path) -> Path:
    return student_run(tmp_path_factory.mktemp("runs") / "student", teacher, photos)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, run: Path, photos: Path) -> Path:
    """A gallery that the teacher encoded."""
    folder = tmp_path_factory.mktemp("galleries") / "g"
    mv.index(photos, folder, model=mv.with_teacher(run), dims=[8])
    return folder


@pytest.fixture(scope="module")
def asked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return coloured(tmp_path_factory.mktemp("asked"), 4, seed=1)


def prepared(folder: Path, names: list[str], input: Mapping[str, Any]) -> Tensor:
    """Images prepared from the files themselves."""
    transform = eval_transform(input)
    return torch.stack([transform(read_image(folder / name)) for name in names])


def names_of(folder: Path) -> list[str]:
    return sorted(str(file.relative_to(folder)) for file in folder.rglob("*.png"))


def scores_of(answer: mv.Answer, names: list[str]) -> NDArray[np.float64]:
    found = {hit.id: hit.score for hit in answer.hits}
    return np.array([found[name] for name in names])


def test_the_teachers_queries_are_those_of_the_unrotated_teacher_on_its_leading_directions(
    made: Path, run: Path, teacher: str, photos: Path, asked: Path
) -> None:
    encoder = mv.open_encoder(teacher)
    stored, queries = names_of(photos), names_of(asked)
    xb, xq = (encoder.embed(prepared(*side, encoder.input)) for side in ((photos, stored), (asked, queries)))
    # Projected in the space as it was, never rotated.
    leading = load_rotation(run / FILE_NAME, encoder.digest).matrix[:, :DIM]
    xb, xq = (torch.nn.functional.normalize(x @ leading @ leading.T, dim=-1) for x in (xb, xq))
    with mv.open_gallery(made) as gallery:
        assert gallery.spec.dim == DIM
        answers = gallery.search([asked / name for name in queries], len(stored), strategy="single-shot")
    for answer, wanted in zip(answers, (xq @ xb.T).numpy(), strict=True):
        assert answer.encoded_by == {"full": "pytorch"}
        np.testing.assert_allclose(scores_of(answer, stored), wanted, atol=ROUNDED)


def test_a_rotation_is_an_isometry() -> None:
    torch.manual_seed(0)
    vectors = torch.nn.functional.normalize(torch.randn(40, 24), dim=-1)
    rotation = fit_rotation(vectors, "encoder")
    assert torch.allclose(rotation(vectors) @ rotation(vectors).T, vectors @ vectors.T, atol=1e-5)
    assert torch.allclose(rotation.matrix.T @ rotation.matrix, torch.eye(24), atol=1e-5)


def test_a_student_that_knows_its_teacher_without_its_architecture_has_it_still(
    run: Path, teacher: str, tmp_path: Path
) -> None:
    """As runs of version 0.1 do, and the weights that come with the package."""
    encoder, student = mv.open_encoder(teacher), mv.load_checkpoint(run)
    known = load_rotation(run / FILE_NAME, encoder.digest)
    before = Rotation(known.matrix, encoder.bare_digest)
    before.save(tmp_path / FILE_NAME)
    said = student.run | {"teacher_digest": before.encoder, "rotation_digest": before.digest}
    mv.save_checkpoint(tmp_path, student.model, student.classes, said)
    assert mv.with_teacher(tmp_path, teacher).teacher.dim == DIM
    assert load_rotation(tmp_path / FILE_NAME, *encoder.digests).digest == before.digest


@pytest.mark.parametrize("width", ["1/8", "full"])
def test_a_students_query_is_the_product_with_the_teachers_vectors(
    made: Path, run: Path, teacher: str, photos: Path, asked: Path, width: str
) -> None:
    """Each encoder prepares the files in its own way: 48 pixels and 32, other means."""
    encoder, model = mv.open_encoder(teacher), mv.load_checkpoint(run).model
    assert encoder.size != model.input["input_size"][-1]
    rotation = load_rotation(run / FILE_NAME, encoder.digest)
    stored, queries = names_of(photos), names_of(asked)
    with torch.no_grad():
        xb = rotation(encoder.embed(prepared(photos, stored, encoder.input)), DIM)
        xq = model.embed(prepared(asked, queries, model.input), width)
    label = "student" if width == "full" else f"student {width}"
    with mv.open_gallery(made) as gallery:
        # More than are kept at once as they were decoded.
        files = [asked / name for name in queries] * 3
        answers = gallery.search(files, len(stored), query_width=label, strategy="single-shot")
        assert gallery.search(files[0], query_width=width if width == "1/8" else "student").hits
    for answer, wanted in zip(answers, np.tile((xq @ xb.T).numpy(), (3, 1)), strict=True):
        assert list(answer.encoded_by) == [label]
        np.testing.assert_allclose(scores_of(answer, stored), wanted, atol=ROUNDED)


def test_a_shortlist_of_the_student_is_ranked_by_the_teacher(made: Path, photos: Path, asked: Path) -> None:
    file = asked / "red" / "1.png"
    with mv.open_gallery(made) as gallery:
        exact = gallery.search(file, 5, strategy="single-shot")
        listed = gallery.search(file, 5, strategy="shortlist", shortlist=18)
        assert set(listed.encoded_by) == {"student 1/8", "full"}
        assert listed.strategy.query_width == "student 1/8"
        assert [hit.id for hit in listed.hits] == [hit.id for hit in exact.hits]
        alone = mv.Strategy.shortlist(width="student 1/2", dim=8, length=9, rerank_width="student 1/2")
        assert list(gallery.search(file, 5, strategy=alone).encoded_by) == ["student 1/2"]
        away = gallery.search(file, 5, unlike=photos / "blue" / "0.png", query_width="student 1/4")
        assert set(away.encoded_by) == {"student 1/4"}


def test_a_plan_is_found_among_the_widths_of_both(made: Path, asked: Path, tmp_path: Path) -> None:
    folder = tmp_path / "g"
    shutil.copytree(made, folder)
    with mv.open_gallery(folder, write=True) as gallery:
        plan = gallery.plan(asked, target={"recall": 0.1}, k=3)
        assert {row["query_width"] for row in plan.tried} == set(WIDTHS)
        with pytest.raises(mv.MatMambaError, match="two models"):
            gallery.freeze(["student 1/8"])
        costs = {row["query_width"]: row["encoder_macs"] for row in plan.tried if not row["widths"]}
        assert costs["full"] > 0
        assert gallery.search(asked / "red" / "0.png", 3).plan is not None


def test_a_gallery_remembers_both_and_the_student_asks_without_the_teacher(
    teacher: str, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = Path(teacher.rpartition(":")[2])
    there, gone = tmp_path / "teacher", tmp_path / "gone"
    shutil.copytree(source, there)
    run = student_run(tmp_path / "run", f"timm:local-dir:{there}", photos)
    gallery, query = str(tmp_path / "g"), str(photos / "green" / "2.png")
    command = ["index", "--images", str(photos), "--gallery", gallery, "--checkpoint", str(run)]
    assert main([*command, "--teacher", f"timm:local-dir:{there}"]) == 0
    assert main([*command, "--teacher", "auto"]) == 0
    there.rename(gone)
    capsys.readouterr()
    search = ["search", "--gallery", gallery, query, "--json"]
    assert main([*search, "--query-width", "student 1/8", "--strategy", "single-shot"]) == 0
    (answer,) = json.loads(capsys.readouterr().out)["answers"]
    assert answer["hits"][0]["label"] == "green"
    assert main(search) == 2
    assert "weights cannot be had" in capsys.readouterr().err
    # Where both are now.
    named = f"student:{run}::timm:local-dir:{gone}"
    assert main([*search, "--checkpoint", named]) == 0
    assert json.loads(capsys.readouterr().out)["answers"][0]["hits"][0]["label"] == "green"
    assert main(["gallery", "verify", gallery, "--images", "3", "--checkpoint", named]) == 0


def test_a_gallery_moves_to_the_teacher(photos: Path, run: Path, tmp_path: Path) -> None:
    mv.index(photos, tmp_path / "g", model=run)
    assert mv.reindex(tmp_path / "g", mv.with_teacher(run)).encoded == 18
    with mv.open_gallery(tmp_path / "g") as gallery:
        answer = gallery.search(photos / "red" / "0.png")
        assert answer.hits[0].label == "red"
        assert answer.hits[0].score == pytest.approx(1, abs=ROUNDED)
        assert gallery.info()["checkpoint"].startswith("student:")


def test_texts_are_rotated_as_images_are() -> None:
    two = mv.encoder_from(
        MeanColour(), "two", size=48, mean=INPUT["mean"], std=INPUT["std"], texts=colour_texts
    )
    rotation = fit_rotation(two.embed(torch.randn(30, 3, 48, 48)), two.digest)
    turned = rotated(two, rotation, 2)
    wanted = rotation(two.embed_texts(["red", "blue"]), 2)
    assert torch.allclose(turned.embed_texts(["red", "blue"]), wanted, atol=1e-6)
    images = torch.randn(4, 3, 48, 48)
    assert torch.allclose(turned.embed(images), rotation(two.embed(images), 2), atol=1e-6)
    whole = rotated(two, rotation, 3)
    texts = two.embed_texts(["red"]) @ two.embed(images).T
    assert torch.allclose(whole.embed_texts(["red"]) @ whole.embed(images).T, texts, atol=1e-5)


def copied(run: Path, folder: Path) -> Path:
    shutil.copytree(run, folder)
    return folder


@pytest.mark.parametrize(
    ("what", "said"),
    [
        ("other weights", "is not the teacher of"),
        ("other mean", "is not the teacher of"),
        ("no teacher there", "weights cannot be had"),
        ("no student", "is no student"),
        ("rotation of another run", "is the rotation of another run"),
        ("rotation of another teacher", "of another encoder"),
        ("rotation gone", "holds no rotation"),
        ("rotation damaged", "is damaged"),
        ("further widths", "has its vectors alone"),
        ("vectors", "a teacher means nothing"),
    ],
)
def test_what_does_not_belong_together_is_one_line_and_writes_nothing(
    run: Path,
    teacher: str,
    photos: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    what: str,
    said: str,
) -> None:
    student, named, more = copied(run, tmp_path / "run"), teacher, list[str]()
    file = student / FILE_NAME
    digest = mv.open_encoder(teacher).digest
    if what == "other weights":
        named = timm_folder(tmp_path / "other", seed=1)
    elif what == "other mean":
        named = timm_folder(tmp_path / "other", mean=[0.5] * 3)
    elif what == "no teacher there":
        named = "timm:local-dir:/no/such"
    elif what == "no student":
        student = Path("matmamba_nano_patch4_32")
    elif what == "rotation of another run":
        Rotation(load_rotation(file, digest).matrix.flip(1).contiguous(), digest).save(file)
    elif what == "rotation of another teacher":
        Rotation(load_rotation(file, digest).matrix, "another").save(file)
    elif what == "rotation gone":
        file.unlink()
    elif what == "rotation damaged":
        file.write_bytes(file.read_bytes()[:-1] + b"?")
    elif what == "further widths":
        more = ["--widths", "1/8"]
    source = ["--images", str(photos)]
    if what == "vectors":
        np.save(tmp_path / "v.npy", np.eye(4, dtype=np.float32))
        source, said = ["--vectors", str(tmp_path / "v.npy")], "--teacher means nothing for vectors"
    gallery = tmp_path / "g"
    command = ["index", *source, "--gallery", str(gallery), "--checkpoint", str(student), "--teacher", named]
    assert main([*command, *more]) == 2
    error = capsys.readouterr().err
    assert said in error
    assert error.startswith("matmamba: error: ")
    assert error.count("\n") == 1
    assert not gallery.exists()


def test_a_gallery_of_another_rotation_is_refused(
    made: Path, teacher: str, photos: Path, asked: Path, tmp_path: Path
) -> None:
    other = student_run(tmp_path / "run", teacher, asked)
    before = {file: file.stat().st_mtime_ns for file in made.rglob("*")}
    with pytest.raises(mv.MatMambaError, match="another checkpoint"):
        mv.index(photos, made, model=mv.with_teacher(other))
    with pytest.raises(mv.MatMambaError, match="another checkpoint"):
        mv.open_gallery(made, model=mv.with_teacher(other))
    with pytest.raises(mv.MatMambaError, match="another checkpoint"):
        mv.open_gallery(made, model=teacher)
    assert before == {file: file.stat().st_mtime_ns for file in made.rglob("*")}


def test_another_student_of_the_same_rotation_asks_the_same_gallery(
    made: Path, run: Path, teacher: str, photos: Path, tmp_path: Path
) -> None:
    other = student_run(tmp_path / "run", teacher, photos, seed=3)
    assert mv.load_checkpoint(other).digest != mv.load_checkpoint(run).digest
    with mv.open_gallery(made, model=mv.with_teacher(other)) as gallery:
        assert gallery.search(photos / "red" / "0.png", query_width="student", strategy="single-shot").hits
