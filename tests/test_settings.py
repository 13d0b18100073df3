"""Settings are checked in one way: beside each of them stands what it can be."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import pytest
from matmamba_common.errors import ConfigError
from matmamba_common.settings import Bounds, OneOf, check, require
from matmamba_common.words import in_words, shown
from matmamba_vision.cli.arguments import check_flags
from matmamba_vision.cli.computing import Computing
from matmamba_vision.runs import TrainConfig
from matmamba_vision.runs.train_config import check_config


@dataclass
class Inner:
    share: Annotated[float, Bounds(above=0, most=1)] = 0.5
    pair: Annotated[tuple[float, float], Bounds(least=0, ordered=True, what="two numbers")] = (0.0, 1.0)


@dataclass
class Outer:
    count: Annotated[int, Bounds(least=1)] = 1
    limit: Annotated[float, Bounds(least=0, zero="no limit")] = 0.0
    rate: Annotated[float | None, Bounds(least=0, below=1)] = None
    dims: Annotated[list[int], Bounds(least=1)] = field(default_factory=list)
    kind: Annotated[str, OneOf(("one", "two"))] = "one"
    on: bool = False
    inner: Inner = field(default_factory=Inner)


def test_what_can_be_passes() -> None:
    check(Outer())
    check(Outer(count=np.int64(3), limit=7, rate=0.0, dims=[1, 2], kind="two"))  # type: ignore[arg-type]
    check(Outer(inner=Inner(pair=[0, 0])))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("outer", "said"),
    [
        (Outer(count=0), "x.count is 0: it can be 1 or more"),
        (Outer(limit=-1), "x.limit is -1: it can be 0 (no limit) or more"),
        (Outer(limit=math.nan), "x.limit is nan: it can be 0 (no limit) or more"),
        (Outer(rate=1.0), "x.rate is 1.0: it can be from 0 to below 1"),
        (Outer(dims=[4, 0]), "x.dims is [4, 0]: it can be 1 or more each"),
        (Outer(kind="three"), "x.kind is 'three': it can be one of one, two"),
        (Outer(inner=Inner(share=0)), "x.inner.share is 0: it can be above 0 to 1"),
        (
            Outer(inner=Inner(pair=(2, 1))),
            "x.inner.pair is [2, 1]: it can be 0 or more, two numbers, in order",
        ),
    ],
)
def test_what_cannot_be_is_named_with_what_can(outer: Outer, said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        check(outer, "x.")
    assert str(caught.value) == said


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"count": "1"}, "count is '1': it can be a whole number"),
        ({"count": True}, "count is true: it can be a whole number"),
        ({"count": 1.5}, "count is 1.5: it can be a whole number"),
        ({"limit": "x"}, "limit is 'x': it can be a number"),
        ({"rate": "x"}, "rate is 'x': it can be a number or left out"),
        ({"dims": 3}, "dims is 3: it can be a list of whole numbers"),
        ({"dims": ["a"]}, "dims[0] is 'a': it can be a whole number"),
        ({"on": 1}, "on is 1: it can be yes or no (true/false)"),
        ({"inner": None}, "inner is nothing: it can be an Inner"),
        ({"inner": Inner(pair=(1,))}, "inner.pair is [1]: it can be a list of 2 numbers"),  # type: ignore[arg-type]
    ],
)
def test_a_wrong_type_is_named(change: dict[str, Any], said: str) -> None:
    with pytest.raises(TypeError) as caught:
        check(Outer(**change))
    assert str(caught.value).startswith(said)


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (None, "nothing"),
        (True, "true"),
        (1.5, "1.5"),
        ("1", "'1'"),
        (b"x", "bytes"),
        ((1, None, "x"), "[1, nothing, 'x']"),
        ([0] * 100, "a list of 100"),
        ({"a": 1}, "a mapping"),
        (Path("a/b"), "the path a/b"),
        (np.zeros((2, 3), np.uint8), "an array of uint8, shape (2, 3)"),
        (Inner(), "an Inner"),
        (print, "the function print"),
        (Inner, "the class Inner"),
    ],
)
def test_a_value_is_shown_in_no_words_of_python(value: object, words: str) -> None:
    assert shown(value) == words


def test_a_long_text_is_not_shown_whole() -> None:
    assert len(shown("x" * 10_000)) < 100
    assert shown(["x" * 10_000]) == "a list of 1"


@pytest.mark.parametrize(
    ("hint", "words"),
    [
        (int, "a whole number"),
        (bool, "yes or no (true/false)"),
        (float | None, "a number or left out"),
        (list[int], "a list of whole numbers"),
        (Sequence[str | None] | None, "a list of texts or nothing, or left out"),
        (Sequence[str | None], "a list of texts or nothing"),
        (tuple[float, float], "a list of 2 numbers"),
        (tuple[int, ...], "a list of whole numbers"),
        (tuple[int, str], "a list: a whole number, text"),
        (Mapping[str, str], "a mapping of texts to texts"),
        (str | os.PathLike[str], "a path"),
        (Literal["a", "b"], "one of a, b"),
        (Callable[[int], int], "a function"),
        (Annotated[int, Bounds(least=1)], "a whole number"),
        (Inner, "an Inner"),
    ],
)
def test_a_type_is_said_in_no_words_of_python(hint: object, words: str) -> None:
    assert in_words(hint) == words


def test_an_argument_is_checked_as_a_setting_is() -> None:
    require("k", 1, Annotated[int, Bounds(least=1)])
    with pytest.raises(ConfigError, match=r"^k is 0: it can be 1 or more$"):
        require("k", 0, Annotated[int, Bounds(least=1)])


def test_the_command_line_calls_them_by_their_flags() -> None:
    with pytest.raises(ConfigError, match=r"^--batch-size is 0: it can be 1 or more$"):
        check_flags(Computing(batch_size=0))


# Settings of each section of a run, and a value that is just not allowed.
WRONG = {
    "seed": 2**32,
    "threads": -1,
    "eval_every": 0,
    "log_every": 0,
    "model.drop_path_rate": 1.0,
    "model.proj_drop_rate": -0.1,
    "data.batch_size": 0,
    "data.workers": -1,
    "data.max_broken": 1.1,
    "data.held_out": 0.0,
    "data.decoded": -1,
    "data.augment.scale": (0.5, 0.4),
    "data.augment.ratio": (0.0, 1.0),
    "data.augment.hflip": 1.1,
    "data.augment.re_prob": -0.1,
    "objective.label_smoothing": 1.0,
    "objective.temperature": 0.0,
    "objective.mrl_dims": [0],
    "schedule.between": -1,
    "mix.mixup": -1.0,
    "mix.cutmix": -1.0,
    "mix.prob": 1.1,
    "mix.switch_prob": -0.1,
    "optim.lr": 0.0,
    "optim.epochs": 0,
    "optim.ema": 1.0,
    "optim.max_minutes": -1.0,
    "optim.warmup_epochs": -1.0,
    "optim.clip_grad": -1.0,
    "engine.accumulate": 0,
    "save.every_steps": 0,
    "save.keep": 0,
}


@pytest.mark.parametrize(("key", "value"), WRONG.items())
def test_every_bound_of_a_run_is_kept(key: str, value: object) -> None:
    config: Any = TrainConfig()
    check_config(config)
    owner = config
    *path, name = key.split(".")
    for part in path:
        owner = getattr(owner, part)
    setattr(owner, name, value)
    with pytest.raises(ConfigError, match=rf"^{key.replace('.', '[.]')} is .*: it can be "):
        check_config(config)
