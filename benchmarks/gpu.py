"""Everything that needs a GPU, in one command of ten minutes and one file.

Steps, in this order, each within its share of the time:

  compile    every launch of the kernels' table
  right      each launch against the definition; what fails is dropped
  rates      a copy, and products at the shapes of a block
  vit        the transformer of equal parameters, eager and as graphs, with the name of its attention
  launches   microseconds of each candidate; the fastest is used from here on
  kernels    microseconds of each kernel of one captured block
  models     eager and as graphs, all widths, inference and training; the scan against its bound; memory
  published  the published block on mamba-ssm's kernels
  faiss      a gallery of a million vectors with GPUs and without
  tests      pytest -m gpu

Where plain products stay under 450 TFLOPS the GPU is throttled: the file says so, and what is timed behind
`rates` is left out, unless it is asked for (--throttled).

The file is written after each figure. A step that fails is recorded with its error and the next begins; one
that breaks the GPU makes the script start anew behind it. Needs Python, torch, triton, timm and accelerate;
the repository need not be installed, and wheels of mamba-ssm and others can be carried along (--wheels). With
--quick it runs on a CPU, tiny, by Triton's interpreter. Writes results/gpu.json.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT / name) for name in ("", "datasets", "retrieval", "benchmarks")]
if "--quick" in sys.argv:
    # Triton asks once, when it is imported.
    os.environ["TRITON_INTERPRET"] = "1"

import gpu_candidates  # noqa: E402
import torch  # noqa: E402
from gpu_faiss import on_gpu_and_cpu  # noqa: E402
from gpu_models import (  # noqa: E402
    against_published,
    against_vit,
    block_times,
    graph_widths,
    graphs_against_vit,
    latencies,
    memory,
    vit_alone,
    width_times,
)
from gpu_scan import correctness, rates, roofline  # noqa: E402
from gpu_setting import PUBLISHED, TINY, Setting, left_out, present  # noqa: E402
from gpu_steps import Record, Step, named, run_steps, start_anew  # noqa: E402
from matmamba_vision.measures.environment import environment  # noqa: E402
from matmamba_vision.ops.triton import oldest  # noqa: E402
from measuring import RESULTS, Case, Plan, measure_case, prepare  # noqa: E402


def main(arguments: Sequence[str] | None = None, setting: Setting | None = None) -> None:
    """Measure, print and write."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    options = parse(words)
    setting = setting or (TINY if options.quick else PUBLISHED)
    if setting.device == "cuda" and not torch.cuda.is_available():
        raise SystemExit("gpu.py: no GPU here: torch.cuda.is_available() is False")
    if options.older_triton:
        oldest.OLDEST = oldest.OLDEST_ON_HOPPER = (0,)
    if options.wheels:
        unpack(options.wheels)
    prepare(options.threads)
    head = {"command": " ".join(("benchmarks/gpu.py", *words)), **environment()}
    record = Record(head=head, output=options.output)
    if options.resume:
        record.resume(options.only)
    plan = Plan(0, 1) if options.quick else Plan(warm_up=1, repeats=10)
    wanted = list(named(steps(plan, setting, record), options.only))
    run_steps(wanted, record, options.minutes, partial(start_anew, words), anyway=options.throttled)
    record.write()
    print(f"{record.seconds:.0f} s" + (f", written to {options.output}" if options.output else ""))


def parse(words: Sequence[str]) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="benchmarks/gpu.py",
        description=__doc__,
        epilog="example: python benchmarks/gpu.py --minutes 10 --wheels wheels --output gpu.json",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--quick", action="store_true", help="tiny, on a CPU; writes only to a given --output"
    )
    parser.add_argument("--output", type=Path, metavar="FILE", help="default: results/gpu.json")
    parser.add_argument("--minutes", type=float, default=10, help="shared by the steps: %(default)s")
    parser.add_argument("--only", nargs="+", default=[], metavar="STEP", help="these steps alone")
    parser.add_argument(
        "--resume", action="store_true", help="leave out what the file has, but those of --only"
    )
    parser.add_argument("--wheels", type=Path, metavar="FOLDER", help="with wheels to import from")
    parser.add_argument("--threads", type=int, metavar="N", help="default: torch's own choice")
    parser.add_argument("--throttled", action="store_true", help="measure a GPU that is too slow, too")
    parser.add_argument(
        "--older-triton",
        action="store_true",
        help="use one that is refused for its faults: results are checked",
    )
    options = parser.parse_args(words)
    if options.output is None and not options.quick:
        options.output = RESULTS / "gpu.json"
    return options


