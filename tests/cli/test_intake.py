"""Nothing vanishes on the way in: for each kind of place, what is read and what is named is what is there."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
import timm
import torch
from matmamba_datasets import DataConfig, TableReading, open_images, open_splits, shown
from matmamba_retrieval import Gallery
from matmamba_vision import save_checkpoint
from matmamba_vision.cli.main import main
from real_trees import TREES, Tree, without_override

SECONDS = 60


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model with random weights that costs next to nothing."""
    torch.manual_seed(0)
    overlay = {"input_size": (3, 16, 16)}
    model = timm.create_model(
        "matmamba_nano_patch4_32", img_size=16, num_classes=2, pretrained_cfg_overlay=overlay
    )
    return save_checkpoint(tmp_path_factory.mktemp("model"), model.eval(), ("cats", "dogs")).parent


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
    gallery = ["--checkpoint", str(small), "--gallery", str(tmp_path / "g"), "--max-broken", "0"]
    loose = {name for name in tree.named if tree.data == "folder" and (name.startswith(("train/", "test/")))}
    assert main(["index", "--images", str(tree.root), *gallery, *flags(tree)]) == 0
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
