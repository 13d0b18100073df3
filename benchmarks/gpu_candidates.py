"""The kernels' table on a GPU: what is right, what is fast, and what each kernel of a block takes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from functools import cache
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch
from gpu_model import Sizes, bound_of
from gpu_model import inference as gpu_inference
from gpu_models import graph_of, inference
from gpu_setting import Setting, left_out
from matmamba_vision.ops.triton import chosen, known_trials, trials
from matmamba_vision.ops.triton.candidates import class_of_tokens, rows_of
from measuring import Case, Plan, Ratio, measure_case
from torch.profiler import ProfilerActivity, profile

SCRIPT = Path(__file__).with_name("compiled_kernels.py")


def constant(value: float) -> Callable[[], float]:
    """A side that always has this value."""
    return lambda: value


def tried_trials(setting: Setting) -> list[trials.KernelTrial]:
    """What is tried; in the same order wherever it is asked for."""
    if setting.device == "cuda":
        major, minor = torch.cuda.get_device_capability()
        return known_trials.all_trials(setting.dtypes, setting.head_dims, 10 * major + minor)
    # Something small for the interpreter.
    return trials.rows_of_channels(torch.float32, 24, 9, 1)[::2]


def compile_all(setting: Setting) -> Iterator[Case]:
    """All launches of the table for this GPU, by all processors; the code stays in Triton's cache."""
    rows = compiled_rows(setting)
    faults = {
        f"{row['kernel']}, {row['class']}, {row['launch']}": row["faults"] for row in rows if row["faults"]
    }
    sides = {"launches": constant(len(rows)), "with faults": constant(len(faults))}
    yield measure_case("compiled", sides, [], Plan(0, 1), {"faults": faults}, unit="")


def compiled_rows(setting: Setting) -> list[dict[str, Any]]:
    """By a process of its own, in which Triton compiles whatever it does in this one."""
    gpu = 90
    if setting.device == "cuda":
        major, minor = torch.cuda.get_device_capability()
        gpu = 10 * major + minor
    with tempfile.NamedTemporaryFile(suffix=".json") as file:
        command = [sys.executable, str(SCRIPT), "--gpus", str(gpu), "--output", file.name]
        command += ["--seconds", str(setting.seconds_to_compile), "--dtypes", *setting.dtypes]
        known = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
        subprocess.run(command, env=known, check=False, stdout=subprocess.DEVNULL)
        return list(json.loads(Path(file.name).read_text())["rows"])


class Checks:
    """Checks candidates in a process of its own: one that breaks the GPU breaks that process alone."""

    def __init__(self, setting: Setting) -> None:
        self._setting, self._pool = setting, _pool()

    def fault(self, trial: int, kernel: str, row: int) -> str | None:
        """Why a row cannot be used, or None."""
        try:
            found, usable = self._pool.submit(_fault, self._setting, trial, kernel, row).result()
        except BrokenProcessPool:
            found, usable = "the process that ran it died", False
        if not usable:
            self.close()
            self._pool = _pool()
        return found

    def close(self) -> None:
        """End the process."""
        self._pool.shutdown(cancel_futures=True)


def _pool() -> ProcessPoolExecutor:
    return ProcessPoolExecutor(1, mp_context=get_context("spawn"))


@cache
def _checked(setting: Setting, trial: int) -> tuple[trials.TrialInputs, Sequence[torch.Tensor]]:
    inputs = tried_trials(setting)[trial].prepare(torch.device(setting.device), 1, True)
    return inputs, inputs.expected()


def _fault(setting: Setting, trial: int, kernel: str, row: int) -> tuple[str | None, bool]:
    """Why it cannot be used, and whether the GPU still can."""
    known = tried_trials(setting)[trial]
    inputs, expected = _checked(setting, trial)
    launch = rows_of(kernel, known.shapes)[row]
    found = trials.fault_of(
        lambda: trials.launched_by(kernel, launch, inputs.work), expected, inputs.sums, known.shapes
    )
    try:
        if setting.device == "cuda":
            torch.cuda.synchronize()
    except RuntimeError as error:
        return found or str(error).splitlines()[0], False
    return found, True


def check_all(setting: Setting, dropped: dict[str, str]) -> Iterator[Case]:
    """Whether each launch computes the definition; those that do not are put into `dropped` by name."""
    checks = Checks(setting)
    try:
        for number, trial in enumerate(tried_trials(setting)):
            sides = {}
            for kernel in trial.kernels:
                for row, launch in enumerate(rows_of(kernel, trial.shapes)):
                    fault = checks.fault(number, kernel, row)
                    if fault:
                        dropped[name_of(trial, kernel, launch.name)] = fault
                    sides[f"{kernel}, {launch.name}"] = constant(0.0 if fault else 1.0)
            faults = {name: why for name, why in dropped.items() if name.startswith(f"{trial}: ")}
            yield measure_case(f"right, {trial}", sides, [], Plan(0, 1), {"dropped": faults}, unit="")
    finally:
        checks.close()


def name_of(trial: trials.KernelTrial, kernel: str, launch: str) -> str:
    """How a candidate is named where it is dropped."""
    return f"{trial}: {kernel}, {launch}"


