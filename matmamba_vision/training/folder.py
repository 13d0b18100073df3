"""The folder of a run: who may write to it, and the metrics in it."""

from __future__ import annotations

import csv
import errno
import json
import os
import platform
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

from matmamba_common.errors import MatMambaError

from ..config_file import flat

METRICS = "metrics.jsonl"
LOCK = ".lock"
# What shared disks say that know no locks.
_NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)


class RunFolderError(MatMambaError):
    """A folder that this run cannot use; the message says why."""


class RunFolder:
    """The folder of one run, held by one process at a time.

    Raises:
        RunFolderError: another process writes to it, or it cannot be written to.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            path.mkdir(parents=True, exist_ok=True)
            self._lock = hold(path / LOCK, "wait for it, or choose another output")
        except OSError as error:
            raise RunFolderError(f"cannot write to the folder {path}: {error.strerror or error}") from error

    @property
    def owner(self) -> str:
        """Who holds it: this process, on this machine."""
        return _this_process()

    @staticmethod
    def owner_of(path: Path) -> str | None:
        """Who holds a folder, or held it last; None where there is no such folder, or nobody did."""
        try:
            return (path / LOCK).read_text() or None
        except OSError:
            return None

    @property
    def metrics(self) -> Path:
        """JSON lines: a row for some steps and for each epoch."""
        return self.path / METRICS

    def add(self, row: Mapping[str, Any]) -> None:
        """Add a row to the metrics."""
        with self.metrics.open("a") as file:
            file.write(json.dumps(row) + "\n")

    def rewind(self, size: int) -> None:
        """Forget the metrics beyond `size` bytes: of what a run did after the checkpoint it resumes from."""
        if size < self.size():
            os.truncate(self.metrics, size)

    def size(self) -> int:
        """Bytes of metrics."""
        return self.metrics.stat().st_size if self.metrics.is_file() else 0

    def write_csv(self) -> None:
        """Write the metrics once more, as a table with a column for each number."""
        rows = [flat(json.loads(line), "/") for line in self.metrics.read_text().splitlines()]
        columns = list(dict.fromkeys(name for row in rows for name in row))
        partial = self.path / "metrics.csv.partial"
        with partial.open("w", newline="") as file:
            table = csv.DictWriter(file, columns)
            table.writeheader()
            table.writerows(rows)
        partial.replace(self.path / "metrics.csv")

    def release(self) -> None:
        """Let another process have it; a folder that nothing was written to goes away."""
        self._lock.close()
        if {path.name for path in self.path.iterdir()} <= {LOCK}:
            shutil.rmtree(self.path)


def hold(file: Path, otherwise: str) -> IO[str]:
    """Lock a file while it stays open; the system unlocks it when the process ends, however it ends.

    Args:
        file: made if it is not there.
        otherwise: what to do if another process holds it.

    Raises:
        RunFolderError: another process holds it.
    """
    opened = file.open("a+")
    try:
        import fcntl

        fcntl.flock(opened, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except ImportError:
        # No such locks on Windows.
        return _signed(opened)
    except OSError as error:
        if error.errno in _NO_LOCKS:
            return _signed(opened)
        opened.seek(0)
        owner = opened.read().strip() or "another process"
        opened.close()
        raise RunFolderError(f"{file.parent} is in use by {owner}: {otherwise}") from error
    return _signed(opened)


def _signed(opened: IO[str]) -> IO[str]:
    """The file with who holds it."""
    opened.truncate(0)
    opened.write(_this_process())
    opened.flush()
    return opened


def _this_process() -> str:
    return f"process {os.getpid()} on {platform.node()}"
