"""The kernels in C on other processors: no compiler has a warning, and threads follow C's own rules of order.

A processor of x86 shows what a thread writes in that order to all others; one of ARM does not, and emulation
on x86 cannot tell. ThreadSanitizer knows the rules of C alone, wherever it runs.
"""

from __future__ import annotations

import importlib.util
import os
import platform
import shutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from documents import ROOT
from frozen_models import model_of
from matmamba_vision import MatMamba
from matmamba_vision.frozen.native_width import network_arrays
from matmamba_vision.frozen.packed import pack
from matmamba_vision.native import to_bytes

KERNELS = ROOT / "matmamba_vision" / "native" / "kernels.c"
STRICT = "-Wall -Wextra -Werror"
HOST, ARM = "gcc", "aarch64-linux-gnu-gcc"
# Networks by three threads, one image and more at once, then passes: each twice, and equal.
CALLS = """
import sys
from pathlib import Path
import numpy as np
import other_machine
from matmamba_vision.native import Library, Network, from_bytes

kernels, folder = Library(Path(sys.argv[1])), Path(sys.argv[2])
network = Network(from_bytes((folder / "width").read_bytes()), kernels)
images = np.load(folder / "images.npy")
parts = [(at, size) for size in (1, 9) for _ in range(2) for at in range(0, 9, size)]
found = []
for at, size in parts:
    network.wake()
    found.append(network.embed(images[at : at + size]))
assert len(np.unique(np.concatenate(found), axis=0)) == 9
rng = np.random.default_rng(0)
for one in other_machine.passes().values():
    inputs = {name: rng.standard_normal(shape, np.float32) for name, shape in one.inputs.items()}
    outputs = [other_machine.compute_pass(kernels, one, inputs) for _ in range(2)]
    assert all(np.array_equal(outputs[0][name], outputs[1][name]) for name in outputs[0])
"""
# Orders that the kernels count on: where each stands, and what it is.
ORDERS = [
    ("&barrier->round, round + 1, __ATOMIC_", "RELEASE"),
    ("&barrier->waiting, 1, __ATOMIC_", "ACQ_REL"),
    ("&b->turn, turn, __ATOMIC_", "RELEASE"),
    ("&pool->left, 1, __ATOMIC_", "ACQ_REL"),
]


@pytest.fixture
def hatch_build() -> ModuleType:
    """The build script, loaded anew."""
    spec = importlib.util.spec_from_file_location("hatch_build", ROOT / "hatch_build.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def require(program: str) -> None:
    if not shutil.which(program):
        pytest.skip(f"no {program} here")


@pytest.mark.parametrize(("compiler", "machine"), [(HOST, platform.machine()), (ARM, "aarch64")])
def test_no_warning_for_any_instruction_set(
    compiler: str, machine: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, hatch_build: ModuleType
) -> None:
    require(compiler)
    monkeypatch.setattr(platform, "machine", lambda: machine)
    # Android's C library does not have what tells a thread where to run.
    for options, places in (("", True), ("-D__ANDROID__", False)):
        monkeypatch.setenv("CC", f"{compiler} {STRICT} {options}")
        library = tmp_path / "libkernels.so"
        assert hatch_build.build(library) is None
        assert (b"pthread_setaffinity_np" in library.read_bytes()) == places


def sanitizer() -> str:
    """The library of ThreadSanitizer for programs that were built without it; "" where there is none."""
    if platform.machine() != "x86_64" or not all(map(shutil.which, (HOST, "setarch"))):
        return ""
    # Not every container lets a process do that.
    if subprocess.run(["setarch", "-R", "true"], capture_output=True, check=False).returncode:
        return ""
    found = subprocess.run([HOST, "-print-file-name=libtsan.so"], check=True, capture_output=True, text=True)
    return found.stdout.strip() if Path(found.stdout.strip()).is_file() else ""


def races(library: Path, folder: Path) -> int:
    """How many ThreadSanitizer finds while three threads compute."""
    places = [str(ROOT / name) for name in ("", "datasets", "retrieval", "benchmarks")]
    environment = {
        **os.environ,
        "LD_PRELOAD": sanitizer(),
        "TSAN_OPTIONS": "exitcode=0",
        "OMP_NUM_THREADS": "3",
        "PYTHONPATH": os.pathsep.join(places),
    }
    # It knows no addresses that are drawn by chance.
    command = ["setarch", "-R", sys.executable, "-c", CALLS, str(library), str(folder)]
    run = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert run.returncode == 0, run.stderr
    return run.stderr.count("WARNING: ThreadSanitizer")


@pytest.fixture
def inputs(tmp_path: Path) -> Path:
    model: MatMamba = model_of({"scan": "flip", "head_dim": 16, "d_state": 16, "embed_dim": 48})
    arrays = network_arrays(pack(model, "full"))
    assert arrays is not None
    (tmp_path / "width").write_bytes(to_bytes(arrays))
    np.save(tmp_path / "images.npy", model.random_images(9).numpy())
    return tmp_path


SANITIZED = pytest.mark.skipif(not sanitizer(), reason="no ThreadSanitizer of GCC for x86-64 here")


@SANITIZED
def test_threads_exchange_nothing_without_an_order(
    inputs: Path, monkeypatch: pytest.MonkeyPatch, hatch_build: ModuleType
) -> None:
    monkeypatch.setenv("CC", f"{HOST} -fsanitize=thread")
    assert hatch_build.build(inputs / "libkernels.so") is None
    assert races(inputs / "libkernels.so", inputs) == 0


@SANITIZED
@pytest.mark.slow
@pytest.mark.parametrize(("place", "order"), ORDERS)
def test_an_order_that_is_too_weak_is_found(
    place: str, order: str, inputs: Path, monkeypatch: pytest.MonkeyPatch, hatch_build: ModuleType
) -> None:
    source, changed = KERNELS.read_text(), inputs / "kernels.c"
    assert source.count(place + order) == 1
    changed.write_text(source.replace(place + order, f"{place}RELAXED"))
    monkeypatch.setattr(hatch_build, "NETWORK", changed)
    monkeypatch.setenv("CC", f"{HOST} -fsanitize=thread")
    assert hatch_build.build(inputs / "libkernels.so") is None
    assert races(inputs / "libkernels.so", inputs) > 0
