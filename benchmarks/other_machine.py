"""What the package computes here of given inputs, for a comparison of machines; torch need not be there.

    python benchmarks/other_machine.py INPUTS OUTPUTS

`arm.py` writes INPUTS and starts this once by its own Python and once by that of an emulated machine. Arrays
come into OUTPUTS/arrays.npz, all else into OUTPUTS/said.json.
"""

from __future__ import annotations

import json
import os
import platform
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

import matmamba_vision as mv
import numpy as np
from matmamba_retrieval.index.row_kernels import RowKernels, RowTable
from matmamba_vision.native import (
    ConvolutionStruct,
    GateStruct,
    Library,
    Network,
    ScanEndStruct,
    WeighingStruct,
    from_bytes,
    library,
)

Arrays = dict[str, np.ndarray]
THREADS, BATCHES = (1, 2), (1, 3)
HITS = 10
PACKAGES = ("matmamba-vision", "numpy", "faiss-cpu", "onnxruntime", "pillow", "apsw")


@dataclass(frozen=True, kw_only=True)
class Pass:
    """A pass over tokens.

    Attributes:
        call: of `Library`.
        structure: what it is given.
        numbers: its sizes.
        inputs: shapes of the arrays that it reads.
        outputs: shapes of those that it writes.
    """

    call: str
    structure: type[Any]
    numbers: Mapping[str, float]
    inputs: Mapping[str, tuple[int, ...]]
    outputs: Mapping[str, tuple[int, ...]] = field(default_factory=dict)


def _convolution(batch: int, length: int, channels: int, taps: int) -> Iterator[tuple[str, Pass]]:
    numbers = {"batch": batch, "length": length, "channels": channels, "taps": taps}
    tokens = (batch, length, channels)
    inputs = {"tokens": tokens, "kernel": (channels, taps), "bias": (channels,)}
    sums = {"sums": (batch, taps + 1, channels), "total": (taps + 1, channels)}
    for name, more, outputs in (
        ("", {}, {"out": tokens}),
        (", backward", {"dout": tokens}, {"dtokens": tokens, **sums}),
    ):
        yield (
            f"convolution and SiLU, {taps} taps, {channels} channels{name}",
            Pass(
                call="convolve",
                structure=ConvolutionStruct,
                numbers=numbers,
                inputs=inputs | more,
                outputs=outputs,
            ),
        )


