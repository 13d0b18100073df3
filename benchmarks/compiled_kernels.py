"""Every launch that the kernels' table offers, compiled for GPUs that need not be there.

For each candidate: registers, spilled bytes, shared memory, matrix products on tensor cores (Hopper's own,
wgmma, or those of all others, mma) and exponentials in the code. Fails where one spills, misses the tensor
cores, or takes more registers or shared memory than its row of the table allows. With --also, a folder into
which another Triton was installed, the same with that one, for the GPUs on which it is used.

The file, results/compiled_kernels.json, is written after each section: a version of Triton, a GPU and a type.
The same command goes on behind those that hold for the kernels and the table as they are; what was compiled
of a section is in Triton's cache.
"""

from __future__ import annotations

import argparse
import ast
import hashlib
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
from typing import Any, NamedTuple

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "datasets"), str(ROOT / "retrieval")]

import torch  # noqa: E402
import triton  # noqa: E402
from matmamba_vision.measures.environment import environment  # noqa: E402
from matmamba_vision.ops.triton import candidates, known_trials, oldest, trials  # noqa: E402
from matmamba_vision.ops.triton.ahead import Compilation, MachineCode, compile_job, recorded  # noqa: E402
from matmamba_vision.ops.triton.candidates import HOPPER, Launch, Shapes, rows_of  # noqa: E402
from matmamba_vision.ops.triton.chosen import trying  # noqa: E402
from measuring import RESULTS, write_json  # noqa: E402

# Hopper (H100, H200) with its own instructions, which Triton compiles for as sm_90a, and Ampere (A100).
GPUS = (90, 80)
CPU = torch.device("cpu")
# The oldest Triton that is compiled with, beside the pinned one.
OLDER = ".".join(map(str, oldest.OLDEST))
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


class Section(NamedTuple):
    """What is compiled and written at once.

    Attributes:
        triton: version, without its last number.
        gpu: compute capability.
        dtype: of the inputs.
    """

    triton: str
    gpu: int
    dtype: str

    def __str__(self) -> str:
        return f"triton {self.triton}, sm_{self.gpu}, {self.dtype}"


def wanted_sections(gpus: Sequence[int] = GPUS) -> list[Section]:
    """All that a whole record has: for this version, and for the oldest one where it is used."""
    versions = dict.fromkeys((triton.__version__, OLDER))
    known = [
        (short(version), gpu)
        for version in versions
        for gpu in gpus
        if oldest.refusal_of(version, on_hopper=gpu == HOPPER) is None
    ]
    return [Section(version, gpu, dtype) for version, gpu in dict.fromkeys(known) for dtype in DTYPES]


def short(version: str) -> str:
    """Such as "3.7"."""
    return ".".join(version.split(".")[:2])


def section_of(row: Mapping[str, Any]) -> Section:
    """To which section a row of the file belongs."""
    return Section(short(row["triton"]), row["gpu"], row["class"].rpartition(" ")[2])


def names_of(section: Section) -> set[tuple[str, str, str]]:
    """Kernel, class and launch of each row that a section has to have."""
    return {
        (kernel, str(trial.shapes), launch.name)
        for trial in wanted_trials([section.dtype], section.gpu)
        for kernel in trial.kernels
        for launch in rows_of(kernel, trial.shapes)
    }


def sources() -> str:
    """The same as long as kernels and what launches them do, comments apart."""
    found = hashlib.sha256()
    folder = Path(candidates.__file__).parent
    for file in sorted(folder.rglob("*.py")):
        text = file.read_text()
        if any(sign in text for sign in SIGNS):
            found.update(f"{file.relative_to(folder)} {_without_documentation(text)}".encode())
    return found.hexdigest()[:16]


# What is in a file of kernels, or of what launches them.
SIGNS = ("@triton.jit", "@on_device_of", "class TrainingConfig", "class BlockConfig")


def _without_documentation(text: str) -> str:
    tree = ast.parse(text)
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) and ast.get_docstring(node):
            node.body = node.body[1:]
    return ast.dump(tree)


def main(arguments: Sequence[str] | None = None) -> int:
    """Compile, print, and write; returns 1 if anything does not keep within its row."""
    options = _parse(arguments)
    words = sys.argv[1:] if arguments is None else arguments
    if options.quick:
        return _end(compiled(options, options.gpus, options.dtypes), options.output, {})
    head = {"command": " ".join(("benchmarks/compiled_kernels.py", *map(str, words))), **environment()}
    rows = [] if options.again else still_true(options.output)
    for section in _sections(options):
        if section in {section_of(row) for row in rows}:
            continue
        start = time.perf_counter()
        own = section.triton == short(triton.__version__)
        one = (options, [section.gpu], [section.dtype])
        found = compiled(*one) if own else _by_another(*one)
        rows += found
        if not options.kernels and {_name(row) for row in found} != names_of(section):
            break
        write_json(options.output, {**head, "sources": sources(), "rows": rows})
        print(f"{section}: {len(found)} launches, {time.perf_counter() - start:.0f} s", flush=True)
    return _end(rows, options.output, {**head, "sources": sources()})


