"""Nothing vanishes on the way in: for each kind of place, what is read and what is named is what is there."""

from __future__ import annotations

import json
import os
import re
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from matmamba_datasets import DataConfig, TableReading, open_images, open_splits, shown
from matmamba_retrieval import Gallery
from matmamba_vision import save_checkpoint
from matmamba_vision.cli.main import main
from real_trees import CLASSES, TREES, Tree, photos, without_override
from small import SMALL, create

SECONDS = 60


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model with random weights that costs next to nothing."""
    return checkpoint(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def gallery(small: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One of eight photos, to be asked."""
    folder = tmp_path_factory.mktemp("asked")
    images = photos(folder / "photos").root
    assert main(["index", "--images", str(images), *encoded_by(small, folder / "g")]) == 0
    return folder / "g"


def checkpoint(folder: Path, classes: tuple[str, ...] = CLASSES, data: dict[str, Any] | None = None) -> Path:
    """Its folder. data: the settings of its run."""
    torch.manual_seed(0)
    model = create(
        "matmamba_nano_patch4_32",
        pretrained_cfg_overlay={"input_size": (3, 16, 16)},
        **(SMALL | {"num_classes": len(classes)}),
    )
    return save_checkpoint(folder, model.eval(), classes, {"data": data or {}}).parent


def encoded_by(model: Path, folder: Path) -> list[str]:
    """Flags."""
    return ["--checkpoint", str(model), "--gallery", str(folder), "--max-broken", "0"]


@pytest.fixture
def tree(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Tree]:
    """One that is there, watched: what hangs is stopped."""
    made = TREES[request.param](tmp_path / "place")

    def hangs(number: int, frame: object) -> None:
        for path in made.root.rglob("*"):
            # Whoever waits for its writer is let go.
            if path.is_fifo():
                os.close(os.open(path, os.O_RDWR | os.O_NONBLOCK))
        raise AssertionError(f"still running after {SECONDS} s")

    before = signal.signal(signal.SIGALRM, hangs)
    signal.alarm(SECONDS)
    with without_override(made.locked):
        yield made
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


def flags(tree: Tree, prefix: str = "") -> list[str]:
    """Of a tree, as a command takes them."""
    pairs = zip(tree.flags[::2], tree.flags[1::2], strict=True)
    return [word for name, value in pairs for word in (f"--{prefix}{name}", *value.split(","))]


def reading(tree: Tree) -> TableReading:
    pairs = dict(zip(tree.flags[::2], tree.flags[1::2], strict=True))
    lists = {name: value.split(",") if name != "links" else value for name, value in pairs.items()}
    return TableReading(**lists)  # type: ignore[arg-type]


def require_named(said: str, named: set[str]) -> None:
    """Each name is printed, escaped, unless it is behind the first three of its reason."""
    for name in named:
        assert shown(name.rstrip("/").rpartition("/")[2]) in said or ", ..." in said, name
    count = f"{len(named)} entries" if len(named) > 1 else "1 entry"
    assert not named or said.count("not read:") == said.count(count) == 1
    assert "\x1b" not in said
    assert "Warning" not in said


@pytest.mark.parametrize("tree", TREES, indirect=True)
def test_what_is_there_is_read_or_named(
    tree: Tree,
    small: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("matmamba_vision.runs.dry_run.activation_bytes", lambda *rest: 0)
    loose = {name for name in tree.named if tree.data == "folder" and (name.startswith(("train/", "test/")))}
    assert main(["index", "--images", str(tree.root), *encoded_by(small, tmp_path / "g"), *flags(tree)]) == 0
    said = capsys.readouterr().out
    images = open_images(tree.root, reading(tree))
    found = {shown(str(Path(name).relative_to(tree.root.absolute()))) for name in images.left_out}
    with Gallery(tmp_path / "g") as written:
        assert len(written) == len(images)
    if not loose:
        require_named(said, tree.named)
        assert len(images) == tree.read
        assert found == {shown(name.rstrip("/")) for name in tree.named}
    source = ["--data.name", tree.data, "--data.root", str(tree.root), *flags(tree, "data.")]
    model = ["--model.img-size", "16", "--output", str(tmp_path / "run")]
    assert main(["train", *source, *model, "--dry-run"]) == 0
    named, read = tree.named | tree.unlabelled, tree.read - len(tree.unlabelled)
    require_named(capsys.readouterr().out, named)
    splits = open_splits(DataConfig(name=tree.data, root=str(tree.root), **vars(reading(tree))))
    assert len(splits.train) + len(splits.held_out) == read
    assert len(splits.left_out) == len(named)
    prepared = ["data", "prepare", "--name", tree.data, "--root", str(tree.root), "--max-broken", "0"]
    assert main([*prepared, "--output", str(tmp_path / "shards"), *flags(tree)]) == 0
    require_named(capsys.readouterr().out, named)
    index = json.loads((tmp_path / "shards" / "index.json").read_text())
    assert sum(shard["images"] for part in index["splits"].values() for shard in part) == read
    assert len(index["left_out"]) == len(named)


@pytest.mark.parametrize("tree", TREES, indirect=True)
def test_what_is_there_is_measured_or_named(
    tree: Tree, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    # Most of the time would go into plots.
    monkeypatch.setattr("matplotlib.figure.Figure.savefig", lambda *ignored, **settings: None)
    settings = {"name": tree.data, "root": str(tree.root), "max_broken": 0.0, **vars(reading(tree))}
    splits = open_splits(DataConfig(**settings))
    run = checkpoint(tmp_path / "run", splits.train.classes, settings)
    few = ["--widths", "full", "--dims", "8", "--knn", "1", "--threads", "1"]
    assert main(["validate", "--checkpoint", str(run), *few]) == 0
    require_named(capsys.readouterr().out, tree.named | tree.unlabelled)
    images = json.loads((run / "validate" / "results.json").read_text())["images"]
    assert images == {"gallery": len(splits.train), "queries": len(splits.held_out)}
    assert sum(images.values()) == tree.read - len(tree.unlabelled)


@pytest.mark.parametrize("tree", TREES, indirect=True)
def test_what_is_there_is_verified_or_named(tree: Tree, capsys: pytest.CaptureFixture[str]) -> None:
    source = ["--data.name", tree.data, "--data.root", str(tree.root), *flags(tree, "data.")]
    assert main(["data", "verify", *source]) == 0
    said, named = capsys.readouterr().out, tree.named | tree.unlabelled
    require_named(said, named)
    assert ", ..." not in said
    counts = re.findall(r"^(?:training|held-out): (\d+) images, 0 broken$", said, re.MULTILINE)
    assert sum(map(int, counts)) == tree.read - len(tree.unlabelled)


@pytest.mark.parametrize("tree", TREES, indirect=True)
def test_what_is_there_is_asked_with_or_named(
    tree: Tree, gallery: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Only of folders of images; what else there may be is named where it is refused."""
    command = ["search", "--gallery", str(gallery), str(tree.root), "--k", "1", "--threads", "1", "--json"]
    status, images = main([*command, *flags(tree)]), open_images(tree.root, reading(tree))
    said = capsys.readouterr()
    if tree.data != "folder":
        assert status == 2
        named = {entry.name for entry in tree.root.rglob("*") if entry.is_file()}
        assert all(shown(name) in said.err for name in named)
        return
    assert status == 0
    require_named(said.err, {*images.left_out})
    answers = json.loads(said.out)["answers"]
    assert len(answers) == len(images)
    assert all(len(answer["hits"]) == 1 for answer in answers)
