"""Ctrl-C as one line and an exit status: from the first moment of a program on, and to its last.

A program that starts calls `leave_when_interrupted` first: while Python imports there is nothing to finish.
Work runs within `interruptible`, where Ctrl-C raises `KeyboardInterrupt`, so that what is under way ends in
order.
"""

from __future__ import annotations

import importlib
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial
from types import FrameType
from typing import Any

# What a shell shows for a program that Ctrl-C ended.
STATUS = 130
SAID = "matmamba: interrupted; what was saved stays"
# How long after an interrupt that Python could not raise it comes again.
_AGAIN_S = 0.02


def leave_when_interrupted(line: str = SAID) -> None:
    """From now on Ctrl-C ends the process at once; where it is ignored, as in the background, it stays so.

    Args:
        line: what is said then, "" for nothing.
    """
    if signal.getsignal(signal.SIGINT) not in (None, signal.SIG_IGN):
        signal.signal(signal.SIGINT, partial(_leave, line))


def _leave(line: str, number: int, frame: FrameType | None) -> None:
    with suppress(OSError):
        # Past Python's buffers, which may be in use.
        os.write(2, f"{line}\n".encode() if line else b"")
    os._exit(STATUS)


@contextmanager
def interruptible() -> Iterator[None]:
    """Within the block Ctrl-C raises `KeyboardInterrupt`, whatever it hits; one more ends the process.

    Raises:
        KeyboardInterrupt: Ctrl-C; also where a library made another error of it.
    """
    before = signal.getsignal(signal.SIGINT)
    if not isinstance(before, partial):
        # Not of a program that was started as a command: whoever runs it decides.
        yield
        return
    hook = sys.unraisablehook
    sys.unraisablehook = partial(_raise_again, hook)
    try:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        yield
    except BaseException as error:
        # At once: what is raised is the last that one more Ctrl-C may hit. The line is the caller's now.
        leave_when_interrupted("")
        if _by_interrupt(error):
            raise KeyboardInterrupt from error
        signal.signal(signal.SIGINT, before)
        raise
    else:
        signal.signal(signal.SIGINT, before)
    finally:
        sys.unraisablehook = hook


def _raise_again(otherwise: Any, what: Any) -> None:
    """An interrupt that came where Python can raise nothing, such as in `__del__`, comes again behind it."""
    if not issubclass(what.exc_type, KeyboardInterrupt):
        otherwise(what)
        return
    # Late, and rarely needed: threads are not loaded for it before.
    threading = importlib.import_module("threading")
    # As a signal: whatever waits in the main thread waits no longer.
    later = threading.Timer(_AGAIN_S, signal.pthread_kill, (threading.main_thread().ident, signal.SIGINT))
    later.daemon = True
    later.start()


def _by_interrupt(error: BaseException | None) -> bool:
    """Whether an error is an interrupt, or was raised because of one."""
    seen = set[int]()
    while error is not None and id(error) not in seen:
        if isinstance(error, KeyboardInterrupt):
            return True
        seen.add(id(error))
        error = error.__cause__ or error.__context__
    return False
