"""The pictures of the benchmark report."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

Cases = Iterable[Mapping[str, Any]]
MARKERS = {"frozen": "^", "nested": "o", "extracted": "s"}
# Files that say the same are to be equal, whenever they were drawn.
METADATA = {"Software": None}


def draw_widths(cases: Cases, file: Path) -> None:
    """Share of the time against share of the multiply-adds; on the line, time shrinks as work does."""
    figure = Figure(figsize=(6, 4.2), layout="constrained")
    axes = figure.subplots()
    axes.plot([0, 1], [0, 1], color="grey", linestyle="--", label="proportional")
    for case in cases:
        macs = case["settings"]["multiply_adds"]
        shares = {label: macs[label] / macs["full"] for label in case["ratios"]}
        found = [(share, case["ratios"][label]) for label, share in shares.items()]
        medians = [share * ratio["median"] for share, ratio in found]
        below = [share * (ratio["median"] - ratio["low"]) for share, ratio in found]
        above = [share * (ratio["high"] - ratio["median"]) for share, ratio in found]
        marker, name = MARKERS[case["name"]], case["name"]
        axes.errorbar([*shares.values()], medians, yerr=[below, above], fmt=marker, capsize=3, label=name)
    axes.plot(1, 1, "k.")
    ticks = {**shares, "full": 1.0}
    axes.set_xticks([*ticks.values()], [f"{share:.2f}\n{label}" for label, share in ticks.items()])
    axes.set(xlim=(0, 1.05), ylim=(0, 1.05), ylabel="share of the time at full width")
    axes.set_xlabel("share of the multiply-adds at full width")
    axes.grid(alpha=0.3)
    axes.legend(loc="upper left")
    figure.savefig(file, dpi=150, metadata=METADATA)


def draw_parts(cases: Cases, file: Path) -> None:
    """Time of a block, and of its parts run alone."""
    sides = next(case["sides"] for case in cases if case["name"] == "parts")
    figure = Figure(figsize=(7, 2.2), layout="constrained")
    axes = figure.subplots()
    left = 0.0
    for name, found in sides.items():
        if name == "block":
            axes.barh("block", found["median"], color="grey")
            continue
        label = f"{name}: {found['median']:.1f} ms"
        axes.barh("its parts, alone", found["median"], left=left, label=label)
        left += found["median"]
    axes.set_xlabel("ms")
    axes.invert_yaxis()
    figure.legend(loc="outside right center", fontsize=9)
    figure.savefig(file, dpi=150, metadata=METADATA)
