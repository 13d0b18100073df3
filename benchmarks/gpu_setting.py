"""What benchmarks/gpu.py measures, by which kernels, and what a figure looks like that was not taken."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from matmamba_vision.ops import mamba_ssm
from measuring import Case
from peers import BlockShape

KERNELS = ("triton", "mamba_ssm")


@dataclass(frozen=True)
class Setting:
    """What is measured; the defaults are what the published figures are."""

    device: str = "cuda"
    dtype: torch.dtype = torch.bfloat16
    precision: str = "bf16"
    # Of the kernels' table: what is tried, and how long compiling it may take.
    dtypes: tuple[str, ...] = ("bfloat16",)
    head_dims: tuple[int, ...] = (16, 32)
    seconds_to_compile: float = 90.0
    models: tuple[str, ...] = ("matmamba_small_patch16_224", "matmamba_base_patch16_224")
    # Pixels and batch of inference; training takes half of the batch.
    sizes: tuple[tuple[int, int], ...] = ((224, 128), (1024, 8), (384, 48), (512, 24))
    # Heads, head dim and state of the blocks of small and base; tokens and batch of their scans.
    blocks: tuple[tuple[int, int, int], ...] = ((64, 16, 128), (64, 32, 128))
    scans: tuple[tuple[int, int], ...] = ((197, 128), (1025, 24), (4097, 8))
    checked: tuple[tuple[int, int, int], ...] = (
        (197, 16, 128),
        (577, 32, 128),
        (1400, 16, 64),
        (130, 128, 256),
    )
    memory_pixels: tuple[int, int] = (1024, 2048)
    block: BlockShape = field(default_factory=lambda: BlockShape(batch=128))
    # Numbers of a copy and edge of a matrix product that find the GPU's rates.
    copied: int = 2**28
    edge: int = 8192
    # Vectors and dims of the gallery that is searched by FAISS, and the indexes over them.
    rows: int = 1_000_000
    dim: int = 256
    recipes: tuple[str, ...] = ("Flat", "ivfpq")
    # What the tests that need a GPU may take.
    seconds_of_tests: float = 150.0


PUBLISHED = Setting()
# Every step, on a CPU, within a minute or two.
TINY = Setting(
    device="cpu",
    dtypes=("float32",),
    models=("matmamba_nano_patch4_32",),
    sizes=((32, 2), (64, 2)),
    blocks=((2, 8, 16),),
    scans=((9, 1),),
    checked=((9, 8, 16),),
    block=BlockShape(dim=64, heads=8, head_dim=16, state_dim=16, tokens=9, batch=2),
    copied=1000,
    edge=16,
    rows=2000,
    dim=32,
)


def present() -> list[str]:
    """The kernels that are installed."""
    return [name for name in KERNELS if name != "mamba_ssm" or mamba_ssm.missing() is None]


def left_out(name: str, reason: str) -> Case:
    """A case without figures, and why."""
    print(f"{name}: left out: {reason}", flush=True)
    return {"name": name, "settings": {"left_out": reason}, "unit": "", "warm_up": 0, "repeats": 0,
            "sides": {}, "ratios": {}}  # fmt: skip
