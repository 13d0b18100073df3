"""Steps of a long measurement: each within its share of the time, and recorded whatever becomes of it.

The result is written after every case. A step that fails is recorded with its error, and the next one begins;
one that leaves the GPU unusable ends this process, and the same command goes on in a new one.
"""

from __future__ import annotations

import json
import os
import sys
import time
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from measuring import Case, case_table, write_json

DONE, FAILED, LEFT_OUT, CUT = "done", "failed", "left out", "cut short"


@dataclass(frozen=True, kw_only=True)
class Step:
    """One step.

    Attributes:
        name: how it is asked for.
        seconds: its share of ten minutes.
        run: gives its cases, one after the other; it is not asked for more when its time is over.
        timed: whether it says how fast the GPU is, which a throttled one does not show.
    """

    name: str
    seconds: float
    run: Callable[[], Iterable[Case]]
    timed: bool = True


@dataclass(kw_only=True)
class Record:
    """What a run has found so far, and where it is written.

    Attributes:
        head: command, versions, machine.
        output: the file; None for nowhere.
        steps: what became of each step.
        cases: what was measured.
    """

    head: Mapping[str, Any]
    output: Path | None
    steps: list[dict[str, Any]] = field(default_factory=list)
    cases: list[Case] = field(default_factory=list)
    start: float = field(default_factory=time.perf_counter)
    seconds_before: float = 0.0

    @property
    def seconds(self) -> float:
        """Since the beginning, that of earlier processes included."""
        return self.seconds_before + time.perf_counter() - self.start

    @property
    def throttled(self) -> str | None:
        """Why the GPU is too slow to be measured, or None; see `gpu_scan.rates`."""
        return next(
            (case["settings"]["throttled"] for case in self.cases if "throttled" in case["settings"]), None
        )

    def resume(self, names: Sequence[str]) -> None:
        """Take over the steps of the file that were done, those of `names` left out."""
        if self.output is None or not self.output.is_file():
            return
        found = json.loads(self.output.read_text())
        self.steps = [step for step in found["steps"] if step["name"] not in names]
        kept = {step["name"] for step in self.steps}
        self.cases = [case for case in found["cases"] if case["step"] in kept]
        self.seconds_before = found["seconds"]

    def write(self) -> None:
        """Write the file whole."""
        if self.output:
            rest = {
                "seconds": round(self.seconds),
                "throttled": self.throttled,
                "steps": self.steps,
                "cases": self.cases,
            }
            write_json(self.output, {**self.head, **rest})

    def add(self, step: str, case: Case) -> None:
        """Keep a case, print it, and write."""
        print(f"\n{case['name']}: {case['repeats']} rounds\n{case_table(case)}", flush=True)
        self.cases.append({"step": step, **case})
        self.write()

    def end(self, name: str, status: str, seconds: float, **more: Any) -> None:
        """Keep what became of a step, and write."""
        self.steps.append({"name": name, "status": status, "seconds": round(seconds, 1), **more})
        print(f"{name}: {status} after {seconds:.0f} s {more.get('error', '')}", flush=True)
        self.write()

    def names_done(self) -> set[str]:
        """Steps that need not be run again."""
        return {step["name"] for step in self.steps}


def run_steps(
    steps: Sequence[Step], record: Record, minutes: float, again: Callable[[], None], *, anyway: bool = False
) -> None:
    """Run those steps that are not in the record.

    Args:
        steps: in their order.
        record: is filled.
        minutes: no step is begun after them, and each has its share of them.
        again: starts this program anew, to go on behind a step that left the GPU unusable.
        anyway: time what a throttled GPU does, too; the record says that it was one.
    """
    for step in steps:
        if step.name in record.names_done():
            continue
        if record.seconds > 60 * minutes:
            record.end(step.name, LEFT_OUT, 0, error=f"after {minutes:g} minutes there was no time left")
            continue
        if step.timed and record.throttled and not anyway:
            record.end(step.name, LEFT_OUT, 0, error=record.throttled)
            continue
        try:
            _run(step, record, step.seconds * minutes / 10)
        finally:
            _free()
        if _unusable():
            again()


def _run(step: Step, record: Record, seconds: float) -> None:
    start, status = time.perf_counter(), DONE
    try:
        for case in step.run():
            record.add(step.name, case)
            if time.perf_counter() - start > seconds:
                status = CUT
                break
    except Exception as error:
        said = "".join(traceback.format_exception(error))
        print(said, file=sys.stderr, flush=True)
        first = f"{type(error).__name__}: {error}".strip().splitlines()[0]
        record.end(step.name, FAILED, time.perf_counter() - start, error=first, traceback=said[-2000:])
        return
    record.end(step.name, status, time.perf_counter() - start)


def _free() -> None:
    if torch.cuda.is_available():
        try:
            torch.cuda.empty_cache()
        except RuntimeError:
            return


def _unusable() -> bool:
    """Whether a kernel has ended this process's use of the GPU."""
    if not torch.cuda.is_available():
        return False
    try:
        torch.cuda.synchronize()
    except RuntimeError:
        return True
    return False


def start_anew(words: Sequence[str]) -> None:
    """This program once more in a new process, which takes the place of this one and resumes."""
    resumed = [*words, *([] if "--resume" in words else ["--resume"])]
    sys.stdout.flush()
    os.execv(sys.executable, [sys.executable, sys.argv[0], *resumed])


def named(steps: Sequence[Step], wanted: Sequence[str]) -> Iterator[Step]:
    """Those that are asked for, or all.

    Raises:
        SystemExit: there is no such step.
    """
    known = [step.name for step in steps]
    for name in wanted:
        if name not in known:
            raise SystemExit(f"gpu.py: there is no step {name!r}: one of {', '.join(known)}")
    return (step for step in steps if not wanted or step.name in wanted)
