"""Runs that end in all kinds of ways, and go on."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from finished_runs import assert_same_run, rows, weights
from killed_runs import config
from matmamba_vision.cli import main
from matmamba_vision.errors import ConfigError
from matmamba_vision.progress import Event, Notice
from matmamba_vision.runs import TrainConfig, train
from matmamba_vision.runs.train_config import save_config
from matmamba_vision.training import ResumeError, RunFolder, RunFolderError, Saves

PROGRAM = Path(__file__).parents[1] / "killed_runs.py"


def notices(events: list[Event]) -> str:
    return "\n".join(event.text for event in events if isinstance(event, Notice))


@pytest.fixture(scope="module")
def short() -> TrainConfig:
    """One epoch of five steps."""
    made = config(Path("unused"), 1)
    made.optim.epochs = 1
    return made


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, short: TrainConfig) -> TrainConfig:
    """A run that came to its end."""
    made = replace(short, output=str(tmp_path_factory.mktemp("finished") / "run"))
    train(made)
    return made


@pytest.mark.parametrize("ranks", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_a_killed_run_goes_on_as_if_never_stopped(tmp_path: Path, ranks: int) -> None:
    """Killed within an epoch, while saving, between epochs: losses and weights are equal to the bit."""
    done = subprocess.run(
        [sys.executable, str(PROGRAM), str(tmp_path), str(ranks)],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.stdout.endswith("done\n"), done.stdout[-3000:] + done.stderr[-3000:]
    assert_same_run(tmp_path / "unbroken", tmp_path / "broken")
    assert len(rows(tmp_path / "broken")) == 12
    if ranks > 1:
        assert "lost: another process of this run is gone" in done.stdout


def start(made: TrainConfig, folder: Path) -> subprocess.Popen[str]:
    save_config(made, folder / "config.yaml")
    command = [sys.executable, "-m", "matmamba_vision", "train", "--config", str(folder / "config.yaml")]
    return subprocess.Popen(
        [*command, "--resume", "auto"], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


def test_a_run_that_is_told_to_stop_saves_first(
    tmp_path: Path, finished: TrainConfig, short: TrainConfig
) -> None:
    made = replace(short, output=str(tmp_path / "run"))
    process = start(made, tmp_path)
    saves = Saves(tmp_path / "run" / "checkpoints")
    deadline = time.monotonic() + 120
    while not saves.all() and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(signal.SIGTERM)
    said, _ = process.communicate(timeout=120)
    assert process.returncode == 130, said
    assert "go on with resume auto" in said
    train(made, resume="auto")
    assert_same_run(Path(finished.output), tmp_path / "run")


def test_a_damaged_checkpoint_is_passed_over(
    tmp_path: Path, finished: TrainConfig, short: TrainConfig, caplog: pytest.LogCaptureFixture
) -> None:
    """One flipped bit in the newest: the one before it is taken, and the end is the same."""
    made = replace(short, output=str(tmp_path / "run"))
    train(made)
    newest = Saves(tmp_path / "run" / "checkpoints").all()[-1]
    content = bytearray((newest / "optimizer.bin").read_bytes())
    content[len(content) // 2] ^= 1
    (newest / "optimizer.bin").write_bytes(content)
    train(made, resume="auto")
    assert "optimizer.bin is not what was written" in caplog.text
    assert_same_run(Path(finished.output), tmp_path / "run")
    with pytest.raises(
        ResumeError, match=r"resume is .*no-such': it can be no, auto, or a checkpoint of the run"
    ):
        train(made, resume=str(tmp_path / "no-such"))


def test_resuming_a_finished_run_changes_nothing(finished: TrainConfig) -> None:
    before = rows(Path(finished.output)), weights(Path(finished.output))
    train(finished, resume="auto")
    assert rows(Path(finished.output)) == before[0]
    assert all(
        torch.equal(tensor, before[1][name]) for name, tensor in weights(Path(finished.output)).items()
    )


def test_a_run_with_other_settings_is_not_continued(finished: TrainConfig) -> None:
    """The differing keys are listed; those that change no loss may differ."""
    other = replace(finished, seed=1, threads=2, optim=replace(finished.optim, lr=0.5))
    with pytest.raises(ResumeError, match="other settings") as caught:
        train(other, resume="auto")
    assert str(caught.value).splitlines()[1:] == [
        "  seed: 0 there, 1 here",
        "  optim.lr: 0.003 there, 0.5 here",
    ]


@pytest.mark.slow
def test_more_epochs_are_taken_where_the_learning_rate_permits(
    tmp_path: Path, short: TrainConfig, finished: TrainConfig
) -> None:
    """A run of a constant course goes on after its end, as one that was longer from the start."""
    steady = replace(short.optim, sched="constant", warmup_epochs=0)
    said: list[Event] = []
    once = replace(short, output=str(tmp_path / "run"), optim=steady)
    train(once)
    longer = replace(once, optim=replace(steady, epochs=2))
    train(longer, resume="auto", progress=said.append)
    assert "for 1 epochs more than before, at the same learning rate" in notices(said)
    unbroken = replace(longer, output=str(tmp_path / "unbroken"))
    train(unbroken)
    first, second = weights(tmp_path / "run"), weights(tmp_path / "unbroken")
    assert all(torch.equal(tensor, second[name]) for name, tensor in first.items())
    other = replace(finished, optim=replace(finished.optim, epochs=2))
    with pytest.raises(
        ResumeError, match=r"(?s)model\.init.*optim\.epochs: 1 there, 2 here.*constant can be"
    ):
        train(other, resume="auto")


def test_a_run_is_neither_replaced_nor_continued_unasked(finished: TrainConfig) -> None:
    with pytest.raises(ConfigError, match="resume auto"):
        train(finished)


def test_a_folder_in_use_is_left_alone(finished: TrainConfig) -> None:
    before, folder = rows(Path(finished.output)), RunFolder(Path(finished.output))
    with pytest.raises(RunFolderError, match=rf"in use by process {os.getpid()}"):
        train(finished, resume="auto")
    folder.release()
    assert rows(Path(finished.output)) == before
    RunFolder(Path(finished.output)).release()


def test_a_failed_start_leaves_nothing(tmp_path: Path, short: TrainConfig) -> None:
    made = replace(short, output=str(tmp_path / "run"), save=replace(short.save, best="1/3"))
    with pytest.raises(ConfigError, match=r"save\.best '1/3' is neither mean nor one of full, 1/2, 1/4, 1/8"):
        train(made)
    assert not (tmp_path / "run").exists()


def test_a_disk_that_fills_while_saving_leaves_the_last_checkpoint(
    tmp_path: Path, finished: TrainConfig, short: TrainConfig
) -> None:
    """Files may not grow beyond 1 MB from the second checkpoint on."""
    made = replace(short, output=str(tmp_path / "run"))
    program = f"""
