"""What every benchmark shares: sides measured in turn, ratios round by round, one JSON file for each script.

A script yields cases. In a case, each round measures every side once (A B A B ...), so that whatever else the
machine does meets all sides alike; a ratio is taken within each round, and medians and quartiles over rounds.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from matmamba_vision import keep_freed_memory
from matmamba_vision.measures.environment import environment

RESULTS = Path(__file__).parent / "results"
# Before each measurement: threads of the side before, of OpenMP or ONNX Runtime, spin for some milliseconds.
REST_SECONDS = 0.03
Case = dict[str, Any]
T = TypeVar("T")


@dataclass(frozen=True)
class Plan:
    """How often a case is measured: rounds that do not count, then rounds that do."""

    warm_up: int = 3
    repeats: int = 30

    def at_most(self, repeats: int) -> Plan:
        """Fewer rounds, for a case that takes long; one of them is enough to warm up."""
        return self if self.repeats <= repeats else replace(self, warm_up=1, repeats=repeats)


QUICK = Plan(warm_up=1, repeats=3)


@dataclass(frozen=True)
class Ratio:
    """A value of the side `over` divided by that of the side `under`, and by what was to be `expected`."""

    name: str
    over: str
    under: str
    expected: float = 1.0


def alternate(sides: Mapping[str, Callable[[], float]], plan: Plan) -> dict[str, list[float]]:
    """What each side returned in each round that counts; the sides take turns."""
    values: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(plan.warm_up + plan.repeats):
        for name, side in sides.items():
            values[name].append(side())
    return {name: found[plan.warm_up :] for name, found in values.items()}


def timed(work: Callable[[], object], calls: int = 1) -> Callable[[], float]:
    """A side that does the work some times, and returns the milliseconds of once; a GPU is waited for."""

    def measure() -> float:
        _wait()
        time.sleep(REST_SECONDS)
        start = time.perf_counter()
        for _ in range(calls):
            work()
        _wait()
        return 1e3 * (time.perf_counter() - start) / calls

    return measure


def _wait() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def spread(values: Sequence[float]) -> dict[str, float]:
    """Median and quartiles."""
    low, median, high = np.percentile(values, [25, 50, 75])
    return {"median": float(median), "low": float(low), "high": float(high)}


def measure_case(
    name: str,
    sides: Mapping[str, Callable[[], float]],
    ratios: Iterable[Ratio],
    plan: Plan,
    settings: Mapping[str, Any],
    unit: str = "ms",
) -> Case:
    """Measure the sides in turn: `{"name", "settings", "unit", "warm_up", "repeats", "sides", "ratios"}`.

    Each side and each ratio is `{"median", "low", "high"}`, the sides in `unit`.
    """
    values = alternate(sides, plan)
    by_round = {
        ratio.name: [
            over / under / ratio.expected
            for over, under in zip(values[ratio.over], values[ratio.under], strict=True)
        ]
        for ratio in ratios
    }
    return {
        "name": name,
        "settings": dict(settings),
        "unit": unit,
        "warm_up": plan.warm_up,
        "repeats": plan.repeats,
        "sides": {side: spread(found) for side, found in values.items()},
        "ratios": {ratio: spread(found) for ratio, found in by_round.items()},
    }


def compare(
    name: str,
    sides: Mapping[str, Callable[[], object]],
    ratios: Iterable[Ratio],
    plan: Plan,
    settings: Mapping[str, Any],
    calls: int = 1,
) -> Case:
    """`measure_case` of the milliseconds that inference takes, of so many calls in a row: see `timed`."""
    timed_sides = {side: timed(work, calls) for side, work in sides.items()}
    # Nothing is kept for gradients.
    with torch.inference_mode():
        return measure_case(name, timed_sides, ratios, plan, settings)


def in_fresh_process(function: Callable[..., T], *arguments: Any) -> T:
    """What the function returns in a process of its own, which starts with nothing but its imports."""
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(max_workers=1, mp_context=spawn) as pool:
        return pool.submit(function, *arguments).result()


def run(
    file: str,
    description: str | None,
    cases: Callable[[Plan], Iterable[Case]],
    arguments: Sequence[str] | None = None,
    parents: Sequence[argparse.ArgumentParser] = (),
) -> None:
    """The main function of a script: read the command line, measure, print and write each case.

    Args:
        file, description: `__file__` and `__doc__` of the script. arguments: those of the command line by
            default. parents: flags of the script's own, which it reads itself.
    """
    script = Path(file)
    given = list(sys.argv[1:] if arguments is None else arguments)
    options = parse(script, description, given, parents)
    prepare(options.threads)
    load, start, done, known = os.getloadavg()[0], time.perf_counter(), list[Case](), environment()
    command = " ".join((f"benchmarks/{script.name}", *given))

    def write() -> None:
        seconds = {"seconds": round(time.perf_counter() - start), "load_average_before": load}
        if options.output:
            write_json(options.output, {"command": command, **seconds, **known, "cases": done})

    for case in cases(QUICK if options.quick else Plan()):
        print(
            f"\n{case['name']}: {case['repeats']} rounds after {case['warm_up']}\n{case_table(case)}",
            flush=True,
        )
        done.append(case)
        # What is stopped has what it measured so far.
        write()
    write()
    if options.output:
        print(f"{time.perf_counter() - start:.0f} s, written to {options.output}")


def parse(
    script: Path,
    description: str | None,
    arguments: Sequence[str] | None,
    parents: Sequence[argparse.ArgumentParser] = (),
) -> argparse.Namespace:
    """The options that every script takes."""
    parser = argparse.ArgumentParser(
        prog=f"benchmarks/{script.name}",
        parents=parents,
        description=description,
        epilog=f"example: .venv/bin/python benchmarks/{script.name} --quick --threads 2",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--quick", action="store_true", help="few rounds; writes only to a given --output")
    result = RESULTS / f"{script.stem}.json"
    parser.add_argument("--output", type=Path, metavar="FILE", help=f"default: results/{result.name}")
    parser.add_argument("--threads", type=int, metavar="N", help="default: torch's own choice")
    options = parser.parse_args(arguments)
    if options.threads is not None and options.threads < 1:
        parser.error(f"--threads {options.threads} is not at least 1")
    if options.output is None and not options.quick:
        options.output = result
    return options


def prepare(threads: int | None) -> None:
    """Seed and threads, and the allocator as the command line of the product sets it: for all sides alike."""
    torch.manual_seed(0)
    if threads is not None:
        torch.set_num_threads(threads)
    keep_freed_memory()


def case_table(case: Case) -> str:
    """A case as people read it: a line for each side in its unit, then one for each ratio."""
    lines = [_line(name, found, 2, case["unit"]) for name, found in case["sides"].items()]
    return "\n".join([*lines, *(_line(f"ratio: {name}", found, 3) for name, found in case["ratios"].items())])


def _line(name: str, found: Mapping[str, float], digits: int, unit: str = "") -> str:
    median, low, high = (f"{found[key]:,.{digits}f}" for key in ("median", "low", "high"))
    return f"  {name:<32} {median:>12} {unit:<4} ({low} to {high})"


def write_json(file: Path, result: Mapping[str, Any]) -> None:
    """Write the file whole, or leave what was there."""
    file.parent.mkdir(parents=True, exist_ok=True)
    partial = file.with_name(f"{file.name}.partial")
    partial.write_text(json.dumps(result, indent=2) + "\n")
    partial.replace(file)
