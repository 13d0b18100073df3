"""Devices, precision and processes, by Accelerate."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, TypeVar

import torch
from accelerate import Accelerator, DistributedDataParallelKwargs
from accelerate.state import AcceleratorState, PartialState
from accelerate.utils import (
    DistributedType,
    FullyShardedDataParallelPlugin,
    InitProcessGroupKwargs,
    gather_object,
)
from matmamba_common.errors import MatMambaError

from ..errors import ConfigError
from .sections import EngineConfig

PRECISIONS = {"fp32": "no", "bf16": "bf16", "fp16": "fp16"}
SETTLE_SECONDS = 0.2
DEVICES = ("auto", "cpu", "cuda")
T = TypeVar("T")
# What collectives say when a process at the other end is gone.
_LOST = (
    "closed by peer",
    "connection reset",
    "timed out",
    "timeout",
    "broken pipe",
    "remote process",
)


class LostProcessError(MatMambaError, ConnectionError):
    """Another process of the run does not answer any more."""


def make_accelerator(engine: EngineConfig, device: str = "auto", **known: Any) -> Accelerator:
    """The `Accelerator` of this process; ranks and addresses come from torchrun or accelerate launch.

    Args:
        engine: precision, and whether parameters are sharded.
        device: auto, cpu or cuda.
        known: further arguments of `Accelerator`.

    Raises:
        ConfigError: no such precision, or no such device here.
    """
    if engine.precision not in PRECISIONS:
        raise ConfigError(f"engine.precision {engine.precision!r} is none of {', '.join(PRECISIONS)}")
    if device not in DEVICES:
        raise ConfigError(f"device {device!r} is none of {', '.join(DEVICES)}")
    if device == "cuda" and not torch.cuda.is_available():
        raise ConfigError("device 'cuda' cannot be used: torch finds no GPU here")
    # Accelerate keeps one state per process; a later run in it may want another precision.
    AcceleratorState._reset_state(reset_partial_state=not _distributed())
    # A machine that is cut off says nothing, and nobody says that it is gone.
    handlers: list[Any] = [InitProcessGroupKwargs(timeout=timedelta(seconds=engine.lost_seconds))]
    if engine.fsdp:
        known["fsdp_plugin"] = FullyShardedDataParallelPlugin(
            fsdp_version=2, auto_wrap_policy="transformer_based_wrap", transformer_cls_names_to_wrap=["Block"]
        )
    else:
        handlers.append(DistributedDataParallelKwargs())
    # Said even where there is nothing else: Accelerate starts no process group on a CPU that it was not told.
    cpu = device == "cpu" or not torch.cuda.is_available()
    accelerator = Accelerator(
        mixed_precision=PRECISIONS[engine.precision], cpu=cpu, kwargs_handlers=handlers, **known
    )
    if engine.precision == "fp16" and accelerator.device.type == "cpu":
        raise ConfigError("engine.precision fp16 needs a GPU: a CPU can compute in bf16")
    if engine.fsdp and accelerator.distributed_type != DistributedType.FSDP:
        raise ConfigError("engine.fsdp needs several processes with a GPU each: start them by torchrun")
    return accelerator


def _distributed() -> bool:
    return bool(PartialState._shared_state) and PartialState().num_processes > 1


def everywhere(accelerator: Accelerator, value: T) -> list[T]:
    """What each process gives, by their numbers; all must ask.

    Args:
        accelerator: of this process.
        value: what it gives; something that can be pickled.
    """
    return [value] if accelerator.num_processes == 1 else gather_object([value])


def end_training(accelerator: Accelerator) -> None:
    """Close the trackers, and leave the other processes."""
    if accelerator.num_processes > 1:
        # Gloo's threads take Python's lock to let go of the last tensors; its destructor waits for them with
        # that lock held, for ever. So they are given the time to.
        time.sleep(SETTLE_SECONDS)
    accelerator.end_training()


@contextmanager
def named_losses() -> Iterator[None]:
    """Turn what a collective says when another process is gone into `LostProcessError`."""
    try:
        yield
    except RuntimeError as error:
        if _distributed() and any(sign in str(error).lower() for sign in _LOST):
            reason = str(error).strip().splitlines()[0]
            raise LostProcessError(
                f"another process of this run is gone: {reason}; go on with resume auto"
            ) from error
        raise
