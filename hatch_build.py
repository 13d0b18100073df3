"""Builds all kernels in C into one library, for `pip install` and for `make native`.

They are optional: where there is no C compiler, or it fails, everything is installed without them.
"""

from __future__ import annotations

import os
import platform
import shlex
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path
from typing import Any

try:
    from hatchling.builders.hooks.plugin.interface import BuildHookInterface
except ModuleNotFoundError:  # run as a script
    BuildHookInterface = object  # type: ignore[assignment,misc]

ROOT = Path(__file__).parent
FOLDER = ROOT / "matmamba_common" / "native"
LIBRARY = FOLDER / "libkernels.so"
# Chooses among the instruction sets; files of kernels are compiled once for each set, and once without.
CHOICE = FOLDER / "instructions.c"
NETWORK = ROOT / "matmamba_vision" / "native" / "kernels.c"
ROWS = ROOT / "retrieval" / "matmamba_retrieval" / "index" / "best_rows.c"
FLAGS = ("-std=gnu11", "-O3", "-fPIC", "-fno-math-errno", "-ffp-contract=fast", f"-I{FOLDER}")
# The instruction sets of each kind of processor, and the compiler's flags for them.
SETS = {
    "x86_64": {
        "avx512": ("-mavx512f", "-mavx512dq", "-mavx512vl", "-mfma", "-mf16c", "-mprefer-vector-width=512"),
        "avx2": ("-mavx2", "-mfma", "-mf16c"),
    },
    "aarch64": {"neon": ()},
}
_SAME = {"amd64": "x86_64", "arm64": "aarch64"}


def compiler() -> list[str]:
    """The C compiler that is there, as a command; empty if none is."""
    wanted = os.environ.get("CC") or next(filter(shutil.which, ("cc", "gcc", "clang")), "")
    return shlex.split(wanted)


def build(into: Path = LIBRARY) -> str | None:
    """Compile the kernels into one library; why that was not possible, or None."""
    machine = platform.machine().lower()
    sets, command = SETS.get(_SAME.get(machine, machine), {}), compiler()
    if sys.platform == "win32":
        return f"there are none for {sys.platform}"
    if not command:
        return "no C compiler was found (cc, gcc, clang, or the one that CC names)"
    with tempfile.TemporaryDirectory() as scratch:
        try:
            parts = [(CHOICE, "main", [])]
            # The rows of a gallery are scored without a set, too.
            for source, named in ((NETWORK, sets), (ROWS, {**sets, "plain": ()})):
                parts += [(source, name, [f"-DISA={name}", *flags]) for name, flags in named.items()]
                parts.append((source, "main", []))
            objects = [_compiled(command, *part, Path(scratch)) for part in parts]
            library = Path(scratch) / into.name
            _run([*command, "-shared", *map(str, objects), "-lpthread", "-lm", "-o", str(library)])
        except (OSError, subprocess.CalledProcessError) as error:
            return f"{shlex.join(command)}: {getattr(error, 'stderr', '') or error}"
        # Renamed, so that a process that has the old one loaded keeps it.
        beside = into.with_suffix(f".{os.getpid()}.partial")
        shutil.copyfile(library, beside)
        beside.replace(into)
    return None


def _compiled(command: list[str], source: Path, name: str, flags: list[str], folder: Path) -> Path:
    into = folder / f"{source.stem}.{name}.o"
    _run([*command, *FLAGS, *flags, "-c", str(source), "-o", str(into)])
    return into


def _run(command: list[str]) -> None:
    subprocess.run(command, check=True, capture_output=True, text=True)


class CustomBuildHook(BuildHookInterface):
    """What hatchling calls before it builds a wheel or an editable install."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Compile; a wheel with the library is for this platform, any Python 3."""
        if self.target_name != "wheel":
            return
        if reason := build():
            LIBRARY.unlink(missing_ok=True)
            self.app.display_warning(f"without the kernels in C: {reason}")
            return
        build_data["artifacts"].append(LIBRARY.relative_to(ROOT).as_posix())
        build_data["pure_python"] = False
        build_data["tag"] = f"py3-none-{sysconfig.get_platform().replace('-', '_').replace('.', '_')}"


if __name__ == "__main__":
    failed = build()
    print(f"without the kernels in C: {failed}" if failed else f"built {LIBRARY}")
