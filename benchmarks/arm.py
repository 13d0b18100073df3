"""The kernels in C and searches without torch on ARM, which is emulated, beside those of this machine.

    make arm

The wheel is built with Debian's cross compiler, warnings being errors, and computes by NEON in QEMU: best
rows, frozen widths, the passes of training, and searches of galleries that were made here. What differs is
written to results/arm.json, and too much of it is an error. Emulation says whether results are right, nothing
of times.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import arm_machine
import matmamba_vision as mv
import numpy as np
import other_machine
import torch
from markdown_tables import markdown
from matmamba_vision import MatMamba
from matmamba_vision.frozen.native_width import network_arrays
from matmamba_vision.frozen.packed import pack
from matmamba_vision.measures.environment import environment
from matmamba_vision.native import to_bytes
from measuring import RESULTS, write_json
from peers import create
from PIL import Image

# Largest difference of a coordinate of an embedding, whose length is 1, and of a score; and of an output of a
# pass over its largest number, or over 0.1: as in the tests.
EMBEDDING_TOLERANCE, PASS_TOLERANCE = 1e-5, 2e-5
# Rows, dims of them, dims of a query, candidates, hits.
LISTS = (
    (90, 128, 128, 60, 20), (300, 512, 64, 300, 10), (40, 33, 33, 40, 50), (50, 140, 139, 300, 5),
    (9, 1, 1, 9, 9), (200, 100, 7, 150, 150), (500, 384, 384, 400, 100),
)  # fmt: skip
ODD_HALVES = np.array([np.nan, np.inf, -np.inf, 6e-8, -6e-8, 6.1e-5, 65504, -0.0, 0.0, 1.0], np.float16)
SMALL: dict[str, Any] = {
    "img_size": 32, "patch_size": 4, "embed_dim": 48, "depth": 3, "num_heads": 5, "head_dim": 16,
    "d_state": 16, "num_classes": 0, "trained_widths": ("full",),
}  # fmt: skip
WIDTHS = ("full", "1/2", "1/4", "1/8")
PHOTOS, QUERIES, MODEL = 60, 6, "matmamba_nano_patch4_32"


def main(arguments: Sequence[str] | None = None) -> int:
    """Compare, and write what came of it; 1 where something differs by too much."""
    options = _parse(arguments)
    if reason := arm_machine.missing():
        print(reason, file=sys.stderr)
        return 1
    wheel = arm_machine.install()
    with tempfile.TemporaryDirectory() as folder:
        inputs = Path(folder) / "inputs"
        write_inputs(inputs)
        here = _outputs(inputs, Path(folder) / "here")
        there = _outputs(inputs, Path(folder) / "there", arm=True)
        compared = compare(here, there, dict(_by_torch(inputs)))
    result = {"command": "make arm", **environment(), **_about(wheel, here, there), "compared": compared}
    write_json(options.output, result)
    for row in compared:
        print(f"{'ok ' if row['ok'] else 'NOT'} {row['what']}: {row['difference']:.2g}")
    return 0 if all(row["ok"] for row in compared) else 1


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="benchmarks/arm.py", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--output", type=Path, default=RESULTS / "arm.json", metavar="FILE")
    return parser.parse_args(arguments)


def _about(wheel: Path, here: Outputs, there: Outputs) -> dict[str, Any]:
    emulator = subprocess.run([arm_machine.EMULATOR, "--version"], check=True, capture_output=True, text=True)
    compiler = subprocess.run([arm_machine.COMPILER, "--version"], check=True, capture_output=True, text=True)
    return {
        "emulated": True,
        "emulator": emulator.stdout.splitlines()[0],
        "compiler": compiler.stdout.splitlines()[0],
        "processor": arm_machine.PROCESSOR,
        "wheel": wheel.name,
        "beside": here.said["instructions"],
        "there": {name: there.said[name] for name in ("machine", "instructions", "versions")},
        "encoded_by": {name: search["encoded_by"] for name, search in there.said["searches"].items()},
    }


def table(result: Mapping[str, Any]) -> str:
    """What was compared, for docs/results.md."""
    rows = [
        (row["what"], row["arrays"], f"{row['difference']:.1e}" if row["difference"] else 0, row["allowed"])
        for row in result["compared"]
    ]
    about = (
        f"{result['processor']}, emulated by {result['emulator'].partition(' (')[0]}; "
        f"{result['compiler']}; "
        f"beside {result['machine']['processor']} ({result['beside']})."
    )
    return markdown(("compared", "arrays or hits", "largest difference", "allowed"), rows) + f"\n\n{about}"


class Outputs:
    """What `other_machine` wrote: arrays, and what was said of searches.

    Args:
        folder: where it lies.
    """

    def __init__(self, folder: Path) -> None:
        with np.load(folder / "arrays.npz") as entries:
            self.arrays: dict[str, np.ndarray] = dict(entries.items())
        self.said: dict[str, Any] = json.loads((folder / "said.json").read_text())


def _outputs(inputs: Path, into: Path, arm: bool = False) -> Outputs:
    """Of a copy of the inputs: whoever opens a gallery may write into it."""
    shutil.copytree(inputs, into / "inputs")
    words = (str(Path(other_machine.__file__)), str(into / "inputs"), str(into))
    if arm:
        arm_machine.run(*words)
    else:
        places = [str(arm_machine.ROOT / name) for name in ("", "datasets", "retrieval")]
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(places)}
        subprocess.run([sys.executable, *words], check=True, env=environment)
    return Outputs(into)


def write_inputs(folder: Path) -> None:
    """Lists of rows, arrays of passes, frozen widths with images and embeddings by torch, and galleries."""
    rng = np.random.default_rng(0)
    for name in ("widths", "queries", "photos"):
        (folder / name).mkdir(parents=True)
    np.savez(folder / "rows.npz", allow_pickle=False, **dict(_flat(_lists(rng))))
    shapes = {name: one.inputs for name, one in other_machine.passes().items()}
    drawn = {name: {key: _normal(rng, shape) for key, shape in each.items()} for name, each in shapes.items()}
    np.savez(folder / "passes.npz", allow_pickle=False, **dict(_flat(drawn.items())))
    for name, model, width in _widths():
        _write_width(folder / "widths" / name, model, width)
    _write_galleries(folder, rng)


def _flat(groups: Any) -> Iterator[tuple[str, np.ndarray]]:
    for group, arrays in groups:
        for name, array in arrays.items():
            yield f"{group}/{name}", array


def _normal(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    return rng.standard_normal(shape).astype(np.float32)


def _lists(rng: np.random.Generator) -> Iterator[tuple[str, dict[str, np.ndarray]]]:
    """Queries with candidates: some equal vectors, some odd numbers, and blocks that were not checked."""
    for number, (rows, row, dim, count, k) in enumerate(LISTS):
        xb = (_normal(rng, (rows, row)) / row**0.5).astype(np.float16)
        xb[rows // 2 :][: rows // 4] = xb[: rows // 4]
        case = {
            "xb": xb, "xq": _normal(rng, (3, dim)), "keys": rng.integers(-1, rows, (3, count)),
            "split": np.array(rows // 3), "checked": np.ones(rows, np.uint8), "k": np.array(k),
        }  # fmt: skip
        yield f"{number}, {rows} rows", case
        odd = xb.copy()
        odd.reshape(-1)[rng.integers(0, xb.size, 3 * rows)] = rng.choice(ODD_HALVES, 3 * rows)
        yield f"{number}, odd numbers", {**case, "xb": odd}
        yield f"{number}, unchecked", {**case, "checked": (np.arange(rows) % 3 > 0).astype(np.uint8)}


def _widths() -> Iterator[tuple[str, MatMamba, str]]:
    """Frozen widths: registered models, decays at the ends, and so many tokens that there is a state."""
    torch.manual_seed(0)
    nano, mini = (create(name, num_classes=0).eval() for name in (MODEL, "matmamba_mini_patch8_64"))
    for name, model in (("nano", nano), ("mini at 64 px", mini)):
        for width in WIDTHS:
            yield f"{name}, {width.replace('/', ' of ')}", model, width
    for strong, slow in ((6.0, 0.0), (9.0, -9.0), (14.0, 14.0)):
        model = _disturbed(MatMamba(**SMALL, scan="flip"))
        for name, parameter in model.named_parameters():
            if name.endswith("A_log"):
                parameter.data[::2], parameter.data[1::2] = strong, slow
        yield f"decays {strong:g} and {slow:g}", model, "full"
    long = SMALL | {"img_size": (60, 92), "d_state": (32, 16, 64), "scan": "flip", "reg_tokens": 1}
    yield "345 tokens", _disturbed(MatMamba(**long)), "full"
    odd = SMALL | {"projection": 70, "global_pool": "avg", "d_conv": 7, "bias": True, "in_chans": 1}
    yield "a projection and 7 taps", _disturbed(MatMamba(**odd)), "4-4-4"


def _disturbed(model: MatMamba) -> MatMamba:
    """None of whose parameters is 0 or 1 as it was initialised."""
    for parameter in model.parameters():
        parameter.data += 0.1 * torch.randn_like(parameter)
    return model.eval()


def _write_width(place: Path, model: MatMamba, width: str) -> None:
    arrays = network_arrays(pack(model, width))
    assert arrays is not None
    images = model.random_images(3)
    with torch.no_grad():
        wanted = model.double().embed(images.double(), width).float()
    model.float()
    place.with_name(f"{place.name}.width").write_bytes(to_bytes(arrays))
    np.save(place.with_name(f"{place.name}.npy"), images.numpy())
    np.save(place.with_name(f"{place.name}.wanted"), wanted.numpy())


def _write_galleries(folder: Path, rng: np.random.Generator) -> None:
    """Galleries of the same photos that keep an encoder for the kernels, and one for ONNX Runtime."""
    for number in range(PHOTOS + QUERIES):
        pixels = rng.integers(0, 120, (32, 48, 3)) + rng.integers(0, 130, 3)
        place = folder / ("photos" if number < PHOTOS else "queries")
        Image.fromarray(pixels.astype(np.uint8)).save(place / f"{number:03d}.png")
    for kind in ("native", "onnx"):
        gallery = folder / "galleries" / kind
        mv.index(folder / "photos", gallery, model=MODEL, dims=[32])
        with mv.open_gallery(gallery, write=True) as opened:
            opened.freeze(WIDTHS, kinds=[kind])
            dim = opened.info()["spec"]["dim"]
    xq = _normal(rng, (QUERIES, dim))
    np.save(folder / "queries.npy", xq / np.linalg.norm(xq, axis=1, keepdims=True))


def _by_torch(inputs: Path) -> Iterator[tuple[str, np.ndarray]]:
    for file in sorted(inputs.glob("widths/*.wanted.npy")):
        yield file.name.removesuffix(".wanted.npy"), np.load(file)


def compare(here: Outputs, there: Outputs, by_torch: Mapping[str, np.ndarray]) -> list[dict[str, Any]]:
    """A row for each kind of comparison: the largest difference, what is allowed, and whether it holds."""
    there_rows = _named(there.arrays, "rows/")
    sets = sorted({name.split("/")[-2] for name in there_rows})
    rows = [
        _row(f"best rows by {name} beside {of}, to the bit", _unlike(there_rows, name, here.arrays, of), 0)
        for name in sets
        for of in sorted({entry.split("/")[-2] for entry in _named(here.arrays, "rows/")})
    ]
    widths = _named(there.arrays, "widths/")
    return [
        *rows,
        _row("frozen widths beside torch, float64", _apart(widths, by_torch, _model_of), EMBEDDING_TOLERANCE),
        _row("frozen widths beside the kernels here", _apart(widths, here.arrays, str), EMBEDDING_TOLERANCE),
        _row("frozen widths by other threads and batches", _apart(widths, widths, _first_of), 0),
        _row("passes beside the kernels here", _relative(there, here), PASS_TOLERANCE),
        *_searches(here.said["searches"], there.said["searches"]),
    ]


def _row(what: str, differences: Sequence[float], allowed: float) -> dict[str, Any]:
    # What is no number is no difference that is allowed.
    ok = bool(differences) and all(difference <= allowed for difference in differences)
    return {
        "what": what,
        "arrays": len(differences),
        "difference": float(np.max(differences, initial=0)),
        "allowed": allowed,
        "ok": ok,
    }


def _named(arrays: Mapping[str, np.ndarray], start: str) -> dict[str, np.ndarray]:
    return {name: array for name, array in arrays.items() if name.startswith(start)}


def _unlike(
    arrays: Mapping[str, np.ndarray], name: str, others: Mapping[str, np.ndarray], of: str
) -> list[float]:
    """0 for each array of a set that is to the bit that of another set, NaN being NaN; 1 for others."""
    return [
        float(not np.array_equal(array, others[entry.replace(f"/{name}/", f"/{of}/")], equal_nan=True))
        for entry, array in arrays.items()
        if f"/{name}/" in entry
    ]


def _model_of(entry: str) -> str:
    return entry.split("/")[1]


def _first_of(entry: str) -> str:
    threads, batch = other_machine.THREADS[0], other_machine.BATCHES[0]
    return f"widths/{_model_of(entry)}/{threads}/{batch}"


def _apart(
    arrays: Mapping[str, np.ndarray], others: Mapping[str, np.ndarray], other: Callable[[str], str]
) -> list[float]:
    return [float(np.abs(array - others[other(entry)]).max()) for entry, array in arrays.items()]


def _relative(there: Outputs, here: Outputs) -> list[float]:
    found = []
    for entry, array in _named(there.arrays, "passes/").items():
        wanted = here.arrays[entry]
        found.append(float(np.abs(array - wanted).max() / max(np.abs(wanted).max(), 0.1)))
    return found


def _searches(here: Mapping[str, Any], there: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Hits of photos, which each machine encodes, and of vectors, which it only compares."""
    for asked, allowed in (("photos", EMBEDDING_TOLERANCE), ("vectors", 0)):
        pairs = [
            pair
            for name in here
            for answers in zip(here[name][asked], there[name][asked], strict=True)
            for pair in zip(*answers, strict=True)
        ]
        same = [float(ours[0] != theirs[0]) for ours, theirs in pairs]
        yield _row(f"hits of {asked}, in their order", same, 0)
        yield _row(f"scores of {asked}", [abs(ours[1] - theirs[1]) for ours, theirs in pairs], allowed)


if __name__ == "__main__":
    sys.exit(main())
