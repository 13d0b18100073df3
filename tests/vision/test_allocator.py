"""Freed memory stays with the process when it is asked to keep it."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

# How many pages are fetched anew when 30 tensors of 8 MiB each are made and freed in turn, several alive: as
# glibc has it, and when memory is kept.
PROGRAM = """
import os, resource, torch, matmamba_vision
def work():
    tensors = [torch.ones(2**21) for _ in range(6)]
def faults():
    for _ in range(3): work()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(5): work()
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
if not os.fork():
    print(faults(), flush=True)
    os._exit(0)
os.wait()
print(matmamba_vision.keep_freed_memory(), faults())
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="glibc's allocator")
def test_kept_memory_is_not_fetched_again() -> None:
    # Pinned to where glibc begins: left alone it may learn, or not, within the program's few seconds.
    begun = os.environ | {"MALLOC_MMAP_THRESHOLD_": str(128 * 2**10)}
    program = [sys.executable, "-c", PROGRAM]
    said = subprocess.run(program, capture_output=True, text=True, check=True, env=begun).stdout
    default, took, kept = said.split()
    if took == "False":
        pytest.skip("another C library than glibc")
    assert int(kept) < int(default) / 10


def test_torch_is_imported_without_looking_for_garbage() -> None:
    program = """
import gc, sys
from matmamba_vision.allocator import load_torch_uncollected
load_torch_uncollected()
looked = []
gc.callbacks.append(lambda *_: looked.append("torch" in sys.modules))
import torch
print(any(looked), gc.isenabled(), gc.get_freeze_count() > 100_000)
"""
    said = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
    assert said.split() == ["False", "True", "True"]
