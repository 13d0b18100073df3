"""The library of all kernels in C: found beside this file and opened, or one line says why not."""

from __future__ import annotations

import ctypes
import logging
from collections.abc import Callable
from ctypes import c_char_p
from functools import cache
from pathlib import Path
from typing import TypeVar

log = logging.getLogger(__name__)

FILE = Path(__file__).with_name("libkernels.so")
# Of a processor that has no other set that kernels were built for.
PLAIN = "plain"


class Compiled:
    """The library, opened for this processor; whoever calls something in it derives from this class.

    Attributes:
        file: the library.
        calls: its functions.
        instructions: the instruction set that is used, such as "avx512".

    Args:
        file: by default the library that was built.
        instructions: the set to use, by default the best that the processor has.

    Raises:
        OSError: it cannot be loaded, is of another version, or has nothing for this processor.
    """

    def __init__(self, file: Path | None = None, instructions: str = "") -> None:
        self.file = file or FILE
        self.calls = ctypes.CDLL(str(self.file))
        choose = self.calls.matmamba_instructions
        choose.argtypes, choose.restype = [c_char_p], c_char_p
        found = choose(instructions.encode())
        if found is None:
            raise OSError(f"{self.file} has nothing for {instructions or 'this processor'}")
        self.instructions: str = found.decode()

    def require_size(self, structure: type[ctypes.Structure], size: int) -> None:
        """That what is handed over is as large here as there: a mirror that is out of date is noticed.

        Args:
            structure: what is handed over.
            size: bytes of it in the library.

        Raises:
            OSError: it is not.
        """
        if ctypes.sizeof(structure) != size:
            raise OSError(f"{self.file} was built from another version: build it again with `make native`")


Kind = TypeVar("Kind", bound=Compiled)


def kernels(kind: type[Kind]) -> Kind | None:
    """Kernels of a kind, or None where there are none; then one line of notice says why, once in a process.

    Args:
        kind: what opens and declares them.
    """
    found = _opened(kind, FILE)
    if isinstance(found, kind):
        return found
    _notice(str(found))
    return None


def why_no_kernels(kind: type[Compiled]) -> str | None:
    """Why there are no kernels of a kind here, or None if there are some."""
    found = _opened(kind, FILE)
    return None if isinstance(found, Compiled) else found


def _opened(kind: type[Compiled], file: Path) -> Compiled | str:
    # As a mere call: mypy takes a class for something that has no hash.
    opening: Callable[[Path], Compiled] = kind
    return _opened_once(opening, file)


@cache
def _opened_once(kind: Callable[[Path], Compiled], file: Path) -> Compiled | str:
    if not file.is_file():
        return "they were not built: a C compiler and `make native` do it"
    try:
        return kind(file)
    # Whatever is wrong with the file, there is another way to compute.
    except (OSError, AttributeError) as error:
        return str(error)


@cache
def _notice(reason: str) -> None:
    log.warning("without the kernels in C, which are several times faster on a CPU: %s", reason)
