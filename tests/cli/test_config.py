"""Configuration: defaults in one place, files and flags over them, wrong keys by name."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from matmamba_vision.cli.config import ConfigError, TrainConfig, load_config, save_config, shipped_config
from matmamba_vision.cli.main import main


def test_what_is_saved_is_what_is_loaded(tmp_path: Path) -> None:
    config = TrainConfig(seed=7)
    config.data.augment.scale = (0.1, 0.9)
    config.model.trained_widths = ["full", "1/16"]
    save_config(config, tmp_path / "config.yaml")
    assert load_config(tmp_path / "config.yaml") == config


@pytest.mark.parametrize(
    "file", sorted(Path(__file__).parents[2].glob("configs/**/*.yaml")), ids=lambda file: file.name
)
def test_every_shipped_config_loads_and_says_how_it_is_run(file: Path) -> None:
    load_config(file)
    header = [line for line in file.read_text().splitlines() if line.startswith("#")]
    assert all(any(word in line for line in header) for word in ("command", "expected", "time"))
    assert shipped_config(str(file.relative_to(Path(__file__).parents[2] / "configs"))).samefile(file)


@pytest.mark.parametrize(
    ("content", "culprit"),
    [
        ({"optim": {"learning_rate": 1}}, "learning_rate"),
        ({"optimiser": {}}, "optimiser"),
        ({"optim": {"epochs": "many"}}, "epochs"),
        ({"data": {"augment": {"scale": 3}}}, "scale"),
    ],
)
def test_a_wrong_key_is_named(
    tmp_path: Path, content: object, culprit: str, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "x.yaml"
    file.write_text(yaml.safe_dump(content))
    with pytest.raises(ConfigError, match=rf"x\.yaml.*{culprit}"):
        load_config(file)
    assert main(["train", "--config", str(file), "--output", str(tmp_path / "run")]) == 2
    assert culprit in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_a_file_that_is_not_yaml_is_named(tmp_path: Path) -> None:
    (tmp_path / "x.yaml").write_text("a: [")
    for name in ("x.yaml", "none.yaml"):
        with pytest.raises(ConfigError, match=name):
            load_config(tmp_path / name)


def test_a_wrong_flag_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(["train", "--optim.learning-rate", "1"])
    assert stopped.value.code == 2
    assert "learning-rate" in capsys.readouterr().err
