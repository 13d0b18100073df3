"""Every launch that the kernels' table offers, compiled for GPUs that need not be there.

For each candidate: registers, spilled bytes, shared memory, matrix products on tensor cores (Hopper's own,
wgmma, or those of all others, mma) and exponentials in the code. Fails where one spills, misses the tensor
cores, or takes more registers or shared memory than its row of the table allows. With --also, a folder into
which another Triton was installed, the same with that one, for the GPUs on which it is used.

The file, results/compiled_kernels.json, is written after each section: a version of Triton, a GPU and a type.
The same command goes on where the file stops: rows of kernels that were changed since are compiled again, and
what the table has besides. What was compiled of a section is in Triton's cache.
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
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
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
from matmamba_vision.ops.triton.block.block_trials import block_trials  # noqa: E402
from matmamba_vision.ops.triton.candidates import HOPPER, Launch, Shapes, rows_of  # noqa: E402
from matmamba_vision.ops.triton.chosen import trying  # noqa: E402
from measuring import RESULTS, write_json  # noqa: E402

# Hopper (H100, H200) with its own instructions, which Triton compiles for as sm_90a, and Ampere (A100).
GPUS = (90, 80)
CPU = torch.device("cpu")
# The oldest Triton that is compiled with, beside the pinned one.
OLDER = ".".join(map(str, oldest.OLDEST))
DTYPES = ("bfloat16", "float16", "float32")
# Heads, states and types at the ends of what kernels for each part take.
ENDS = ((128, 256, "bfloat16"), (8, 16, "float16"), (64, 64, "bfloat16"))
# Heads of registered models; heads and states of other blocks.
OF_MODELS = (16, 32)
OTHER_BLOCKS = ((16, 64), (32, 64), (64, 64), (64, 128))


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


def sources() -> dict[str, str]:
    """By kernel, the same as long as it and what launches it do, comments apart."""
    known = {file: dumped for file, text in _files().items() if (dumped := _without_documentation(text))}
    found = dict[str, str]()
    for kernel in candidates.TABLE:
        own = hashlib.sha256()
        for file in sorted(
            _with_imports({file for file, dumped in known.items() if f"'{kernel}'" in dumped})
        ):
            own.update(f"{file} {known[file]}".encode())
        found[kernel] = own.hexdigest()[:16]
    return found


FOLDER = Path(candidates.__file__).parent
# What is in a file of kernels, or of what launches them; and in one that says how.
CODE, CONFIGS = ("@triton.jit", "@on_device_of"), ("class TrainingConfig", "class BlockConfig")
# Of the latter trials read defaults and this; blocks in inference are launched by the table.
CHOSEN = "default_training_config"


def _files() -> dict[Path, str]:
    texts = {file.relative_to(FOLDER): file.read_text() for file in FOLDER.rglob("*.py")}
    return {file: text for file, text in texts.items() if any(sign in text for sign in CODE + CONFIGS)}


def _with_imports(files: set[Path]) -> set[Path]:
    """These files of kernels, and those that they import."""
    known, found, left = _files(), set[Path](), sorted(files)
    while left:
        file = left.pop()
        if file in known and file not in found:
            found.add(file)
            left += _imported(file, known[file])
    return found


def _imported(file: Path, text: str) -> Iterator[Path]:
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.ImportFrom) and 0 < node.level <= len(file.parents):
            place = file.parents[node.level - 1].joinpath(*(node.module or "").split("."))
            yield from [Path(f"{place}.py"), *(place / f"{alias.name}.py" for alias in node.names)]


def _without_documentation(text: str) -> str:
    tree = ast.parse(text)
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) and ast.get_docstring(node):
            node.body = node.body[1:]
    if not any(sign in text for sign in CODE):
        tree.body = [node for node in tree.body if _is_of_trials(node)]
    return ast.dump(tree)


def _is_of_trials(node: ast.stmt) -> bool:
    return isinstance(node, ast.ClassDef) or (isinstance(node, ast.FunctionDef) and node.name == CHOSEN)


def main(arguments: Sequence[str] | None = None) -> int:
    """Compile, print, and write; returns 1 if anything does not keep within its row."""
    options = _parse(arguments)
    words = sys.argv[1:] if arguments is None else arguments
    if options.quick:
        sections = [Section(short(triton.__version__), gpu, DTYPES[0]) for gpu in options.gpus]
        return _end([row for known in sections for row in compiled(options, known)], options.output, {})
    head = {"command": " ".join(("benchmarks/compiled_kernels.py", *map(str, words))), **environment()}
    head["sources"] = sources()
    rows = [] if options.again else still_true(options.output)
    for section in _sections(options):
        known = {_name(row) for row in rows if section_of(row) == section}
        if known >= _names_asked(section, options):
            continue
        start = time.perf_counter()
        own = section.triton == short(triton.__version__)
        found = compiled(options, section, known) if own else _by_another(options, section, rows)
        rows += found
        write_json(options.output, {**head, "rows": rows})
        print(f"{section}: {len(found)} launches, {time.perf_counter() - start:.0f} s", flush=True)
        if not {_name(row) for row in found} | known >= _names_asked(section, options):
            break
    return _end(rows, options.output, head)


def _names_asked(section: Section, options: argparse.Namespace) -> set[tuple[str, str, str]]:
    return {name for name in names_of(section) if not options.kernels or name[0] in options.kernels}


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
    """The rows of a file that the table still has, of kernels that were not changed since."""
    found = json.loads(file.read_text()) if file.is_file() and file.stat().st_size else {"rows": []}
    before, now = found.get("sources", {}), sources()
    names = {section: names_of(section) for section in {section_of(row) for row in found["rows"]}}
    return [
        row
        for row in found["rows"]
        if before.get(row["kernel"]) == now.get(row["kernel"]) and _name(row) in names[section_of(row)]
    ]


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
    """What models launch in these types, other blocks, and the ends of what kernels for each part take."""
    found = known_trials.all_trials(dtypes, OF_MODELS, gpu)
    for dtype in dtypes:
        for head_dim, state_dim in OTHER_BLOCKS:
            for length, batch in known_trials.BATCHES.items():
                found += block_trials(getattr(torch, dtype), head_dim, state_dim, length, batch, gpu)
    for head_dim, state_dim, dtype in ENDS:
        if dtype in dtypes:
            found += trials.scans(getattr(torch, dtype), head_dim, state_dim, 1100, 1)
    # Those of one class once.
    return list({(trial.name, trial.shapes): trial for trial in found}.values())


def some_trials(gpu: int) -> list[trials.KernelTrial]:
    """All kernels, in the type and with the heads that matter most."""
    found = known_trials.all_trials(("bfloat16",), (16,), gpu)
    # Longer sequences have other kernels forward alone.
    longer = [trial for trial in found if trial.name in ("scan", "block") and trial.shapes.tokens == "longer"]
    return [trial for trial in found if trial.shapes.tokens in ("", "up to 512")] + longer


def compiled(
    options: argparse.Namespace, section: Section, known: Collection[tuple[str, str, str]] = ()
) -> list[dict[str, Any]]:
    """For each row that is not known what the compiler made of it, and what is wrong with that."""
    gpu = section.gpu
    wanted = some_trials(gpu) if options.quick else wanted_trials([section.dtype], gpu)
    rows = list(
        rows_to_compile(wanted, gpu, firsts_alone=options.quick, kernels=options.kernels, known=known)
    )
    with ProcessPoolExecutor(options.workers, mp_context=get_context("spawn")) as pool:
        jobs = {job.key: job for row in rows for job in row.jobs}
        running = {key: pool.submit(_compile, job, gpu) for key, job in jobs.items()}
        wait(running.values(), options.seconds)
        codes = {key: code.result() for key, code in running.items() if code.done()}
        pool.shutdown(wait=False, cancel_futures=True)
    whole = [row for row in rows if all(job.key in codes for job in row.jobs)]
    return [described(row, [codes[job.key] for job in row.jobs], gpu) for row in whole]


def rows_to_compile(
    wanted: Iterable[trials.KernelTrial],
    gpu: int,
    firsts_alone: bool = False,
    kernels: Sequence[str] | None = None,
    known: Collection[tuple[str, str, str]] = (),
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
    options: argparse.Namespace, section: Section, rows: Sequence[dict[str, Any]]
) -> list[dict[str, Any]]:
    """The same by the Triton that was installed into a folder, in a process that goes on behind `rows`."""
    folder: Path = options.also
    if not (folder / "triton").is_dir():
        raise SystemExit(
            f"compiled_kernels.py: there is no Triton in {folder}: pip install --target makes it"
        )
    known = [row for row in rows if section_of(row) == section]
    with tempfile.NamedTemporaryFile("w", suffix=".json") as file:
        json.dump({"sources": sources(), "rows": known}, file)
        file.flush()
        words = ["--output", file.name, "--workers", str(options.workers), "--dtypes", section.dtype]
        words += ["--gpus", str(section.gpu), *(["--kernels", *options.kernels] if options.kernels else [])]
        command = [sys.executable, __file__, *words]
        places = [str(folder.resolve()), os.environ.get("PYTHONPATH", "")]
        known_places = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, places))}
        # What has faults ends with 1, and has written them.
        if subprocess.run(command, env=known_places, check=False, stdout=subprocess.DEVNULL).returncode > 1:
            raise SystemExit(f"compiled_kernels.py: {' '.join(command)} failed")
        return list(json.loads(Path(file.name).read_text())["rows"])[len(known) :]


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
