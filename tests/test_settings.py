"""Settings are checked in one way: beside each of them stands what it can be."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Annotated, Any

import numpy as np
import pytest
from matmamba_common.errors import ConfigError
from matmamba_common.settings import Bounds, OneOf, check, require
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
            "x.inner.pair is (2, 1): it can be 0 or more, two numbers, in order",
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
        ({"count": "1"}, "count is a str: it can be a whole number"),
        ({"count": True}, "count is a bool: it can be a whole number"),
        ({"count": 1.5}, "count is a float: it can be a whole number"),
        ({"limit": "x"}, "limit is a str: it can be a number"),
        ({"rate": "x"}, "rate is a str: it can be a number or None"),
        ({"dims": 3}, "dims is an int: it can be a list, of a whole number each"),
        ({"dims": ["a"]}, "dims is a list: it can be a list, of a whole number each"),
        ({"on": 1}, "on is an int: it can be True or False"),
        ({"inner": None}, "inner is None: it can be an Inner"),
        ({"inner": Inner(pair=(1,))}, "inner.pair is a tuple: it can be a tuple of a number, a"),  # type: ignore[arg-type]
    ],
)
def test_a_wrong_type_is_named(change: dict[str, Any], said: str) -> None:
    with pytest.raises(TypeError) as caught:
        check(Outer(**change))
    assert str(caught.value).startswith(said)


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