def steps(plan: Plan, setting: Setting, record: Record) -> list[Step]:
    """What is measured, the most wanted first; seconds are of ten minutes."""
    checked = partial(gpu_candidates.dropped_in, record.cases)
    return [
        Step(name="compile", seconds=90, run=lambda: gpu_candidates.compile_all(setting), timed=False),
        Step(name="right", seconds=60, run=lambda: right(plan, setting), timed=False),
        # Says whether the GPU is throttled, and so is asked whatever an earlier run found.
        Step(name="rates", seconds=20, run=lambda: rates(plan, setting), timed=False),
        Step(name="vit", seconds=45, run=lambda: transformers(plan, setting)),
        Step(name="launches", seconds=120, run=lambda: gpu_candidates.time_all(setting, checked())),
        Step(name="kernels", seconds=20, run=lambda: gpu_candidates.kernels_of_block(setting, record.cases)),
        Step(name="models", seconds=150, run=lambda: models(plan, setting)),
        Step(name="published", seconds=60, run=lambda: published(plan, setting)),
        Step(name="faiss", seconds=60, run=lambda: on_gpu_and_cpu(plan.at_most(3), setting)),
        Step(name="tests", seconds=60, run=lambda: tests(setting), timed=False),
    ]


def right(plan: Plan, setting: Setting) -> Iterator[Case]:
    """The scan's results and gradients as they are, then each launch of the table."""
    yield from correctness(plan, setting, "triton")
    yield from gpu_candidates.check_all(setting, {})


def transformers(plan: Plan, setting: Setting) -> Iterator[Case]:
    """The transformer of equal parameters at the sizes that have a target."""
    for pixels, batch in setting.sizes[:2]:
        yield from vit_alone(plan, setting, setting.models[0], pixels, batch)


def models(plan: Plan, setting: Setting) -> Iterator[Case]:
    """What has a target first."""
    first, *others = setting.models
    for size in setting.sizes[:2]:
        yield from graphs_against_vit(plan, setting, first, *size)
    yield from graph_widths(plan, setting, first)
    yield from latencies(plan, setting, first)
    yield from roofline(plan, setting)
    yield from width_times(plan, setting, first)
    yield from memory(setting, first)
    for size in setting.sizes:
        yield from against_vit(plan, setting, first, *size)
    for name in others:
        yield from against_vit(plan, setting, name, *setting.sizes[0])
    yield from block_times(plan, setting)


def published(plan: Plan, setting: Setting) -> Iterator[Case]:
    """The published block, and whether mamba-ssm's kernels are right."""
    for name in setting.models:
        yield from against_published(plan, setting, name)
    if "mamba_ssm" in present():
        yield from correctness(plan, setting, "mamba_ssm")


def tests(setting: Setting) -> Iterable[Case]:
    """The tests that need a GPU; their last lines are kept."""
    if setting.device != "cuda":
        return [left_out("tests", "there is no GPU")]
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-m", "gpu", "--tb", "line", "tests"]
    start = time.perf_counter()
    done = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=setting.seconds_of_tests
    )
    seconds = time.perf_counter() - start
    settings = {"passed": done.returncode == 0, "said": done.stdout.splitlines()[-15:]}
    return [measure_case("tests", {"pytest -m gpu": lambda: seconds}, [], Plan(0, 1), settings, unit="s")]


def unpack(wheels: Path) -> None:
    """Make the packages of wheels importable: those of a folder, in a folder that goes with this process.

    Raises:
        SystemExit: there are none.
    """
    found = sorted(wheels.glob("*.whl"))
    if not found:
        raise SystemExit(f"gpu.py: no wheel in {wheels}")
    place = tempfile.mkdtemp(prefix="wheels-")
    for wheel in found:
        with zipfile.ZipFile(wheel) as archive:
            archive.extractall(place)
    # Behind what is installed, for this process and those that it starts.
    sys.path.append(place)
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, (os.environ.get("PYTHONPATH"), place)))


if __name__ == "__main__":
    main()
