"""The ratios of the benchmark report, and what they should be: data, which report.py reads and judges."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

Results = Mapping[str, dict[str, Any]]
Spread = Mapping[str, float]


@dataclass(frozen=True)
class Row:
    """A measured ratio and its target.

    Attributes:
        what: the comparison, in words.
        file: stem of the JSON file. case: name of the case there, or of several, up to a comma. ratio: its
            name; "" for the worst one.
        side: instead of a ratio, the side of the case whose value is judged.
        at_most, at_least: the target, one of them, or neither for what is told as information.
        on_intel: the target on the other processor, where it is not the same.
        aim: what would be better still.
        predicted: its name in results/gpu_model.json, told where it was not run.
    """

    what: str
    file: str
    case: str
    ratio: str = ""
    at_most: float | None = None
    at_least: float | None = None
    on_intel: float | None = None
    aim: float | None = None
    side: str = ""
    predicted: str = ""

    def read(self, results: Results) -> Spread | None:
        """Median and quartiles, or None if it was not measured."""
        ratios: dict[tuple[str, str], Spread] = {}
        cases = results.get(self.file, {}).get("cases", ())
        if self.side:
            return next((case["sides"].get(self.side) for case in cases if case["name"] == self.case), None)
        for case in cases:
            if f"{case['name']},".startswith(f"{self.case},"):
                ratios |= {(case["name"], name): found for name, found in case["ratios"].items()}
        if self.ratio:
            return ratios.get((self.case, self.ratio))
        ranked = sorted(ratios.values(), key=lambda found: found["median"])
        return ranked[-1 if self.at_most else 0] if ranked else None

    def target(self) -> str:
        """Such as "at most 1.6, aim 1.35"."""
        if self.at_most is None and self.at_least is None:
            return "-"
        bound = f"at most {self.at_most}" if self.at_most else f"at least {self.at_least}"
        bound += f", aim {self.aim}" if self.aim else ""
        return bound + (f"; {self.on_intel} on the Intel" if self.on_intel else "")

    def verdict(self, found: Spread | None) -> str:
        """Reached, short by how much, or not run; by the median."""
        if found is None:
            return "not run"
        if self.at_most is None and self.at_least is None:
            return "information"
        missing = self._missing(found["median"])
        return "reached" if missing <= 0 else f"**short by {max(0.1, 100 * missing):.1f} %**"

    def _missing(self, value: float) -> float:
        """The share of the target that is missing; 0 or less where it is reached, or where there is none."""
        if self.at_most is not None:
            return value / self.at_most - 1
        return 0.0 if self.at_least is None else 1 - value / self.at_least

    def forecast(self, expected: Mapping[str, Any]) -> str:
        """Whether a target is missed by the better end of a prediction, or by the worse end alone."""
        ends = [self._missing(expected[end]) for end in ("low", "high")]
        if max(ends) <= 0:
            return ""
        return ": **a miss**" if min(ends) > 0 else ": perhaps a miss"

    def elsewhere(self) -> Row:
        """The row as it is judged on the other processor."""
        if self.on_intel is None:
            return self
        if self.at_most is None:
            return replace(self, at_least=self.on_intel)
        return replace(self, at_most=self.on_intel)

    def is_worse(self, found: Spread | None, there: Spread | None) -> bool:
        """Whether what the other processor reached is farther from its target, or all that there is."""
        if found is None or there is None:
            return there is not None
        return self.elsewhere()._missing(there["median"]) > self._missing(found["median"])

    def prediction(self, results: Results) -> Mapping[str, Any] | None:
        """`{"low", "high", "unit"}` of the model of a GPU, or None."""
        found: Mapping[str, Any] | None
        found = results.get("gpu_model", {}).get("predicted", {}).get(self.predicted)
        return found


SMALL, TINY = "matmamba_small_patch16_224", "matmamba_tiny_patch16_224"
MINI = "matmamba_mini_patch8_64"
CPU_ROWS = (
    Row(
        "block, 197 tokens: time over that of its matrix products",
        "block_time",
        "width full",
        at_most=1.6,
        aim=1.35,
    ),
    Row(
        "small, frozen: time over that of all its matrix products",
        "block_time",
        "frozen",
        "frozen / products",
        at_most=1.25,
        on_intel=1.35,
    ),
    *(
        Row(f"block at width {part}: the same", "block_time", f"width {part}")
        for part in ("1/2", "1/4", "1/8")
    ),
    Row("block: time over that of a ViT block", "block_time", "attention", "block / ViT block"),
    Row("block: time over that of attention alone", "block_time", "attention", "block / attention"),
    Row(
        "mixer: time of the transformers library over ours, their default chunk",
        "transformers_mixer",
        "mixer",
        "chunk 256 / ours",
        at_least=5,
    ),
    Row("mixer: the same, their best chunk", "transformers_mixer", "mixer", at_least=5),
    Row(
        "small, 224 px: images/s over a ViT of equal parameters",
        "against_vit",
        f"{SMALL}, 224 px",
        "images/s",
        at_least=1.0,
    ),
    Row("the same, the model itself", "against_vit", f"{SMALL}, 224 px", "images/s, eager"),
    Row("small, 1,024 px, 1 image: frozen", "against_vit", f"{SMALL}, 1024 px", "images/s", at_least=2.0),
    Row("tiny, 224 px: the same", "against_vit", "matmamba_tiny_patch16_224, 224 px", "images/s"),
    Row("base, 224 px: the same", "against_vit", "matmamba_base_patch16_224, 224 px", "images/s"),
    *(
        Row(
            f"width {part}, frozen: share of the time over share of the multiply-adds",
            "width_time",
            "frozen",
            part,
            at_most=1.15,
        )
        for part in ("1/2", "1/4", "1/8")
    ),
    *(
        Row(f"width {part}, the model itself: the same", "width_time", "nested", part)
        for part in ("1/2", "1/4", "1/8")
    ),
    *(
        Row(f"{size}, {image}, frozen, {threads}: {what}", place, f"{model}{asked}", ratio, at_most=most)
        for place, threads in (("latency", "2 threads"), ("latency_1_thread", "1 thread"))
        for image, asked in (("one image behind a rest", ""), ("images in a row", ", in a row"))
        for size, model, ratio, what, most in (
            ("mini", MINI, "1/8 / full", "time at 1/8 over full", 0.30),
            ("mini", MINI, "1/8 / ViT", "1/8 over a ViT's fastest", 0.45),
            ("mini", MINI, "full / ViT", "full over a ViT's fastest", 1.25),
            ("tiny", TINY, "full / ViT", "full over a ViT's fastest", 1.3),
            ("small", SMALL, "full / ViT", "full over a ViT's fastest", 1.05),
            ("small", SMALL, "1/8 / full", "time at 1/8 over full", 0.27),
        )
    ),
    *(
        Row(f"width {part}, extracted: the same", "width_time", "extracted", part)
        for part in ("1/2", "1/4", "1/8")
    ),
    *(
        Row(
            f"on 1 thread: small, {pixels} px: images/s over a ViT",
            "against_vit_1_thread",
            f"{SMALL}, {pixels} px",
            "images/s",
        )
        for pixels in (224, 1024)
    ),
    *(
        Row(f"on 1 thread: width {part}: time over multiply-adds", "width_time_1_thread", "frozen", part)
        for part in ("1/2", "1/4", "1/8")
    ),
    Row(
        "training step of a block: time of the first version over the present",
        "training_step",
        "one process",
        at_least=2.5,
    ),
    Row("training step: the same, each with its own allocator", "training_step", "each in its own way"),
    *(
        Row(f"torch.compile: eager over compiled, {use}, worst width", "compiled_block", use)
        for use in ("inference", "training")
    ),
    Row(
        "training step at four widths over four separate models, with data",
        "nested_cost",
        "steps with their data",
        "nested step, four widths / four separate steps",
        at_most=0.95,
    ),
    Row(
        "the same, computation alone",
        "nested_cost",
        "computation alone",
        "nested step, four widths / four separate steps",
    ),
    Row(
        "one width a step: time over separate models, with data",
        "nested_cost",
        "steps with their data",
        "nested steps, one width each / four separate steps",
        at_most=1.05,
    ),
    Row(
        "data loading in the training process: share of a nested step of tiny",
        "nested_cost",
        "data loading",
        "data / nested step with data",
        at_most=0.1,
    ),
    Row(
        "data loading: share of a step of tiny at full width alone",
        "nested_cost",
        "data loading",
        "data / full width alone with data",
        at_most=0.1,
    ),
    Row(
        "memory of a training step at four widths over full width alone",
        "nested_cost",
        "peak memory",
        "four widths / full width alone",
        at_most=1.15,
    ),
    Row("memory, inference: 16,385 tokens over 4,097", "peak_memory", "inference", at_most=4.4),
    Row("memory, training: the same, two blocks", "peak_memory", "training", at_most=4.4),
)
GPU_ROWS = (
    *(
        Row(
            f"small, {pixels:,} px, {use}, both as CUDA graphs: images/s over a ViT of equal parameters",
            "gpu",
            f"graphs, {SMALL}, {pixels} px, {use}",
            "ViT / frozen" if use == "inference" else "ViT / ours",
            at_least=bound,
            predicted=f"{pixels} px, {use}, over ViT",
        )
        for pixels, use, bound in (
            (224, "inference", 1.0),
            (1024, "inference", 2.0),
            (224, "training", 1.2),
            (1024, "training", 2.0),
        )
    ),
    *(
        Row(
            f"width {part}, frozen, as CUDA graphs: share of the time over share of the multiply-adds",
            "gpu",
            "graphs of widths, inference",
            f"{part} frozen",
            at_most=bound,
            predicted=f"width {part}",
        )
        for part, bound in (("1/2", 1.2), ("1/4", 1.4), ("1/8", 1.65))
    ),
    Row(
        "small, one image, frozen, as a CUDA graph: ms at full width",
        "gpu",
        "latency",
        side="full frozen",
        at_most=0.6,
        predicted="one image, full",
    ),
    Row(
        "the same: time at 1/8 over full",
        "gpu",
        "latency",
        "1/8 / full, frozen",
        at_most=0.5,
        predicted="one image, 1/8 over full",
    ),
    Row(
        "scan in a block of its own kernels: share of the rate that bounds it, worst length",
        "gpu",
        "scan in a block",
        at_least=0.5,
        predicted="scan, over its bound",
    ),
    Row("width: share of the time over share of the multiply-adds, worst", "gpu", "widths", at_most=1.15),
    Row("memory, inference and training: 16,385 tokens over 4,097, worst", "gpu", "memory", at_most=4.4),
    *(
        Row(
            f"{name}, {use}: time of the published block on mamba-ssm over ours, worst width",
            "gpu",
            f"published, {name}, {use}",
            at_least=1.5,
            predicted=f"{name}, {use}, published over ours",
        )
        for name in ("small", "base")
        for use in ("training", "inference")
    ),
    *(
        Row(
            f"small, {pixels:,} px: images/s over a ViT of equal parameters with flash attention, worst of "
            "inference and training",
            "gpu",
            f"{SMALL}, {pixels} px",
            at_least=bound,
        )
        for pixels, bound in ((224, 1.0), (1024, 2.0))
    ),
    Row(
        "small, training step at four widths over four separate models, computation alone",
        "nested_cost_gpu",
        "small, nested training",
        "nested step, four widths / four separate steps",
        at_most=0.95,
    ),
    Row(
        "small, one width a step: time over separate models",
        "nested_cost_gpu",
        "small, nested training",
        "nested steps, one width each / four separate steps",
        at_most=1.05,
    ),
    Row("small, one image: eager over a CUDA graph", "gpu", "latency", "full eager / graph"),
    Row("block: time of PyTorch's chunked scan over Triton's kernels, worst width", "gpu", "block"),
    Row("scan: share of the measured bandwidth or matrix rate that bounds it", "gpu", "scan", at_least=0.6),
)
