"""Every launch that the kernels' table offers, compiled for GPUs that need not be there.

For each candidate: registers, spilled bytes, shared memory, matrix products on tensor cores (Hopper's own,
wgmma, or those of all others, mma) and exponentials in the code. Fails where one spills, misses the tensor
cores, or takes more registers or shared memory than its row of the table allows. With --also, a folder into
which another Triton was installed, the same with that one; where that is refused when it is to compute, as on
Hopper's GPUs, its faults are told and nothing more.

The file, results/compiled_kernels.json, is written after each section: a version of Triton, a GPU and a type.
The same command goes on where the file stops: of kernels whose files were changed, what is compiled otherwise
than before is compiled again, and what the table has besides. What was compiled is in Triton's cache.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from multiprocessing import get_context
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "datasets"), str(ROOT / "retrieval")]

import torch  # noqa: E402
import triton  # noqa: E402
from kernel_sources import code_of, sources  # noqa: E402
from matmamba_vision.measures.environment import environment  # noqa: E402
from matmamba_vision.ops.triton import known_trials, oldest, trials  # noqa: E402
from matmamba_vision.ops.triton.ahead import Compilation, MachineCode, compile_job, recorded  # noqa: E402
from matmamba_vision.ops.triton.block.block_trials import block_trials  # noqa: E402
from matmamba_vision.ops.triton.candidates import HOPPER, Launch, Shapes, rows_of  # noqa: E402
from matmamba_vision.ops.triton.chosen import trying  # noqa: E402
from measuring import RESULTS, write_json  # noqa: E402

# Hopper (H100, H200) with its own instructions, which Triton compiles for as sm_90a, and Ampere (A100).
GPUS = (90, 80)
CPU = torch.device("cpu")
# The oldest Triton that is compiled with, beside the pinned one.
OLDER = ".".join(map(str, oldest.OLDEST))
# The last one is float32 where a user allows torch to multiply it as TF32.
DTYPES = ("bfloat16", "float16", "float32", "tf32")
# Heads, states and types at the ends of what kernels for each part take.
ENDS = ((128, 256, "bfloat16"), (8, 16, "float16"), (64, 64, "bfloat16"))
# Heads of registered models; heads and states of other blocks.
OF_MODELS = (16, 32)
OTHER_BLOCKS = ((16, 64), (32, 64), (64, 64), (64, 128))


# Kernel, class and launch: a row within its section.
Name = tuple[str, str, str]
Recorded = list[dict[str, Any]]


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

    @property
    def name(self) -> Name:
        """As `_name` of what is written for it."""
        return self.kernel, str(self.shapes), self.launch.name

    @cached_property
    def code(self) -> str:
        """What is compiled for it, see `code_of`."""
        return code_of(self.jobs)


class Section(NamedTuple):
    """What is compiled and written at once.

    Attributes:
        triton: version, without its last number.
        gpu: compute capability.
        dtype: of the inputs, one of `DTYPES`.
    """

    triton: str
    gpu: int
    dtype: str

    def __str__(self) -> str:
        return f"triton {self.triton}, sm_{self.gpu}, {self.dtype}"

    @property
    def refusal(self) -> str | None:
        """Why that version is refused when it is to compute there, or None."""
        whole = triton.__version__ if self.triton == short(triton.__version__) else self.triton
        return oldest.refusal_of(whole, on_hopper=self.gpu == HOPPER)


def wanted_sections(gpus: Sequence[int] = GPUS) -> list[Section]:
    """All that a whole record has: for this version, and for the oldest one."""
    known = [(short(version), gpu) for version in (triton.__version__, OLDER) for gpu in gpus]
    return [Section(version, gpu, dtype) for version, gpu in dict.fromkeys(known) for dtype in DTYPES]


def refused() -> list[dict[str, Any]]:
    """Versions and GPUs for which one is compiled and never computes, and why."""
    found = {section[:2]: section.refusal for section in wanted_sections()}
    return [{"triton": version, "gpu": gpu, "why": why} for (version, gpu), why in found.items() if why]


def short(version: str) -> str:
    """Such as "3.7"."""
    return ".".join(version.split(".")[:2])


def section_of(row: Mapping[str, Any]) -> Section:
    """To which section a row of the file belongs."""
    return Section(short(row["triton"]), row["gpu"], row["class"].rpartition(" ")[2])


def names_of(section: Section) -> set[Name]:
    """Those of each row that a section has to have."""
    return set(_names_in_order(section))


def _names_in_order(section: Section) -> list[Name]:
    return [
        (kernel, str(trial.shapes), launch.name)
        for trial in wanted_trials(section.dtype, section.gpu)
        for kernel in trial.kernels
        for launch in rows_of(kernel, trial.shapes)
    ]


def in_order(rows: Recorded) -> Recorded:
    """As the table has them, in whichever order they were compiled."""
    names = [(section, name) for section in wanted_sections() for name in _names_in_order(section)]
    places = {name: place for place, name in enumerate(names)}
    return sorted(rows, key=lambda row: places.get((section_of(row), _name(row)), len(places)))


def main(arguments: Sequence[str] | None = None) -> int:
    """Compile, print, and write; returns 1 if anything does not keep within its row."""
    options = _parse(arguments)
    words = sys.argv[1:] if arguments is None else arguments
    if options.quick:
        sections = [Section(short(triton.__version__), gpu, DTYPES[0]) for gpu in options.gpus]
        return _end([row for known in sections for row in compiled(options, known)], options.output, {})
    head = {"command": " ".join(("benchmarks/compiled_kernels.py", *map(str, words))), **environment()}
    head |= {"sources": sources(), "refused": refused()}
    rows, before = ([], []) if options.again else kept_rows(options.output)
    head |= {"before": before}
    for section in _sections(options):
        asked = {name for name in names_of(section) if not options.kernels or name[0] in options.kernels}
        known = [row for row in rows if section_of(row) == section]
        if {_name(row) for row in known} >= asked:
            continue
        start = time.perf_counter()
        own = section.triton == short(triton.__version__)
        of_section = [row for row in before if section_of(row) == section]
        found = (compiled if own else _by_another)(options, section, known, of_section)
        rows += found
        reached = {_name(row) for row in found}
        before = [row for row in before if section_of(row) != section or _name(row) not in reached]
        # What was not reached is not lost.
        head |= {"before": before}
        _write(options.output, head, rows)
        print(f"{section}: {len(found)} launches, {time.perf_counter() - start:.0f} s", flush=True)
        if not {_name(row) for row in known} | reached >= asked:
            break
    return _end(rows, options.output, head)


def _end(rows: Recorded, output: Path | None, head: Mapping[str, Any]) -> int:
    print_rows(rows)
    if output:
        _write(output, head, rows)
    faults = [(row, fault) for row in rows for fault in row["faults"]]
    for row, fault in faults:
        print(f"{_named(row)}: {fault}")
    used = [row for row, _ in faults if section_of(row).refusal is None]
    print(f"{len(rows)} launches, {len(faults)} faults, {len(used)} of versions that may compute")
    return 1 if used else 0


def _write(output: Path, head: Mapping[str, Any], rows: Recorded) -> None:
    head = {name: value for name, value in head.items() if name != "before" or value}
    write_json(output, {**head, "rows": in_order(rows)})


def _sections(options: argparse.Namespace) -> list[Section]:
    own = short(triton.__version__)
    known = [section for section in wanted_sections(options.gpus) if section.triton == own or options.also]
    return [section for section in known if section.dtype in options.dtypes]


def kept_rows(file: Path) -> tuple[Recorded, Recorded]:
    """Of a file the rows that the table still has: of kernels whose files are as they were, and of others."""
    found = json.loads(file.read_text()) if file.is_file() and file.stat().st_size else {"rows": []}
    sources_then, sources_now = found.get("sources", {}), sources()
    every = [*found["rows"], *found.get("before", ())]
    names = {section: names_of(section) for section in {section_of(row) for row in every}}
    wanted = [row for row in every if _name(row) in names[section_of(row)]]
    same = {name for name, source in sources_now.items() if sources_then.get(name) == source}
    in_rows = {id(row) for row in found["rows"]}
    true = [row for row in wanted if row["kernel"] in same and id(row) in in_rows]
    ids = {id(row) for row in true}
    return true, [row for row in wanted if id(row) not in ids]


def _name(row: Mapping[str, Any]) -> Name:
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


@contextmanager
def multiplied_as(dtype: str) -> Iterator[str]:
    """Torch's own name of one of `DTYPES`, where torch may multiply float32 as TF32 only if that is asked."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("high" if dtype == "tf32" else "highest")
    try:
        yield "float32" if dtype == "tf32" else dtype
    finally:
        torch.set_float32_matmul_precision(before)


