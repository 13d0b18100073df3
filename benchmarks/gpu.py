"""Everything that needs a GPU, in one command and one file.

Correctness of the Triton kernels against the recurrence in float64; throughput of block and model in training
and inference, at all widths and sizes, against a vision transformer of equal parameters and against the
published block on mamba-ssm's kernels (if that is installed); memory; latency of one image by CUDA graphs; a
roofline of the scan. Needs Python, torch, triton, timm and accelerate; the repository need not be installed.
No group of figures is begun after --seconds SECONDS, and what is left out is named. Writes results/gpu.json,
after each figure.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "datasets"), str(ROOT / "benchmarks")]

import torch  # noqa: E402
from gpu_models import (  # noqa: E402
    against_published,
    against_vit,
    block_times,
    latencies,
    memory,
    short,
    width_times,
)
from gpu_scan import correctness, roofline  # noqa: E402
from gpu_setting import PUBLISHED, Setting, left_out, present  # noqa: E402
from measuring import Case, Plan, run  # noqa: E402


def main(arguments: Sequence[str] | None = None, setting: Setting = PUBLISHED) -> None:
    """Measure, print and write."""
    own = argparse.ArgumentParser(add_help=False)
    own.add_argument(
        "--seconds", type=float, default=setting.seconds, help="no group is begun after these: %(default)s"
    )
    setting = replace(setting, seconds=own.parse_known_args(arguments)[0].seconds)
    run(__file__, __doc__, partial(cases, setting=setting), arguments, parents=[own])


def cases(plan: Plan, setting: Setting) -> Iterator[Case]:
    """All cases, the most wanted first; after `setting.seconds` the rest is left out by name."""
    if setting.device == "cuda" and not torch.cuda.is_available():
        raise SystemExit("gpu.py: no GPU here: torch.cuda.is_available() is False")
    plan, start = plan.at_most(10), time.perf_counter()
    for name, group in groups(plan, setting):
        if time.perf_counter() - start > setting.seconds:
            yield left_out(name, f"after {setting.seconds:.0f} s there was no time left")
            continue
        try:
            yield from group()
        except torch.OutOfMemoryError as error:
            yield left_out(name, str(error).splitlines()[0])
        if setting.device == "cuda":
            torch.cuda.empty_cache()


def groups(plan: Plan, setting: Setting) -> Iterator[tuple[str, Callable[[], Iterator[Case]]]]:
    """Names and figures, the most wanted first; mamba-ssm, whose kernels take long to tune, last."""
    first, *others = setting.models
    yield "correctness", partial(correctness, plan, setting, "triton")
    yield "widths", partial(width_times, plan, setting, first)
    yield f"{first}, 224 px", partial(against_vit, plan, setting, first, *setting.sizes[0])
    yield "scan", partial(roofline, plan, setting)
    yield "memory", partial(memory, setting, first)
    yield "latency", partial(latencies, plan, setting, first)
    for size in setting.sizes[1:]:
        yield f"{first}, {size[0]} px", partial(against_vit, plan, setting, first, *size)
    for name in others:
        yield f"{name}, 224 px", partial(against_vit, plan, setting, name, *setting.sizes[0])
    for name in setting.models:
        yield f"published, {short(name)}", partial(against_published, plan, setting, name)
    yield "block", partial(block_times, plan, setting)
    if "mamba_ssm" in present():
        yield "correctness, mamba_ssm", partial(correctness, plan, setting, "mamba_ssm")


if __name__ == "__main__":
    main()
