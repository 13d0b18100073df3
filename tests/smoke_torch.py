"""The main job on an installed package with torch and no other extra: images are indexed and searched.

`make smoke` builds the wheel, installs it with the extra `torch` into a fresh environment and runs this
there; pytest does not.
"""

from __future__ import annotations

import importlib.util
import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import matmamba_vision
import numpy as np
from matmamba_vision.native import why_missing
from PIL import Image

# Of the extras for tests, data, export and light queries: the main job needs none of them.
NOT_HERE = ("pytest", "pyarrow", "sklearn", "onnx", "onnxruntime", "pillow_heif", "transformers")


def matmamba(*arguments: str) -> str:
    """What the installed command prints."""
    command = [str(Path(sys.executable).with_name("matmamba")), *arguments]
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout


def draw(folder: Path) -> list[Path]:
    """Twelve images of noise around colours of their own, in two classes."""
    rng = np.random.default_rng(0)
    files = [folder / ("bright" if n % 2 else "dark") / f"{n:02d}.png" for n in range(12)]
    for number, file in enumerate(files):
        file.parent.mkdir(parents=True, exist_ok=True)
        pixels = rng.integers(0, 60, (64, 64, 3)) + rng.integers(0, 90, 3) + 100 * (number % 2)
        Image.fromarray(pixels.astype(np.uint8)).save(file)
    return files


def require_torch_alone() -> None:
    """That what is tried is the installed package, and nothing beside its core and torch."""
    assert Path(matmamba_vision.__file__).is_relative_to(sys.prefix), matmamba_vision.__file__
    extra = [name for name in NOT_HERE if importlib.util.find_spec(name)]
    assert not extra, f"installed beside torch: {extra}"


def by_shell(place: Path, files: list[Path]) -> list[str]:
    """Index, search by a file; the ids of the hits. Each image finds itself."""
    assert "usage: matmamba" in matmamba("--help")
    matmamba("index", "--images", str(place / "photos"), "--gallery", str(place / "gallery"))
    said = matmamba("search", "--gallery", str(place / "gallery"), str(files[3]), "--k", "4", "--json")
    ids = [hit["id"] for hit in json.loads(said)["answers"][0]["hits"]]
    assert len(ids) == 4
    assert ids[0] == files[3].relative_to(place / "photos").as_posix()
    return ids


def by_door(place: Path, files: list[Path]) -> list[str]:
    """The same in Python, in a gallery of its own."""
    matmamba_vision.index(place / "photos", place / "second")
    with matmamba_vision.open_gallery(place / "second") as gallery:
        return [hit.id for hit in gallery.search(files[3], k=4)]


def keep(place: Path, photo: Path, kept: Path) -> None:
    """Leave a gallery with encoders, a photo and its hits for an install without torch."""
    if why_missing() is not None:
        print(f"no kernels in C in this wheel: {why_missing()}")
        return
    gallery = str(place / "gallery")
    matmamba("gallery", "freeze", gallery, "--widths", "full")
    said = json.loads(matmamba("search", "--gallery", gallery, str(photo), "--k", "4", "--json"))
    shutil.copytree(gallery, kept / "gallery")
    shutil.copy(photo, kept / "query.png")
    (kept / "hits.json").write_text(json.dumps(said["answers"][0]["hits"]))


def main() -> None:
    require_torch_alone()
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        files = draw(place / "photos")
        assert by_door(place, files) == by_shell(place, files)
        keep(place, files[3], Path(sys.argv[1]))
    print(f"matmamba-vision {matmamba_vision.__version__} indexes and searches by shell and in Python")


if __name__ == "__main__":
    main()
