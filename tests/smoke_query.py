"""An installed package without torch: a gallery of vectors is made, looked into and searched.

`make smoke` builds the wheel, installs it with the extra `query` into a fresh environment and runs this
there; pytest does not.
"""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import matmamba_vision
import numpy as np
from PIL import Image

# What this install does without.
NOT_HERE = (
    "pytest",
    "torch",
    "torchvision",
    "timm",
    "safetensors",
    "matplotlib",
    "pyarrow",
    "sklearn",
    "onnx",
)
COUNT, DIM = 300, 64


def matmamba(*arguments: str, status: int = 0) -> str:
    """What the installed command prints, and what it complains of; `status` is what it has to exit with."""
    command = [str(Path(sys.executable).with_name("matmamba")), *arguments]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    assert run.returncode == status, (arguments, run.returncode, run.stderr)
    return run.stdout + run.stderr


def require_no_torch() -> None:
    """That what is tried is the installed package, beside ONNX Runtime and nothing that trains."""
    assert Path(matmamba_vision.__file__).is_relative_to(sys.prefix), matmamba_vision.__file__
    here = [name for name in NOT_HERE if importlib.util.find_spec(name)]
    assert not here, f"installed beside the core: {here}"
    assert importlib.util.find_spec("onnxruntime")


def write_vectors(file: Path) -> np.ndarray:
    """(COUNT, DIM) vectors of length 1."""
    xb = np.random.default_rng(0).standard_normal((COUNT, DIM)).astype(np.float32)
    xb /= np.linalg.norm(xb, axis=1, keepdims=True)
    np.save(file, xb)
    return xb


def by_shell(place: Path) -> list[str]:
    """Index, look, search; the ids of the hits of the first vector."""
    gallery, vectors = str(place / "G"), str(place / "vectors.npy")
    assert "usage: matmamba" in matmamba("--help")
    matmamba("index", "--vectors", vectors, "--model-name", "some", "--gallery", gallery, "--dims", "16")
    assert json.loads(matmamba("gallery", "info", gallery, "--json"))["images"] == COUNT
    listed = matmamba("gallery", "list", gallery, "--where", "id LIKE '1%'", "--format", "ids")
    assert len(listed.split()) == 111
    matmamba("gallery", "verify", gallery)
    like = json.loads(matmamba("search", "--gallery", gallery, "--like", "0", "--json"))
    assert len(like["answers"][0]["hits"]) == 10
    asked = ("--vectors", vectors, "--model-name", "some", "--k", "4", "--json")
    exact = json.loads(matmamba("search", "--gallery", gallery, *asked))
    indexed = json.loads(matmamba("search", "--gallery", gallery, *asked, "--strategy", "shortlist"))
    assert [answer["hits"][0]["id"] for answer in indexed["answers"]] == list(map(str, range(COUNT)))
    return [hit["id"] for hit in exact["answers"][0]["hits"]]


def by_door(place: Path, xb: np.ndarray) -> list[str]:
    """The same in Python, without an index."""
    with matmamba_vision.open_gallery(place / "G") as gallery:
        assert [hit.id for hit in gallery.search(["7"], k=1)[0]] != ["7"]
        return [hit.id for hit in gallery.search(xb[0], k=4, strategy="single-shot")]


def require_names_of_extras(place: Path) -> None:
    """What needs torch, or reads Parquet files, says in a line what to install."""
    gallery, picture = str(place / "G"), place / "photos" / "query.png"
    picture.parent.mkdir()
    Image.fromarray(np.zeros((32, 32, 3), np.uint8)).save(picture)
    torch = "matmamba: error: this needs torch: pip install 'matmamba-vision[torch]'\n"
    for needing in (
        ("index", "--images", str(picture.parent), "--gallery", str(place / "new")),
        ("train", "--data.name", "folder", "--data.root", str(picture.parent)),
        ("validate", "--checkpoint", "matmamba_nano_patch4_32"),
        (
            "extract",
            "--checkpoint",
            "matmamba_nano_patch4_32",
            "--width",
            "1/4",
            "--output",
            str(place / "x"),
        ),
    ):
        assert matmamba(*needing, status=2) == torch, needing
    said = matmamba("gallery", "export", gallery, str(place / "x.parquet"), status=2)
    assert "matmamba-vision[data]" in said
    said = ""
    try:
        matmamba_vision.train  # noqa: B018
    except matmamba_vision.MatMambaError as error:
        said = str(error)
    assert "matmamba-vision[torch]" in said


def by_photo(kept: Path) -> None:
    """Search a gallery that keeps encoders by a photo; its checkpoint is in an install with torch."""
    asked = ("--gallery", str(kept / "gallery"), str(kept / "query.png"), "--k", "4", "--json")
    found = json.loads(matmamba("search", *asked))
    assert found["encoded_by"]["full"].startswith("native")
    assert found["answers"][0]["hits"] == json.loads((kept / "hits.json").read_text())


def main() -> None:
    require_no_torch()
    if (kept := Path(sys.argv[1])).is_dir():
        by_photo(kept)
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        xb = write_vectors(place / "vectors.npy")
        assert by_shell(place) == by_door(place, xb)
        require_names_of_extras(place)
    print(f"matmamba-vision {matmamba_vision.__version__} searches without torch, by shell and in Python")


if __name__ == "__main__":
    main()