def _gate(rows: int, channels: int) -> Iterator[tuple[str, Pass]]:
    numbers, row = {"rows": rows, "channels": channels, "epsilon": 1e-5}, (rows, channels)
    inputs: dict[str, tuple[int, ...]] = {"y": row, "z": row, "weight": (channels,)}
    sums = {"sums": (-(-rows // 64), channels), "total": (channels,)}
    for name, more, outputs in (
        ("", {}, {"out": row, "scale": (rows,)}),
        (", backward", {"dout": row, "scale": (rows,)}, {"dy": row, "dz": row, **sums}),
    ):
        yield (
            f"gate and norm, {channels} channels{name}",
            Pass(call="gate", structure=GateStruct, numbers=numbers, inputs=inputs | more, outputs=outputs),
        )


def _weighing(batch: int, rows: int, heads: int, head_dim: int) -> Iterator[tuple[str, Pass]]:
    row, values = heads * head_dim, (batch, rows, heads, head_dim)
    numbers = {"batch": batch, "rows": rows, "heads": heads, "head_dim": head_dim, "added": 0}
    for name in ("values", "more", "into"):
        numbers |= {f"{name}_image": rows * row, f"{name}_row": row}
    numbers["factors_image"] = rows * heads
    factors = {"values": values, "factors": (batch, rows, heads)}
    for name, more in (("", {}), (" and a skip", {"more": values, "skip": (heads,)})):
        yield (
            f"heads by factors{name}",
            Pass(
                call="weigh",
                structure=WeighingStruct,
                numbers=numbers,
                inputs=factors | more,
                outputs={"into": values},
            ),
        )


def _scan_end(rows: int, heads: int, head_dim: int) -> Iterator[tuple[str, Pass]]:
    values, one = (rows, heads, head_dim), (rows, heads)
    inputs = {"dinput": values, "x": values, "dy": values, "y": values, "dt": one, "skip": (heads,)}
    yield (
        f"end of a scan backward, head dim {head_dim}",
        Pass(
            call="end_scan",
            structure=ScanEndStruct,
            numbers={"rows": rows, "heads": heads, "head_dim": head_dim},
            inputs=inputs,
            outputs={"dx": values, "dinput_x": one, "dy_x": one, "dy_y": one},
        ),
    )


def passes() -> dict[str, Pass]:
    """Of sizes that fill neither vectors, bands nor steps, and of some that do."""
    found = [
        *_convolution(3, 197, 300, 4), *_convolution(2, 30, 133, 7), *_convolution(2, 13, 5, 8),
        *_gate(591, 300), *_gate(9, 7), *_weighing(2, 197, 6, 33), *_weighing(3, 50, 8, 16),
        *_scan_end(394, 6, 33), *_scan_end(150, 8, 16),
    ]  # fmt: skip
    return {f"{number}: {name}": one for number, (name, one) in enumerate(found)}


def compute_pass(kernels: Library, one: Pass, inputs: Mapping[str, np.ndarray]) -> Arrays:
    """The outputs by name."""
    outputs = {name: np.full(shape, np.nan, np.float32) for name, shape in one.outputs.items()}
    addresses = {name: array.ctypes.data for name, array in {**inputs, **outputs}.items()}
    getattr(kernels, one.call)(one.structure(**one.numbers, **addresses))
    return outputs


def _entries(file: Path) -> dict[str, Arrays]:
    """Arrays that were written as GROUP/NAME, by group."""
    found: dict[str, Arrays] = {}
    with np.load(file) as entries:
        for name in entries.files:
            group, _, own = name.rpartition("/")
            found.setdefault(group, {})[own] = entries[name]
    return found


def passes_of(inputs: Path) -> Iterator[tuple[str, np.ndarray]]:
    """Every output of every pass."""
    kernels, known = library(), passes()
    assert kernels is not None
    for name, arrays in _entries(inputs / "passes.npz").items():
        for output, array in compute_pass(kernels, known[name], arrays).items():
            yield f"passes/{name}/{output}", array


def widths_of(inputs: Path) -> Iterator[tuple[str, np.ndarray]]:
    """Embeddings of each frozen width by one thread and two, of batches of one image and more."""
    kernels = library()
    assert kernels is not None
    for file in sorted(inputs.glob("widths/*.width")):
        network, images = Network(from_bytes(file.read_bytes()), kernels), np.load(file.with_suffix(".npy"))
        for threads in THREADS:
            os.environ["OMP_NUM_THREADS"] = str(threads)
            for size in BATCHES:
                found = [network.embed(images[at : at + size]) for at in range(0, len(images), size)]
                yield f"widths/{file.stem}/{threads}/{size}", np.concatenate(found)


def rows_of(inputs: Path) -> Iterator[tuple[str, np.ndarray]]:
    """Scores and keys of each list, by each instruction set there is; none where a row was not checked."""
    for name, case in _entries(inputs / "rows.npz").items():
        xb, checked, start = case["xb"], case["checked"].astype(np.bool_), int(case["split"])
        # Each flag speaks for two rows.
        parts = [(0, xb[:start], None, 1), (start, xb[start:], checked, 2)]
        table = RowTable(parts, len(xb), xb.shape[1])
        for kernel in _row_kernels():
            found = kernel.best(table, case["xq"], case["keys"], int(case["k"]))
            D, I = found or (np.empty(0, np.float32), np.empty(0, np.int64))  # noqa: E741
            yield f"rows/{name}/{kernel.instructions}/D", D
            yield f"rows/{name}/{kernel.instructions}/I", I


def _row_kernels() -> Iterator[RowKernels]:
    for name in ("avx512", "avx2", "neon", "plain"):
        try:
            yield RowKernels(instructions=name)
        except OSError:
            continue


def searches_of(inputs: Path) -> dict[str, Any]:
    """Hits in each gallery: of photos, of an image in it, and of given vectors; and what encoded."""
    found, vectors = dict[str, Any](), np.load(inputs / "queries.npy")
    for folder in sorted(inputs.glob("galleries/*")):
        photos = sorted(map(str, inputs.glob("queries/*.png")))
        with mv.open_gallery(folder) as gallery:
            for strategy in ("single-shot", "shortlist"):
                by_photo = gallery.search(photos, k=HITS, strategy=strategy)
                by_vector = gallery.search(vectors=vectors, k=HITS, strategy=strategy)
                found[f"{folder.name}, {strategy}"] = {
                    "encoded_by": dict(by_photo[0].encoded_by),
                    "photos": _pairs(by_photo),
                    "vectors": _pairs(by_vector),
                }
    return found


def _pairs(answers: Any) -> list[list[tuple[str, float]]]:
    return [[(hit.id, hit.score) for hit in answer] for answer in answers]


def main(inputs: Path, outputs: Path) -> None:
    kernels = library()
    assert kernels is not None
    found = dict([*rows_of(inputs), *passes_of(inputs), *widths_of(inputs)])
    np.savez(outputs / "arrays.npz", allow_pickle=False, **found)
    said = {
        "machine": platform.machine(),
        "instructions": kernels.instructions,
        "searches": searches_of(inputs),
        "torch": "torch" in sys.modules,
        "versions": {
            "python": platform.python_version(),
            **{name: version(name) for name in PACKAGES},
        },
    }
    (outputs / "said.json").write_text(json.dumps(said))


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
