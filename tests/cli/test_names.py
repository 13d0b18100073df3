"""Names that are nearly right, and flags that mean one thing."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from matmamba_retrieval import EmbeddingSpec, Gallery, Row
from matmamba_vision.cli.main import main
from matmamba_vision.nearest import did_you_mean
from real_trees import photos
from small import unit_vectors


@pytest.fixture
def few(tmp_path: Path) -> Path:
    """A gallery of three images, two of which are equal, with a year each."""
    with Gallery.create(tmp_path / "g", EmbeddingSpec("vectors:x", "full", 8)) as gallery:
        xb = unit_vectors(3, 8)
        # As much too long as vectors may be.
        xb[1] = xb[0] = 1.005 * xb[0]
        gallery.add([Row(f"id{key}", f"/{key}", None, {"year": key}) for key in range(3)], xb)
    return tmp_path / "g"


@pytest.mark.parametrize(
    ("command", "meant"),
    [
        (["trian"], "train"),
        (["knn_label"], "knn-label"),
        (["gallery", "lst", "g"], "list"),
        (
            ["train", "--model.name", "matmamba_nanno_patch4_32", "--output", "@/run"],
            "matmamba_nano_patch4_32",
        ),
        (
            ["index", "--checkpoint", "matmamba_mini_patch8_46", "--images", "@", "--gallery", "@/n"],
            "mini_patch8_64",
        ),
    ],
)
def test_a_mistyped_name_gets_its_neighbour(
    command: list[str], meant: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([word.replace("@", str(tmp_path)) for word in command]) == 2
    assert re.search(rf"did you mean \S*{meant}\?", capsys.readouterr().err)
    assert did_you_mean("nothing like it", ["train"]) == ""


def test_a_mistyped_flag_gets_its_neighbour(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["search", "--galery", "g"]) == 2
    assert "; did you mean --gallery?" in capsys.readouterr().err


@pytest.mark.parametrize("before", ["", "data."])
def test_flags_of_the_data_have_one_name(before: str, tmp_path: Path) -> None:
    photos(tmp_path / "place")
    source = [f"--{before}name", "folder", f"--{before}root={tmp_path / 'place'}", f"--{before}workers", "0"]
    assert main(["data", "verify", *source]) == 0
    assert (
        main(["data", "prepare", *source, f"--{before}max-broken", "0", "--output", str(tmp_path / "s")]) == 0
    )


def test_an_unknown_column_is_said_to_be_unknown(few: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["gallery", "list", str(few), "--where", "yaer > 1"]) == 2
    said = capsys.readouterr().err
    assert "unknown column 'yaer'; did you mean year?; there are id, path, label, year" in said
    assert "quotes" not in said


def test_more_hits_than_images_are_all_images(few: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """And the score of an image with itself is 1, not a little more."""
    assert main(["search", "--gallery", str(few), "--like", "id0", "--k", "9"]) == 0
    said = capsys.readouterr().out
    assert "the gallery has 3 images: fewer than k = 9" in said
    assert "\t1.0000\t" in said
    assert main(["search", "--gallery", str(few), "--like", "id0", "--k", "0"]) == 2
