"""What arithmetic says a GPU needs for a block in five launches, and a transformer of equal parameters.

Nothing is measured here: each kernel takes the longer of its bytes, at a share of the copy rate, and its
operations, at the rate that products reach. Shapes are those of the registered model; rates are assumptions,
stated in the file. What comes out is told as "predicted" beside what was not run. Writes
results/gpu_model.json.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from math import ceil
from pathlib import Path
from typing import Any

from matmamba_vision import MatMamba
from matmamba_vision.measures import count_macs
from measuring import RESULTS, write_json
from peers import create, vit_of_equal_parameters, vit_settings

MODEL, BASE = "matmamba_small_patch16_224", "matmamba_base_patch16_224"
HALF, SINGLE = 2, 4
# Tokens of a tile of the quadratic form and of the state form, and the most tokens of the former.
QUADRATIC, STATE, LONGEST_QUADRATIC = 32, 64, 512
# Tokens of a chunk of mamba-ssm's kernels.
PUBLISHED_CHUNK = 256


@dataclass(frozen=True, kw_only=True)
class Rates:
    """What an H200 is assumed to reach.

    Attributes:
        copy: bytes read and written in a second by a copy.
        share: of it that a kernel reaches.
        products: operations in a second of PyTorch's products at these shapes.
        scan: of a scan's products; the lower is what the best public chunk scans reach on this kind of GPU.
        attention: of flash attention with heads of 64.
        launch: seconds from one kernel of a CUDA graph to the next.
    """

    # These two were measured on an H200, results/gpu.json of commit 98af6583: the latter by the graph of one
    # image at 1/8, 1.12 ms for 18 launches in each of 20 blocks.
    copy: float = 4.2e12
    launch: float = 1.12e-3 / (18 * 20)
    share: float = 0.8
    products: float = 600e12
    scan: tuple[float, float] = (130e12, 250e12)
    attention: float = 350e12

    def seconds(self, work: Work, products: float) -> float:
        """The longer of bytes and operations."""
        return max(work.bytes / (self.share * self.copy), work.operations / products)


@dataclass(frozen=True, kw_only=True)
class Work:
    """What one kernel does for one token of one block.

    Attributes:
        name: of the kernel.
        bytes: that it reads and writes in the GPU's memory.
        operations: of its products; a multiply-add is two.
        by: "products", "scan" or "attention": whose rate bounds them.
    """

    name: str
    bytes: float
    operations: float = 0.0
    by: str = "products"


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """Of one block at one width: D, inner channels I, H, N, tokens."""

    dim: int
    inner: int
    heads: int
    state: int
    tokens: int

    @property
    def quadratic(self) -> bool:
        """Whether every token looks back at all before it."""
        return self.tokens <= LONGEST_QUADRATIC

    @property
    def tile(self) -> int:
        """Tokens of a tile."""
        return QUADRATIC if self.quadratic else STATE

    @property
    def padding(self) -> float:
        """Tokens that are computed, over those that there are."""
        return ceil(self.tokens / self.tile) * self.tile / self.tokens

    @property
    def padding_of_training(self) -> float:
        """The same of the tiles of training, which are as large at any length."""
        return ceil(self.tokens / STATE) * STATE / self.tokens

    @property
    def in_training(self) -> float:
        """Tokens that a token of training looks at directly, those that there are not as well."""
        tiles = ceil(self.tokens / STATE)
        return STATE * ((tiles + 1) / 2 if self.quadratic else 1) * self.padding_of_training

    @property
    def through(self) -> float:
        """Of the state, in training: numbers that a token writes to it or reads of it."""
        return 0 if self.quadratic else self.state * self.padding_of_training

    @property
    def states(self) -> float:
        """Bytes for a token of the states between tiles, in training."""
        return HALF * self.inner * self.through / STATE

    @property
    def seen(self) -> float:
        """Tokens that a token looks at directly, on average, its own tile whole."""
        return self.tile * ((ceil(self.tokens / self.tile) + 1) / 2 if self.quadratic else 1)

    @property
    def scan(self) -> float:
        """Operations of a scan forward: what is seen, and in the state form reading and writing the state."""
        states = 0 if self.quadratic else 2 * self.state
        return 2 * self.inner * (self.seen + states) * self.padding


def inference(sizes: Sizes) -> list[Work]:
    """The five launches of a block, for one token."""
    packed = 2 * sizes.inner + 2 * sizes.state + sizes.heads
    stream, inner = HALF * sizes.dim, HALF * sizes.inner
    shared, decays, scores = 2 * HALF * sizes.state, 2 * SINGLE * sizes.heads, HALF * sizes.seen
    sums = SINGLE * ceil(sizes.inner / 64)
    return [
        Work(name="input projection", bytes=stream + HALF * packed, operations=2 * sizes.dim * packed),
        Work(
            name="convolution of B and C, decays, scores",
            bytes=shared + HALF * sizes.heads + decays + scores + (0 if sizes.quadratic else shared),
            operations=2 * sizes.state * sizes.seen * sizes.padding,
            by="scan",
        ),
        Work(
            name="scan, gate",
            bytes=3 * inner + decays + scores + sums + (0 if sizes.quadratic else shared),
            operations=sizes.scan,
            by="scan",
        ),
        Work(name="output projection", bytes=inner + stream, operations=2 * sizes.inner * sizes.dim),
        Work(name="norm, residual", bytes=4 * stream + sums),
    ]


def training_forward(sizes: Sizes) -> list[Work]:
    """The launches of a block's forward in training, of tiles of 64 at any length, and what is kept."""
    projection, output = inference(sizes)[0], inference(sizes)[3]
    stream, inner, shared = HALF * sizes.dim, HALF * sizes.inner, 2 * HALF * sizes.state
    decays, scores, sums = 2 * SINGLE * sizes.heads, HALF * sizes.in_training, SINGLE * ceil(sizes.inner / 64)
    states = Work(
        name="states of tiles",
        bytes=inner + shared / 2 + decays + sizes.states,
        operations=2 * sizes.inner * sizes.through,
        by="scan",
    )
    return [
        Work(name="norm", bytes=2 * stream),
        projection,
        Work(
            name="convolution, decays, scores",
            bytes=2 * (inner + shared) + HALF * sizes.heads + decays + scores,
            operations=2 * sizes.state * sizes.in_training,
            by="scan",
        ),
        *([] if sizes.quadratic else [states]),
        Work(
            name="scan, gate",
            bytes=3 * inner + decays + scores + sums + _of_states(sizes),
            operations=2 * sizes.inner * (sizes.in_training + sizes.through),
            by="scan",
        ),
        output,
        Work(name="norm factor, residual", bytes=3 * stream + sums),
    ]