def wanted_trials(dtype: str, gpu: int) -> list[trials.KernelTrial]:
    """What models launch in this type, other blocks, and the ends of what kernels for each part take."""
    with multiplied_as(dtype) as name:
        found = known_trials.all_trials([name], OF_MODELS, gpu)
        for head_dim, state_dim in OTHER_BLOCKS:
            for length, batch in known_trials.BATCHES.items():
                found += block_trials(getattr(torch, name), head_dim, state_dim, length, batch, gpu)
        for head_dim, state_dim, of_ends in ENDS:
            if of_ends == dtype:
                found += trials.scans(getattr(torch, name), head_dim, state_dim, 1100, 1)
    # Those of one class once; what multiplies nothing is of float32 alone.
    return list({(t.name, t.shapes): t for t in found if t.shapes.dtype == dtype}.values())


def some_trials(gpu: int) -> list[trials.KernelTrial]:
    """All kernels, in the type and with the heads that matter most."""
    found = known_trials.all_trials(("bfloat16",), (16,), gpu)
    # Longer sequences have other kernels forward alone.
    longer = [trial for trial in found if trial.name in ("scan", "block") and trial.shapes.tokens == "longer"]
    return [trial for trial in found if trial.shapes.tokens in ("", "up to 512")] + longer


def compiled(
    options: argparse.Namespace,
    section: Section,
    known: Sequence[dict[str, Any]] = (),
    before: Sequence[dict[str, Any]] = (),
) -> Recorded:
    """For each row that is not known what the compiler made of it, and what is wrong with that.

    Args:
        options: of the command.
        section: what is compiled.
        known: its rows that there are.
        before: what stands for rows of which the same is compiled.
    """
    gpu, names = section.gpu, {_name(row) for row in known}
    wanted = some_trials(gpu) if options.quick else wanted_trials(section.dtype, gpu)
    with multiplied_as(section.dtype):
        rows = list(rows_to_compile(wanted, gpu, options.quick, options.kernels, names))
    same = {(_name(row), row.get("code")): row for row in before}
    carried = [same[row.name, row.code] | _place(row, gpu) for row in rows if (row.name, row.code) in same]
    rows = [row for row in rows if (row.name, row.code) not in same]
    with ProcessPoolExecutor(options.workers, mp_context=get_context("spawn")) as pool:
        jobs = {job.key: job for row in rows for job in row.jobs}
        running = {key: pool.submit(_compile, job, gpu) for key, job in jobs.items()}
        wait(running.values(), options.seconds)
        codes = {key: code.result() for key, code in running.items() if code.done()}
        pool.shutdown(wait=False, cancel_futures=True)
    whole = [row for row in rows if all(job.key in codes for job in row.jobs)]
    return carried + [described(row, [codes[job.key] for job in row.jobs], gpu) for row in whole]


