"""Indexing, merging and reindexing as a user runs them, with broken files among the images."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from matmamba_retrieval import Gallery, Row
from matmamba_vision import load_checkpoint, save_checkpoint
from matmamba_vision.cli.main import main
from small import create, unit_vectors

PROGRAM = Path(__file__).parents[1] / "killed_indexing.py"
QUICK = ["--batch-size", "5", "--max-broken", "0.2", "--threads", "1"]


def checkpoint(folder: Path, seed: int) -> Path:
    """A model with random weights."""
    torch.manual_seed(seed)
    model = create(
        "matmamba_nano_patch4_32", img_size=16, num_classes=2,
        pretrained_cfg_overlay={"input_size": (3, 16, 16)},
    )  # fmt: skip
    save_checkpoint(folder, model.eval(), ("bright", "dark"))
    return folder


@pytest.fixture
def place(tmp_path: Path, photos: Path) -> Path:
    """Photos, two of them broken, and two models."""
    (photos / "bright" / "03.jpg").write_bytes(b"no image")
    (photos / "dark" / "notes.txt").write_text("hello")
    checkpoint(tmp_path / "first", 0)
    checkpoint(tmp_path / "second", 1)
    return tmp_path


@pytest.fixture
def command(place: Path) -> Callable[..., int]:
    """Run a command with short names for what is in the folder."""

    def run(*arguments: object) -> int:
        return main([str(argument).replace("@", f"{place}/") for argument in arguments])

    return run


def images(*more: object) -> list[object]:
    return ["index", "--images", "@photos", "--checkpoint", "@first", *QUICK, *more]


def content(folder: Path) -> tuple[list[Row], dict[str, bytes], list[tuple[str, str]]]:
    """Rows, vectors by width, and indexes with the checksums of their files."""
    with Gallery(folder) as gallery:
        keys = gallery.live_keys()
        widths = (gallery.spec.width, *gallery.generation.widths)
        vectors = {width: gallery.segments_of(width).read(keys).tobytes() for width in widths}
        return gallery.rows(keys), vectors, [(one.name, one.sha256) for one in gallery.shortlists()]


def test_merged_shards_equal_one_run(command: Callable[..., int], place: Path) -> None:
    """To the bit: rows, vectors of both widths, and indexes."""
    assert command(*images("--gallery", "@whole", "--widths", "1/4", "--dims", "8")) == 0
    for number in (1, 2, 3):
        shard = ["--gallery", f"@s{number}", "--shard", f"{number}/3", "--max-broken", "0.5"]
        assert command(*images("--widths", "1/4", *shard)) == 0
    assert command("merge", "@s3", "@s1", "@s2", "--into", "@g", "--dims", "8") == 0
    assert content(place / "g") == content(place / "whole")
    rows, vectors, indexes = content(place / "g")
    assert len(rows) == 23
    assert set(vectors) == {"full", "1/4"}
    assert [name for name, _ in indexes] == ["Flat-8", "Flat-8@1/4"]
    assert vectors["full"] != vectors["1/4"]


def test_batches_read_by_other_processes_give_the_same_gallery(
    command: Callable[..., int], place: Path
) -> None:
    assert command(*images("--gallery", "@a")) == 0
    assert command(*images("--gallery", "@b", "--workers", "2")) == 0
    assert content(place / "a") == content(place / "b")


@pytest.mark.parametrize("kills", [3, pytest.param(60, marks=pytest.mark.slow)])
def test_killed_commands_lose_nothing_and_end_as_if_never_killed(place: Path, kills: int) -> None:
    program = [sys.executable, str(PROGRAM), str(place), str(kills)]
    said = subprocess.run(program, capture_output=True, text=True, timeout=900)
    assert said.returncode == 0, said.stdout + said.stderr
    useful = json.loads(said.stdout.splitlines()[-1])
    assert all(useful.values()), useful


def test_metadata_come_with_the_images(
    command: Callable[..., int], place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (place / "m.csv").write_text("id,year,label\nx/bright/01.jpg,2020,sunny\nx/dark/00.jpg,2021,\n")
    index = images("--gallery", "@g", "--prefix", "x/", "--metadata", "@m.csv")
    assert command(*index) == 0
    with Gallery(place / "g") as gallery:
        assert gallery.fields() == ["year"]
        known = {row.id: row for row in gallery.rows(gallery.live_keys())}
        assert (known["x/bright/01.jpg"].metadata, known["x/bright/01.jpg"].label) == (
            {"year": 2020},
            "sunny",
        )
        assert (known["x/dark/00.jpg"].metadata, known["x/dark/00.jpg"].label) == ({"year": 2021}, "dark")
        allowed = gallery.allowed("year > 2020")
        assert allowed is not None
        assert np.flatnonzero(allowed).tolist() == [gallery.keys_of(["x/dark/00.jpg"])["x/dark/00.jpg"]]
    (place / "m.csv").write_text("id,year\nbright/01.jpg,2020\n")
    assert command(*images("--gallery", "@h", "--prefix", "x/", "--metadata", "@m.csv")) == 2
    assert "'bright/01.jpg'" in capsys.readouterr().err
    assert not (place / "h").exists()


def test_images_are_replaced_only_when_asked(command: Callable[..., int], place: Path) -> None:
    assert command(*images("--gallery", "@g")) == 0
    before = content(place / "g")
    shutil.copy(place / "photos" / "bright" / "01.jpg", place / "photos" / "dark" / "00.jpg")
    assert command(*images("--gallery", "@g")) == 0
    assert content(place / "g") == before
    assert command(*images("--gallery", "@g", "--upsert")) == 0
    with Gallery(place / "g") as gallery:
        assert len(gallery) == 23
        keys = gallery.keys_of(["bright/01.jpg", "dark/00.jpg"])
        one, other = gallery.segments.read(np.array([*keys.values()])).astype(np.float32)
        assert one @ other == pytest.approx(1, abs=2e-3)


def test_reindexing_equals_indexing_by_the_new_model(
    command: Callable[..., int], place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Also of images that are rows of Parquet files; readers keep the old vectors, a plan goes."""
    assert command(*images("--gallery", "@g", "--dims", "8")) == 0
    (place / "photos" / "dark" / "02.png").unlink()
    with Gallery(place / "g", write=True) as gallery:
        gallery.save_plan({"k": 1})
    with Gallery(place / "g") as reader:
        before = reader.segments.read(reader.live_keys())
        capsys.readouterr()
        assert command("reindex", "--gallery", "@g", "--checkpoint", "@second", *QUICK[:2]) == 2
        said = capsys.readouterr().err
        assert "02.png" in said
        assert "max_broken" in said
        assert (
            command("reindex", "--gallery", "@g", "--checkpoint", "@second", "--widths", "1/2", *QUICK) == 0
        )
        assert "02.png" in capsys.readouterr().out
        assert (reader.segments.read(reader.live_keys()) == before).all()
        assert reader.plan == {"k": 1}
        reader.refresh()
        assert reader.plan is None
        assert len(reader) == 22
    again = [*images("--gallery", "@fresh", "--dims", "8", "--widths", "1/2"), "--checkpoint", "@second"]
    assert command(*again) == 0
    rows, vectors, _ = content(place / "g")
    fresh_rows, fresh, _ = content(place / "fresh")
    assert sorted(row.id for row in rows) == sorted(row.id for row in fresh_rows)
    for width in ("full", "1/2"):
        found, wanted = (np.frombuffer(one[width], np.float16).reshape(22, -1) for one in (vectors, fresh))
        assert np.abs(found.astype(np.float32) - wanted).max() < 2e-3
    assert command("reindex", "--gallery", "@g", "--checkpoint", "@second", "--widths", "1/2", *QUICK) == 0
    assert "nothing to do" in capsys.readouterr().out