def _of_states(sizes: Sizes) -> float:
    """Bytes of the states, and of B or C that is multiplied by them."""
    return 0 if sizes.quadratic else HALF * sizes.state + sizes.states


def backward(sizes: Sizes) -> list[Work]:
    """The launches of a block's backward."""
    forward = {work.name: work for work in inference(sizes)}
    stream, inner, shared = HALF * sizes.dim, HALF * sizes.inner, 2 * HALF * sizes.state
    decays, scores, sums = 2 * SINGLE * sizes.heads, HALF * sizes.in_training, SINGLE * ceil(sizes.inner / 64)
    ending, read = SINGLE * sizes.heads, sizes.in_training + sizes.through
    # Each projection: the gradient of what it reads, and of its weights.
    projections = [
        Work(
            name=f"{name}, gradients", bytes=2 * forward[name].bytes, operations=2 * forward[name].operations
        )
        for name in ("input projection", "output projection")
    ]
    states = Work(
        name="gradients of states",
        bytes=inner + shared / 2 + decays + sizes.states,
        operations=2 * sizes.inner * sizes.through,
        by="scan",
    )
    # In the quadratic form decays wait for the last launch.
    waiting = 2 * ending if sizes.quadratic else 0
    return [
        Work(name="norm factor, gradients", bytes=3 * stream + sums),
        *projections,
        Work(
            name="scan again, gradients of gate",
            bytes=5 * inner + decays + scores + ending + _of_states(sizes),
            operations=2 * sizes.inner * read,
            by="scan",
        ),
        *([] if sizes.quadratic else [states]),
        # Programs of x and decays, and of B and C, each of which read what they need.
        Work(
            name="gradients of x, B, C and decays",
            bytes=5 * inner + 2 * shared + 2 * decays + scores + 2 * ending + waiting + 4 * _of_states(sizes),
            operations=2 * sizes.inner * 3 * read + 4 * sizes.state * sizes.in_training,
            by="scan",
        ),
        Work(name="convolution, gradients", bytes=3 * (inner + shared) + 2 * waiting),
        Work(name="norm, residual, gradients", bytes=4 * stream),
    ]


def training(sizes: Sizes) -> list[Work]:
    """Both directions."""
    return [*training_forward(sizes), *backward(sizes)]


