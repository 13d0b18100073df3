"""`matmamba data`: shards are made, checked and measured as a user does it."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from matmamba_datasets import DataConfig, open_splits
from matmamba_vision.cli.main import main
from PIL import Image


@pytest.fixture
def shards(photos: Path, tmp_path: Path) -> Path:
    assert prepare(photos, tmp_path / "shards") == 0
    return tmp_path / "shards"


def prepare(photos: Path, output: Path, *more: str) -> int:
    source = ["--name", "folder", "--root", str(photos), "--output", str(output), "--shard-mb", "0.015"]
    return main(["data", "prepare", *source, *more])


def verify(name: str, root: object, *more: str) -> int:
    return main(["data", "verify", "--name", name, "--root", str(root), *more])


@pytest.mark.parametrize("action", ["prepare", "verify", "speed"])
def test_help_of_each_action_shows_examples(action: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(["data", action, "--help"])
    assert stopped.value.code == 0
    said = capsys.readouterr().out
    assert f"examples:\n  matmamba data {action} --data.name folder" in said


def test_shards_are_prepared_and_trained_on(
    photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (photos / "dark" / "00.jpg").write_bytes(b"no image")
    assert prepare(photos, tmp_path / "shards", "--max-broken", "0.1") == 0
    said = capsys.readouterr().out
    assert "train: " in said
    assert "1 file left out" in said
    assert "00.jpg: not an image file" in said
    assert "matmamba train --data.name shards" in said
    run = ["--output", str(tmp_path / "run"), "--model.img-size", "16", "--optim.epochs", "1"]
    source = ["--data.name", "shards", "--data.root", str(tmp_path / "shards"), "--data.batch-size", "8"]
    assert main(["train", *source, *run]) == 0
    gallery = ["--gallery", str(tmp_path / "gallery"), "--images", str(tmp_path / "shards")]
    assert main(["index", "--checkpoint", str(tmp_path / "run"), *gallery]) == 0
    assert "23 images added" in capsys.readouterr().out


def test_a_stopped_preparation_goes_on(photos: Path, tmp_path: Path) -> None:
    """The whole command is killed while it reads; the same command then finishes."""
    for number in range(300):
        Image.effect_noise((99, 99), 90).save(photos / "dark" / f"more-{number}.png")
    start = "import sys; from matmamba_vision.cli.main import main; sys.exit(main(sys.argv[1:]))"
    arguments = ["data", "prepare", "--name", "folder", "--root", str(photos), "--shard-mb", "0.05"]
    output = tmp_path / "shards"
    process = subprocess.Popen([sys.executable, "-c", start, *arguments, "--output", str(output)])
    while not list(output.glob("train-00000[2-9].tar")) and process.poll() is None:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    assert not (output / "index.json").exists()
    for folder in (output, tmp_path / "unbroken"):
        assert main([*arguments, "--output", str(folder)]) == 0
    files = [
        {file.name: file.read_bytes() for file in folder.iterdir()}
        for folder in (output, tmp_path / "unbroken")
    ]
    assert files[0] == files[1]


def test_what_is_whole_is_verified(photos: Path, shards: Path, capsys: pytest.CaptureFixture[str]) -> None:
    capsys.readouterr()
    assert verify("shards", shards, "--workers", "1") == 0
    said = capsys.readouterr().out
    count = len(list(shards.glob("*.tar")))
    assert f"{count} shards, {count} with a checksum, 0 damaged" in said
    assert verify("folder", photos) == 0
    assert main(["data", "verify", "--name", "digits"]) == 0
    assert "0 broken" in capsys.readouterr().out


def test_a_flipped_bit_is_found(shards: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Wherever it is in a shard, even where no image shows it."""
    for place in (3, 700, -5):
        shard = shards / "train-000001.tar"
        whole = shard.read_bytes()
        content = bytearray(whole)
        content[place] ^= 1
        shard.write_bytes(content)
        capsys.readouterr()
        assert verify("shards", shards) == 1
        said = capsys.readouterr().out
        assert "1 file (of shards) damaged" in said
        assert "train-000001.tar: its SHA-256 is not that of index.json" in said
        shard.write_bytes(whole)
    assert verify("shards", shards) == 0


def test_truncated_and_missing_shards_are_listed(shards: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first, second = sorted(shards.glob("train-*.tar"))[:2]
    first.write_bytes(first.read_bytes()[:1000])
    second.unlink()
    capsys.readouterr()
    assert verify("shards", shards) == 1
    said = capsys.readouterr().out
    assert f"{first.name}: it has 1000 bytes" in said
    assert f"{second.name}: it has 0 bytes" in said


def test_every_broken_image_is_listed(photos: Path, capsys: pytest.CaptureFixture[str]) -> None:
    files = [*photos.rglob("*.png"), photos / "dark" / "00.jpg"]
    for file in files:
        file.write_bytes(file.read_bytes()[:60])
    assert len(files) > 10
    capsys.readouterr()
    assert verify("folder", photos, "--workers", "1") == 1
    said = capsys.readouterr().out
    assert f"{len(files)} files broken" in said
    assert all(f"{file}: " in said for file in files)


def test_speed_is_measured_for_each_number_of_workers(
    shards: Path, photos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = ["--seconds", "0.1", "--input-size", "16", "--batch-size", "8"]
    capsys.readouterr()
    speed = ["data", "speed", "--name", "shards", "--root", str(shards), *flags]
    assert main([*speed, "--workers", "0", "1", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)["rates"]
    assert [row["workers"] for row in rows] == [0, 1]
    assert all(row["images_per_second"] > 0 for row in rows)
    assert main(speed) == 0
    assert "images/s" in capsys.readouterr().out
    for path in open_splits(DataConfig(name="folder", root=str(photos))).train.paths:
        Path(path).write_bytes(b"")
    assert main(["data", "speed", "--name", "folder", "--root", str(photos), *flags]) == 2
    assert "no image can be read" in capsys.readouterr().err


def test_bad_flags_are_named(photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = ["--name", "folder", "--root", str(photos)]
    output = ["--output", str(tmp_path / "x")]
    wrong = [
        (["convert"], "'convert' of matmamba data: one of prepare, verify, speed"),
        (["prepare", "--name", "mnist", "--root", ".", *output], "'mnist'"),
        (["prepare", *source, *output, "--shard-mb", "0"], "--shard-mb is 0"),
        (["prepare", *source, *output, "--max-size", "-1"], "--max-size is -1"),
        (["prepare", *source, *output, "--max-broken", "2"], "--data.max-broken is 2"),
        (["verify", *source, "--workers", "-1"], "--data.workers is -1"),
        (["verify", "--name", "shards", "--root", str(tmp_path / "none")], "none"),
        (["speed", *source, "--workers", "0", "-2"], "--data.workers is [0, -2]"),
        (["speed", *source, "--input-size", "0"], "--input-size is 0"),
    ]
    for arguments, message in wrong:
        capsys.readouterr()
        assert main(["data", *arguments]) == 2
        said = capsys.readouterr().err
        assert said.startswith("matmamba: error: ")
        assert message in said
    assert not (tmp_path / "x").exists()
