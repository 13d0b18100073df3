"""Schedules of widths: which of the trained widths a step trains."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence

from ..errors import ConfigError
from ..width import Width
from .sections import ScheduleConfig

Chooser = Callable[[Sequence[Width], ScheduleConfig, random.Random, int], Sequence[Width]]


def _all(
    trained: Sequence[Width], config: ScheduleConfig, chance: random.Random, batch: int
) -> Sequence[Width]:
    return trained


def _sandwich(
    trained: Sequence[Width], config: ScheduleConfig, chance: random.Random, batch: int
) -> Sequence[Width]:
    inner = trained[1:-1]
    drawn = sorted(chance.sample(range(len(inner)), min(config.between, len(inner))))
    return [trained[0], *(inner[index] for index in drawn), *trained[1:][-1:]]


def _one(
    trained: Sequence[Width], config: ScheduleConfig, chance: random.Random, batch: int
) -> Sequence[Width]:
    return [chance.choice(trained)]


def _published(
    trained: Sequence[Width], config: ScheduleConfig, chance: random.Random, batch: int
) -> Sequence[Width]:
    return [trained[batch % len(trained)]]


SCHEDULES: dict[str, Chooser] = {"all": _all, "sandwich": _sandwich, "one": _one, "published": _published}


class WidthSchedule:
    """The widths of each step, largest first: a function of seed, step and batch within the step alone.

    `all` trains every width in each step; `sandwich` the largest, the smallest and random ones between
    (arXiv 1903.05134, section 3.2); `one` a random one (MatFormer, arXiv 2310.07707, section 3.2);
    `published` one for each batch in turn, with a step after each round (MatMamba, arXiv 2410.06718).

    Args:
        config: which kind of schedule.
        trained: the trained widths, largest first.
        seed: of what is drawn.
        accumulate: batches in a step.

    Raises:
        ConfigError: no such schedule, or one that this number of batches cannot serve.
    """

    def __init__(
        self, config: ScheduleConfig, trained: Sequence[Width], seed: int = 0, accumulate: int = 1
    ) -> None:
        if config.kind not in SCHEDULES:
            raise ConfigError(f"schedule.kind {config.kind!r} is none of {', '.join(SCHEDULES)}")
        if config.kind == "published" and accumulate % len(trained):
            raise ConfigError(
                "schedule.kind published takes a width for each batch of a step: engine.accumulate is"
                f" {accumulate}, not a multiple of the {len(trained)} trained widths: take {len(trained)}"
            )
        self.config, self.trained, self.seed = config, tuple(trained), seed

    def in_words(self, label: Callable[[Width], str]) -> str:
        """What a step trains."""
        names = " ".join(map(label, self.trained))
        between = f"{min(self.config.between, len(self.trained[1:-1]))} drawn"
        return {
            "all": f"all of {names}",
            "sandwich": f"the first, the last and {between} between, of {names}",
            "one": f"one drawn of {names}",
            "published": f"one for each batch in turn, of {names}",
        }[self.config.kind]

    def widths(self, step: int, batch: int = 0) -> tuple[Width, ...]:
        """The widths of a batch, numbered from 0 within its step."""
        # One draw for all batches of a step: its loss is that of the drawn networks.
        chance = random.Random(f"{self.seed}/{step}")
        return tuple(SCHEDULES[self.config.kind](self.trained, self.config, chance, batch))
