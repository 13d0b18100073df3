"""One image in two versions of the project, side by side: what `mv.freeze(model, width).embed(image)` takes.

    git worktree add ../before REV && make -C ../before native
    python benchmarks/image_versions.py --before ../before

Each version is a process that loads its own source tree, kernels in C included, and encodes when told to; the
two are told in turn, each behind a rest of 30 ms, as a query comes. Writes results/image_versions.json.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path

from measuring import Case, Plan, Ratio, measure_case, run
from versions import HERE, worker

MODELS, WIDTHS, THREADS = ("mini_patch8_64", "small_patch16_224"), ("full", "1/2", "1/4", "1/8"), (1, 2)
# Encodes an image of noise by the model and width of each line, and answers with its milliseconds.
WORKER = """
import functools, json, os, sys, time
import matmamba_vision as mv, timm, torch
torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))

@functools.cache
def made(name):
    torch.manual_seed(0)
    model = timm.create_model(f"matmamba_{name}").eval()
    return model, torch.randn(1, *model.pretrained_cfg["input_size"])

@functools.cache
def frozen(name, width):
    encoder = mv.freeze(made(name)[0], width)
    encoder.embed(made(name)[1])
    return encoder

for line in sys.stdin:
    name, width = json.loads(line)
    encoder, image = frozen(name, width), made(name)[1]
    time.sleep(0.03)
    start = time.perf_counter()
    encoder.embed(image)
    took = 1e3 * (time.perf_counter() - start)
    native = encoder.by.startswith("native")
    print(json.dumps({"ms": took, "status": not native, "said": f"encoded by {encoder.by}"}), flush=True)
"""


def main(arguments: Sequence[str] | None = None, models: Sequence[str] = MODELS) -> None:
    """Measure, print and write."""
    flags = argparse.ArgumentParser(add_help=False)
    flags.add_argument("--before", type=Path, required=True, help="source tree of the other version")
    given, _ = flags.parse_known_args(arguments)
    run(__file__, __doc__, partial(cases, given.before, models), arguments, [flags])


def cases(before: Path, models: Sequence[str], plan: Plan) -> Iterator[Case]:
    """Each model and width, on one thread and on two."""
    for threads in THREADS:
        with ExitStack() as stack:
            trees = {"before": before, "now": HERE}
            ask = {side: stack.enter_context(worker(tree, threads, WORKER)) for side, tree in trees.items()}
            for model in models:
                for width in WIDTHS:
                    yield measure_case(
                        f"{model}, {width}, {threads} thread{'s' * (threads > 1)}",
                        {side: partial(one, [model, width]) for side, one in ask.items()},
                        [Ratio("before / now", "before", "now")],
                        plan,
                        {"threads": threads},
                    )


if __name__ == "__main__":
    main()