def rows_to_compile(
    wanted: Iterable[trials.KernelTrial],
    gpu: int,
    firsts_alone: bool = False,
    kernels: Sequence[str] | None = None,
    known: Collection[Name] = (),
) -> Iterator[Row]:
    """The rows of the table for the kernels of these trials, or some of them, but those that are known."""
    for trial in wanted:
        rows = [
            (kernel, number == 0, launch)
            for kernel in trial.kernels
            if not kernels or kernel in kernels
            for number, launch in enumerate(rows_of(kernel, trial.shapes)[: 1 if firsts_alone else None])
            if (kernel, str(trial.shapes), launch.name) not in known
        ]
        if not rows:
            continue
        work = trial.prepare(CPU, 1, False).work
        usual = {job.key for job in recorded(work, gpu)}
        for kernel, first, launch in rows:
            with trying(kernel, launch):
                # A tile of one kernel is that of others: they are compiled for it, too.
                launched = recorded(work, gpu)
            jobs = tuple(job for job in launched if job.kernel == kernel or job.key not in usual)
            assert jobs, f"{trial} does not launch {kernel}"
            yield Row(kernel=kernel, shapes=trial.shapes, launch=launch, first=first, jobs=jobs)


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
        "code": row.code,
        **_place(row, gpu),
        **{name: max((getattr(code, name) for code in made), default=None) for name in FIGURES},
        "faults": faults + [fault for code in made for fault in faults_of(code, row.launch)],
    }


def _place(row: Row, gpu: int) -> dict[str, Any]:
    """What the table says of it."""
    allowed = {"registers": row.launch.most_registers, "shared": row.launch.most_shared(gpu)}
    return {"first": row.first, "allowed": allowed}


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


def _by_another(options: argparse.Namespace, section: Section, known: Recorded, before: Recorded) -> Recorded:
    """As `compiled`, by the Triton that was installed into a folder, in a process of its own."""
    folder: Path = options.also
    if not (folder / "triton").is_dir():
        raise SystemExit(
            f"compiled_kernels.py: there is no Triton in {folder}: pip install --target makes it"
        )
    with tempfile.NamedTemporaryFile("w", suffix=".json") as file:
        json.dump({"sources": sources(), "rows": known, "before": before}, file)
        file.flush()
        words = ["--output", file.name, "--workers", str(options.workers), "--dtypes", section.dtype]
        words += ["--gpus", str(section.gpu), *(["--kernels", *options.kernels] if options.kernels else [])]
        words += ["--seconds", str(options.seconds)] if options.seconds else []
        command = [sys.executable, __file__, *words]
        places = [str(folder.resolve()), os.environ.get("PYTHONPATH", "")]
        known_places = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, places))}
        # What has faults ends with 1, and has written them.
        if subprocess.run(command, env=known_places, check=False, stdout=subprocess.DEVNULL).returncode > 1:
            raise SystemExit(f"compiled_kernels.py: {' '.join(command)} failed")
        names = {_name(row) for row in known}
        return [row for row in json.loads(Path(file.name).read_text())["rows"] if _name(row) not in names]


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