def published(sizes: Sizes) -> list[Work]:
    """The published block on mamba-ssm's kernels, each of which reads and writes the GPU's memory."""
    forward = {work.name: work for work in inference(sizes)}
    stream, inner, shared = HALF * sizes.dim, HALF * sizes.inner, 2 * HALF * sizes.state
    decays, scores = 2 * SINGLE * sizes.heads, SINGLE * PUBLISHED_CHUNK
    chunks = ceil(sizes.tokens / PUBLISHED_CHUNK)
    padding = chunks * PUBLISHED_CHUNK / sizes.tokens
    states = SINGLE * sizes.inner * sizes.state * chunks / sizes.tokens
    through = 2 * sizes.inner * sizes.state * padding
    # Tokens of a chunk that a token reads, tile by tile of 64.
    seen = (PUBLISHED_CHUNK + 64) / 2
    return [
        forward["input projection"],
        Work(name="convolution", bytes=2 * (inner + shared)),
        Work(name="steps and decays", bytes=HALF * sizes.heads + decays),
        Work(
            name="states of chunks", bytes=inner + shared / 2 + decays + states, operations=through, by="scan"
        ),
        Work(name="states passed on", bytes=2 * states),
        Work(
            name="scores",
            bytes=shared + scores,
            operations=2 * sizes.state * PUBLISHED_CHUNK * padding,
            by="scan",
        ),
        Work(
            name="scan",
            bytes=2 * inner + shared / 2 + decays + scores + states,
            operations=2 * sizes.inner * seen * padding + through,
            by="scan",
        ),
        Work(name="gate and norm", bytes=3 * inner),
        forward["output projection"],
        Work(name="residual, norm", bytes=4 * stream),
    ]


def transformer(dim: int, hidden: int, tokens: int) -> list[Work]:
    """A block of a vision transformer, for one token: four projections, attention, what stands between."""
    stream, wide = HALF * dim, HALF * hidden
    weights = 4 * dim * dim + 2 * dim * hidden
    return [
        Work(name="projections", bytes=9 * stream + 2 * wide, operations=2 * weights),
        Work(name="attention", bytes=4 * stream, operations=4 * tokens * dim, by="attention"),
        Work(name="norms and residuals", bytes=10 * stream),
        Work(name="GELU", bytes=2 * wide),
    ]


def transformer_backward(works: Sequence[Work]) -> list[Work]:
    """Products twice, attention two and a half times (it computes its scores again), the rest twice."""
    times = {"attention": 2.5}
    return [
        Work(
            name=f"{work.name}, gradients",
            bytes=2 * work.bytes,
            operations=times.get(work.name, 2.0) * work.operations,
            by=work.by,
        )
        for work in works
    ]


def microseconds(works: Sequence[Work], rates: Rates, scan: float, times: float) -> float:
    """Of so many tokens and blocks, at one rate of the scan."""
    by = {"products": rates.products, "scan": scan, "attention": rates.attention}
    return 1e6 * times * sum(rates.seconds(work, by[work.by]) for work in works)


def main(arguments: Sequence[str] | None = None) -> None:
    """Compute, print, write."""
    parser = argparse.ArgumentParser(prog="benchmarks/gpu_model.py", description=__doc__)
    parser.add_argument("--output", type=Path, default=RESULTS / "gpu_model.json", metavar="FILE")
    options = parser.parse_args(arguments)
    result = predicted(Rates())
    for name, row in result["predicted"].items():
        print(f"{name}: {row['low']:.3g} to {row['high']:.3g} {row['unit']}")
    write_json(options.output, {"command": "benchmarks/gpu_model.py", **result})


def predicted(rates: Rates) -> dict[str, Any]:
    """All figures, each between the lower and the higher rate of a scan."""
    found, kernels = dict[str, dict[str, Any]](), dict[str, list[dict[str, Any]]]()
    for pixels in (224, 1024):
        model = create(MODEL, img_size=pixels, device="meta")
        kernels[f"{pixels} px"] = [asdict(work) for work in inference(sizes_of(model, 1.0))]
        kernels[f"{pixels} px, training forward"] = [
            asdict(work) for work in training_forward(sizes_of(model, 1.0))
        ]
        kernels[f"{pixels} px, backward"] = [asdict(work) for work in backward(sizes_of(model, 1.0))]
        kernels[f"{pixels} px, published"] = [asdict(work) for work in published(sizes_of(model, 1.0))]
        found |= against_transformer(model, pixels, rates)
    small = create(MODEL, device="meta")
    found |= by_width(small, rates)
    found |= one_image(small, rates)
    for name, model in (("small", small), ("base", create(BASE, device="meta"))):
        found |= against_published(name, model, rates)
    found["scan, over its bound"] = between([of_bound(small, rates, scan) for scan in rates.scan], "")
    return {"assumed": asdict(rates), "kernels": kernels, "predicted": found}


