"""Where the command `matmamba` starts. It imports next to nothing, so that Ctrl-C is quiet from then on."""

from __future__ import annotations

import importlib
import sys

from matmamba_common.interrupts import STATUS, leave_when_interrupted


def run() -> int:
    """The command with the words of this process; returns its exit status."""
    leave_when_interrupted()
    # By name: this package imports none of the others.
    status: int = importlib.import_module("matmamba_vision.cli").main()
    if status == STATUS:
        leave_when_interrupted("")
        # An interrupt within `exec`, which dataclasses are made by, is forgotten by the next one: else Python
        # would end by the signal instead of with the status.
        exec("")
    return status


if __name__ == "__main__":
    sys.exit(run())
