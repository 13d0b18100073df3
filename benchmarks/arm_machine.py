"""An emulated machine with an ARM processor, in a folder: Debian's Python, and packages but not torch.

    python benchmarks/arm_machine.py    # fetches what build/arm needs

Nothing but the emulator (QEMU's for programs) and a compiler for it is installed on this machine; Debian's
packages are unpacked, fetched by apt-get with settings of their own. Emulated programs start others of this
machine: the compiler of an emulated build is this machine's for ARM.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Mapping
from pathlib import Path

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / "build" / "arm"
SYSTEM, PACKAGES, INSTALLED = FOLDER / "system", FOLDER / "packages", FOLDER / "installed"
READY = FOLDER / ".ready"
EMULATOR, COMPILER = "qemu-aarch64", "aarch64-linux-gnu-gcc"
# ARMv8.0 without later extensions, as in many small computers: what needs one ends the program.
PROCESSOR = "cortex-a72"
# ONNX Runtime looks for the processor's parts here, and takes those of the emulating machine for its own.
CPUINFO = "processor\t: {}\nFeatures\t: fp asimd evtstrm crc32 cpuid\nCPU implementer\t: 0x41\n"
CPUINFO += "CPU architecture: 8\nCPU variant\t: 0x0\nCPU part\t: 0xd08\nCPU revision\t: 3\n\n"
PYTHON = ("python3-minimal", "libpython3-stdlib", "libstdc++6")
WANTED = ("numpy", "pillow", "faiss-cpu", "apsw", "sqlglot", "tyro", "rich", "onnxruntime", "hatchling")
PLATFORMS = ("manylinux2014_aarch64", "manylinux_2_27_aarch64", "manylinux_2_28_aarch64")


def missing() -> str:
    """Why no such machine can be emulated here; "" where one can be."""
    for program in (EMULATOR, COMPILER):
        if not shutil.which(program):
            return f"no {program} here: Debian's packages qemu-user and gcc-aarch64-linux-gnu have them"
    return "" if READY.is_file() else f"no Python for ARM in {FOLDER.relative_to(ROOT)}: make arm fetches it"


def make() -> None:
    """Fetch and unpack all that `run` needs."""
    shutil.rmtree(FOLDER, ignore_errors=True)
    for package in _debian_packages(FOLDER / "apt"):
        subprocess.run(["dpkg", "-x", str(package), str(SYSTEM)], check=True)
    (SYSTEM / "proc").mkdir()
    (SYSTEM / "proc" / "cpuinfo").write_text("".join(map(CPUINFO.format, range(os.cpu_count() or 1))))
    shutil.rmtree(FOLDER / "apt")
    version = _python().name.removeprefix("python")
    options = [f"--platform={name}" for name in PLATFORMS]
    subprocess.run(
        [
            sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-compile",
            "--only-binary=:all:", *options, f"--python-version={version}", f"--target={PACKAGES}",
            f"--constraint={ROOT / 'constraints.txt'}", *WANTED,
        ],
        check=True,
    )  # fmt: skip
    READY.touch()


def install() -> Path:
    """Build the wheel there, as pip would, the compiler's warnings being errors, and unpack it; its file."""
    scratch = FOLDER / "wheel"
    for old in (scratch, INSTALLED):
        shutil.rmtree(old, ignore_errors=True)
    source = scratch / "source"
    for name in ("matmamba_common", "matmamba_vision", "datasets", "retrieval", "configs"):
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("*.so", "__pycache__"))
    for name in ("pyproject.toml", "hatch_build.py", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    strict = {"CC": f"{COMPILER} -Wall -Wextra -Werror"}
    run("-m", "hatchling", "build", "-t", "wheel", "-d", str(scratch), folder=source, environment=strict)
    (wheel,) = scratch.glob("*.whl")
    with zipfile.ZipFile(wheel) as packed:
        packed.extractall(INSTALLED)
    return wheel


def run(*words: str, folder: Path = FOLDER, environment: Mapping[str, str] | None = None) -> None:
    """Its Python with these words, in a folder, with the packages and what `install` built.

    Raises:
        subprocess.CalledProcessError: it ended with an error.
    """
    places = {"PYTHONHOME": str(SYSTEM / "usr"), "PYTHONPATH": f"{INSTALLED}{os.pathsep}{PACKAGES}"}
    command = [EMULATOR, "-L", str(SYSTEM), "-cpu", PROCESSOR, str(_python()), *words]
    subprocess.run(command, check=True, cwd=folder, env={**os.environ, **(environment or {}), **places})


def _python() -> Path:
    (found,) = (SYSTEM / "usr" / "bin").glob("python3.[0-9]*")
    return found


def _debian_packages(folder: Path) -> list[Path]:
    """Files of Python's packages for ARM and of all that these need, by the sources that this machine has."""
    for name in ("state/lists/partial", "cache/archives/partial"):
        (folder / name).mkdir(parents=True)
    (folder / "status").touch()
    settings = {
        "APT::Architecture": "arm64", "APT::Architectures::": "arm64", "APT::Sandbox::User": "root",
        "Dir::State": folder / "state", "Dir::State::status": folder / "status",
        "Dir::Cache": folder / "cache", "Debug::NoLocking": "1",
    }  # fmt: skip
    apt = ["apt-get", "-qq", *(f"--option={name}={value}" for name, value in settings.items())]
    subprocess.run([*apt, "update"], check=True)
    install = ["install", "--yes", "--no-install-recommends", "--download-only"]
    subprocess.run([*apt, *install, *PYTHON], check=True)
    return sorted(folder.glob("cache/archives/*.deb"))


if __name__ == "__main__":
    make()
