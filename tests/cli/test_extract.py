"""An extracted model as it is shipped: the folder, its card, and that it is there whole or not at all."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import yaml
from matmamba_vision import MatMamba, load_checkpoint, save_checkpoint
from matmamba_vision import hub as hub_module
from matmamba_vision.cli.main import main
from matmamba_vision.measures import Latency, count_macs, count_parameters
from matmamba_vision.measures.environment import environment
from matmamba_vision.widths import extract as command
from small import SMALL, create

FILES = {"model.safetensors", "config.json", "README.md"}


@pytest.fixture
def parent(photos: Path, tmp_path: Path) -> Path:
    """The checkpoint of an untrained model, of a run on the photos."""
    torch.manual_seed(0)
    sizes = SMALL | {"num_classes": 2}
    cfg = {"input_size": (3, 16, 16)}
    model = create("matmamba_nano_patch4_32", pretrained_cfg_overlay=cfg, **sizes)
    run = {"data": {"name": "folder", "root": str(photos)}}
    save_checkpoint(tmp_path / "parent", model, ("bright", "dark"), run)
    return tmp_path / "parent"


@pytest.fixture
def extracts(parent: Path, tmp_path: Path) -> Callable[..., int]:
    """Run the command on the parent; returns the exit status."""

    def extract(width: str, *flags: str, output: str = "small") -> int:
        where = ["--checkpoint", str(parent), "--output", str(tmp_path / output)]
        return main(["extract", "--width", width, *where, *flags])

    return extract


def contents(folder: Path) -> dict[str, bytes]:
    return {str(file): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


@pytest.mark.parametrize("width", ["1/4", "2-0-8"])
def test_timm_loads_the_same_model_bit_for_bit(
    width: str,
    extracts: Callable[..., int],
    parent: Path,
    images: torch.Tensor,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert extracts(width, "--no-measure") == 0
    small = tmp_path / "small"
    assert {file.name for file in small.iterdir()} == FILES

    def download(repo_id: str, filename: str, **_: object) -> str:
        assert repo_id == "owner/small"
        return str(small / filename)

    monkeypatch.setattr("timm.models._hub.hf_hub_download", download)
    logits = load_checkpoint(parent).model(images, width=width)
    for name in (f"local-dir:{small}", "hf-hub:owner/small"):
        model = create(name, pretrained=True).eval()
        assert torch.equal(model(images), logits)
        # JSON has no tuples.
        assert json.dumps(model.input) == json.dumps(load_checkpoint(parent).model.input)
        assert model.pretrained_cfg is not None
        assert model.pretrained_cfg["label_names"] == ["bright", "dark"]
    assert torch.equal(load_checkpoint(small).model(images), logits)
    assert load_checkpoint(small).classes == ("bright", "dark")


def test_the_trained_widths_of_a_nested_model_are_kept(
    parent: Path, images: torch.Tensor, tmp_path: Path
) -> None:
    model = load_checkpoint(parent).model
    hub_module.save_for_hub(tmp_path / "nested", model, (), "card")
    loaded = create(f"local-dir:{tmp_path / 'nested'}", pretrained=True).eval()
    assert loaded.trained_widths == model.trained_widths
    assert torch.equal(loaded(images, width="1/8"), model(images, width="1/8"))


def test_the_card_says_what_was_measured(
    extracts: Callable[..., int],
    parent: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(command, "measure_latency", lambda *_: [Latency(1.5, 1.25, 1.75)])
    assert extracts("1/4") == 0
    assert "random images: 0\n" in capsys.readouterr().out
    card = (tmp_path / "small" / "README.md").read_text()
    assert main(["validate", "--checkpoint", str(tmp_path / "small"), "--json"]) == 0
    (row,) = json.loads(capsys.readouterr().out)["widths"]
    (result,) = yaml.safe_load(card.split("---")[1])["model-index"][0]["results"]
    assert [metric["value"] for metric in result["metrics"]] == [row["top1"], row["knn1"]]
    assert f"Top-1 {row['top1']:.4f}, 1-NN {row['knn1']:.4f}: the 4 held-out images" in card
    whole, model = load_checkpoint(parent), load_checkpoint(tmp_path / "small").model
    assert f"| parent, SHA-256 | `{whole.digest}` |" in card
    assert "| width | 1/4: 2-2-2 of 8-8-8 heads" in card
    assert f"| parameters | {count_parameters(model):,} |" in card
    assert f"| multiply-adds, one image | {count_macs(model):,} |" in card
    assert "| latency | 1.5 ms, quartiles 1.25 and 1.75 ms |" in card
    assert (
        f"| measured with | batch size 1, {environment()['machine']['processor']}, threads: 1, torch" in card
    )
    assert "from the parent at this width: 0\n" in card


def test_what_cannot_be_measured_is_said(
    extracts: Callable[..., int], photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    photos.rename(tmp_path / "moved")
    assert extracts("1/4", "--data-root", str(photos)) == 2
    assert str(photos) in capsys.readouterr().err
    assert not (tmp_path / "small").exists()
    assert extracts("1/4") == 0
    card = (tmp_path / "small" / "README.md").read_text()
    assert "not measured: " in card
    assert str(photos) in card
    assert "model-index" not in card
    assert extracts("1/4", "--data-root", str(tmp_path / "moved"), "--overwrite") == 0
    assert "not measured" not in (tmp_path / "small" / "README.md").read_text()


def test_only_its_own_files_are_replaced(
    extracts: Callable[..., int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    small = tmp_path / "small"
    small.mkdir()
    (small / "notes.txt").write_text("mine")
    assert extracts("1/4", "--no-measure") == 2
    assert f"{small} exists" in capsys.readouterr().err
    assert contents(small) == {str(small / "notes.txt"): b"mine"}
    # A graph of other weights must not stay beside these.
    (small / "model.onnx").write_text("old")
    assert extracts("1/4", "--no-measure", "--overwrite") == 0
    assert {file.name for file in small.iterdir()} == {*FILES, "notes.txt"}
    assert (small / "notes.txt").read_text() == "mine"
    before = contents(small)
    assert extracts("1/2", "--no-measure") == 2
    assert contents(small) == before
    assert extracts("1/2", "--no-measure", "--overwrite") == 0
    assert load_checkpoint(small).model.heads == (4, 4, 4)


def test_a_page_of_ones_own_is_never_replaced(extracts: Callable[..., int], tmp_path: Path) -> None:
    small = tmp_path / "small"
    small.mkdir()
    (small / "README.md").write_text("mine")
    assert extracts("1/4", "--no-measure", "--overwrite") == 2
    assert contents(small) == {str(small / "README.md"): b"mine"}


@pytest.mark.parametrize("error", [OSError("no space left"), KeyboardInterrupt()])
def test_a_folder_is_written_whole_or_not_at_all(
    error: BaseException, extracts: Callable[..., int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert extracts("1/2", "--no-measure", output="before") == 0
    # As a killed process leaves it.
    (tmp_path / "small.partial").mkdir()
    (tmp_path / "small.partial" / "config.json").write_text("{")
    before = contents(tmp_path / "before")

    def fail(*_: object) -> None:
        raise error

    with monkeypatch.context() as patched:
        patched.setattr(hub_module, "save_config_for_hf", fail)
        assert extracts("1/4", "--no-measure") in (2, 130)
        assert extracts("1/4", "--no-measure", "--overwrite", output="before") in (2, 130)
    assert contents(tmp_path / "before") == before
    assert {file.name for file in tmp_path.iterdir()} == {"before", "parent", "photos"}
    assert extracts("1/4", "--no-measure") == 0


def test_a_model_that_differs_is_not_saved(
    extracts: Callable[..., int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(command, "largest_difference", lambda *_: float("nan"))
    assert extracts("1/4") == 2
    assert extracts("1/4", output="small.safetensors") == 2
    assert {file.name for file in tmp_path.iterdir()} == {"parent", "photos"}


def test_onnx_is_checked_before_anything_is_written(
    extracts: Callable[..., int],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:

    extract = ("0-0-2", "--no-measure", "--onnx")
    small = tmp_path / "small"
    assert extracts(*extract) == 0
    assert "ONNX Runtime's logits from PyTorch's: " in capsys.readouterr().out
    assert {file.name for file in small.iterdir()} == {*FILES, "model.onnx"}
    assert "of `model.onnx` in ONNX Runtime from PyTorch: " in (small / "README.md").read_text()
    before = contents(tmp_path)
    graph = (small / "model.onnx").read_bytes()
    # The graph of another width.
    monkeypatch.setattr(command, "export_onnx", lambda _, file: file.write_bytes(graph))
    assert extracts("0-0-4", *extract[1:], "--overwrite") == 2
    assert "model.onnx differs" in capsys.readouterr().err
    assert contents(tmp_path) == before


def test_a_missing_extra_is_named(
    extracts: Callable[..., int],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    assert extracts("1/4", "--onnx") == 2
    assert "needs onnxscript: pip install 'matmamba-vision[export]'" in capsys.readouterr().err
    assert not (tmp_path / "small").exists()


def test_a_single_file_is_all_that_is_written(
    extracts: Callable[..., int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert extracts("1/4", "--onnx", output="small.safetensors") == 2
    assert "onnx needs a folder" in capsys.readouterr().err
    assert extracts("1/4", output="small.safetensors") == 0
    assert {file.name for file in tmp_path.iterdir()} == {"small.safetensors", "parent", "photos"}
    assert load_checkpoint(tmp_path / "small.safetensors").model.heads == (2, 2, 2)


def test_a_parent_is_not_replaced_by_its_piece(
    extracts: Callable[..., int], parent: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = contents(parent)
    assert extracts("1/4", "--overwrite", output="parent") == 2
    assert "the checkpoint itself" in capsys.readouterr().err
    assert contents(parent) == before


def test_a_model_that_timm_cannot_name_goes_to_a_file(
    model: MatMamba, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    save_checkpoint(tmp_path / "parent", model)
    extract = ["extract", "--checkpoint", str(tmp_path / "parent"), "--width", "1/4", "--output"]
    assert main([*extract, str(tmp_path / "small")]) == 2
    assert "no timm architecture" in capsys.readouterr().err
    assert main([*extract, str(tmp_path / "small.safetensors")]) == 0
    assert {file.name for file in tmp_path.iterdir()} == {"parent", "small.safetensors"}
