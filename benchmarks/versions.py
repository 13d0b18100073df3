"""Two versions of the project side by side: what indexing, searching and training cost in each.

    git worktree add ../before f1a0054    # the last commit of 0.1.0
    python benchmarks/versions.py --before ../before

Each version is a process that loads its own source tree and runs commands (`matmamba index`, `search`,
`train`) when told to; the two are told in turn, so that whatever else the machine does meets both. What a
process needs to start is not counted. Both run the same commands, on the same photos (noise of
photo size) and the same gallery. Writes results/versions.json.

This alone goes through the command's own function, `matmamba_vision.cli.main.main`: 0.1 had no calls of
Python, so that its commands are all that both versions have, and a process for each would mostly start.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from matmamba_vision.measures.environment import environment
from measuring import QUICK, Case, Plan, Ratio, measure_case, write_json
from PIL import Image

HERE = Path(__file__).parents[1]
MODEL = "matmamba_nano_patch4_32"
# Runs commands from standard input, one a line, as JSON, and answers each with its milliseconds.
WORKER = """
import contextlib, io, json, sys, time
from matmamba_vision.cli.main import main
for line in sys.stdin:
    arguments, out = json.loads(line), io.StringIO()
    start = time.perf_counter()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(out):
        status = main(arguments)
    took = 1e3 * (time.perf_counter() - start)
    print(json.dumps({"ms": took, "status": status, "said": out.getvalue()[-2000:]}), flush=True)
"""


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--before", type=Path, required=True, help="source tree of the other version")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--quick", action="store_true", help="few rounds, nothing is written")
    parser.add_argument("--output", type=Path, default=HERE / "benchmarks" / "results" / "versions.json")
    options = parser.parse_args(arguments)
    plan = QUICK if options.quick else Plan(1, 10)
    result = {"cases": cases(options.before, options.threads, plan), **environment()}
    print(json.dumps(result, indent=1))
    if not options.quick:
        write_json(options.output, result)


def cases(before: Path, threads: int, plan: Plan) -> list[Case]:
    """Indexing, searching and training, each by both versions."""
    with ExitStack() as stack:
        place = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        workers = {
            "before": stack.enter_context(worker(before, threads)),
            "now": stack.enter_context(worker(HERE, threads)),
        }
        make_photos(place / "photos", 256)
        make_photos(place / "queries", 64)
        common = ["--threads", str(threads)]
        index = ["index", "--checkpoint", MODEL, "--images", str(place / "photos"), *common]
        workers["before"]([*index, "--gallery", str(place / "searched")])
        search = ["search", "--gallery", str(place / "searched"), str(place / "queries"), "--json", *common]
        train = ["train", "--data.name", "digits", "--optim.epochs", "1", "--trackers", *common]

        def fresh(ask: Callable[[list[str]], float], command: list[str], flag: str) -> Callable[[], float]:
            folder = place / "made"

            def run() -> float:
                shutil.rmtree(folder, ignore_errors=True)
                return ask([*command, flag, str(folder)])

            return run

        jobs: dict[str, Callable[[Callable[[list[str]], float]], Callable[[], float]]] = {
            "index 256 photos": lambda ask: fresh(ask, index, "--gallery"),
            "search 64 photos, shortlist": lambda ask: lambda: ask([*search, "--strategy", "shortlist"]),
            "search 64 photos, single-shot": lambda ask: lambda: ask([*search, "--strategy", "single-shot"]),
            "train an epoch of digits": lambda ask: fresh(ask, train, "--output"),
        }
        return [
            measure_case(
                name,
                {side: job(ask) for side, ask in workers.items()},
                [Ratio("now / before", "now", "before")],
                plan,
                {"threads": threads, "model": MODEL},
            )
            for name, job in jobs.items()
        ]


@contextmanager
def worker(tree: Path, threads: int, code: str = WORKER) -> Iterator[Callable[[list[str]], float]]:
    """A version in a process of its own; what is given runs something there, and tells its milliseconds.

    Args:
        tree: its source.
        threads: that compute in it.
        code: answers each line of arguments by `{"ms", "status", "said"}`; by default it runs commands.
    """
    tree = tree.resolve()
    path = os.pathsep.join(map(str, (tree, tree / "datasets", tree / "retrieval")))
    environ = {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": str(threads)}
    command = [sys.executable, "-c", code]
    with subprocess.Popen(
        command, cwd=tree, env=environ, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None

        def ask(arguments: list[str]) -> float:
            assert process.stdin is not None
            assert process.stdout is not None
            process.stdin.write(json.dumps(arguments) + "\n")
            process.stdin.flush()
            answer: dict[str, Any] = json.loads(process.stdout.readline())
            if answer["status"]:
                raise RuntimeError(f"{tree}: {' '.join(arguments)}:\n{answer['said']}")
            return float(answer["ms"])

        yield ask
        process.stdin.close()


def make_photos(folder: Path, count: int) -> None:
    """JPEG files of noise, 256 px, the same each time."""
    folder.mkdir()
    rng = np.random.default_rng(0)
    for number in range(count):
        coarse = Image.fromarray(rng.integers(0, 256, (16, 16, 3), dtype=np.uint8))
        coarse.resize((256, 256), Image.Resampling.BICUBIC).save(folder / f"{number:04}.jpg")


if __name__ == "__main__":
    main()
