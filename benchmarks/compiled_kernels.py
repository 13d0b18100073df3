"""Every launch that the kernels' table offers, compiled for GPUs that need not be there.

For each candidate: registers, spilled bytes, shared memory, matrix products on tensor cores (Hopper's own,
wgmma, or those of all others, mma) and exponentials in the code. Fails where one spills, misses the tensor
cores, or takes more registers or shared memory than its row of the table allows. With --also, a folder into
which another Triton was installed, the same with that one. Writes results/compiled_kernels.json.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, wait
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "datasets"), str(ROOT / "retrieval")]

import torch  # noqa: E402
import triton  # noqa: E402
from matmamba_vision.measures.environment import environment  # noqa: E402
from matmamba_vision.ops.triton import known_trials, oldest, trials  # noqa: E402
from matmamba_vision.ops.triton.ahead import Compilation, MachineCode, compile_job, recorded  # noqa: E402
from matmamba_vision.ops.triton.candidates import Launch, Shapes, rows_of  # noqa: E402
from matmamba_vision.ops.triton.chosen import trying  # noqa: E402
from measuring import RESULTS, write_json  # noqa: E402

# Hopper (H100, H200) with its own instructions, which Triton compiles for as sm_90a, and Ampere (A100).
GPUS = (90, 80)
CPU = torch.device("cpu")
# Whether this Triton is none for Hopper GPUs.
IS_OLD = oldest.refusal_of(triton.__version__, on_hopper=True) is not None
DTYPES = ("bfloat16", "float16", "float32")
# Heads, states and types at the ends of what kernels take.
ENDS = ((128, 256, "bfloat16"), (8, 16, "float16"), (64, 64, "bfloat16"))


@dataclass(frozen=True, kw_only=True)
class Row:
    """A candidate for one class of shapes, and what has to be compiled for it.

    Attributes:
        kernel: its name in the table.
        shapes: the class.
        launch: the candidate.
        first: whether it is the one that is used without a measurement.
        jobs: what is launched with it.
    """

    kernel: str
    shapes: Shapes
    launch: Launch
    first: bool
    jobs: tuple[Compilation, ...]


def main(arguments: Sequence[str] | None = None) -> int:
    """Compile, print, and write; returns 1 if anything does not keep within its row."""
    options = _parse(arguments)
    start, known = time.perf_counter(), environment()
    rows = compiled(options)
    if options.also:
        rows += _by_another(options.also, options)
    print_rows(rows)
    words = sys.argv[1:] if arguments is None else arguments
    if options.output:
        command = " ".join(("benchmarks/compiled_kernels.py", *map(str, words)))
        seconds = round(time.perf_counter() - start)
        write_json(options.output, {"command": command, "seconds": seconds, **known, "rows": rows})
    faults = [(row, fault) for row in rows for fault in row["faults"]]
    for row, fault in faults:
        print(f"{_named(row)}: {fault}")
    print(f"{len(rows)} launches compiled in {time.perf_counter() - start:.0f} s, {len(faults)} faults")
    return 1 if faults else 0


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="benchmarks/compiled_kernels.py",
        description=__doc__,
        epilog="example: .venv/bin/python benchmarks/compiled_kernels.py --also build/triton36",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--quick", action="store_true", help="first rows, few shapes; writes only to --output"
    )
    parser.add_argument("--gpus", type=int, nargs="+", default=list(GPUS), help="compute capabilities: 90 80")
    parser.add_argument(
        "--also", type=Path, metavar="FOLDER", help="of another Triton (pip install --target)"
    )
    parser.add_argument("--also-gpus", type=int, nargs="+", help="for --also; the same by default")
    parser.add_argument("--output", type=Path, metavar="FILE", help="default: results/compiled_kernels.json")
    parser.add_argument("--dtypes", nargs="+", default=list(DTYPES), help="of inputs: %(default)s")
    parser.add_argument("--seconds", type=float, help="what is not compiled after these is left out")
    parser.add_argument("--workers", type=int, default=os.cpu_count(), help="processes that compile")
    options = parser.parse_args(arguments)
    if options.output is None and not options.quick:
        options.output = RESULTS / "compiled_kernels.json"
    return options


def wanted_trials(dtypes: Sequence[str], gpu: int) -> list[trials.KernelTrial]:
    """What models launch in these types, and the ends of what kernels take."""
    found = known_trials.all_trials(dtypes, (16, 32), gpu)
    for head_dim, state_dim, dtype in ENDS:
        if dtype in dtypes:
            found += trials.scans(getattr(torch, dtype), head_dim, state_dim, 1100, 1)
    return found


def some_trials(gpu: int) -> list[trials.KernelTrial]:
    """All kernels, in the type and with the heads that matter most."""
    found = known_trials.all_trials(("bfloat16",), (16,), gpu)
    # Longer sequences have other kernels forward alone.
    longer = [trial for trial in found if trial.name in ("scan", "block") and trial.shapes.tokens == "longer"]
    return [trial for trial in found if trial.shapes.tokens in ("", "up to 512")] + longer


def compiled(options: argparse.Namespace) -> list[dict[str, Any]]:
    """For each GPU and each row what the compiler made of it, and what is wrong with that."""
    found = list[dict[str, Any]]()
    with ProcessPoolExecutor(options.workers, mp_context=get_context("spawn")) as pool:
        for gpu in options.gpus:
            known = some_trials(gpu) if options.quick else wanted_trials(options.dtypes, gpu)
            rows = list(rows_to_compile(known, gpu, firsts_alone=options.quick))
            jobs = {job.key: job for row in rows for job in row.jobs}
            running = {key: pool.submit(_compile, job, gpu) for key, job in jobs.items()}
            wait(running.values(), options.seconds)
            codes = {key: code.result() for key, code in running.items() if code.done()}
            whole = [row for row in rows if all(job.key in codes for job in row.jobs)]
            found += [described(row, [codes[job.key] for job in row.jobs], gpu) for row in whole]
            if len(whole) < len(rows):
                pool.shutdown(wait=False, cancel_futures=True)
                break
    return found


def rows_to_compile(known: Iterable[trials.KernelTrial], gpu: int, firsts_alone: bool) -> Iterator[Row]:
    """The rows of the table for the kernels of these trials."""
    for trial in known:
        work = trial.prepare(CPU, 1, False).work
        usual = {job.key for job in recorded(work, gpu)}
        for kernel in trial.kernels:
            for number, launch in enumerate(rows_of(kernel, trial.shapes)[: 1 if firsts_alone else None]):
                with trying(kernel, launch):
                    # A tile of one kernel is that of others: they are compiled for it, too.
                    launched = recorded(work, gpu)
                jobs = tuple(job for job in launched if job.is_of(kernel) or job.key not in usual)
                assert jobs, f"{trial} does not launch {kernel}"
                yield Row(kernel=kernel, shapes=trial.shapes, launch=launch, first=number == 0, jobs=jobs)


def _compile(job: Compilation, gpu: int) -> MachineCode | str:
    try:
        return compile_job(job, gpu)
    except Exception as error:
        return f"does not compile: {type(error).__name__}: {error}".splitlines()[0]


def described(row: Row, codes: Sequence[MachineCode | str], gpu: int) -> dict[str, Any]:
    """A row for the JSON: the worst of what was compiled for it."""
    made = [code for code in codes if isinstance(code, MachineCode)]
    faults = [code for code in codes if isinstance(code, str)]
    return {
        "triton": triton.__version__,
        "gpu": gpu,
        "kernel": row.kernel,
        "class": str(row.shapes),
        "launch": row.launch.name,
        "first": row.first,
        **{name: max((getattr(code, name) for code in made), default=None) for name in FIGURES},
        "allowed": {
            "registers": row.launch.most_registers,
            "shared": row.launch.most_shared(gpu),
            "spilled": row.launch.most_spilled(gpu, old=IS_OLD),
        },
        "faults": faults + [fault for code in made for fault in faults_of(code, row.launch)],
    }


FIGURES = ("registers", "spilled", "shared", "wgmma", "mma", "exponentials")


def faults_of(code: MachineCode, launch: Launch) -> list[str]:
    """In what the code does not keep within its row."""
    shared, spilled = launch.most_shared(code.gpu), launch.most_spilled(code.gpu, old=IS_OLD)
    checks = {
        f"spills {code.spilled} bytes, {spilled} are allowed": code.spilled > spilled,
        f"takes {code.registers} registers, {launch.most_registers} are allowed": (
            code.registers > launch.most_registers
        ),
        f"takes {code.shared} bytes of shared memory, {shared} are allowed": code.shared > shared,
        "has no product on tensor cores": launch.products and not code.wgmma + code.mma,
    }
    return [fault for fault, wrong in checks.items() if wrong]


def _by_another(folder: Path, options: argparse.Namespace) -> list[dict[str, Any]]:
    """The same by the Triton that was installed into a folder, in a process of its own."""
    if not (folder / "triton").is_dir():
        raise SystemExit(
            f"compiled_kernels.py: there is no Triton in {folder}: pip install --target makes it"
        )
    with tempfile.NamedTemporaryFile(suffix=".json") as file:
        words = ["--output", file.name, "--workers", str(options.workers), "--dtypes", *options.dtypes]
        words += ["--gpus", *map(str, options.also_gpus or options.gpus)]
        command = [sys.executable, __file__, *words, *(["--quick"] if options.quick else [])]
        places = [str(folder.resolve()), os.environ.get("PYTHONPATH", "")]
        known = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, places))}
        # What has faults ends with 1, and has written them.
        if subprocess.run(command, env=known, check=False, stdout=subprocess.DEVNULL).returncode > 1:
            raise SystemExit(f"compiled_kernels.py: {' '.join(command)} failed")
        return list(json.loads(Path(file.name).read_text())["rows"])


def print_rows(rows: Iterable[Mapping[str, Any]]) -> None:
    """A line for each launch."""
    for row in rows:
        print(f"{_named(row)}: {', '.join(f'{name} {row[name]}' for name in FIGURES)}")


def _named(row: Mapping[str, Any]) -> str:
    return "  ".join(
        (f"triton {row['triton']}", f"sm_{row['gpu']}", row["kernel"], row["class"], row["launch"])
    )


if __name__ == "__main__":
    sys.exit(main())
