"""Commands that the pages show are ones that there are, with flags that there are."""

from __future__ import annotations

import re
import tomllib

import documents
import pytest
import tyro
from matmamba_vision.cli import main

LINES = [
    pytest.param(words, id=f"{documents.name(page)}: {' '.join(words)[:60]}")
    for page in documents.PAGES
    for words in documents.shell_lines(page)
]


class Parsed(BaseException):
    """A command's flags were taken; it is not run."""


def arguments(words: list[str]) -> list[str] | None:
    """Those of `matmamba` in a line, without what belongs to the shell; None for another program."""
    if "matmamba_vision" in words:
        words = words[words.index("matmamba_vision") :]
    elif words[0] != "matmamba":
        return None
    end = next((place for place, word in enumerate(words) if word in ("<", ">", "|", "&&")), len(words))
    return words[1:end]


@pytest.mark.parametrize("words", LINES)
def test_lines_of_the_shell_are_right(words: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    given = arguments(words)
    if given is None:
        require_known(words)
    elif given[0] not in ("timm", "--help"):
        require_flags(given, monkeypatch)


def require_flags(given: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """The command's own parser takes the flags: it would exit with status 2 otherwise."""
    take = tyro.cli

    def only_parse(*positional: object, **named: object) -> None:
        take(*positional, **named)  # type: ignore[call-overload]
        raise Parsed

    monkeypatch.setattr(tyro, "cli", only_parse)
    monkeypatch.chdir(documents.ROOT)
    with pytest.raises(Parsed):
        main(given)


def require_known(words: list[str]) -> None:
    """Targets of make, extras and scripts that there are."""
    program, *rest = words
    if program == "make":
        targets = re.findall(r"^([\w-]+):", (documents.ROOT / "Makefile").read_text(), re.MULTILINE)
        assert {word for word in rest if "=" not in word} <= set(targets)
    elif program == "pip":
        project = tomllib.loads((documents.ROOT / "pyproject.toml").read_text())["project"]
        extras = {
            name for word in rest for part in re.findall(r"\[(.*?)\]", word) for name in part.split(",")
        }
        assert extras <= set(project["optional-dependencies"])
    elif program == "python":
        assert (documents.ROOT / rest[0]).is_file()
    else:
        pytest.fail(f"no test knows {program!r}: use a block that is no sh block")


def test_a_wrong_flag_would_be_seen(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(pytest.fail.Exception, match="DID NOT RAISE"):
        require_flags(["search", "--galery", "G", "query.jpg"], monkeypatch)
    assert "--gallery" in capsys.readouterr().err


def test_the_pages_show_every_command() -> None:
    shown = {
        given[0]
        for page in documents.PAGES
        for words in documents.shell_lines(page)
        if (given := arguments(words))
    }
    assert len(shown) >= 17, sorted(shown)
