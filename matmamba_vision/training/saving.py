"""What a run is resumed from: complete checkpoints, of which the newest that is whole counts."""

from __future__ import annotations

import hashlib
import json
import logging
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from accelerate import Accelerator
from matmamba_common.errors import MatMambaError
from safetensors import SafetensorError

from ..checkpoint import flush
from ..errors import SystemRefusalError

logger = logging.getLogger(__name__)
STATE = "state.json"
_PARTIAL = ".partial"


class ResumeError(MatMambaError):
    """A run that cannot be continued; the message says why."""


class Saves:
    """The checkpoints in a folder, `step-00000120` and so on.

    Each is written under another name, flushed and renamed, so that one with its own name is complete; its
    `state.json` has the size and SHA-256 of every file, so that one that was damaged later is known.

    Args:
        folder: where they lie.
        keep: how many of the newest stay.
    """

    def __init__(self, folder: Path, keep: int = 2) -> None:
        self.folder, self.keep = folder, keep

    def all(self) -> list[Path]:
        """The complete ones, oldest first."""
        return sorted(path for path in self.folder.glob("step-*") if path.suffix != _PARTIAL)

    def save(self, accelerator: Accelerator, step: int, state: dict[str, Any]) -> Path:
        """Write the state of all processes, which must all call this, and `state`.

        Raises:
            SystemRefusalError: it cannot be written; the earlier ones stay.
        """
        final = self.folder / f"step-{step:08d}"
        partial = final.with_suffix(_PARTIAL)
        with self._or_clean_up(accelerator, partial):
            if accelerator.is_main_process:
                shutil.rmtree(partial, ignore_errors=True)
                partial.mkdir(parents=True)
            accelerator.wait_for_everyone()
            accelerator.save_state(str(partial))
            accelerator.wait_for_everyone()
            if accelerator.is_main_process:
                _seal(partial, state)
                shutil.rmtree(final, ignore_errors=True)
                partial.rename(final)
                flush(self.folder)
                self._forget_old()
        accelerator.wait_for_everyone()
        return final

    def newest(self) -> tuple[Path, dict[str, Any]] | None:
        """The newest one that is whole, and its state, or None; damaged ones are passed over."""
        for path in reversed(self.all()):
            try:
                return path, read_state(path)
            except ResumeError as error:
                logger.warning("%s: taking an earlier one", error)
        return None

    def clear(self) -> None:
        """Forget all of them."""
        for path in self.folder.glob("step-*"):
            shutil.rmtree(path)

    def _forget_old(self) -> None:
        for path in self.all()[: -self.keep]:
            shutil.rmtree(path)
        for path in self.folder.glob(f"step-*{_PARTIAL}"):
            shutil.rmtree(path)

    @contextmanager
    def _or_clean_up(self, accelerator: Accelerator, partial: Path) -> Iterator[None]:
        """Leave nothing half-written, and say what is still there."""
        try:
            yield
        # What the libraries raise when a disk is full.
        except (OSError, RuntimeError, SafetensorError) as error:
            if accelerator.is_main_process:
                shutil.rmtree(partial, ignore_errors=True)
            last = self.all()[-1:]
            left = f"{last[0]} is the last good one" if last else "there is no earlier one"
            raise SystemRefusalError(f"cannot save {partial.with_suffix('')}: {error}; {left}") from error


def read_state(path: Path) -> dict[str, Any]:
    """The state of a checkpoint whose files are all as they were written.

    Raises:
        ResumeError: a file is missing, damaged or unreadable.
    """
    try:
        state: dict[str, Any] = json.loads((path / STATE).read_text())
        for name, known in state["files"].items():
            if _known(path / name) != known:
                raise ResumeError(f"checkpoint {path} is damaged: {name} is not what was written")
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        if isinstance(error, ResumeError):
            raise
        raise ResumeError(f"checkpoint {path} is damaged: {error}") from error
    return state


def _seal(folder: Path, state: dict[str, Any]) -> None:
    """Write `state` with what is known of all other files, and put everything on the disk."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    known = {path.relative_to(folder).as_posix(): _known(path) for path in files}
    (folder / STATE).write_text(json.dumps({**state, "files": known}))
    for path in (*files, folder / STATE, *(path for path in folder.rglob("*") if path.is_dir()), folder):
        flush(path)


def _known(file: Path) -> list[Any]:
    """Bytes and SHA-256 of a file."""
    digest = hashlib.sha256()
    with file.open("rb") as opened:
        while part := opened.read(1 << 20):
            digest.update(part)
    return [file.stat().st_size, digest.hexdigest()]
