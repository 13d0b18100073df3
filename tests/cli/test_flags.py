"""What does not fit a command's flags is one line that names the flag, the value and what is allowed."""

from __future__ import annotations

from typing import Any

import pytest
import tyro
from matmamba_vision.cli.arguments import parse
from matmamba_vision.cli.flags import flags_of
from matmamba_vision.cli.main import COMMANDS, main
from matmamba_vision.runs import DistillConfig

SHOWN = "`matmamba {} --help` shows how"
UNFIT = {
    "search --gallery g --k abc x.jpg": "--k is 'abc': it can be a whole number",
    "search --gallery g --k=1.5 x.jpg": "--k is '1.5': it can be a whole number",
    "search --gallery g x.jpg --k": "--k needs a value: a whole number",
    "search --gallery g --min-score high x.jpg": "--min-score is 'high': it can be a number",
    "search --gallery g --json=maybe x.jpg": "--json takes no value: it was given as --json=maybe",
    "search --gallery g --strategy fast x.jpg": (
        "--strategy is 'fast': it can be one of auto, single-shot, shortlist, funnel"
    ),
    "search --galery g x.jpg": "unknown flag --galery of matmamba search; did you mean --gallery?",
    "search --gallery g -k 3 x.jpg": "unknown flag -k of matmamba search; did you mean --k?",
    "search x.jpg": "--gallery is missing: `matmamba search --help` shows how",
    "index --gallery g --dims 16 a": "--dims is 'a': each can be a whole number",
    "index --gallery g --fps often": "--fps is 'often': it can be a number",
    "index --gallery g stray": f"'stray' belongs to no flag of matmamba index: {SHOWN.format('index')}",
    "gallery info": "GALLERY is missing: `matmamba gallery info --help` shows how",
    "gallery info a b": (f"'b' belongs to no flag of matmamba gallery info: {SHOWN.format('gallery info')}"),
    "train --optim.lr x": "--optim.lr is 'x': it can be a number",
    "train --lr 1": "unknown flag --lr of matmamba train; did you mean --optim.lr?",
    "train --data.augment.scale 0.5": "--data.augment.scale needs 2 values: a number",
    "distill --labelled maybe": "--labelled is 'maybe': each can be yes or no (true/false)",
}


@pytest.mark.parametrize("line", UNFIT)
def test_what_does_not_fit_is_one_line(line: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(line.split()) == 2
    assert capsys.readouterr().err == f"matmamba: error: {UNFIT[line]}\n"


@pytest.mark.parametrize(
    "command", [command for command in COMMANDS if command not in ("gallery", "data", "timm")]
)
def test_a_stranger_among_the_flags_of_each_command_is_named(
    command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([command, "--no-such-thing-here"]) == 2
    said = capsys.readouterr().err
    assert said.startswith(f"matmamba: error: unknown flag --no-such-thing-here of matmamba {command}")
    assert said.count("\n") == 1


@pytest.mark.parametrize("line", [*COMMANDS, "gallery list", "gallery import", "data speed", "data prepare"])
def test_the_flags_are_those_that_the_parser_knows(line: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if line in ("gallery", "data", "timm"):
        pytest.skip("it has no flags of its own")
    kinds = list[Any]()

    class Known(BaseException):
        pass

    def note(kind: Any, *_: object, **__: object) -> None:
        kinds.append(kind)
        raise Known

    monkeypatch.setattr(tyro, "cli", note)
    with pytest.raises(Known):
        main(line.split())
    parser = tyro.extras.get_parser(kinds[0])
    names = {flag.name for flag in flags_of(kinds[0])}
    taken = {name for action in parser._actions for name in action.option_strings} - {"-h", "--help"}
    assert {name for name in names if name.startswith("--")} == taken
    assert len(names) - len(taken) == sum(not action.option_strings for action in parser._actions)


@pytest.mark.parametrize("written", ["yes no", "true False", "True no"])
def test_yes_and_no_are_written_as_one_likes(written: str) -> None:
    words = ["--labelled", *written.split(), "--images", "yes", "no"]
    config = parse(DistillConfig, "distill", None, words)
    assert config.labelled == [True, False]
    assert config.images == ["yes", "no"]