def dropped_in(cases: Sequence[Case]) -> dict[str, str]:
    """The candidates that earlier checks dropped."""
    found = (case["settings"].get("dropped", {}) for case in cases if case["name"].startswith("right, "))
    return {name: why for each in found for name, why in each.items()}


def time_all(setting: Setting, dropped: Mapping[str, str]) -> Iterator[Case]:
    """Microseconds with each launch that is right; what is fastest is kept for all that follows."""
    device, kept = torch.device(setting.device), list[chosen.KeptLaunch]()
    clock = trials.graph_clock if setting.device == "cuda" else trials.wall_clock
    for trial in tried_trials(setting):
        left = {
            (kernel, launch.name): why
            for kernel in trial.kernels
            for launch in rows_of(kernel, trial.shapes)
            if (why := dropped.get(name_of(trial, kernel, launch.name)))
        }
        sides, settings = dict[str, Callable[[], float]](), dict[str, Any]()
        for kernel, found in zip(trial.kernels, trials.tried(trial, device, clock, left), strict=True):
            if found.choice is None:
                settings[kernel] = found.dropped
                continue
            kept.append(found.choice)
            settings[kernel] = found.choice.candidate
            taken = found.choice.microseconds.items()
            sides |= {f"{kernel}, {launch}": constant(time) for launch, time in taken}
        yield measure_case(f"launches, {trial}", sides, [], Plan(0, 1), {"chosen": settings}, unit="µs")
        if setting.device == "cuda":
            gpu = torch.cuda.get_device_name()
            chosen.write_choices(chosen.file_for(gpu), gpu, kept)
            chosen.forget()


def kernels_of_block(setting: Setting, cases: Sequence[Case]) -> Iterator[Case]:
    """Microseconds of each kernel of one block: of frozen widths and training, then of the model as it is.

    Captured where there is a GPU. Beside the scan stands what bounds it.

    Args:
        setting: what is measured.
        cases: those of `gpu_scan.rates` among them, if it was run.
    """
    for trial in tried_trials(setting):
        if trial.name.startswith("block"):
            work = trial.prepare(torch.device(setting.device), trial.batch, False).work
            case = kernels_of(f"kernels, {trial}", work, setting, {"batch": trial.batch})
            yield case
            if bounded := scan_of_block(trial, case, cases):
                yield bounded
    shape = setting.block
    block = shape.block().to(setting.device, setting.dtype).eval()
    x_BLD = shape.tokens_BLD().to(setting.device, setting.dtype)
    for width, heads in shape.widths().items():
        forward = inference(block, x_BLD, heads=heads)
        yield kernels_of(f"kernels, width {width}", forward, setting, shape.settings(active_heads=heads))


def scan_of_block(trial: trials.KernelTrial, kernels: Case, cases: Sequence[Case]) -> Case | None:
    """The scan's kernel of a block beside what its bytes or its operations take at the rates found before."""
    rates = {case["name"]: case["sides"] for case in cases if case["name"] in ("copy", "products")}
    taken = [side["median"] for name, side in kernels["sides"].items() if name in SCANS]
    if trial.name != "block" or len(rates) < 2 or not taken:
        return None
    copy = 1e9 * rates["copy"]["copy"]["median"]
    products = 1e12 * max(side["median"] for side in rates["products"].values())
    tokens, shapes = TOKENS[trial.shapes.tokens], trial.shapes
    inner = trials.HEADS * shapes.head_dim
    sizes = Sizes(dim=0, inner=inner, heads=trials.HEADS, state=shapes.state_dim, tokens=tokens)
    (work,) = (known for known in gpu_inference(sizes) if known.name == "scan, gate")
    bound = 1e6 * trial.batch * tokens * bound_of(work, copy, products)
    sides = {"scan": constant(sum(taken)), "bound": constant(bound)}
    ratios = [Ratio("bound / scan", "bound", "scan")]
    return measure_case(f"scan in a block, {trial.shapes}", sides, ratios, Plan(0, 1), {}, unit="µs")


# Kernels of a block that are its scan, and the length that stands for each class.
SCANS = ("scan_quadratic_kernel", "scan_state_kernel")
TOKENS = {class_of_tokens(length): length for length in known_trials.BATCHES}


def kernels_of(name: str, work: Callable[[], object], setting: Setting, settings: Mapping[str, Any]) -> Case:
    """The case of one work."""
    work = graph_of(work, setting)
    work()
    sides = {kernel: constant(time) for kernel, time in _kernel_times(work, setting.device).items()}
    if not sides:
        return left_out(name, "the profiler saw none")
    return measure_case(name, sides, [], Plan(0, 1), {"kernels": len(sides), **settings}, unit="µs")


def _kernel_times(work: Callable[[], object], device: str, calls: int = 10) -> dict[str, float]:
    """Microseconds that each kernel takes in one call, by name, the longest first."""
    on_gpu = device == "cuda"
    with profile(activities=[ProfilerActivity.CUDA if on_gpu else ProfilerActivity.CPU]) as found:
        for _ in range(calls):
            work()
        if on_gpu:
            torch.cuda.synchronize()
    times = {
        event.key[:60]: (event.self_device_time_total if on_gpu else event.self_cpu_time_total) / calls
        for event in found.key_averages()
    }
    return dict(sorted(((name, time) for name, time in times.items() if time), key=lambda item: -item[1]))
