"""`matmamba gallery`, `duplicates` and `knn-label` as a user runs them."""

from __future__ import annotations

import csv
import io
import json
import re
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from matmamba_retrieval import Gallery, Plan, Row, Strategy
from matmamba_vision import load_checkpoint
from matmamba_vision.cli.main import main
from matmamba_vision.galleries.embedder import Embedder
from matmamba_vision.galleries.gallery_model import SHIPPED
from PIL import Image
from small import unit_vectors

COUNT = 30
# Copies of the first image, one of them with another label.
COPIES = (10, 20, 21)
Run = Callable[..., str]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A gallery of vectors in two clusters, for the shipped model; without pictures but for one."""
    embedder = Embedder(load_checkpoint(SHIPPED))
    spec = embedder.spec()
    xb = np.repeat(unit_vectors(2, spec.dim), COUNT // 2, axis=0) + 0.2 * unit_vectors(
        COUNT, spec.dim, seed=3
    )
    xb /= np.linalg.norm(xb, axis=1, keepdims=True)
    xb[list(COPIES)] = xb[0]
    Image.new("RGB", (9, 9), "red").save(tmp_path / "0.png")
    rows = [
        Row(f"<i>{n}", str(tmp_path / f"{n}.png"), None if n == 2 else "cat" if n < 15 else "dog", {"n": n})
        for n in range(COUNT)
    ]
    with Gallery.create(tmp_path / "g", spec, str(load_checkpoint(SHIPPED).path)) as gallery:
        gallery.add(rows, xb)
        gallery.build_shortlist(32)
    return tmp_path / "g"


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    """Run a command; what it printed. `status` is what it has to exit with."""

    def command(*arguments: object, status: int = 0) -> str:
        capsys.readouterr()
        assert main([str(argument) for argument in arguments]) == status
        said = capsys.readouterr()
        if status == 2:
            assert said.err.startswith("matmamba: error: ")
            assert said.err.count("\n") == 1
        return said.err if status == 2 else said.out

    return command


def live(folder: Path) -> list[str]:
    with Gallery(folder) as gallery:
        return [row.id for row in gallery.rows(gallery.live_keys())]


def test_info_lists_every_dim_of_a_plan(folder: Path, run: Run) -> None:
    """Versions alone are a range."""
    strategy = Strategy.funnel(width="full", dims=(16, 32, 128), lengths=(9, 8, 7))
    with Gallery(folder, write=True) as gallery:
        gallery.save_plan(Plan(strategy=strategy, spec=gallery.spec, k=3, goal="recall >= 0.9").to_json())
    said = run("gallery", "info", folder)
    assert "dims 16, 32, 128 lengths 9, 8, 7 " in said
    # In one line; its figures are in --json.
    assert re.search(r"^plan +strategy funnel .* for recall >= 0.9$", said, re.MULTILINE)
    assert re.search(r"^versions +0 to 1$", said, re.MULTILINE)


def test_info_says_what_a_gallery_is(folder: Path, run: Run) -> None:
    about = json.loads(run("gallery", "info", folder, "--json"))
    assert (about["images"], about["deleted"], about["labels"], about["metadata"]) == (COUNT, 0, 2, ["n"])
    assert about["version"] == 1
    assert about["spec"]["dim"] == 256
    assert [(index["dim"], index["images"]) for index in about["indexes"]] == [(32, COUNT)]
    assert about["bytes"] == sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
    shown = run("gallery", "info", folder)
    assert about["checkpoint"] in shown
    assert about["spec"]["checkpoint"] in shown


def test_a_list_in_every_format_lists_the_same(folder: Path, run: Run) -> None:
    where = ("--where", "n BETWEEN 13 AND 16 OR label IS NULL")
    wanted = ["<i>2", "<i>13", "<i>14", "<i>15", "<i>16"]
    assert run("gallery", "list", folder, *where, "--format", "ids").splitlines() == wanted
    objects = [
        json.loads(line) for line in run("gallery", "list", folder, *where, "--format", "json").splitlines()
    ]
    assert [found["id"] for found in objects] == wanted
    assert [found["label"] for found in objects] == [None, "cat", "cat", "dog", "dog"]
    rows = list(csv.DictReader(io.StringIO(run("gallery", "list", folder, *where, "--format", "csv"))))
    assert [row["id"] for row in rows] == wanted
    assert [json.loads(row["metadata"]) for row in rows] == [found["metadata"] for found in objects]
    table = run("gallery", "list", folder, *where)
    assert all(name in table for name in wanted)
    assert "5 images" in table
    assert f"{COUNT} images, 2 shown" in run("gallery", "list", folder, "--limit", 2)
    assert "did you mean label" in run("gallery", "list", folder, "--where", "labl = 'x'", status=2)
    assert "--limit" in run("gallery", "list", folder, "--limit", -1, status=2)


def test_nothing_is_deleted_without_yes(folder: Path, run: Run) -> None:
    said = run("gallery", "delete", folder, "--where", "label = 'dog'")
    assert "15 images; nothing was deleted: --yes" in said
    assert len(live(folder)) == COUNT
    assert "no image of id 'x'" in run("gallery", "delete", folder, "--ids", "<i>1", "x", "--yes", status=2)
    assert "either" in run("gallery", "delete", folder, "--yes", status=2)
    assert len(live(folder)) == COUNT
    assert "0 images" in run("gallery", "delete", folder, "--where", "n > 99", "--yes")
    assert "15 images deleted, 15 left" in run(
        "gallery", "delete", folder, "--where", "label = 'dog'", "--yes"
    )
    assert "1 image deleted" in run("gallery", "delete", folder, "--ids", "<i>1", "--yes")
    assert live(folder) == [f"<i>{n}" for n in range(15) if n != 1]
    assert Path(folder.parent / "0.png").is_file()


def test_a_gallery_is_carried_elsewhere(folder: Path, run: Run, tmp_path: Path) -> None:
    file, other = tmp_path / "out.parquet", tmp_path / "other"
    assert "15 images" in run("gallery", "export", folder, file, "--where", "label = 'dog'")
    assert "there already" in run("gallery", "export", folder, file, status=2)
    assert "15 images imported, 15 in all" in run("gallery", "import", file, other)
    assert "15 of these images already" in run("gallery", "import", file, other, status=2)
    assert "0 images imported" in run("gallery", "import", file, other, "--existing", "skip")
    assert live(other) == [f"<i>{n}" for n in range(15, COUNT)]
    (answer,) = json.loads(run("search", "--gallery", other, "--like", "<i>16", "--k", 2, "--json"))[
        "answers"
    ]
    assert len(answer["hits"]) == 2
    assert "no images to write" in run(
        "gallery", "export", folder, tmp_path / "x", "--where", "n > 99", status=2
    )
    assert not (tmp_path / "x").exists()


def test_an_atlas_is_written(folder: Path, run: Run, tmp_path: Path) -> None:
    file = tmp_path / "atlas.parquet"
    assert "embedding-atlas" in run("gallery", "atlas", folder, file, "--k", 4, "--pictures", 8)
    table = pq.read_table(file)
    assert table.column_names == ["id", "path", "label", "metadata", "x", "y", "neighbors", "image"]
    rows = table.to_pylist()
    assert all(len(row["neighbors"]["ids"]) == 4 for row in rows)
    assert [row["image"] is not None for row in rows] == [n == 0 for n in range(COUNT)]
    assert Image.open(io.BytesIO(rows[0]["image"]["bytes"])).size == (8, 8)
    # The first axis tells the two clusters apart.
    sides = np.array([row["x"] > 0 for row in rows])
    odd = set(COPIES) & set(range(15, COUNT))
    left, right = ([n for n in part if n not in odd] for part in (range(15), range(15, COUNT)))
    assert len(set(sides[left])) == len(set(sides[right])) == 1
    assert sides[left[0]] != sides[right[0]]


@pytest.mark.parametrize("action", ["export", "import", "atlas"])
def test_a_missing_pyarrow_is_said_clearly(
    folder: Path, run: Run, tmp_path: Path, action: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in ("gallery_parquet", "atlas"):
        monkeypatch.delitem(sys.modules, f"matmamba_retrieval.exchange.{module}", raising=False)
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    said = run("gallery", action, folder, tmp_path / "x", status=2)
    assert "pip install 'matmamba-vision[data]'" in said


def test_damage_is_found_and_repaired(folder: Path, run: Run) -> None:
    assert "as it was written" in run("gallery", "verify", folder)
    (index,) = (folder / "shortlist").glob("*.faiss")
    index.write_bytes(index.read_bytes()[:-5])
    assert index.name in run("gallery", "verify", folder, status=1)
    said = run("gallery", "repair", folder)
    assert "as it was written" in said
    assert "as it was written" in run("gallery", "verify", folder)
    assert "no gallery" in run("gallery", "verify", folder / "nowhere", status=2)


def test_damaged_vectors_are_encoded_again_from_their_images(tmp_path: Path, run: Run) -> None:
    rng = np.random.default_rng(0)
    for n in range(3):
        Image.fromarray(rng.integers(0, 255, (32, 32, 3), dtype=np.uint8)).save(tmp_path / f"{n}.png")
    folder = tmp_path / "g"
    photos = tmp_path / "photos"
    photos.mkdir()
    for n in range(3):
        (tmp_path / f"{n}.png").rename(photos / f"{n}.png")
    run("index", "--images", photos, "--gallery", folder, "--threads", 1)
    with Gallery(folder) as gallery:
        before = gallery.segments.read(np.arange(3)).copy()
    (segment,) = (folder / "segments").glob("*.npy")
    whole = segment.read_bytes()
    segment.write_bytes(whole[:-100] + bytes(100))
    run("gallery", "verify", folder, status=1)
    (photos / "1.png").rename(photos / "gone.png")
    said = run("gallery", "repair", folder, status=1)
    assert "2 images encoded again" in said
    (lost,) = [line for line in said.splitlines() if "has lost its vector" in line]
    assert "1.png" in lost
    (photos / "gone.png").rename(photos / "1.png")
    assert "encoded again" in run("gallery", "repair", folder)
    with Gallery(folder) as gallery:
        assert np.allclose(gallery.segments.read(np.arange(3)), before, atol=2e-3)
    assert "as it was written" in run("gallery", "verify", folder, "--images", 3)
    # Also where the whole file is lost, and the gallery does not open.
    next((folder / "segments").glob("*.npy")).unlink()
    assert "3 images encoded again" in run("gallery", "repair", folder)
    assert "; 3 images encoded again and compared" in run("gallery", "verify", folder, "--images", 100)
    (photos / "0.png").unlink()
    (photos / "1.png").rename(photos / "0.png")
    shown = run("gallery", "verify", folder)
    assert "as it was written" in shown
    said = run("gallery", "verify", folder, "--images", 3, status=1)
    assert ["0.png" in line for line in said.splitlines()] == [True, False]
    assert ["its image cannot be read" in line for line in said.splitlines()] == [False, True]
    Image.new("RGB", (32, 32), "red").save(photos / "1.png")
    said = run("gallery", "verify", folder, "--images", 3, status=1)
    assert said.count("its image gives a vector") == 2


def test_a_gallery_works_again_without_the_images_that_are_lost(tmp_path: Path, run: Run) -> None:
    photos, folder = tmp_path / "photos", tmp_path / "g"
    photos.mkdir()
    for shade in range(3):
        Image.new("RGB", (32, 32), (80 * shade, 9, 9)).save(photos / f"{shade}.png")
    run("index", "--images", photos, "--gallery", folder, "--threads", 1)
    (segment,) = (folder / "segments").glob("*.npy")
    segment.unlink()
    (photos / "0.png").unlink()
    (photos / "1.png").write_bytes(b"broken")
    said = run("gallery", "repair", folder, status=1)
    assert said.count("has lost its vector") == 2
    run("gallery", "delete", folder, "--ids", "0.png", "1.png", "--yes")
    assert "as it was written" in run("gallery", "repair", folder)
    (answer,) = json.loads(run("search", "--gallery", folder, photos / "2.png", "--json"))["answers"]
    assert [hit["id"] for hit in answer["hits"]] == ["2.png"]


def test_compacting_leaves_out_what_was_deleted(folder: Path, run: Run) -> None:
    run("gallery", "delete", folder, "--where", "label = 'dog'", "--yes")
    assert json.loads(run("gallery", "info", folder, "--json"))["deleted"] == 15
    assert "15 deleted images left out, 15 images" in run("gallery", "compact", folder)
    assert json.loads(run("gallery", "info", folder, "--json"))["deleted"] == 0


def test_an_unknown_action_is_named(run: Run) -> None:
    assert "'shred'" in run("gallery", "shred", status=2)


@pytest.mark.parametrize("method", ["exact", "shortlist"])
def test_duplicates_are_shown_before_they_are_deleted(
    folder: Path, run: Run, tmp_path: Path, method: str
) -> None:
    page = tmp_path / "page.html"
    find = ("duplicates", "--gallery", folder, "--threshold", 0.999, "--method", method)
    found = json.loads(run(*find, "--json", "--html", page))
    (group,) = found["groups"]
    assert found["method"] == method
    assert group["keep"]["id"] == "<i>0"
    assert [other["id"] for other in group["others"]] == [f"<i>{n}" for n in COPIES]
    assert all(other["score"] == pytest.approx(1, abs=1e-5) for other in group["others"])
    shown = page.read_text()
    assert "labels differ: cat, dog" in shown
    assert "&lt;i&gt;10" in shown
    assert "<i>10" not in shown
    assert shown.count("data:image/jpeg") == 1
    assert shown.count("class=missing") == len(COPIES)
    said = run(*find, "--delete")
    assert "nothing was deleted: --delete --yes deletes 3 images" in said
    assert len(live(folder)) == COUNT
    assert "--delete" in run(*find, "--yes", status=2)
    assert "3 images deleted" in run(*find, "--delete", "--yes")
    assert live(folder) == [f"<i>{n}" for n in range(COUNT) if n not in COPIES]
    assert json.loads(run(*find, "--json"))["groups"] == []


def test_duplicates_among_some_images(folder: Path, run: Run) -> None:
    found = json.loads(run("duplicates", "--gallery", folder, "--where", "label = 'dog'", "--json"))
    assert [
        [group["keep"]["id"], *(other["id"] for other in group["others"])] for group in found["groups"]
    ] == [["<i>20", "<i>21"]]
    assert "threshold" in run("duplicates", "--gallery", folder, "--threshold", 0, status=2)


def test_labels_are_suggested_and_doubted(folder: Path, run: Run, tmp_path: Path) -> None:
    page, sheet = tmp_path / "page.html", tmp_path / "labels.csv"
    judge = ("knn-label", "--gallery", folder, "--k", 5)
    found = json.loads(run(*judge, "--json", "--html", page, "--csv", sheet))
    by_kind = {
        kind: [f["id"] for f in found["images"] if f["kind"] == kind] for kind in ("suggestion", "suspicious")
    }
    assert by_kind["suggestion"] == ["<i>2"]
    # Dogs that look exactly like a cat.
    assert {"<i>20", "<i>21"} <= set(by_kind["suspicious"])
    assert found["images"][0]["suggested"] == "cat"
    assert found["confirmed"] == pytest.approx(1 - len(by_kind["suspicious"]) / (COUNT - 1))
    rows = list(csv.DictReader(sheet.open(newline="")))
    assert [row["id"] for row in rows] == [f["id"] for f in found["images"]]
    assert [float(row["confidence"]) for row in rows] == [f["confidence"] for f in found["images"]]
    assert "dog → cat?" in page.read_text()
    assert "<i>2" not in page.read_text()
    table = run(*judge, "--top", 1)
    assert "1 unlabelled image" in table
    assert "fewer than k" not in table
    assert f"{COUNT - 1} other images: fewer than k = 500" in run(*judge[:-1], 500)
    assert f"of {COUNT - 1} labels" in table
    sure = json.loads(run(*judge, "--json", "--min-confidence", 0.99))["images"]
    assert {f["id"] for f in sure} == {f["id"] for f in found["images"] if f["confidence"] >= 0.99}
    some = json.loads(run(*judge, "--json", "--where", "n = 20"))["images"]
    assert [f["id"] for f in some] == ["<i>20"]
    assert "k is 0" in run("knn-label", "--gallery", folder, "--k", 0, status=2)
