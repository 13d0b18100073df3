"""Every call of Python names the argument that is of another type, and has written nothing by then."""

from __future__ import annotations

import hashlib
import inspect
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import matmamba_vision as mv
import numpy as np
import pytest
import torch
from made_videos import at_rate, cuts, write_video
from matmamba_common.errors import MatMambaError
from PIL import Image
from small import create, unit_vectors

SHUT = "is closed: open it again"


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Photos, a model of random weights, and a gallery of the photos by it."""
    root, rng = tmp_path_factory.mktemp("arguments"), np.random.default_rng(0)
    (root / "videos").mkdir()
    for number in range(4):
        file = root / "photos" / ("dark" if number % 2 else "bright") / f"{number}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (20, 24, 3)).astype(np.uint8)).save(file)
    torch.manual_seed(0)
    made = create(
        "matmamba_nano_patch4_32",
        img_size=16,
        num_classes=2,
        pretrained_cfg_overlay={"input_size": (3, 16, 16)},
    )
    mv.save_checkpoint(root / "model", made.eval(), ("bright", "dark"))
    mv.index(root / "photos", root / "g", model=root / "model", threads=1)
    np.save(root / "v.npy", unit_vectors(4, made.embedding_dim))
    write_video(root / "videos" / "first.mp4", at_rate(cuts([1, 2], [3, 3])))
    (root / "run.yaml").write_text("data: {name: folder, root: photos}\n")
    return root


@pytest.fixture(autouse=True)
def _there(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(place)


def written(place: Path) -> dict[str, str]:
    """What is there, by file."""
    return {
        str(file): hashlib.sha256(file.read_bytes()).hexdigest() if file.is_file() else ""
        for file in place.rglob("*")
    }


DATA = {"name": "folder", "root": "photos"}
# What each call can be given, so that one argument alone is wrong.
CALLS: dict[str, dict[str, Any]] = {
    "answers_to_dict": {},
    "build_indexes": {"gallery": "g"},
    "demo": {"output": "new"},
    "distill": {"config": {"teacher": "model", "images": ["photos"]}},
    "encoder_from": {"function": lambda images: images.mean((2, 3)), "name": "f", "size": 16},
    "evaluate": {"checkpoint": "model", "data": "digits"},
    "evaluate_gallery": {"gallery": "g", "queries": "photos"},
    "extract": {"model": "model", "width": "1/2", "output": "new"},
    "freeze": {},
    "import_gallery": {"file": "g.parquet", "gallery": "new"},
    "index": {"images": "photos", "gallery": "new", "model": "model"},
    "index_on_ray": {"images": "photos", "gallery": "new", "model": "model"},
    "index_vectors": {"vectors": "v.npy", "gallery": "new", "model_name": "m"},
    "index_video": {"videos": "videos", "gallery": "new", "model": "model"},
    "keep_freed_memory": {},
    "load_checkpoint": {"path": "model"},
    "load_config": {"file": "run.yaml"},
    "load_official": {"source": "model"},
    "merge": {"galleries": ["g"], "into": "new"},
    "open_encoder": {"name": "model"},
    "open_gallery": {"folder": "g"},
    "plan_training": {"config": "run.yaml"},
    "prepare_shards": {"data": DATA, "output": "new"},
    "reading_rates": {"data": DATA},
    "reindex": {"folder": "g", "model": "model"},
    "save_checkpoint": {"path": "new"},
    "save_official": {"path": "new"},
    "select": {"checkpoint": "model", "budget": "gmacs=2"},
    "to_official": {},
    "train": {"config": "run.yaml"},
    "tune": {},
    "validate": {"checkpoint": "model"},
    "verify_data": {"data": DATA},
    "watch": {"source": "photos", "gallery": "g"},
    "with_teacher": {"student": "model"},
    "write_page": {"file": "new.html"},
    "gallery.add": {"images": "photos"},
    "gallery.delete": {"ids": ["bright/0.png"]},
    "gallery.duplicates": {},
    "gallery.export": {"file": "new.parquet"},
    "gallery.export_atlas": {"file": "new.parquet"},
    "gallery.freeze": {},
    "gallery.plan": {"queries": "photos", "target": "recall=0.9"},
    "gallery.push": {"to": "edge:new"},
    "gallery.relocate": {"old": "photos", "new": "photos"},
    "gallery.rows": {},
    "gallery.search": {"query": "bright/0.png"},
    "gallery.set_encoder": {"model": "model"},
    "gallery.suggest_labels": {},
    "gallery.verify": {},
    "gallery.verify_pushed": {"place": "edge:new"},
}
# What means nothing beside an argument.
INSTEAD = {
    ("evaluate_gallery", "vectors"): {"queries": None},
    ("gallery.plan", "vectors"): {"queries": None},
}
# The network itself.
TAKE_A_MODEL = ("freeze", "save_checkpoint", "save_official", "to_official")
WITHOUT_ARGUMENTS = {
    "changing", "close", "compact", "encoder", "info", "open", "reading", "reading_folder", "refresh",
    "repair", "require_model", "takes_text",
}  # fmt: skip


def functions_of(owner: Any) -> set[str]:
    return {
        name
        for name in (owner.__all__ if inspect.ismodule(owner) else dir(owner))
        if name[0] != "_" and inspect.isroutine(getattr(owner, name))
    }


def test_every_call_is_tried() -> None:
    methods = {f"gallery.{name}" for name in functions_of(mv.ImageGallery) - WITHOUT_ARGUMENTS}
    assert CALLS.keys() == functions_of(mv) | methods


@pytest.fixture
def gallery() -> Iterator[mv.ImageGallery]:
    with mv.open_gallery("g", write=True) as opened:
        yield opened


def called(name: str, gallery: mv.ImageGallery) -> tuple[Callable[..., Any], dict[str, Any]]:
    """A call, and what it can be given."""
    call = getattr(gallery, name.partition(".")[2]) if "." in name else getattr(mv, name)
    if name in TAKE_A_MODEL:
        return call, CALLS[name] | {"model": mv.load_checkpoint("model").model}
    return call, CALLS[name]


@pytest.mark.parametrize("name", CALLS)
def test_an_argument_of_another_type_is_named(name: str, place: Path, gallery: mv.ImageGallery) -> None:
    call, given = called(name, gallery)
    before = written(place)
    for argument in inspect.signature(call).parameters:
        with pytest.raises(TypeError, match=rf"^{argument}\b.*\bis an object: it can be "):
            call(**{**given, **INSTEAD.get((name, argument), {}), argument: object()})
    assert written(place) == before


@pytest.mark.parametrize("name", CALLS)
def test_a_number_that_is_none_is_named(name: str, place: Path, gallery: mv.ImageGallery) -> None:
    call, given = called(name, gallery)
    before = written(place)
    for argument, parameter in inspect.signature(call).parameters.items():
        if str(parameter.annotation).startswith("float"):
            with pytest.raises(MatMambaError, match=rf"^{argument} is nan: it can be "):
                call(**{**given, argument: float("nan")})
    assert written(place) == before


@pytest.mark.parametrize("name", CALLS)
def test_a_path_that_is_empty_is_not_this_folder(name: str, place: Path, gallery: mv.ImageGallery) -> None:
    """Unless it stands for none, as in a call without it."""
    call, given = called(name, gallery)
    before = written(place)
    for argument, parameter in inspect.signature(call).parameters.items():
        if "PathLike" in str(parameter.annotation) and parameter.default != "":
            with pytest.raises((MatMambaError, TypeError)):
                call(**{**given, **INSTEAD.get((name, argument), {}), argument: ""})
    assert written(place) == before


@pytest.mark.parametrize("name", CALLS)
def test_a_path_that_no_system_takes_is_refused(name: str, place: Path, gallery: mv.ImageGallery) -> None:
    call, given = called(name, gallery)
    before = written(place)
    for argument, parameter in inspect.signature(call).parameters.items():
        if "PathLike" in str(parameter.annotation):
            with pytest.raises((MatMambaError, TypeError)):
                call(**{**given, **INSTEAD.get((name, argument), {}), argument: "a\0b"})
    assert written(place) == before


@pytest.mark.parametrize("name", CALLS)
def test_a_text_is_no_list_of_numbers(name: str, place: Path, gallery: mv.ImageGallery) -> None:
    call, given = called(name, gallery)
    before = written(place)
    for argument, parameter in inspect.signature(call).parameters.items():
        if str(parameter.annotation).startswith("Sequence[int]"):
            with pytest.raises(TypeError, match=rf"^{argument} is '64': it can be a list"):
                call(**{**given, argument: "64"})
    assert written(place) == before


@pytest.mark.parametrize("name", CALLS)
def test_more_processes_than_a_machine_has_are_refused(
    name: str, place: Path, gallery: mv.ImageGallery
) -> None:
    call, given = called(name, gallery)
    before, parameters = written(place), inspect.signature(call).parameters
    for argument in {"workers", "threads"} & parameters.keys():
        number = [10**30] if "Sequence" in str(parameters[argument].annotation) else 10**30
        with pytest.raises(MatMambaError, match=f"{argument} is 10{{30}}: it can be from 0 to 1024"):
            call(**{**given, **INSTEAD.get((name, argument), {}), argument: number})
    assert written(place) == before


def test_a_checkpoint_that_is_not_there_leaves_no_run(place: Path) -> None:
    before = written(place)
    with pytest.raises(MatMambaError, match=r"^resume is 'no/where': it can be no, auto, or a checkpoint"):
        mv.train({"output": "new", "data": {"name": "digits"}}, resume="no/where")
    assert written(place) == before


def test_a_format_that_is_none_is_named() -> None:
    with pytest.raises(MatMambaError, match=r"^form is 'none': it can be a format that FFmpeg reads"):
        mv.watch("videos/first.mp4", "g", model="model", form="none")


@pytest.mark.parametrize("name", [name for name in CALLS if "." in name])
def test_a_closed_gallery_says_so(name: str, place: Path, gallery: mv.ImageGallery) -> None:
    call, given = called(name, gallery)
    gallery.close()
    before = written(place)
    with pytest.raises(MatMambaError, match=SHUT):
        call(**given)
    assert written(place) == before
