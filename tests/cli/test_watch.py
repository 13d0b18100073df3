"""`matmamba watch`: lines of JSON, ended by the video, by a signal or by what is wrong."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import documents
import pytest
from matmamba_vision.cli import live_line
from matmamba_vision.cli.live_line import LiveLine
from matmamba_vision.cli.main import main
from matmamba_vision.progress import Notice, Progress
from watched_videos import FPS, shown_video, watched_gallery


@pytest.fixture(scope="module")
def gallery(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return watched_gallery(tmp_path_factory.mktemp("watched"))


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return shown_video(tmp_path_factory.mktemp("video") / "a.ts", [1, 2])


def started(*arguments: object, **settings: Any) -> subprocess.Popen[str]:
    """The command as a process."""
    places = ("", "datasets", "retrieval")
    known = os.environ | {"PYTHONPATH": os.pathsep.join(str(documents.ROOT / place) for place in places)}
    command = [sys.executable, "-m", "matmamba_vision", "watch", *map(str, arguments)]
    return subprocess.Popen(
        command, env=known, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **settings
    )


def lines(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]


def test_events_are_lines_of_json(gallery: Path, video: Path, capsys: pytest.CaptureFixture[str]) -> None:
    asked = ["--video", video, "--gallery", gallery, "--speed", 0, "--min-score", 0.995, "--budget", "2s"]
    assert main(["watch", *map(str, asked)]) == 0
    said = capsys.readouterr()
    found = lines(said.out)
    assert [line["id"] for line in found if line["event"] == "match"] == ["picture 1", "picture 2"]
    assert (found[0]["event"], found[-1]["event"], found[-1]["frames"]) == ("started", "ended", 2 * FPS)
    # No terminal is there.
    assert said.err == ""


def test_a_video_comes_by_standard_input(gallery: Path, video: Path) -> None:
    with video.open("rb") as content:
        process = started("--video", "-", "--gallery", gallery, "--speed", 0, stdin=content)
        out, err = process.communicate(timeout=120)
    assert (process.returncode, err) == (0, "")
    found = lines(out)
    assert (found[0]["source"], found[-1]["reason"]) == ("standard input", "end")
    assert found[-1]["frames"] == 2 * FPS


def test_ctrl_c_ends_it_with_a_summary(gallery: Path, video: Path) -> None:
    process = started("--video", video, "--gallery", gallery, "--loop", "--min-score", -1)
    assert process.stdout is not None
    first = [json.loads(process.stdout.readline()) for _ in range(2)]
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (0, "")
    assert [line["event"] for line in first] == ["started", "match"]
    assert (lines(out)[-1]["event"], lines(out)[-1]["reason"]) == ("ended", "stopped")


def end_when_handled(before: object) -> None:
    """Send SIGTERM to this process once something else than before handles it."""
    while signal.getsignal(signal.SIGTERM) == before:
        time.sleep(0.01)
    os.kill(os.getpid(), signal.SIGTERM)


def test_so_does_sigterm(gallery: Path, video: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)
    handled = threading.Thread(target=end_when_handled, args=(before[0],), daemon=True)
    handled.start()
    assert main(["watch", "--video", str(video), "--gallery", str(gallery), "--loop"]) == 0
    handled.join()
    assert lines(capsys.readouterr().out)[-1]["reason"] == "stopped"
    assert (signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)) == before


def test_what_is_wrong_is_a_line(gallery: Path, video: Path, capsys: pytest.CaptureFixture[str]) -> None:
    wrong: list[tuple[list[object], str]] = [
        (["--budget", "soon"], "--budget 'soon'"),
        (["--option", "framerate"], "--option 'framerate'"),
        (["--min-score", "7"], "--min-score is 7"),
        (["--widths", "1/3"], "1/3"),
        (["--reconnect"], "reconnect"),
    ]
    for arguments, said in wrong:
        assert main(["watch", "--video", str(video), "--gallery", str(gallery), *map(str, arguments)]) == 2
        err = capsys.readouterr().err
        assert err.startswith("matmamba: error: ")
        assert said in err
        assert err.count("\n") == 1


def test_it_says_which_extra_is_missing(
    gallery: Path, video: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "av", None)
    assert main(["watch", "--video", str(video), "--gallery", str(gallery)]) == 2
    wanted = "matmamba: error: this needs av: pip install 'matmamba-vision[video]'\n"
    assert capsys.readouterr().err == wanted


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def at(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """Sets the clock."""
    now = [0.0]
    monkeypatch.setattr(live_line, "time", SimpleNamespace(monotonic=lambda: now[0]))

    def move(seconds: float) -> None:
        now[0] = seconds

    return move


def test_a_line_on_a_terminal_says_how_it_fares(at: Callable[[float], None]) -> None:
    terminal = Terminal()
    with LiveLine(terminal, columns=40) as line:
        for number in range(100):
            at(10 + number / 100)
            line(Progress(stage="watching", done=number, unit="frames", note="\x1b[31mred" + 60 * "x"))
            line(Notice(text="something"))
    shown = terminal.getvalue().split("\r\x1b[2K")
    # Four times a second, then taken away.
    assert (shown[0], shown[-1], len(shown)) == ("", "", 6)
    assert shown[1].startswith("watching: 0 frames, \\u001b[31mred")
    assert all(len(text) <= 39 for text in shown)
    pipe = io.StringIO()
    with LiveLine(pipe) as line:
        line(Progress(stage="watching", done=1))
    assert pipe.getvalue() == ""
