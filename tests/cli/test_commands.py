"""The commands as a user runs them, on a folder of mixed images with broken files among them."""

from __future__ import annotations

import json
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import figures
import numpy as np
import pytest
from matmamba_datasets import DataConfig, open_splits
from matmamba_retrieval import Gallery
from matmamba_vision import load_checkpoint
from matmamba_vision.cli.main import COMMANDS, main
from matmamba_vision.measures import count_parameters
from matmamba_vision.native import why_missing
from PIL import Image
from small import create, save_photos

TINY = ["--model.img-size", "16", "--data.batch-size", "8", "--optim.epochs", "2", "--optim.lr", "0.003"]
Snapshot = dict[str, bytes]


def files(folder: Path) -> Snapshot:
    return {
        str(file): file.read_bytes()
        for file in folder.rglob("*")
        if file.is_file() and "-" not in file.suffix
    }


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with photos and a short training on them, which nobody changes."""
    folder = tmp_path_factory.mktemp("trained")
    save_photos(folder / "photos")
    source = ["--data.name", "folder", "--data.root", str(folder / "photos")]
    with figures.drawn():
        assert main(["train", *source, "--output", str(folder / "run"), *TINY]) == 0
    return folder


@pytest.fixture
def run(trained: Path, tmp_path: Path) -> Path:
    """A copy of the training, which saw photos like those of the test."""
    return Path(shutil.copytree(trained / "run", tmp_path / "run"))


@pytest.fixture
def indexed(run: Path, photos: Path, tmp_path: Path) -> Path:
    """A gallery of the photos."""
    gallery = tmp_path / "gallery"
    assert main(["index", "--checkpoint", str(run), "--images", str(photos), "--gallery", str(gallery)]) == 0
    return gallery


def test_a_script_of_timm_knows_our_models(tmp_path: Path) -> None:
    """It sees its own arguments, what lies beside it, and the models at any width."""
    (tmp_path / "beside.py").write_text("NAME = 'matmamba_nano_patch4_32'")
    script = tmp_path / "count.py"
    script.write_text(
        "import sys, timm, beside\n"
        "model = timm.create_model(beside.NAME, width=sys.argv[1], num_classes=10)\n"
        "print(__name__, sum(p.numel() for p in model.parameters()))"
    )
    start = "import sys; from matmamba_vision.cli.main import main; sys.exit(main())"
    said = subprocess.run(
        [sys.executable, "-c", start, "timm", str(script), "1/4"], capture_output=True, text=True, check=True
    )
    full = create("matmamba_nano_patch4_32", num_classes=10)
    assert said.stdout.split() == ["__main__", str(count_parameters(full, "1/4"))]


def test_a_missing_script_is_named(fails: Callable[..., str]) -> None:
    assert "no_such.py" in fails("timm", "no_such.py")


@pytest.fixture
def fails(capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """Run a command that must fail: status 2, one `error:` message, no traceback."""

    def check(*arguments: object) -> str:
        capsys.readouterr()
        assert main([str(argument) for argument in arguments]) == 2
        said = capsys.readouterr().err
        assert said.startswith("matmamba: error: ")
        assert "Traceback" not in said
        return said

    return check


def test_a_run_leaves_what_it_promises(trained: Path) -> None:
    run, photos = trained / "run", trained / "photos"
    checkpoint = load_checkpoint(run)
    assert checkpoint.classes == ("bright", "dark")
    assert [checkpoint.model.label(width) for width in checkpoint.model.trained_widths] == [
        "full",
        "1/2",
        "1/4",
        "1/8",
    ]
    assert checkpoint.run["data"]["root"] == str(photos)
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert [(row["event"], row["epoch"]) for row in rows] == [
        ("step", 1), ("epoch", 1), ("step", 2), ("epoch", 2),
    ]  # fmt: skip
    assert set(rows[-1]["top1"]) == set(rows[0]["widths"]) == {"full", "1/2", "1/4", "1/8"}
    assert set(rows[0]["terms"]) == {"cross_entropy", "mrl", "distillation", "alignment"}
    assert rows[0]["loss"] == pytest.approx(sum(rows[0]["terms"].values()))
    assert rows[0]["data_seconds"] > 0
    assert rows[0]["compute_seconds"] > 0
    assert (run / "best.safetensors").is_file()
    with Image.open(run / "curves.png") as curves:
        curves.verify()
    assert list((run / "tensorboard").rglob("events*"))
    assert "widths/1/8" in (run / "metrics.csv").read_text().splitlines()[0].split(",")
    assert (run / "config.yaml").is_file()
    environment = json.loads((run / "environment.json").read_text())
    assert "torch" in environment["versions"]
    on_a_cpu = "chunked" if why_missing() else "native"
    assert environment["scan_backend"] == (on_a_cpu if environment["machine"]["gpu"] is None else "triton")


def test_a_run_is_not_overwritten_unasked(run: Path, fails: Callable[..., str]) -> None:
    before = files(run)
    assert str(run) in fails("train", "--data.name", "digits", "--output", run)
    assert files(run) == before


def test_broken_training_images_are_left_out_and_listed(
    photos: Path, tmp_path: Path, fails: Callable[..., str], capsys: pytest.CaptureFixture[str]
) -> None:
    broken = open_splits(DataConfig(name="folder", root=str(photos))).train.paths[0]
    Path(broken).write_bytes(b"no image")
    train = ["train", "--data.name", "folder", "--data.root", str(photos), *TINY]
    said = fails(*train, "--output", tmp_path / "strict", "--data.max-broken", "0")
    assert broken in said
    assert "data.max_broken" in said
    assert not (tmp_path / "strict").exists()
    capsys.readouterr()
    assert main([*train, "--output", str(tmp_path / "lax")]) == 0
    assert "1 unreadable file left out" in capsys.readouterr().out


def test_search_finds_an_image_by_itself(
    indexed: Path, photos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    queries = [photos / "dark" / "00.jpg", photos / "bright" / "01.jpg"]
    for strategy in ("shortlist", "funnel", "single-shot", "auto"):
        capsys.readouterr()
        arguments = [
            "search",
            "--gallery",
            str(indexed),
            *map(str, queries),
            "--k",
            "24",
            "--strategy",
            strategy,
        ]
        assert main([*arguments, "--json"]) == 0
        found = json.loads(capsys.readouterr().out)
        assert [answer["query"] for answer in found["answers"]] == list(map(str, queries))
        for query, answer in zip(queries, found["answers"], strict=True):
            scores = [hit["score"] for hit in answer["hits"]]
            assert scores == sorted(scores, reverse=True)
            (own,) = [hit for hit in answer["hits"] if hit["path"] == str(query)]
            assert own["id"] == query.relative_to(photos).as_posix()
            assert own["label"] == query.parent.name
            # Stored in float16.
            assert own["score"] == pytest.approx(1, abs=2e-3)
            assert own["score"] >= scores[0] - 2e-3
        assert found["strategy"]["name"] == strategy.replace("auto", "single-shot")
        assert found["cost"]["encoder_gmacs"] > 0
        assert main(arguments) == 0
        assert "00.jpg" in capsys.readouterr().out


def test_indexing_again_adds_what_is_new(
    indexed: Path, run: Path, photos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    index = ["index", "--checkpoint", str(run), "--images", str(photos), "--gallery", str(indexed)]
    before = files(indexed / "segments")
    assert main(index) == 0
    assert "0 images added, 24 in all" in capsys.readouterr().out
    assert files(indexed / "segments") == before
    shutil.copy(photos / "dark" / "00.jpg", photos / "dark" / "copy.jpg")
    assert main(index) == 0
    assert "1 image added, 25 in all" in capsys.readouterr().out
    assert (
        main(["search", "--gallery", str(indexed), str(photos / "dark" / "00.jpg"), "--k", "2", "--json"])
        == 0
    )
    hits = json.loads(capsys.readouterr().out)["answers"][0]["hits"]
    assert {hit["id"] for hit in hits} == {"dark/00.jpg", "dark/copy.jpg"}


def test_unreadable_files_are_skipped_counted_and_listed(
    run: Path, photos: Path, tmp_path: Path, fails: Callable[..., str], capsys: pytest.CaptureFixture[str]
) -> None:
    content = (photos / "bright" / "01.jpg").read_bytes()
    (photos / "bright" / "01.jpg").write_bytes(content[: len(content) // 2])
    (photos / "notes.txt").write_text("hello")
    gallery = tmp_path / "g"
    index = ["index", "--checkpoint", str(run), "--images", str(photos), "--gallery", str(gallery)]
    said = fails(*index, "--max-broken", "0")
    assert "notes.txt" not in said
    assert "01.jpg" in said
    assert not gallery.exists()
    capsys.readouterr()
    assert main(index) == 0
    said = capsys.readouterr().out
    assert "23 images added" in said
    assert "1 file left out" in said
    assert f"1 entry in {photos}/ is not read:\n  1 not an image (.txt): notes.txt" in said
    assert str(photos / "bright" / "01.jpg") in said


def test_a_killed_run_is_continued_by_the_same_command(run: Path, photos: Path, tmp_path: Path) -> None:
    """Killed when its first segments are there; the rest comes with the second call, and nothing twice."""
    gallery = tmp_path / "g"
    for number in range(400):
        shutil.copy(photos / "dark" / "00.jpg", photos / "dark" / f"copy{number:03d}.jpg")
    slow = (
        "import time; from matmamba_retrieval.overlap import Intake; add = Intake.add\n"
        "Intake.add = lambda self, *args: (setattr(self, '_seconds', 0), add(self, *args), time.sleep(0.2))\n"
        "import sys; from matmamba_vision.cli import main; sys.exit(main(sys.argv[1:]))"
    )
    command = ["index", "--checkpoint", str(run), "--images", str(photos), "--gallery", str(gallery)]
    command += ["--batch-size", "20"]
    process = subprocess.Popen([sys.executable, "-c", slow, *command], stdout=subprocess.DEVNULL)
    while len(list((gallery / "segments").glob("*.npy"))) < 3:
        assert process.poll() is None
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    with Gallery(gallery) as stopped:
        assert 0 < len(stopped) < 424
    assert main(command) == 0
    with Gallery(gallery) as whole:
        assert len(whole) == 424
        assert len({row.id for row in whole.rows(range(424))}) == 424


def test_a_gallery_of_another_checkpoint_is_refused(
    indexed: Path, run: Path, photos: Path, tmp_path: Path, fails: Callable[..., str]
) -> None:
    other, before = tmp_path / "other", files(indexed)
    assert main(["extract", "--checkpoint", str(run), "--width", "1/2", "--output", str(other)]) == 0
    index = ["index", "--checkpoint", other, "--images", photos, "--gallery", indexed]
    assert str(indexed) in fails(*index)
    query = photos / "dark" / "00.jpg"
    assert "another checkpoint" in fails("search", "--gallery", indexed, query, "--checkpoint", other)
    assert files(indexed) == before


def test_a_checkpoint_that_moved_can_be_named(
    indexed: Path, run: Path, photos: Path, tmp_path: Path, fails: Callable[..., str]
) -> None:
    run.rename(tmp_path / "moved")
    search = ["search", "--gallery", str(indexed), str(photos / "dark" / "00.jpg")]
    assert str(run) in fails(*search)
    assert main([*search, "--checkpoint", str(tmp_path / "moved")]) == 0


def test_two_folders_are_kept_apart_by_a_prefix(
    indexed: Path, run: Path, photos: Path, tmp_path: Path, fails: Callable[..., str]
) -> None:
    shutil.copytree(photos, tmp_path / "more")
    index = ["index", "--checkpoint", str(run), "--images", str(tmp_path / "more"), "--gallery", str(indexed)]
    assert "prefix" in fails(*index)
    assert main([*index, "--prefix", "more/"]) == 0
    with Gallery(indexed) as gallery:
        assert len(gallery) == 48


def test_extract_and_validate(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    small = tmp_path / "small"
    assert main(["extract", "--checkpoint", str(run), "--width", "1/4", "--output", str(small)]) == 0
    assert "random images: 0" in capsys.readouterr().out
    assert main(["validate", "--checkpoint", str(run), "--widths", "full", "1/4", "--json"]) == 0
    full, quarter = json.loads(capsys.readouterr().out)["widths"]
    assert main(["validate", "--checkpoint", str(small), "--json"]) == 0
    (alone,) = json.loads(capsys.readouterr().out)["widths"]
    assert (alone["params"], alone["top1"]) == (quarter["params"], quarter["top1"])
    assert quarter["params"] < full["params"]
    assert quarter["gmacs"] < full["gmacs"]
    assert set(full) >= {"width", "heads", "params", "gmacs", "top1", "knn1", "map10", "encode_ms"}
    assert main(["validate", "--checkpoint", str(run)]) == 0


def test_bad_input_is_named_and_changes_nothing(
    indexed: Path, run: Path, photos: Path, tmp_path: Path, fails: Callable[..., str]
) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "broken.jpg").write_bytes(b"no")
    before, query = files(tmp_path), photos / "dark" / "00.jpg"
    wrong: list[tuple[list[object], str]] = [
        (["dance"], "'dance'"),
        (["train", "--data.name", "imagenet", "--output", tmp_path / "x"], "'imagenet'"),
        (["train", "--data.name", "folder", "--output", tmp_path / "x"], "data.root"),
        (
            ["train", "--data.name", "folder", "--data.root", tmp_path / "empty", "--output", tmp_path / "x"],
            "empty",
        ),
        (["train", "--model.name", "matmamba_huge", "--output", tmp_path / "x"], "'matmamba_huge'"),
        (["train", "--model.name", "resnet18", "--output", tmp_path / "x"], "'resnet18'"),
        (["train", "--model.trained-widths", "full", "1/3", "--output", tmp_path / "x"], "'1/3'"),
        (["train", "--device", "abacus", "--output", tmp_path / "x"], "'abacus'"),
        (["train", "--optim.opt", "sgdx", "--output", tmp_path / "x"], "'sgdx'"),
        (["train", "--optim.lr", "-1", "--output", tmp_path / "x"], "optim.lr is -1"),
        (["train", "--optim.epochs", "0", "--output", tmp_path / "x"], "optim.epochs is 0"),
        (["train", "--data.batch-size", "0", "--output", tmp_path / "x"], "data.batch_size is 0"),
        (
            ["train", "--data.augment.scale", "2", "3", "--output", tmp_path / "x"],
            "data.augment.scale is [2.0, 3.0]",
        ),
        (["train", "--model.drop-path-rate", "2", "--output", tmp_path / "x"], "model.drop_path_rate is 2"),
        (["train", "--model.img-size", "17", "--output", tmp_path / "x"], "img_size 17"),
        (["train", "--model.scan", "spiral", "--output", tmp_path / "x"], "scan 'spiral'"),
        (["train", "--model.mlp-ratio", "0.3", "--output", tmp_path / "x"], "mlp_ratio 0.3"),
        (["train", "--data.augment.auto-augment", "zzz", "--output", tmp_path / "x"], "'zzz'"),
        (["train", "--model.trained-widths", "1/2", "full", "--output", tmp_path / "x"], "full first"),
        (["validate", "--checkpoint", tmp_path / "none"], "none"),
        (["validate", "--checkpoint", run, "--widths", "1/32"], "1/32"),
        (["select", "--checkpoint", run, "--budget", "gmacs=1", "--name", "digits"], "classes"),
        (["extract", "--checkpoint", run, "--width", "2", "--output", tmp_path / "x"], "'2'"),
        (["extract", "--checkpoint", run, "--width", "1/2", "--output", run], "model.safetensors exists"),
        (["index", "--checkpoint", run, "--images", tmp_path / "none", "--gallery", tmp_path / "x"], "none"),
        (
            ["index", "--checkpoint", run, "--images", tmp_path / "empty", "--gallery", tmp_path / "x"],
            "empty",
        ),
        (
            ["index", "--checkpoint", run, "--images", photos, "--gallery", tmp_path / "x", "--dims", "999"],
            "999",
        ),
        (
            [
                "index",
                "--checkpoint",
                run,
                "--images",
                photos,
                "--gallery",
                tmp_path / "x",
                "--factory",
                "No",
            ],
            "'No'",
        ),
        (["index", "--checkpoint", run, "--images", photos, "--gallery", photos], str(photos)),
        (["search", "--gallery", tmp_path / "none", query], "none"),
        (["search", "--gallery", indexed], "no query image"),
        (["search", "--gallery", indexed, tmp_path / "broken.jpg"], "broken.jpg"),
        (["search", "--gallery", indexed, tmp_path / "nothing.jpg"], "nothing.jpg"),
        (["search", "--gallery", indexed, query, "--k", "0"], "k is 0: it can be 1 or more"),
        (["search", "--gallery", indexed, query, "--strategy", "shortlist", "--dim", "7"], "7 dims"),
        (["search", "--gallery", indexed, query, "--query-width", "1/5"], "'1/5'"),
        (["search", "--gallery", indexed, query, "--strategy", "funnel", "--shortlist", "2"], "shortlist of"),
    ]
    for arguments, culprit in wrong:
        assert culprit in fails(*arguments), arguments
    assert files(tmp_path) == before


@pytest.mark.parametrize("command", COMMANDS)
def test_help_shows_examples(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main([command, "--help"])
    assert stopped.value.code == 0
    said = capsys.readouterr().out
    assert f"matmamba {command} " in said or f"matmamba {command}\n" in said
    assert "examples:" in said
    assert main(["--help"]) == 0
    assert command in capsys.readouterr().out


@pytest.mark.usefixtures("few_digits")
def test_the_demo_reports_what_it_measured(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = tmp_path / "demo"
    assert main(["demo", "--output", str(output), "--epochs", "1", "--require-goals"]) == 2
    printed = capsys.readouterr()
    assert "missed" in printed.err
    assert all(title in printed.out for title in ("widths", "retrieval; recall", "goals", "report: "))
    results = json.loads((output / "results.json").read_text())
    assert [row["width"] for row in results["widths"]] == ["full", "1/2", "1/4", "1/8"]
    assert (
        results["retrieval"][0] | {"strategy": "single-shot", "query_width": "full", "ann_recall10": 1.0}
        == (results["retrieval"][0])
    )
    assert {row["strategy"] for row in results["retrieval"]} == {"single-shot", "shortlist", "funnel"}
    assert {"commit", "versions", "machine", "seed", "seconds", "goals"} <= set(results)
    assert all(
        np.isfinite(row[name]) for row in results["retrieval"] for name in ("top1", "map10", "search_ms")
    )
    page = (output / "report.html").read_text()
    assert page.count("data:image/png;base64,") == 2
    assert page.count("data:image/jpeg;base64,") == 6 * (1 + 10)
    assert all(words in page for words in ("1/8 width", "full width alone", "digits recognised", "missed"))
    assert not re.search(r"\b(ann_recall10|map10|knn1|encode_ms|search_ms|query_width|gmacs)\b", page)
    assert f"<td class=number>{100 * results['widths'][-1]['top1']:.1f} %</td>" in page
    with Gallery(output / "gallery") as gallery:
        assert all(Path(row.path).is_file() for row in gallery.rows(range(len(gallery))))
    assert "http" not in page.replace("http-equiv", "")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "x").write_text("x")
    assert main(["demo", "--output", str(tmp_path / "mine")]) == 2
    assert (tmp_path / "mine" / "x").read_text() == "x"


def test_a_folder_of_broken_images_trains_nothing(
    photos: Path, tmp_path: Path, fails: Callable[..., str]
) -> None:
    for file in photos.rglob("*.*"):
        file.write_bytes(b"no image")
    train = ["train", "--data.name", "folder", "--data.root", photos, "--data.max-broken", "1", *TINY]
    assert "no training image" in fails(*train, "--output", tmp_path / "x")
    assert not (tmp_path / "x").exists()


def test_an_interrupted_training_says_what_is_there(photos: Path, tmp_path: Path) -> None:
    command = [
        sys.executable,
        "-c",
        # A shell's background jobs ignore interrupts, and so would this one.
        "import signal, sys; signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "from matmamba_vision.cli import main; sys.exit(main(sys.argv[1:]))",
    ]
    command += [
        "train",
        "--data.name",
        "folder",
        "--data.root",
        str(photos),
        *TINY[:4],
        "--optim.epochs",
        "9999",
    ]
    command += ["--threads", "1", "--output", str(tmp_path / "x")]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    model = tmp_path / "x" / "model.safetensors"
    while not model.exists():
        assert process.poll() is None
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    said, complaint = process.communicate()
    assert process.returncode == 130
    assert "is that of epoch" in said
    assert "go on with resume auto" in said
    assert "Traceback" not in complaint
    load_checkpoint(tmp_path / "x")


@pytest.mark.parametrize(("name", "package"), [("digits", "sklearn"), ("parquet", "pyarrow")])
def test_a_missing_extra_is_named(
    name: str, package: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fails: Callable[..., str]
) -> None:
    for module in [module for module in sys.modules if module.split(".")[0] == package]:
        monkeypatch.delitem(sys.modules, module)
    for module in ("matmamba_datasets.parquet", "matmamba_datasets.digits"):
        monkeypatch.delitem(sys.modules, module, raising=False)

    class Missing:
        def find_spec(self, module: str, path: object, target: object = None) -> None:
            if module.split(".")[0] == package:
                raise ModuleNotFoundError(f"No module named {package!r}", name=package)

    monkeypatch.setattr(sys, "meta_path", [Missing(), *sys.meta_path])
    said = fails("train", "--data.name", name, "--data.root", tmp_path, "--output", tmp_path / "x")
    assert f"needs {package}: pip install 'matmamba-vision[data]'" in said


@pytest.mark.slow
def test_compilation_shows_its_time(photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = ["--data.name", "folder", "--data.root", str(photos)]
    assert main(["train", *source, "--output", str(tmp_path / "run"), *TINY, "--compile"]) == 0
    said = capsys.readouterr().out
    for width in ("full", "1/2", "1/4", "1/8"):
        assert f"compiled width {width} in " in said
    assert load_checkpoint(tmp_path / "run").classes == ("bright", "dark")
