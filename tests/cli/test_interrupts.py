"""Ctrl-C is one line and status 130, from a command's first import to its last, once or twice."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest
from matmamba_common.interrupts import SAID, STATUS, interruptible

# Interrupts itself when so many modules were asked for as its first arguments say, and prints how many were.
INTERRUPTED = """
import os, signal, sys
from matmamba_common.command import run
at, sys.argv[1:] = set(map(int, sys.argv[1].split(","))), sys.argv[2:]
count = 0
def note(event, arguments):
    global count
    if event == "import":
        count += 1
        if count in at:
            os.kill(os.getpid(), signal.SIGINT)
sys.addaudithook(note)
try:
    sys.exit(run())
finally:
    print(count)
"""
# Where Python can raise nothing; what comes behind it is interrupted instead.
UNRAISABLE = """
import os, signal, sys, time
from matmamba_common.interrupts import interruptible, leave_when_interrupted
class Deleted:
    def __del__(self):
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(0)
leave_when_interrupted()
try:
    with interruptible():
        Deleted()
        time.sleep(60)
except KeyboardInterrupt:
    sys.exit("raised")
"""
# A library that makes an error of its own of whatever happens while it is imported.
CHANGED = """
import os, signal, sys
from matmamba_common.interrupts import interruptible, leave_when_interrupted
leave_when_interrupted()
try:
    with interruptible():
        try:
            os.kill(os.getpid(), signal.SIGINT)
        except BaseException as error:
            raise ImportError("half of it is there") from error
except KeyboardInterrupt:
    os.kill(os.getpid(), signal.SIGINT)
"""
COMMANDS = ("index --help", "gallery list @", "search --gallery @ x.png")


def python(program: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", program, *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)


def interrupted(at: list[int], line: str, place: Path) -> subprocess.CompletedProcess[str]:
    return python(INTERRUPTED, ",".join(map(str, at)), *line.replace("@", str(place / "none")).split())


@pytest.mark.parametrize("line", COMMANDS)
def test_an_interrupt_is_one_line_wherever_it_comes(line: str, tmp_path: Path) -> None:
    whole = interrupted([0], line, tmp_path)
    count = int(whole.stdout.split()[-1])
    assert STATUS not in (0, whole.returncode)
    # The first of all, behind the handler; in the middle, once and twice; and the last.
    for at in ([1], [count // 3], [2 * count // 3, 2 * count // 3 + 1], [count]):
        done = interrupted(at, line, tmp_path)
        assert (done.returncode, done.stderr) == (STATUS, f"{SAID}\n"), at


def test_an_interrupt_that_python_swallows_comes_again() -> None:
    start = time.monotonic()
    done = python(UNRAISABLE)
    assert (done.returncode, done.stderr) == (1, "raised\n")
    # It does not wait for the sleep.
    assert time.monotonic() - start < 30


def test_what_a_library_made_of_an_interrupt_is_one_and_the_next_says_nothing() -> None:
    done = python(CHANGED)
    assert (done.returncode, done.stderr) == (STATUS, "")


def test_whoever_calls_a_command_keeps_his_handler() -> None:
    """Tests, for example, and programs; interrupts that are ignored stay so."""
    kept = "before = signal.getsignal(2)\nleave_when_interrupted()\nassert signal.getsignal(2) is before"
    ignored = (
        f"import signal\nfrom matmamba_common.interrupts import *\nsignal.signal(2, signal.SIG_IGN)\n{kept}"
    )
    assert python(ignored).stderr == ""
    with pytest.raises(KeyboardInterrupt), interruptible():
        raise KeyboardInterrupt
