"""Which row of `candidates` is used: the first one, or what was measured on this machine and kept.

Nothing is measured when a kernel is launched. `matmamba_vision.tune` measures once, and writes a file for
each GPU, version of Triton and version of torch; it is read at the first launch.
"""

from __future__ import annotations

import json
import logging
import os
import re
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
import triton

from .candidates import TABLE, Launch, Shapes, rows_of

log = logging.getLogger(__name__)

FORMAT = "matmamba launches 1"
FOLDER = "~/.cache/matmamba/launches"
Options = Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class KeptLaunch:
    """The row that was the fastest on a machine.

    Attributes:
        kernel: its name in `candidates.TABLE`.
        shapes: the class of shapes.
        candidate: the name of the row.
        microseconds: what all that was measured took with each row of the kernel that was right.
    """

    kernel: str
    shapes: Shapes
    candidate: str
    microseconds: Mapping[str, float]

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "kernel": self.kernel,
            "shapes": self.shapes.to_dict(),
            "candidate": self.candidate,
            "microseconds": dict(self.microseconds),
        }


class DamagedChoicesError(Exception):
    """A file of choices that cannot be used; the message says why."""


# What is launched instead while candidates are measured; the thread that launches has set it.
_TRIED: ContextVar[Mapping[str, Launch]] = ContextVar("tried", default=MappingProxyType({}))


@contextmanager
def trying(kernel: str, candidate: Launch) -> Iterator[None]:
    """Launch that kernel so within the block, in this thread."""
    token = _TRIED.set({**_TRIED.get(), kernel: candidate})
    try:
        yield
    finally:
        _TRIED.reset(token)


def launch_of(kernel: str, shapes: Shapes, device: torch.device) -> Options:
    """What a kernel is called with beside its arguments: constants, warps and stages.

    Args:
        kernel: its name in `candidates.TABLE`.
        shapes: the class of what it is called for.
        device: where; on a CPU, in the interpreter, the first row is used.
    """
    if tried := _TRIED.get().get(kernel):
        return tried.options
    return _options(kernel, shapes, _gpu_of(device.index) if device.type == "cuda" else None)


@cache
def _gpu_of(index: int | None) -> str | None:
    # Tensors without data can have a device that is not there.
    return torch.cuda.get_device_name(index) if torch.cuda.is_available() else None


@cache
def _options(kernel: str, shapes: Shapes, gpu: str | None) -> Options:
    rows = rows_of(kernel, shapes)
    wanted = _kept(gpu).get((kernel, shapes)) if gpu else None
    return MappingProxyType(next((row for row in rows if row.name == wanted), rows[0]).options)


@cache
def _kept(gpu: str) -> Mapping[tuple[str, Shapes], str]:
    """The choices kept for a GPU; none, and a notice, where their file cannot be used."""
    file = file_for(gpu)
    try:
        choices = read_choices(file, gpu)
    except DamagedChoicesError as fault:
        log.warning(
            "%s %s: kernels are launched by default; `matmamba tune` or tune() makes it anew", file, fault
        )
        return {}
    return {(choice.kernel, choice.shapes): choice.candidate for choice in choices}


def forget() -> None:
    """Read the files again at the next launch."""
    _options.cache_clear()
    _kept.cache_clear()


def made_for(gpu: str) -> dict[str, str]:
    """What a measurement holds for."""
    return {"gpu": gpu, "triton": triton.__version__, "torch": torch.__version__}


def file_for(gpu: str) -> Path:
    """Where the choices for a GPU are kept, with the present versions of Triton and torch."""
    words = (f"{name}-{value}" for name, value in made_for(gpu).items())
    return Path(FOLDER).expanduser() / (re.sub(r"[^\w.+-]+", "-", "-".join(words)) + ".json")


def write_choices(file: Path, gpu: str, choices: Sequence[KeptLaunch]) -> None:
    """Write the file whole, or leave what was there.

    Raises:
        OSError: it cannot be written.
    """
    file.parent.mkdir(parents=True, exist_ok=True)
    rows = [choice.to_dict() for choice in choices]
    text = json.dumps({"format": FORMAT, **made_for(gpu), "choices": rows}, indent=1) + "\n"
    with tempfile.NamedTemporaryFile("w", dir=file.parent, delete=False) as partial:
        try:
            partial.write(text)
            partial.flush()
            os.fsync(partial.fileno())
            Path(partial.name).replace(file)
        except BaseException:
            Path(partial.name).unlink(missing_ok=True)
            raise


def read_choices(file: Path, gpu: str) -> list[KeptLaunch]:
    """The choices of a file; none if there is none.

    Raises:
        DamagedChoicesError: it is no such file, or was made for another GPU, version or table.
    """
    try:
        found = json.loads(file.read_text())
    except FileNotFoundError:
        return []
    except (OSError, ValueError) as error:
        raise DamagedChoicesError(f"cannot be read ({error})") from error
    if not isinstance(found, dict) or found.get("format") != FORMAT:
        raise DamagedChoicesError("is no file of choices of this version")
    for name, value in made_for(gpu).items():
        if found.get(name) != value:
            raise DamagedChoicesError(f"was made for {name} {found.get(name)}, not {value}")
    try:
        return [_choice(row) for row in found["choices"]]
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise DamagedChoicesError(f"is damaged ({type(error).__name__}: {error})") from error


def _choice(row: dict[str, Any]) -> KeptLaunch:
    kernel, shapes, candidate = row["kernel"], Shapes(**row["shapes"]), row["candidate"]
    if kernel not in TABLE or candidate not in [known.name for known in rows_of(kernel, shapes)]:
        raise ValueError(f"{kernel} cannot be launched with {candidate!r}")
    hash(shapes)
    taken = {str(name): float(value) for name, value in row["microseconds"].items()}
    return KeptLaunch(kernel=kernel, shapes=shapes, candidate=candidate, microseconds=taken)
