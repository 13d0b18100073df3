"""What a user causes is one line, status 2; a fault of the program keeps its traceback, status 1."""

from __future__ import annotations

import errno
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from matmamba_common.errors import MatMambaError
from matmamba_vision.cli.main import COMMANDS, REPORT, main
from matmamba_vision.errors import MissingPackageError, NotFiniteError, SystemRefusalError, refusals


def require_package() -> None:
    raise ModuleNotFoundError("No module named 'pyarrow'", name="pyarrow")


def lack_a_module() -> None:
    raise ModuleNotFoundError("No module named 'matmamba_vision.gone'", name="matmamba_vision.gone")


def fail_at_the_disk() -> None:
    raise OSError(errno.ENOSPC, "No space left on device", "/full/disk")


def run_with(monkeypatch: pytest.MonkeyPatch, fault: Callable[[], object]) -> int:
    """The status of a command that does nothing but `fault`."""
    module = SimpleNamespace(run=lambda arguments: fault())
    monkeypatch.setitem(sys.modules, "matmamba_vision.cli.index_command", module)
    return main(["index"])


FAULTS: list[tuple[Callable[[], object], str]] = [
    (lambda: np.zeros((2, 3)) @ np.zeros((2, 3)), "ValueError: matmul"),
    (lambda: np.zeros(3).reshape(2, 2), "ValueError: cannot reshape array of size 3"),
    (lambda: dict[str, int]()["key"], "KeyError: 'key'"),
    (lambda: int("x"), "ValueError: invalid literal"),
    (lambda: 1 / 0, "ZeroDivisionError"),
    (lack_a_module, "ModuleNotFoundError: No module named 'matmamba_vision.gone'"),
]


