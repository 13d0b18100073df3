"""`matmamba serve` as a process: started, asked, told by signals, killed and started again."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import documents
import httpx
import pytest
from matmamba_retrieval import Gallery, Row
from matmamba_vision import open_gallery
from matmamba_vision.cli.arguments import milliseconds
from matmamba_vision.cli.main import main
from matmamba_vision.cli.serve_command import named_galleries
from matmamba_vision.errors import ConfigError
from matmamba_vision.serving.http.server import bound
from served_http import DIM, made_gallery
from small import unit_vectors

SEARCH = "v1/galleries/photos/search"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A gallery of vectors."""
    return made_gallery(tmp_path_factory.mktemp("served"))


class Served:
    """A process that serves.

    Attributes:
        process: it.
        url: where.
        said: what it said when it was ready.
    """

    def __init__(self, *arguments: str) -> None:
        places = ("", "datasets", "retrieval")
        known = os.environ | {"PYTHONPATH": os.pathsep.join(str(documents.ROOT / place) for place in places)}
        command = [sys.executable, "-m", "matmamba_vision", "serve", *arguments]
        self.process = subprocess.Popen(
            command, env=known, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        self.said = [self._line(), self._line()]
        self.url = self.said[0].rpartition(" ")[2]

    def _line(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().rstrip()

    def end(self) -> list[dict[str, Any]]:
        """What it wrote, once it has ended."""
        _, written = self.process.communicate(timeout=60)
        return [json.loads(line) for line in written.splitlines()]


@contextmanager
def serving(*arguments: str) -> Iterator[Served]:
    served = Served(*arguments)
    try:
        yield served
    finally:
        served.process.kill()
        served.process.communicate(timeout=60)


def until(done: Callable[[], bool], seconds: float = 60.0) -> None:
    """Wait for something to come true."""
    end = time.monotonic() + seconds
    while not done():
        assert time.monotonic() < end
        time.sleep(0.02)


def test_a_process_serves_sees_new_versions_and_ends(folder: Path) -> None:
    with serving("--gallery", f"photos={folder}", "--port", "0", "--poll-s", "0") as served:
        assert served.said[0].startswith("serving at http://127.0.0.1:")
        assert served.said[1].startswith("  photos: 12 images, version ")
        with httpx.Client(base_url=served.url, timeout=60) as client:
            assert client.get("readyz").status_code == 200
            before = client.post(SEARCH, json={"id": "id7", "k": 20}).json()
            assert len(before["hits"]) == 11
            with Gallery(folder, write=True) as gallery:
                gallery.add([Row("late", "", None)], unit_vectors(1, DIM, seed=5))
            served.process.send_signal(signal.SIGHUP)
            until(lambda: client.get("v1/galleries/photos/item", params={"id": "late"}).status_code == 200)
            after = client.post(SEARCH, json={"id": "id7", "k": 20}).json()
            assert len(after["hits"]) == 12
            assert after["version"] != before["version"]
        served.process.send_signal(signal.SIGTERM)
        written = served.end()
        assert served.process.returncode == 0
    events = [line["event"] for line in written]
    assert events[0] == "ready"
    assert "refreshing" in events
    # The last answer may be noted when the signal has come.
    assert [event for event in events if event != "request"][-2:] == ["stopping", "stopped"]


def test_what_is_under_way_is_answered_before_it_ends(folder: Path) -> None:
    """Told to end in the middle of a request, it takes no other one, and answers this one."""
    body = json.dumps({"id": "id7", "k": 3}).encode()
    head = (
        f"POST /{SEARCH} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(body)}\r\n\r\n"
    )
    with serving("--gallery", f"photos={folder}", "--port", "0") as served:
        place = ("127.0.0.1", int(served.url.rstrip("/").rpartition(":")[2]))
        with socket.create_connection(place, timeout=60) as connection:
            connection.sendall(head.encode() + body[:5])
            until(lambda: httpx.get(f"{served.url}healthz", timeout=60).status_code == 200)
            served.process.send_signal(signal.SIGTERM)
            until(lambda: not is_open(place))
            assert served.process.poll() is None
            connection.sendall(body[5:])
            said = b"".join(iter(lambda: connection.recv(65536), b""))
        assert said.startswith(b"HTTP/1.1 200 ")
        assert len(json.loads(said.partition(b"\r\n\r\n")[2])["hits"]) == 3
        events = [line["event"] for line in served.end()]
        assert served.process.returncode == 0
    assert "stopping" in events[:-1]
    assert events[-2:] == ["request", "stopped"]


def is_open(place: tuple[str, int]) -> bool:
    """Whether connections are taken."""
    try:
        with socket.create_connection(place, timeout=5):
            return True
    except OSError:
        return False


def test_a_killed_process_is_started_again(folder: Path) -> None:
    """With requests under way, which change nothing: the next one answers the same, at the same port."""
    with bound("127.0.0.1", 0) as free:
        port = str(free.getsockname()[1])
    arguments = ("--gallery", f"photos={folder}", "--port", port, "--quiet")
    answers = []
    for _ in range(2):
        with serving(*arguments) as served:
            answers.append(httpx.post(served.url + SEARCH, json={"id": "id7"}, timeout=60).json()["hits"])
            ended = threading.Event()

            def ask(url: str = served.url, ended: threading.Event = ended) -> None:
                while not ended.is_set():
                    try:
                        httpx.post(url + SEARCH, json={"id": "id7"}, timeout=60)
                    except httpx.TransportError:
                        return

            threads = [threading.Thread(target=ask) for _ in range(4)]
            for thread in threads:
                thread.start()
            time.sleep(0.2)
            served.process.kill()
            for thread in threads:
                thread.join(10)
            ended.set()
            assert served.process.wait(60) == -signal.SIGKILL
    assert answers[0] == answers[1]
    with open_gallery(folder) as gallery:
        assert gallery.verify().whole


@pytest.fixture
def fails(capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """Run the command where it must fail: status 2, and one line."""

    def check(*arguments: object) -> str:
        capsys.readouterr()
        assert main(["serve", *map(str, arguments)]) == 2
        said = capsys.readouterr().err
        assert said.startswith("matmamba: error: ")
        assert said.count("\n") == 1
        return said

    return check


def test_what_cannot_be_served_is_told_in_a_line(
    folder: Path, tmp_path: Path, fails: Callable[..., str]
) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "token").write_text("short")
    with bound("127.0.0.1", 0) as taken:
        taken.listen()
        port = taken.getsockname()[1]
        assert f"port {port}" in fails("--gallery", folder, "--port", port)
    wrong: list[tuple[list[object], str]] = [
        (["--gallery", tmp_path / "none"], "none"),
        (["--gallery", tmp_path / "empty", "--port", "0"], "empty"),
        (["--gallery", folder, "--gallery", folder], "twice"),
        (["--gallery", folder, "--slo", "fast"], "'fast'"),
        (["--gallery", folder, "--host", "0.0.0.0"], "token"),
        (["--gallery", folder, "--host", "0.0.0.0", "--token-file", tmp_path / "token"], "16 or more"),
        (["--gallery", folder, "--token-file", tmp_path / "none"], "none"),
        (["--gallery", folder, "--root-path", "search"], "root path"),
        (["--gallery", folder, "--keep-uploads", tmp_path / "kept"], "--writable"),
        (["--gallery", folder, "--writable", "--keep-uploads", tmp_path / "token"], "--keep-uploads"),
        (["--gallery", folder, "--cors", "photos.example.org"], "photos.example.org"),
        (["--gallery", folder, "--allowed-host", "http://photos.example.org"], "photos.example.org"),
        (["--gallery", folder, "--max-upload-mb", "0"], "--max-upload-mb"),
        (["--gallery", folder, "--quality-share", "2"], "--quality-share"),
        (["--gallery", folder, "--port", "99999"], "--port"),
    ]
    for arguments, culprit in wrong:
        assert culprit in fails(*arguments), arguments


def test_it_says_which_extra_is_missing(folder: Path) -> None:
    program = (
        "import sys\nfor name in ('fastapi', 'uvicorn', 'starlette'): sys.modules[name] = None\n"
        "from matmamba_vision.cli import main\nsys.exit(main(sys.argv[1:]))"
    )
    command = [sys.executable, "-c", program, "serve", "--gallery", str(folder)]
    said = subprocess.run(command, capture_output=True, text=True, check=False)
    assert said.returncode == 2
    assert re.fullmatch(
        r"matmamba: error: this needs \w+: pip install 'matmamba-vision\[serve\]'\n", said.stderr
    )


def test_galleries_are_called_as_their_folders_are(tmp_path: Path) -> None:
    for name in ("photos", "a=b"):
        (tmp_path / name).mkdir()
    given = [str(tmp_path / "photos"), f"work={tmp_path / 'photos'}", str(tmp_path / "a=b")]
    assert list(named_galleries(given)) == ["photos", "work", "a=b"]
    for wrong in (["=x"], ["a/b=x"], [], ["..=x"]):
        with pytest.raises(ConfigError, match="--gallery"):
            named_galleries(wrong)


@pytest.mark.parametrize(("text", "wanted"), [("100ms", 100), ("0.2s", 200), (" 50 ", 50), ("1.5 s", 1500)])
def test_a_time_is_read(text: str, wanted: float) -> None:
    assert milliseconds(text, "--slo") == wanted


@pytest.mark.parametrize("text", ["", "ms", "0", "-1", "1m", "nan", "1e9s"])
def test_what_is_no_time_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="--slo"):
        milliseconds(text, "--slo")
