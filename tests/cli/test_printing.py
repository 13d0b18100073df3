"""What is printed: names are shown and never obeyed, cells of tables are text, records are whole."""

from __future__ import annotations

import ast
import csv
import io
import json
import logging
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
from matmamba_retrieval import EmbeddingSpec, Gallery, Row
from matmamba_vision.cli import console
from matmamba_vision.cli.main import main
from rich.table import Table
from small import unit_vectors

WILD = (
    "\x1b[2Jx", "a\nb", "c\td", "=HYPERLINK(1)", "+1", "-1", "@x", "\u202egnp.exe",
    "cafe\u0301 \U0001f469\u200d\U0001f467", "\x9b31m",
)  # fmt: skip
FOLDER = Path(__file__).parents[2] / "matmamba_vision" / "cli"


@pytest.fixture
def wild(tmp_path: Path) -> Path:
    """A gallery whose names are those of attackers; each is there twice, one without a label."""
    with Gallery.create(tmp_path / "g", EmbeddingSpec("vectors:x", "full", 8)) as gallery:
        xb = np.repeat(unit_vectors(len(WILD), 8), 2, axis=0)
        rows = [
            Row(f"{name}{place}", f"/{name}", name if place else None, {"note": name})
            for name in WILD
            for place in range(2)
        ]
        gallery.add(rows, xb)
    return tmp_path / "g"


def require_plain(said: str) -> None:
    for character in said:
        assert character in "\n\t" or not (ord(character) < 32 or 127 <= ord(character) < 160)
        assert character != "\u202e"


def test_names_are_shown_wherever_they_are_printed(wild: Path, capsys: pytest.CaptureFixture[str]) -> None:
    commands = [
        ["gallery", "list", wild],
        ["gallery", "list", wild, "--format", "ids"],
        ["gallery", "list", wild, "--format", "csv"],
        ["gallery", "delete", wild, "--ids", "\x1b[2Jx0"],
        ["search", "--gallery", wild, "--like", "a\nb0"],
        ["duplicates", "--gallery", wild],
        ["knn-label", "--gallery", wild, "--k", "3"],
        ["search", "--gallery", wild, "--like", "\x1b[31mnone"],
    ]
    for command in commands:
        main([str(word) for word in command])
        out, err = capsys.readouterr()
        require_plain(out + err)
        assert "\\u001b[" in out or "a\\u000ab" in out or "\\x1b[" in err
    for line in ("json", "ids"):
        main(["gallery", "list", str(wild), "--format", line])
        assert len(capsys.readouterr().out.splitlines()) == 2 * len(WILD)


def test_votes_that_confirm_few_labels_are_warned_of(wild: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["knn-label", "--gallery", str(wild), "--k", "3"]) == 0
    assert "warning: that is little" in capsys.readouterr().out


def test_json_has_the_text_itself(wild: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for flags in (["--format", "json"], ["--json"]):
        assert main(["gallery", "list", str(wild), *flags]) == 0
        said = capsys.readouterr().out
        require_plain(said)
        assert [json.loads(line)["path"] for line in said.splitlines()[::2]] == [f"/{name}" for name in WILD]


def test_no_cell_is_a_formula(wild: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["knn-label", "--gallery", str(wild), "--k", "1", "--csv", str(tmp_path / "x.csv")]) == 0
    capsys.readouterr()
    assert main(["gallery", "list", str(wild), "--format", "csv"]) == 0
    for text in ((tmp_path / "x.csv").read_text(), capsys.readouterr().out):
        rows = list(csv.reader(io.StringIO(text)))
        assert len(rows) > len(WILD)
        cells = [cell for row in rows for cell in row]
        assert not [cell for cell in cells if cell.startswith(("=", "+", "-", "@", "\t", "\r"))]
        assert [cell for cell in cells if cell.startswith("'=HYPERLINK")]


def test_off_a_terminal_a_row_is_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    table = Table("name", "path", title="things")
    table.add_row("[bold]a[/bold]", "/" + "long/" * 60)
    table.add_row("b\tc", "d\ne")
    console.Console().print(table)
    assert capsys.readouterr().out == f"things\nname\tpath\na\t/{'long/' * 60}\nb\\u0009c\td\\u000ae\n"


def test_what_an_encoding_lacks_is_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    monkeypatch.setattr("sys.stdout", stream)
    console.replace_what_cannot_be_printed()
    console.Console(file=stream).print("é 日本")
    console.say("ü")
    stream.flush()
    assert stream.buffer.getvalue() == b"\\xe9 \\u65e5\\u672c\n\\xfc\n"


@pytest.mark.parametrize("file", sorted(FOLDER.glob("*.py")), ids=lambda file: file.stem)
def test_commands_print_in_no_other_way(file: Path) -> None:
    if file.name == "console.py":
        return
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            assert node.func.id != "print", f"line {node.lineno}: use say or a Console"
        if isinstance(node, ast.ImportFrom) and node.module == "rich.console":
            assert "Console" not in {alias.name for alias in node.names}, f"line {node.lineno}"


def test_what_libraries_tell_programmers_is_not_shown(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Nor are log lines obeyed by a terminal."""
    monkeypatch.setattr(sys, "warnoptions", [])

    def noisy(name: str, arguments: list[str]) -> int:
        warnings.warn("for programmers", UserWarning, stacklevel=1)
        logging.getLogger("onnxscript.optimizer").warning("Skipping constant folding")
        return 0

    monkeypatch.setattr(sys.modules["matmamba_vision.cli.main"], "_run", noisy)
    with warnings.catch_warnings(record=True) as shown:
        warnings.simplefilter("always")
        assert main(["info"]) == 0
    assert not shown
    assert not caplog.records
    record = logging.LogRecord("x", logging.WARNING, "", 0, "bad\x1b[2J", None, None)
    assert console.Lines("%(message)s").format(record) == "bad\\u001b[2J"