def one_image(model: MatMamba, rates: Rates) -> dict[str, dict[str, Any]]:
    """A graph of one image: by its launches alone, or with the weights that each block reads, one by one."""
    blocks = len(model.heads)
    launches = rates.launch * 5 * blocks
    read = {}
    for label, share in (("full", 1.0), ("1/8", 1 / 8)):
        sizes = sizes_of(model, share)
        weights = HALF * sizes.dim * (3 * sizes.inner + 2 * sizes.state + sizes.heads)
        read[label] = launches + blocks * weights / (rates.share * rates.copy)
    return {
        "one image, full": between([1e3 * launches, 1e3 * (launches + rates.launch * 20)], "ms"),
        "one image, 1/8 over full": between([read["1/8"] / read["full"], 1.0], ""),
    }


def against_published(name: str, model: MatMamba, rates: Rates) -> dict[str, dict[str, Any]]:
    """Time of the published block over ours, without what launches take, at the worst width."""
    found = {}
    for use in ("inference", "training"):
        ratios = []
        for scan in rates.scan:
            of_widths = []
            for part in (1, 2, 4, 8):
                sizes = sizes_of(model, 1 / part)
                ours, theirs = inference(sizes), published(sizes)
                if use == "training":
                    ours, theirs = training(sizes), [*theirs, *transformer_backward(theirs)]
                of_widths.append(microseconds(theirs, rates, scan, 1) / microseconds(ours, rates, scan, 1))
            ratios.append(min(of_widths))
        found[f"{name}, {use}, published over ours"] = between(ratios, "")
    return found


def of_bound(model: MatMamba, rates: Rates, scan: float) -> float:
    """What bytes or operations of the scan's kernel would take, over the time of it, at the worst length."""
    shares = []
    for tokens in (197, 1025, 4097):
        sizes = replace(sizes_of(model, 1.0), tokens=tokens)
        (work,) = (known for known in inference(sizes) if known.name == "scan, gate")
        shares.append(bound_of(work, rates.copy, rates.products) / rates.seconds(work, scan))
    return min(shares)


def bound_of(work: Work, copy: float, products: float) -> float:
    """Seconds that it cannot take less than, at these rates."""
    return max(work.bytes / copy, work.operations / products)


def sizes_of(model: MatMamba, share: float) -> Sizes:
    """Of a block at a share of its heads."""
    known, heads = model.architecture, round(share * model.heads[0])
    tokens = model.patch_embed.num_patches + 1
    inner = heads * known.head_dim
    return Sizes(dim=model.embed_dim, inner=inner, heads=heads, state=known.states[0], tokens=tokens)


def between(values: Sequence[float], unit: str) -> dict[str, Any]:
    """The least and the most."""
    return {"low": min(values), "high": max(values), "unit": unit}


def against_transformer(model: MatMamba, pixels: int, rates: Rates) -> dict[str, dict[str, Any]]:
    """Microseconds of an image, and images/s over the transformer of equal parameters."""
    sizes, vit = sizes_of(model, 1.0), vit_of_equal_parameters(model)
    hidden, depth = vit_settings(model, vit)["vit_mlp_hidden"], len(vit.blocks)
    theirs = transformer(sizes.dim, hidden, sizes.tokens)
    ours, found = inference(sizes), dict[str, dict[str, Any]]()
    for use, mine, other in (
        ("inference", ours, theirs),
        ("training", training(sizes), [*theirs, *transformer_backward(theirs)]),
    ):
        vit_us = microseconds(other, rates, 0, sizes.tokens * depth)
        times = sizes.tokens * len(model.heads)
        our_us = [microseconds(mine, rates, scan, times) for scan in rates.scan]
        name = f"{pixels} px, {use}"
        found[f"{name}, ours"] = between(our_us, "µs")
        found[f"{name}, ViT"] = between([vit_us], "µs")
        found[f"{name}, over ViT"] = between([vit_us / us for us in our_us], "")
    return found


def by_width(model: MatMamba, rates: Rates) -> dict[str, dict[str, Any]]:
    """Share of the time over share of the multiply-adds."""
    full, found = sizes_of(model, 1.0), dict[str, dict[str, Any]]()
    macs = count_macs(model, "full")
    for part in (2, 4, 8):
        sizes, label = sizes_of(model, 1 / part), f"1/{part}"
        share = count_macs(model, label) / macs
        ratios = [
            microseconds(inference(sizes), rates, scan, 1) / microseconds(inference(full), rates, scan, 1)
            for scan in rates.scan
        ]
        found[f"width {label}"] = between([ratio / share for ratio in ratios], "")
    return found


if __name__ == "__main__":
    main()
