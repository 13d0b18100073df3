"""How encoders that are not ours are named: `timm:NAME`, `open_clip:ARCH/TAG`, `FILE.onnx`.

Told apart without loading anything, so that what a gallery remembers can be looked at at once.
"""

from __future__ import annotations

from pathlib import Path

TIMM, OPEN_CLIP, ONNX = "timm:", "open_clip:", ".onnx"
# Before the name of a function, which no text can open again.
FUNCTION = "function:"
# Of a folder with a network's configuration and weights, for timm and open_clip alike.
_FOLDER = "local-dir:"
# In words, for messages and help.
KINDS = "timm:NAME, open_clip:ARCH/TAG, or an ONNX file with a JSON file beside it"


def is_named(name: str) -> bool:
    """Whether a text names an encoder that is not ours."""
    return name.startswith((TIMM, OPEN_CLIP, FUNCTION)) or name.endswith(ONNX)


def place_of(name: str) -> str:
    """The same name from wherever it is opened again: folders and files become absolute."""
    if name.endswith(ONNX):
        return str(Path(name).absolute())
    before, folder, path = name.partition(_FOLDER)
    return f"{before}{folder}{Path(path).absolute()}" if folder else name


def file_of(name: str) -> Path | None:
    """The folder or file that a name leads to; None where a library looks for its weights."""
    if name.endswith(ONNX):
        return Path(name)
    path = name.partition(_FOLDER)[2]
    return Path(path) if path else None