def _end(rows: Sequence[dict[str, Any]], output: Path | None, head: Mapping[str, Any]) -> int:
    print_rows(rows)
    if output:
        write_json(output, {**head, "rows": rows})
    faults = [(row, fault) for row in rows for fault in row["faults"]]
    for row, fault in faults:
        print(f"{_named(row)}: {fault}")
    print(f"{len(rows)} launches, {len(faults)} faults")
    return 1 if faults else 0


def _sections(options: argparse.Namespace) -> list[Section]:
    own = short(triton.__version__)
    known = [section for section in wanted_sections(options.gpus) if section.triton == own or options.also]
    return [section for section in known if section.dtype in options.dtypes]


def still_true(file: Path) -> list[dict[str, Any]]:
    """The rows of a file in whose sections nothing was changed since."""
    found = json.loads(file.read_text()) if file.is_file() and file.stat().st_size else {}
    if found.get("sources") != sources():
        return []
    parts: dict[Section, list[dict[str, Any]]] = {}
    for row in found["rows"]:
        parts.setdefault(section_of(row), []).append(row)
    whole = {section for section, rows in parts.items() if {_name(row) for row in rows} == names_of(section)}
    return [row for section in parts if section in whole for row in parts[section]]


def _name(row: Mapping[str, Any]) -> tuple[str, str, str]:
    return row["kernel"], row["class"], row["launch"]


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
    parser.add_argument("--again", action="store_true", help="sections that the file has, too")
    parser.add_argument("--gpus", type=int, nargs="+", default=list(GPUS), help="compute capabilities: 90 80")
    parser.add_argument(
        "--also", type=Path, metavar="FOLDER", help="of another Triton (pip install --target)"
    )
    parser.add_argument("--output", type=Path, metavar="FILE", help="default: results/compiled_kernels.json")
    parser.add_argument("--dtypes", nargs="+", default=list(DTYPES), help="of inputs: %(default)s")
    parser.add_argument("--kernels", nargs="+", help="these alone; needs --output")
    parser.add_argument("--seconds", type=float, help="what is not compiled after these is left out")
    parser.add_argument("--workers", type=int, default=os.cpu_count(), help="processes that compile")
    options = parser.parse_args(arguments)
    if options.kernels and options.output is None:
        parser.error("--kernels needs --output: the file of results has all of them")
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


def compiled(options: argparse.Namespace, gpus: Sequence[int], dtypes: Sequence[str]) -> list[dict[str, Any]]:
    """For each GPU and each row what the compiler made of it, and what is wrong with that."""
    found = list[dict[str, Any]]()
    with ProcessPoolExecutor(options.workers, mp_context=get_context("spawn")) as pool:
        for gpu in gpus:
            known = some_trials(gpu) if options.quick else wanted_trials(dtypes, gpu)
            rows = list(rows_to_compile(known, gpu, firsts_alone=options.quick, kernels=options.kernels))
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


def rows_to_compile(
    known: Iterable[trials.KernelTrial],
    gpu: int,
    firsts_alone: bool = False,
    kernels: Sequence[str] | None = None,
) -> Iterator[Row]:
    """The rows of the table for the kernels of these trials, or for some of them."""
    for trial in known:
        wanted = [kernel for kernel in trial.kernels if not kernels or kernel in kernels]
        if not wanted:
            continue
        work = trial.prepare(CPU, 1, False).work
        usual = {job.key for job in recorded(work, gpu)}
        for kernel in wanted:
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
        },
        "faults": faults + [fault for code in made for fault in faults_of(code, row.launch)],
    }


FIGURES = ("registers", "spilled", "shared", "wgmma", "mma", "exponentials")


def faults_of(code: MachineCode, launch: Launch) -> list[str]:
    """In what the code does not keep within its row."""
    shared = launch.most_shared(code.gpu)
    checks = {
        f"spills {code.spilled} bytes": code.spilled > 0,
        f"takes {code.registers} registers, {launch.most_registers} are allowed": (
            code.registers > launch.most_registers
        ),
        f"takes {code.shared} bytes of shared memory, {shared} are allowed": code.shared > shared,
        "has no product on tensor cores": launch.products and not code.wgmma + code.mma,
    }
    return [fault for fault, wrong in checks.items() if wrong]


def _by_another(
    options: argparse.Namespace, gpus: Sequence[int], dtypes: Sequence[str]
) -> list[dict[str, Any]]:
    """The same by the Triton that was installed into a folder, in a process of its own."""
    folder: Path = options.also
    if not (folder / "triton").is_dir():
        raise SystemExit(
            f"compiled_kernels.py: there is no Triton in {folder}: pip install --target makes it"
        )
    with tempfile.NamedTemporaryFile(suffix=".json") as file:
        words = ["--output", file.name, "--workers", str(options.workers), "--dtypes", *dtypes]
        words += ["--gpus", *map(str, gpus), *(["--kernels", *options.kernels] if options.kernels else [])]
        command = [sys.executable, __file__, *words]
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
