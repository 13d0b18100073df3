"""How encoders that are not ours are named: `timm:NAME`, `open_clip:ARCH/TAG`, `FILE.onnx`.

A student with its teacher is named `student:RUN::TEACHER`.

Told apart without loading anything, so that what a gallery remembers can be looked at at once.
"""

from __future__ import annotations

from pathlib import Path

from matmamba_common.errors import MatMambaError

TIMM, OPEN_CLIP, ONNX = "timm:", "open_clip:", ".onnx"
# Before the name of a function, which no text can open again.
FUNCTION = "function:"
# Before the run of a student; behind that, the name of its teacher.
TAUGHT, _BY = "student:", "::"
# Of a folder with a network's configuration and weights, for timm and open_clip alike.
_FOLDER = "local-dir:"


class EncoderError(MatMambaError):
    """An encoder that cannot be had, or that does not give one vector for each image or text."""


def no_texts(name: str) -> EncoderError:
    """What is said where a text is to be encoded by what has no text tower."""
    return EncoderError(f"{name} has no text tower: it cannot be asked by a text")


def is_named(name: str) -> bool:
    """Whether a text names an encoder that is not ours."""
    return name.startswith((TIMM, OPEN_CLIP, FUNCTION, TAUGHT)) or name.endswith(ONNX)


def is_taught(name: str) -> bool:
    """Whether a text names a student with its teacher."""
    return name.startswith(TAUGHT)


def taught_name(run: str, teacher: str) -> str:
    """The name of a student with its teacher."""
    return f"{TAUGHT}{run}{_BY}{teacher}"


def taught_parts(name: str) -> tuple[str, str]:
    """The run of the student and the name of the teacher, "" where none is named."""
    run, _, teacher = name.removeprefix(TAUGHT).partition(_BY)
    return run, teacher


def place_of(name: str) -> str:
    """The same name from wherever it is opened again: folders and files become absolute."""
    if name.endswith(ONNX):
        return str(Path(name).absolute())
    before, folder, path = name.partition(_FOLDER)
    return f"{before}{folder}{Path(path).absolute()}" if folder else name


def takes_text(name: str) -> bool | None:
    """Whether what a name opens has a text tower; None where only the function itself knows."""
    name = taught_parts(name)[1] if is_taught(name) else name
    return None if name.startswith(FUNCTION) else name.startswith(OPEN_CLIP)


def file_of(name: str) -> Path | None:
    """The folder or file that a name leads to; None where a library looks for its weights."""
    if is_taught(name):
        return Path(taught_parts(name)[0])
    if name.endswith(ONNX):
        return Path(name)
    path = name.partition(_FOLDER)[2]
    return Path(path) if path else None
