"""Configuration: defaults in one place, files and flags over them, wrong keys by name."""

from __future__ import annotations

from itertools import takewhile
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from matmamba_datasets import train_transform
from matmamba_vision.cli.main import main
from matmamba_vision.config_file import load_into, shipped_config
from matmamba_vision.errors import ConfigError
from matmamba_vision.runs import DistillConfig, TrainConfig, load_config
from matmamba_vision.runs.train_config import check_config, save_config
from matmamba_vision.training import NestedObjective, StudentObjective, WidthSchedule
from small import create


def test_what_is_saved_is_what_is_loaded(tmp_path: Path) -> None:
    config = TrainConfig(seed=7)
    config.data.augment.scale = (0.1, 0.9)
    config.model.trained_widths = ["full", "1/16"]
    save_config(config, tmp_path / "config.yaml")
    assert load_config(tmp_path / "config.yaml") == load_config(str(tmp_path / "config.yaml")) == config


def test_what_comes_with_the_package_is_found_from_any_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As README and docs name it; one's own goes before."""
    monkeypatch.chdir(tmp_path)
    named = Path("configs/digits/demo.yaml")
    assert load_config(named) == load_config(shipped_config("digits/demo.yaml"))
    named.parent.mkdir(parents=True)
    save_config(TrainConfig(seed=7), named)
    assert load_config(named).seed == 7
    for missing in ("configs/none.yaml", "configs/../pyproject.toml", "elsewhere/digits/demo.yaml"):
        with pytest.raises(ConfigError, match="no config file"):
            load_config(missing)


def test_numbers_of_numpy_are_numbers(tmp_path: Path) -> None:
    config = TrainConfig(seed=np.int64(7))  # type: ignore[arg-type]
    config.optim.lr = np.float32(0.5)  # type: ignore[assignment]
    check_config(config)
    save_config(config, tmp_path / "config.yaml")
    known = load_config(tmp_path / "config.yaml")
    assert (known.seed, known.optim.lr) == (7, 0.5)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ({"optim": {"learning_rate": 1}}, "unknown key optim.learning_rate"),
        ({"optimiser": {}}, "unknown key optimiser; did you mean optim?"),
        ({"optim": {"epochs": "many"}}, "optim.epochs is 'many': it can be a whole number"),
        ({"data": {"augment": {"scale": 3}}}, "data.augment.scale is 3: it can be a list of 2 numbers"),
        ({"trackers": {"a": 1}}, "trackers is a mapping: it can be a list of texts"),
        ({"compile": "maybe"}, "compile is 'maybe': it can be yes or no (true/false)"),
        ({"model": 3}, "model is 3: it can be a mapping of settings"),
        ({"seed": None}, "seed is nothing: it can be a whole number"),
    ],
)
def test_a_wrong_key_or_value_is_named_with_what_it_can_be(
    tmp_path: Path, content: object, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "x.yaml"
    file.write_text(yaml.safe_dump(content))
    with pytest.raises(ConfigError) as caught:
        load_config(file)
    assert str(caught.value) == f"{file}: {said}"
    assert main(["train", "--config", str(file), "--output", str(tmp_path / "run")]) == 2
    assert capsys.readouterr().err == f"matmamba: error: {file}: {said}\n"
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    "content",
    [{"output": "${oc.env:HOME}"}, {"data": {"root": "a/${seed}"}}, {"trackers": ["${oc.env:A}"]}],
)
def test_nothing_is_looked_up_in_the_environment(tmp_path: Path, content: dict[str, object]) -> None:
    """Nor elsewhere: a file, or a checkpoint, may come from anybody."""
    (tmp_path / "x.yaml").write_text(yaml.safe_dump(content))
    with pytest.raises(ConfigError, match=rf"x\.yaml: {next(iter(content))}.*\$.*write the value"):
        load_config(tmp_path / "x.yaml")


@pytest.mark.parametrize("content", [b"a: [", b"- k", b"\xea\x00", b"\x01", b"5", b"some text"])
def test_a_file_that_is_no_yaml_with_keys_is_named(
    tmp_path: Path, content: bytes, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "x.yaml"
    file.write_bytes(content)
    with pytest.raises(ConfigError, match=r"x\.yaml"):
        load_config(file)
    assert main(["evaluate", "--grid", str(file), "--output", str(tmp_path / "out")]) == 2
    assert "x.yaml" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_missing_file_is_named_and_an_empty_one_is_all_defaults(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"none\.yaml"):
        load_config(tmp_path / "none.yaml")
    (tmp_path / "empty.yaml").touch()
    assert load_config(tmp_path / "empty.yaml") == TrainConfig()


def test_a_wrong_flag_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "--optim.learning-rate", "1"]) == 2
    assert "learning-rate" in capsys.readouterr().err


CONFIGS = Path(__file__).parents[2] / "configs"


def name_of(file: Path) -> str:
    return file.relative_to(CONFIGS).as_posix()


FILES = sorted(CONFIGS.rglob("*.yaml"))


@pytest.mark.parametrize("file", FILES, ids=name_of)
def test_every_config_says_what_to_expect(file: Path) -> None:
    header = [*takewhile(lambda line: line.startswith("#"), file.read_text().splitlines())]
    for name in ("command", "measured", "time", "hardware"):
        assert any(line.startswith(f"#   {name}  ") for line in header), name
    assert file.relative_to(CONFIGS.parent).as_posix() in "\n".join(header)
    assert shipped_config(name_of(file)).samefile(file)


OTHER_COMMANDS = ("retrieval", "photos")


def test_the_training_of_every_student_can_begin() -> None:
    for file in (CONFIGS / "photos").glob("*.yaml"):
        config = load_into(DistillConfig, file)
        check_config(config)
        with torch.device("meta"):
            model = create(config.model.name, num_classes=10, projection=config.dim)
        WidthSchedule(config.schedule, model.trained_widths, accumulate=config.engine.accumulate)
        StudentObjective(config.objective, config.follow, model.embedding_dim, 10)
        assert max(config.follow.prefix_dims) < config.dim


@pytest.mark.parametrize(
    "file", [file for file in FILES if file.parent.name not in OTHER_COMMANDS], ids=name_of
)
def test_every_training_can_begin(file: Path) -> None:
    config = load_config(file)
    check_config(config)
    with torch.device("meta"):
        model = create(config.model.name, num_classes=10)
    WidthSchedule(config.schedule, model.trained_widths, accumulate=config.engine.accumulate)
    NestedObjective(config.objective, model.embed_dim, 10)
    assert set(config.objective.mrl_dims) >= {8, 16, 32, 64}
    train_transform({"input_size": (3, 32, 32)}, config.data.augment)
