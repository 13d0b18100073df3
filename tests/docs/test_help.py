"""Every example that `--help` shows is run, on tiny data."""

from __future__ import annotations

import io
import re
import shlex
import shutil
import sys
from collections.abc import Iterator
from contextlib import redirect_stdout, suppress
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
from matmamba_vision.cli import main

SMALL = (
    "--model.img-size 16 --data.batch-size 64 --data.workers 0 --data.decoded 0 --eval-every 1"
    " --optim.epochs 1 --optim.warmup-epochs 0 --threads 1"
)
NANO = f"--model.name matmamba_nano_patch4_32 {SMALL}"
STUDENT = f"{SMALL} --rotation-images 16 --dim 16 --engine.precision fp32"
# What an example stands for here: other words, or flags that make it small. The first that fits counts.
INSTEAD = {
    r"^matmamba demo.*": "",  # run by tests of the commands, and by CI
    r"^torchrun .* -m matmamba_vision (.*)": rf"matmamba \1 --data.root IMAGENET {NANO}",
    # The digits take longer to train on than photos.
    r"^(matmamba train --config configs/digits/demo.yaml)": r"\1 --data.name folder --data.root PHOTOS",
    # As it is: from the weights that come with the package.
    r"^(matmamba train --data.name folder .*) runs/photos$": (
        r"\1 runs/tuned --model.img-size 64 --data.batch-size 64 --optim.epochs 1 --threads 1"
    ),
    r"^matmamba train (?!.* runs/tuned )(.*?)( --optim.epochs \d0)?$": rf"matmamba train \1 {SMALL}",
    r"^matmamba distill (.*)": rf"matmamba distill \1 {STUDENT}",
    # Measures on a GPU.
    **({} if torch.cuda.is_available() else {r"^matmamba tune.*": ""}),
    # Asked by texts, which only networks of open_clip's take.
    **({} if find_spec("open_clip") else {r"^matmamba search --gallery W .*": ""}),
    # No server is there, and the gallery may have been made anew since it was pushed.
    r"qdrant://localhost:6333/photos(?: --verify-only)?": "edge:SERVED --replace",
    r"edge:PUSHED": "edge:PUSHED --replace",
    # Run by tests of the cluster, which have a Ray.
    r"^matmamba index .*--engine ray.*": "",
    # It would serve until it is told to end.
    r"^matmamba serve (.*?)( --check)?$": r"matmamba serve \1 --check --port 0",
    # No camera is there, and standard input is that of the tests.
    r"^matmamba watch --video (?:rtsp\S+|/dev\S+) (?:--format \S+ )?(.*?)--gallery G( --reconnect)?(.*)": (
        r"matmamba watch --video talk.mp4 --gallery G \1\3"
    ),
    r"^matmamba watch --video - (.*) < talk.mp4": r"matmamba watch --video talk.mp4 \1",
    r"^(matmamba watch (?!.*--speed).*)": r"\1 --speed 8",
    r"timm:resnet50.a1_in1k": "timm:local-dir:LITE2",
    r"s3://bucket/photos/train-\{000000..000099\}.tar": "SHARDS/train-{000000..000000}.tar",
    r"^(matmamba evaluate --name parquet .*)": r"\1 --checkpoint RUN",
    r"^matmamba select (.*?)( --evaluations 200)?( --json)?$": (
        r"matmamba select \1 --evaluations 6 --images 8\3"
    ),
    r"^matmamba data speed (.*)": r"matmamba data speed \1 --seconds 0.1",
    # One block alone is exported in a third of the time.
    r"--width 1/4 (.*--onnx)": r"--width 0-0-2-0 \1",
    # Of a slow or busy machine, too.
    r"\bms=5\b": "ms=5000",
    r"latency_ms=5\b": "latency_ms=5000",
    r"label = 'cat'": "label = 'cats'",
    r"/old/photos /new/photos": "{photos} LABELLED",
}


def shown(*arguments: str) -> str:
    """What `matmamba ... --help` says."""
    said = io.StringIO()
    with redirect_stdout(said), suppress(SystemExit):
        main([*arguments, "--help"])
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
def test_an_example_of_help_runs(
    example: str, made: Path, world: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    line = example
    for pattern, other in INSTEAD.items():
        line = re.sub(pattern, other, line)
    words = shlex.split(line.replace("{photos}", str(made / "PHOTOS")), comments=True)
    if words:
        make_room(words)
        assert run(words, monkeypatch) == 0


def make_room(words: list[str]) -> None:
    """Take away what the example is to make, and make what it is told to be there."""
    command = " ".join(words[1:3])
    targets = [words[place + 1] for place, word in enumerate(words) if word in ("--output", "--into")]
    if command == "index --images" or (words[1] == "index" and "--images" in words):
        targets.append(words[words.index("--gallery") + 1])
    elif command == "select --checkpoint":
        targets.append("runs/photos/select")
    elif command == "gallery export" or (command == "gallery import" and "--existing" not in words):
        targets.append(words[4])
    elif "photos.parquet" in words:
        targets.append("G")
    elif "configs/photos/mini.yaml" in words:
        targets.append("runs/photos")
    for target in targets:
        shutil.rmtree(target, ignore_errors=True) if Path(target).is_dir() else Path(target).unlink(
            missing_ok=True
        )
    if "photos.parquet" in words:
        assert main(["index", "--checkpoint", "RUN", "--images", "photos.parquet", "--gallery", "G"]) == 0
        Path("archive").mkdir()
        Path("photos.parquet").rename("archive/photos.parquet")


def run(words: list[str], monkeypatch: pytest.MonkeyPatch) -> int:
    """The exit status of a line, its redirections obeyed."""
    assert words[0] == "matmamba"
    if "<" in words:
        place = words.index("<")
        content = io.BytesIO(Path(words[place + 1]).read_bytes())
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(content))
        words = words[:place]
    if ">" in words:
        place = words.index(">")
        with Path(words[place + 1]).open("w") as output, redirect_stdout(output):
            return main(words[1:place])
    return main(words[1:])
