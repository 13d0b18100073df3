"""Every example that `--help` shows is run, on tiny data."""

from __future__ import annotations

import io
import re
import shlex
import shutil
import sys
from collections.abc import Iterator
from contextlib import redirect_stdout
from pathlib import Path

import pytest
from matmamba_vision.cli import main

SMALL = (
    "--model.name matmamba_nano_patch4_32 --model.img-size 16 --data.batch-size 8 --data.workers 0"
    " --optim.epochs 1 --optim.warmup-epochs 0 --threads 1"
)
STUDENT = f"{SMALL} --rotation-images 16 --teacher-size 32 --dim 16 --model.projection 16"
# What an example stands for here: other words, or flags that make it small. The first that fits counts.
INSTEAD = {
    r"^matmamba demo.*": "",  # run by tests of the commands, and by CI
    r"^torchrun .* -m matmamba_vision (.*)": rf"matmamba \1 --data.root IMAGENET {SMALL}",
    r"^(matmamba train .*--dry-run)": r"\1",
    r"^matmamba train (.*?)( --optim.epochs 30)?$": rf"matmamba train \1 {SMALL}",
    r"timm:resnet50.a1_in1k": "timm:local-dir:LITE2",
    r"s3://bucket/photos/train-\{000000..000099\}.tar": "SHARDS/train-{000000..000000}.tar",
    r"^(matmamba evaluate --name parquet .*)": r"\1 --checkpoint RUN",
    r"--evaluations 200": "--evaluations 12",
    r"/old/photos /new/photos": "{photos} LABELLED",
}


def shown(*arguments: str) -> str:
    """What `matmamba ... --help` says."""
    said = io.StringIO()
    with redirect_stdout(said):
        try:
            main([*arguments, "--help"])
        except SystemExit:
            pass
    return said.getvalue()


def listed(text: str) -> list[str]:
    """The examples of a help text."""
    found = re.search(r"^examples:\n((?:  .*\n)+)", text, re.MULTILINE)
    return [line.strip() for line in found[1].splitlines()] if found else []


def examples() -> Iterator[str]:
    for name in re.findall(r"^  ([\w-]+)\s+\w", shown().partition("examples:")[0], re.MULTILINE):
        text = shown(name)
        yield from listed(text)
        actions = re.search(rf"usage: matmamba {name} \{{([\w,-]+)\}}", text)
        for action in actions[1].split(",") if actions else ():
            yield from listed(shown(name, action))


EXAMPLES = list(dict.fromkeys(examples()))


def test_help_has_examples_of_every_command() -> None:
    assert len(EXAMPLES) > 80


@pytest.mark.parametrize("example", EXAMPLES)
def test_an_example_of_help_runs(example: str, world: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    line = example
    for pattern, other in INSTEAD.items():
        line = re.sub(pattern, other, line)
    words = shlex.split(line.replace("{photos}", str(world / "PHOTOS")), comments=True)
    if words:
        make_room(words, world)
        assert run(words, monkeypatch) == 0


def make_room(words: list[str], world: Path) -> None:
    """Take away what the example is to make."""
    for flag in ("--output", "--into"):
        if flag in words:
            shutil.rmtree(world / words[words.index(flag) + 1], ignore_errors=True)


def run(words: list[str], monkeypatch: pytest.MonkeyPatch) -> int:
    """The exit status of a line, its redirections obeyed."""
    assert words[0] == "matmamba"
    if "<" in words:
        place = words.index("<")
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(Path(words[place + 1]).open("rb")))
        words = words[:place]
    if ">" in words:
        place = words.index(">")
        with Path(words[place + 1]).open("w") as output, redirect_stdout(output):
            return main(words[1:place])
    return main(words[1:])