import resource, signal
from pathlib import Path
from matmamba_vision.runs import train
from matmamba_vision.training import Saves
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
save = Saves.save
def limited(self, *args):
    if self.all():
        resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, resource.RLIM_INFINITY))
    return save(self, *args)
Saves.save = limited
train({str(tmp_path / "config.yaml")!r})
"""
    save_config(made, tmp_path / "config.yaml")
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert re.search(
        r"SystemRefusalError: cannot save .*step-00000004: .*; .*step-00000002 is the last good one",
        done.stderr,
    )
    checkpoints = tmp_path / "run" / "checkpoints"
    assert [path.name for path in checkpoints.iterdir()] == ["step-00000002"]
    train(made, resume="auto")
    assert_same_run(Path(finished.output), tmp_path / "run")


def test_an_unwritable_folder_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").write_text("")
    assert main(["train", "--output", str(tmp_path / "file" / "run"), "--data.name", "digits"]) == 2
    assert str(tmp_path / "file") in capsys.readouterr().err


def test_a_run_that_is_going_on_is_said_to_be(
    finished: TrainConfig, capsys: pytest.CaptureFixture[str]
) -> None:
    said: list[Event] = []
    train(finished, resume="auto", progress=said.append)
    assert "step-00000005 is the end of the training: only measured once more" in notices(said)
    assert main(["train", "--output", finished.output, "--dry-run"]) == 2
    assert "resume auto" in capsys.readouterr().err


def test_without_held_out_images_nothing_is_measured(
    tmp_path: Path, photos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for folder in photos.iterdir():
        for extra in sorted(folder.iterdir())[1:]:
            extra.unlink()
    source = ["--data.name", "folder", "--data.root", str(photos), "--data.batch-size", "2"]
    flags = [*source, "--model.img-size", "8", "--optim.epochs", "1", "--output", str(tmp_path / "run")]
    assert main(["train", *flags]) == 0
    assert "no held-out images, accuracy not measured" in capsys.readouterr().out
    assert "Accuracy was not measured" in (tmp_path / "run" / "README.md").read_text()
    assert main(["validate", "--checkpoint", str(tmp_path / "run")]) == 2
    assert "there are no images for the queries: name another data set" in capsys.readouterr().err