@pytest.mark.parametrize(("fault", "said"), FAULTS)
def test_a_fault_keeps_its_traceback(
    fault: Callable[[], object],
    said: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert run_with(monkeypatch, fault) == 1
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "Traceback (most recent call last):"
    assert lines[-2].startswith(said)
    assert lines[-1] == REPORT


def raising(error: Exception) -> Callable[[], object]:
    def fault() -> None:
        raise error

    return fault


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        (raising(MatMambaError("k is 0: it can be 1 or more")), "k is 0: it can be 1 or more"),
        (raising(NotFiniteError("the loss is nan")), "the loss is nan"),
        (fail_at_the_disk, "[Errno 28] No space left on device: '/full/disk'"),
        (require_package, "this needs pyarrow: pip install 'matmamba-vision[data]'"),
    ],
)
def test_what_a_user_causes_is_one_line(
    fault: Callable[[], object],
    said: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert run_with(monkeypatch, fault) == 2
    assert capsys.readouterr().err == f"matmamba: error: {said}\n"


def test_an_interrupt_is_neither(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def interrupt() -> None:
        raise KeyboardInterrupt

    assert run_with(monkeypatch, interrupt) == 130
    assert capsys.readouterr().err == "matmamba: interrupted; what was saved stays\n"


def test_refusals_change_errors_of_the_system_alone() -> None:
    for error, kind in (
        (OSError(errno.EACCES, "Permission denied", "x"), SystemRefusalError),
        (FileExistsError("x exists"), SystemRefusalError),
        (ModuleNotFoundError("no", name="onnx"), MissingPackageError),
        (BrokenPipeError(), BrokenPipeError),
        (ValueError("a shape"), ValueError),
        (MatMambaError("bad"), MatMambaError),
    ):
        with pytest.raises(kind) as caught, refusals():
            raise error
        assert type(caught.value) is kind


# For each command, what is wrong and what is said about it.
BAD = {
    "demo": (["--output", "@/full"], "was not written by a demo"),
    "train": (["--data.name", "folder", "--data.root", "@/none", "--output", "@/run"], "none"),
    "distill": (["--teacher", "@/none.npy", "--images", "@/none", "--output", "@/run"], "none"),
    "validate": (["--checkpoint", "@/none"], "none"),
    "evaluate": (["--checkpoint", "@/none", "--output", "@/out"], "none"),
    "plan": (["--gallery", "@/none", "--queries", "@/full", "--target", "recall=0.9"], "none"),
    "select": (["--checkpoint", "@/none", "--budget", "params=10k", "--output", "@/out"], "none"),
    "extract": (["--checkpoint", "@/none", "--width", "1/2", "--output", "@/out"], "none"),
    "data": (["verify", "--name", "folder", "--root", "@/none"], "none"),
    "tune": (["--dtypes", "float64"], "dtypes has 'float64'"),
    "timm": (["@/none.py"], "no script"),
    "index": (["--checkpoint", "@/none", "--images", "@/full", "--gallery", "@/g"], "none"),
    "merge": (["@/none", "--into", "@/g"], "none"),
    "reindex": (["--gallery", "@/none", "--checkpoint", "@/none"], "none"),
    "serve": (["--gallery", "@/none"], "none"),
    "search": (["--gallery", "@/none", "x.jpg"], "none"),
    "watch": (["--video", "@/none.mp4", "--gallery", "@/none"], "none"),
    "duplicates": (["--gallery", "@/none"], "none"),
    "knn-label": (["--gallery", "@/none"], "none"),
    "gallery": (["info", "@/none"], "none"),
}


# Commands that write a folder, with what is wrong about their output alone.
FOLDERS = (
    "train --data.name digits --output @/run.pth",
    "distill --teacher @/none.npy --images @/none --output @/run.pt",
    "select --checkpoint matmamba_nano_patch4_32 --budget params=10k --output @/chosen.yaml",
    "evaluate --checkpoint matmamba_nano_patch4_32 --output @/results.json",
    "evaluate --gallery @/none --images @/full --output @/results.json",
    "validate --checkpoint matmamba_nano_patch4_32 --output @/results.json",
    "extract --checkpoint matmamba_nano_patch4_32 --width 1/2 --output @/small.pth",
    "demo --output @/report.html",
    "data prepare --name folder --root @/none --output @/shards.tar",
    "index --images @/full --gallery @/photos.sqlite",
    "index --vectors @/none.npy --gallery @/photos.npy",
    "merge @/none --into @/g.db",
    "gallery import @/none.parquet @/g.parquet",
)


@pytest.mark.parametrize("line", FOLDERS)
def test_a_folder_that_has_the_name_of_a_file_is_refused(
    line: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "full").mkdir()
    assert main(line.replace("@", str(tmp_path)).split()) == 2
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 1
    assert f"{line.split('@')[-1]} is the name of a file: a folder" in said[0]
    assert [path.name for path in tmp_path.iterdir()] == ["full"]


@pytest.mark.parametrize("command", COMMANDS)
def test_bad_input_of_each_command_is_one_line(
    command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "a.txt").write_text("mine")
    flags, said = BAD[command]
    status = main([command, *(word.replace("@", str(tmp_path)) for word in flags)])
    lines = capsys.readouterr().err.splitlines()
    assert (status, len(lines)) == (2, 1), lines
    assert lines[0].startswith("matmamba: error: ")
    assert said in lines[0]
    assert [path.name for path in tmp_path.iterdir()] == ["full"]


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (
            "index --images @/full --gallery @/g --engine ray --processes -1",
            "processes is -1: it can be 0 or more",
        ),
        ("index --images @/full --gallery @/g --engine ray --cpus 0", "cpus is 0: it can be 1 or more"),
    ],
)
def test_a_value_that_settings_refuse_is_one_line(
    line: str, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Where it is the parser that makes them of the flags, too."""
    (tmp_path / "full").mkdir()
    assert main(line.replace("@", str(tmp_path)).split()) == 2
    assert capsys.readouterr().err == f"matmamba: error: {said}\n"


def test_the_fault_of_a_script_is_its_own(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.setattr(sys, "argv", ["matmamba"])
    (tmp_path / "script.py").write_text("raise ValueError('of the script')")
    assert main(["timm", str(tmp_path / "script.py")]) == 1
    said = capsys.readouterr().err
    assert said.rstrip().endswith("ValueError: of the script")
    assert REPORT not in said