@pytest.mark.parametrize("kind", ["parquet", "shards"])
def test_images_in_large_files_are_found_again(command: Callable[..., int], place: Path, kind: str) -> None:
    if kind == "parquet":
        pa, pq = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
        stored = [
            {"bytes": file.read_bytes(), "path": file.name} for file in (place / "photos").rglob("*.png")
        ]
        (place / "many").mkdir()
        for number, half in enumerate((stored[:5], stored[5:])):
            pq.write_table(pa.table({"image": half}), place / "many" / f"{number}.parquet", row_group_size=2)
    else:
        prepare = ["--name", "folder", "--root", "@photos", "--output", "@many", "--max-broken", "0.2"]
        assert command("data", "prepare", *prepare) == 0
    index = ["index", "--images", "@many", "--gallery", "@g", *QUICK]
    assert command(*index, "--checkpoint", "@first") == 0
    count, plain = len(content(place / "g")[0]), content(place / "g")[1]
    assert command("reindex", "--gallery", "@g", "--checkpoint", "@second", *QUICK) == 0
    assert len(content(place / "g")[0]) == count
    assert command("reindex", "--gallery", "@g", "--checkpoint", "@first", *QUICK) == 0
    assert content(place / "g")[1] == plain


def test_vectors_made_elsewhere_are_indexed(
    command: Callable[..., int], place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    xb = unit_vectors(50, 16)
    np.save(place / "x.npy", 3 * xb)
    index = ["index", "--vectors", "@x.npy", "--model-name", "clip", "--gallery", "@v"]
    assert command(*index) == 2
    assert "normalise" in capsys.readouterr().err
    assert not (place / "v").exists()
    assert command(*index, "--normalise", "--dims", "8") == 0
    rows, vectors, indexes = content(place / "v")
    assert [row.id for row in rows] == [str(number) for number in range(50)]
    assert np.abs(np.frombuffer(vectors["full"], np.float16).reshape(50, 16) - xb).max() < 1e-3
    assert [name for name, _ in indexes] == ["Flat-8"]
    capsys.readouterr()
    assert command(*index, "--normalise") == 0
    assert "0 images added, 50 in all" in capsys.readouterr().out
    assert command(*index[:-1], "@v", "--normalise", "--model-name", "other") == 2
    assert "vectors:clip" in capsys.readouterr().err
    for number in (1, 2):
        assert command(*index[:-1], f"@v{number}", "--normalise", "--shard", f"{number}/2") == 0
    assert command("merge", "@v1", "@v2", "--into", "@m", "--dims", "8") == 0
    assert content(place / "m") == content(place / "v")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["index", "--gallery", "@g"], "either --images, --video or --vectors"),
        (images("--gallery", "@g", "--vectors", "@x.npy"), "either --images, --video or --vectors"),
        (images("--gallery", "@g", "--normalise"), "--normalise"),
        (["index", "--gallery", "@g", "--vectors", "@x.npy", "--widths", "1/2"], "--widths"),
        (["index", "--gallery", "@g", "--vectors", "@x.txt"], "x.txt"),
        (["index", "--gallery", "@g", "--dims", "8"], "g"),
        (
            ["index", "--gallery", "@g", "--dims", "8", "--upsert"],
            "--upsert means nothing for images that are",
        ),
        (
            ["index", "--gallery", "@g", "--dims", "8", "--ids", "@ids"],
            "--ids means nothing for images that are",
        ),
        (["index", "--gallery", "@g", "--dims", "8", "--shard", "1/2"], "--shard means nothing"),
        (images("--gallery", "@g", "--dims", "8", "--factory", "adanns-ivf:4:16"), "prefixes of 16 dims"),
        (
            images("--gallery", "@g", "--dims", "7", "--factory", "adanns-opq:2"),
            "multiple of twice its bytes",
        ),
        (images("--gallery", "@g", "--shard", "3/2"), "'3/2'"),
        (images("--gallery", "@g", "--shard", "1/2", "--dims", "8"), "matmamba merge"),
        (images("--gallery", "@g", "--widths", "1/5"), "'1/5'"),
        (images("--gallery", "@g", "--batch-size", "0"), "batch_size is 0"),
        (images("--gallery", "@g", "--metadata", "@m.csv"), "m.csv"),
        (["merge", "--into", "@g"], "galleries is empty"),
        (["merge", "@none", "--into", "@g"], "none"),
        (["reindex", "--gallery", "@none", "--checkpoint", "@first"], "none"),
    ],
)
def test_what_means_nothing_is_refused(
    arguments: list[object], said: str, command: Callable[..., int], place: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    assert command(*arguments) == 2
    assert said in capsys.readouterr().err
    assert not (place / "g").exists()


def test_indexes_are_built_over_images_that_are_there(
    command: Callable[..., int], place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Without encoding; a kind without dims is for those that have an index; vectors stay as they are."""
    assert command(*images("--gallery", "@g", "--dims", "8")) == 0
    before = content(place / "g")
    assert command("index", "--gallery", "@g", "--factory", "hnsw") == 0
    assert "hnsw" in capsys.readouterr().out
    assert command("index", "--gallery", "@g", "--dims", "16") == 0
    after = content(place / "g")
    assert after[:2] == before[:2]
    with Gallery(place / "g") as gallery:
        assert {record.dim: record.recipe for record in gallery.shortlists()} == {8: "hnsw", 16: "Flat"}


def test_images_stay_when_their_index_cannot_be_built_and_the_error_says_so(
    command: Callable[..., int], place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    np.save(place / "x.npy", unit_vectors(50, 16))
    index = ["index", "--vectors", "@x.npy", "--gallery", "@v", "--dims", "8"]
    assert command(*index, "--factory", "IVF64,Flat") == 2
    error = capsys.readouterr().err
    assert "50 images are in" in error
    assert "Number of training points (50)" in error
    assert ".cpp" not in error
    assert command("index", "--gallery", "@v", "--dims", "8") == 0
    assert len(content(place / "v")[0]) == 50


def test_what_was_there_already_is_counted(
    command: Callable[..., int], place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    np.save(place / "x.npy", unit_vectors(50, 16))
    np.save(place / "y.npy", unit_vectors(60, 16, seed=1))
    assert command("index", "--vectors", "@x.npy", "--gallery", "@v", "--model-name", "clip") == 0
    assert "left alone" not in capsys.readouterr().out
    assert command("index", "--vectors", "@y.npy", "--gallery", "@v", "--model-name", "clip") == 0
    printed = capsys.readouterr().out
    assert "10 images added, 60 in all" in printed
    assert "50 ids there already" in printed
    assert "--prefix or --ids" in printed


def test_an_interrupted_run_keeps_what_was_encoded_and_says_how_to_go_on(
    command: Callable[..., int],
    place: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    from matmamba_vision.galleries.embedder import Embedder

    embed, calls = Embedder.embed, [0]

    def interrupted(self: Embedder, *arguments: object) -> np.ndarray:
        calls[0] += 1
        if calls[0] == 3:
            raise KeyboardInterrupt
        return embed(self, *arguments)  # type: ignore[arg-type]

    assert command(*images("--gallery", "@whole")) == 0
    with monkeypatch.context() as patched:
        patched.setattr(Embedder, "embed", interrupted)
        assert command(*images("--gallery", "@g")) == 130
    assert "has 9 images; the same command goes on" in " ".join(capsys.readouterr().err.split())
    assert command(*images("--gallery", "@g")) == 0
    assert content(place / "g") == content(place / "whole")


def test_the_models_are_different(place: Path) -> None:
    """Else the tests above would say nothing."""
    first, second = load_checkpoint(place / "first"), load_checkpoint(place / "second")
    assert first.digest != second.digest
