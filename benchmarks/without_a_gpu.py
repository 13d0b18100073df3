"""What the report says of GPUs that were not there: predictions, and what compilers make of the kernels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from markdown_tables import digits, markdown

PREDICTED = """## Predicted for a GPU

Not measured: arithmetic on the shapes of `small` by `benchmarks/gpu_model.py`, for a block in five
launches, or in training nine kernels (at 1,024 px eleven) and six products, and a transformer of equal
parameters. Each kernel takes the longer of its bytes and its operations. Assumed are {copy:.1f} TB/s of a
copy (measured on an H200), of which kernels reach {share:.0%}; {products:.0f} TFLOPS of products,
{attention:.0f} of flash attention, {low:.0f} to {high:.0f} of a scan; and {launch:.1f} µs from one kernel
of a graph to the next (measured). One image is counted by its launches alone, its time at 1/8 over full
also with the weights that blocks read; the published block by what mamba-ssm's kernels read and write with
chunks of 256 tokens, without launches; the scan over its bound as the share of a copy's or of products'
rate that it reaches. In training, what a transformer and the published block take is told from their
forward, ours kernel by kernel.
"""
COMPILED = """## Kernels as they are compiled

By `benchmarks/compiled_kernels.py` (`make kernels`), without a GPU: {launches} launches, of which {faults}
have faults and {spills} spill: {sections}.
{refused}Below, what the first row of each kernel takes for `small` in bfloat16; not run.
"""


def sections(results: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Predictions and compiled kernels, as far as their files are there."""
    model, compiled = results.get("gpu_model"), results.get("compiled_kernels")
    return [*(predicted(model) if model else ()), *(kernels(compiled) if compiled else ())]


def predicted(model: Mapping[str, Any]) -> list[str]:
    """The assumptions, what comes out, and what each kernel does."""
    rates, tera = model["assumed"], 1e12
    low, high = (rate / tera for rate in rates["scan"])
    text = PREDICTED.format(
        copy=rates["copy"] / tera, share=rates["share"], products=rates["products"] / tera,
        attention=rates["attention"] / tera, low=low, high=high, launch=1e6 * rates["launch"],
    )  # fmt: skip
    found = [(name, between(row)) for name, row in model["predicted"].items()]
    works = [
        (case, work["name"], f"{work['bytes']:,.0f}", f"{work['operations'] / 1e3:,.0f}")
        for case, listed in model["kernels"].items()
        for work in listed
    ]
    names = ("", "kernel", "bytes for a token", "thousand operations for a token")
    return [
        text.replace("%", " %"),
        markdown(("", "predicted"), found) + "\n",
        markdown(names, works) + "\n",
    ]


def between(row: Mapping[str, Any]) -> str:
    """Such as "0.971 to 0.993"."""
    low, high = digits(row["low"]), digits(row["high"])
    return " ".join(filter(None, (low if low == high else f"{low} to {high}", row["unit"])))


def kernels(compiled: Mapping[str, Any]) -> list[str]:
    """What the first row of each kernel takes on the newest GPU, by the pinned compiler."""
    every, own = compiled["rows"], compiled["versions"]["triton"]
    never = {(known["triton"], known["gpu"]): known["why"] for known in compiled["refused"]}
    rows = [row for row in every if _version_and_gpu(row) not in never]
    gpus = sorted({row["gpu"] for row in rows}, reverse=True)
    text = COMPILED.format(
        launches=len(rows), faults=sum(bool(row["faults"]) for row in rows),
        spills=sum(row["spilled"] > 0 for row in rows), sections=_sections(rows),
        refused="".join(_of_refused(every, known, why) for known, why in never.items()),
    )  # fmt: skip
    shown = [
        (
            f"`{row['kernel']}`",
            row["class"].removesuffix(", bfloat16").removeprefix("heads of 16, states of 128, "),
            row["launch"],
            row["registers"],
            row["spilled"],
            f"{row['shared']:,}",
            row["wgmma"] or row["mma"],
            row["exponentials"],
        )
        for row in rows
        if row["first"] and row["triton"] == own and row["gpu"] == gpus[0] and _of_small(row["class"])
    ]
    names = (
        "kernel",
        "for",
        "launched with",
        "registers",
        "spilled bytes",
        "shared bytes",
        "products",
        "ex2",
    )
    return [text, markdown(names, shown) + "\n"]


def _version_and_gpu(row: Mapping[str, Any]) -> tuple[str, int]:
    """Such as ("3.6", 90)."""
    return ".".join(row["triton"].split(".")[:2]), row["gpu"]


def _of_refused(rows: Sequence[Mapping[str, Any]], known: tuple[str, int], why: str) -> str:
    """What was compiled by a version that never computes there."""
    own = [row for row in rows if _version_and_gpu(row) == known]
    spills = sorted({f"`{row['kernel']}`" for row in own if row["spilled"]})
    count = sum(bool(row["faults"]) for row in own)
    said = f"{count} have faults" + (f" (of {', '.join(spills)})" if spills else "")
    return (
        f"For the record {len(own)} more by Triton {known[0]} for sm_{known[1]}, where it is refused\n"
        f"when it is to compute ({why}): {said}.\n"
    )


def _sections(rows: Sequence[Mapping[str, Any]]) -> str:
    """By which version, for which GPU, in which types."""
    found: dict[tuple[str, int], dict[str, None]] = {}
    for row in rows:
        found.setdefault((row["triton"], row["gpu"]), {})[row["class"].rpartition(" ")[2]] = None
    said = [f"Triton {triton} for sm_{gpu} in {', '.join(types)}" for (triton, gpu), types in found.items()]
    return "; ".join(said)


def _of_small(shapes: str) -> bool:
    """What is like it for a middling number of tokens is left out."""
    if "1088" in shapes:
        return False
    small = shapes.startswith(("heads of 16, states of 128", "1024 channels"))
    return small and shapes.endswith("bfloat16")
