"""What training starts from where no model is named: of photos, the weights that come with the package."""

from __future__ import annotations

import os
import signal
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from matmamba_common.errors import ConfigError
from matmamba_datasets import DataConfig
from matmamba_vision import load_checkpoint, runs
from matmamba_vision.cli.main import main
from matmamba_vision.config_file import load_into, shipped_config
from matmamba_vision.progress import Event, Notice, Progress
from matmamba_vision.runs import TrainConfig, plan_training, train
from matmamba_vision.runs.starting_point import RECIPE, fine_tuning, settings_over_defaults
from matmamba_vision.runs.train_config import config_of, save_config
from matmamba_vision.training import ModelConfig
from PIL import Image
from safetensors.torch import load_file

SHIPPED, NANO = "matmamba_mini_patch16_128", "matmamba_nano_patch4_32"
FOLDER = {"name": "folder", "root": "PHOTOS"}
# Models that are asked for in words that the shipped weights do not fit.
OTHERS: tuple[dict[str, Any], ...] = (
    {"name": NANO},
    {"name": SHIPPED},
    {"init": "RUN"},
    {"init": ""},
    {"warm_start": "RUN"},
    {"scan": "cross"},
    {"projection": 64},
    {"patch_size": 8},
    {"img_size": 16},
    {"img_size": 100},
)


def settled(values: dict[str, Any], resume: str = "no") -> TrainConfig:
    return settings_over_defaults(partial(config_of, TrainConfig, values), resume)


@pytest.mark.parametrize("name", ["folder", "parquet", "shards"])
def test_photos_start_from_the_shipped_weights(name: str) -> None:
    config = settled({"data": {"name": name, "root": "PHOTOS"}})
    assert config.model.init == SHIPPED
    assert config == replace(fine_tuning(), data=replace(fine_tuning().data, name=name, root="PHOTOS"))
    assert config.optim != TrainConfig().optim
    assert load_into(TrainConfig, shipped_config(RECIPE)) == fine_tuning()


@pytest.mark.parametrize("name", ["digits", "cifar10", "cifar100", "imagenet"])
def test_other_data_starts_from_nothing(name: str) -> None:
    config = settled({"data": {"name": name}})
    assert config == replace(TrainConfig(), data=DataConfig(name=name))
    assert settled({}) == TrainConfig()


@pytest.mark.parametrize("model", OTHERS, ids=str)
def test_a_model_that_is_named_or_another_begins_as_it_says(model: dict[str, Any]) -> None:
    values = {"data": FOLDER, "model": model, "optim": {"lr": 0.003}}
    assert settled(values) == config_of(TrainConfig, values)


@pytest.mark.parametrize(
    "model", [{"img_size": 64}, {"img_size": 224}, {"patch_size": 16}, {"drop_path_rate": 0.1}], ids=str
)
def test_what_fits_the_weights_is_set_about_them(model: dict[str, Any]) -> None:
    config = settled({"data": FOLDER, "model": model, "optim": {"epochs": 3}})
    assert config.model == replace(fine_tuning().model, **model)
    assert config.optim == replace(fine_tuning().optim, epochs=3)


def test_a_file_of_settings_leaves_open_what_it_does_not_name(tmp_path: Path) -> None:
    file = tmp_path / "own.yaml"
    file.write_text(yaml.safe_dump({"data": FOLDER, "seed": 3}))
    config = settings_over_defaults(partial(config_of, TrainConfig, file), "no")
    assert (config.model.init, config.seed) == (SHIPPED, 3)
    # As every run leaves it.
    save_config(config_of(TrainConfig, {"data": FOLDER}), file)
    config = settings_over_defaults(partial(config_of, TrainConfig, file), "no")
    assert config == config_of(TrainConfig, {"data": FOLDER})
    assert config.model.init is None


@pytest.mark.parametrize("resume", ["auto", "checkpoint"])
def test_a_run_that_was_started_otherwise_goes_on_as_it_was(tmp_path: Path, resume: str) -> None:
    values = {"data": FOLDER, "output": str(tmp_path / "run")}
    before = config_of(TrainConfig, values)
    (tmp_path / "run").mkdir()
    save_config(before, tmp_path / "run" / "config.yaml")
    word = "auto" if resume == "auto" else str(tmp_path / "run" / "checkpoints" / "step-1")
    assert settled(values, word) == before
    assert settled(values, "no").model.init == SHIPPED
    save_config(settled(values), tmp_path / "run" / "config.yaml")
    assert settled(values, word) == settled(values, "no")


def asked(monkeypatch: pytest.MonkeyPatch, *flags: str) -> TrainConfig:
    """What the command line makes of flags."""
    found: list[TrainConfig] = []

    def plan(config: TrainConfig, **_: object) -> object:
        found.append(config)
        raise ConfigError("seen")

    monkeypatch.setattr(runs, "plan_training", plan)
    assert main(["train", "--dry-run", *flags]) == 2
    return found[0]


def test_flags_mean_what_a_mapping_means(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    photos = ["--data.name", "folder", "--data.root", "PHOTOS"]
    assert asked(monkeypatch, *photos) == settled({"data": FOLDER})
    assert asked(monkeypatch, "--data.name=folder", "--root=PHOTOS") == settled({"data": FOLDER})
    few = asked(monkeypatch, *photos, "--optim.epochs", "3", "--model.img-size", "64")
    assert few == settled({"data": FOLDER, "model": {"img_size": 64}, "optim": {"epochs": 3}})
    for flags, model in (
        (["--model.name", NANO], {"name": NANO}),
        ([f"--model.name={SHIPPED}"], {"name": SHIPPED}),
        (["--model.init", ""], {"init": ""}),
        (["--model.init", "RUN"], {"init": "RUN"}),
    ):
        assert asked(monkeypatch, *photos, *flags) == config_of(TrainConfig, {"data": FOLDER, "model": model})
    file = tmp_path / "own.yaml"
    file.write_text("model: {name: matmamba_nano_patch4_32}\n")
    assert asked(monkeypatch, "--config", str(file), *photos).model.init is None
    file.write_text("seed: 3\n")
    assert asked(monkeypatch, "--config", str(file), *photos) == settled({"data": FOLDER, "seed": 3})
    assert asked(monkeypatch) == TrainConfig()


@pytest.fixture
def few(tmp_path: Path) -> dict[str, Any]:
    """Two steps of an epoch on six images of 64 px, settings of a run."""
    rng = np.random.default_rng(0)
    for part, count in (("train", 3), ("val", 1)):
        for name in ("cats", "dogs"):
            folder = tmp_path / "photos" / part / name
            folder.mkdir(parents=True)
            for number in range(count):
                pixels = rng.integers(0, 256, (64, 64, 3)).astype(np.uint8)
                Image.fromarray(pixels).save(folder / f"{number}.png")
    return {
        "output": str(tmp_path / "run"),
        "threads": 1,
        "device": "cpu",
        "trackers": [],
        "log_every": 1,
        "model": {"img_size": 64},
        "data": {"name": "folder", "root": str(tmp_path / "photos"), "batch_size": 2},
        "optim": {"epochs": 1},
    }


def test_a_run_says_what_it_starts_from_and_goes_on(few: dict[str, Any], tmp_path: Path) -> None:
    events: list[Event] = []

    def stop(event: Event) -> None:
        events.append(event)
        if isinstance(event, Progress) and "step 1 " in event.note and not event.finished:
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        train(few, progress=stop)
    line = f'from the weights of {SHIPPED} (model.init; "" there starts from nothing)'
    said = [event.text for event in events if isinstance(event, Notice)]
    assert line in said
    assert f"data: folder {tmp_path / 'photos'}, 6 images, 2 held out, 2 classes" in said
    known = yaml.safe_load((tmp_path / "run" / "config.yaml").read_text())
    assert known["model"]["init"] == SHIPPED
    assert known["optim"]["lr"] == fine_tuning().optim.lr
    resumed = train(few, resume="auto")
    whole = train(few | {"output": str(tmp_path / "whole")})
    first, second = load_file(resumed.checkpoint), load_file(whole.checkpoint)
    assert all(torch.equal(tensor, second[name]) for name, tensor in first.items())
    checkpoint = load_checkpoint(resumed.folder)
    assert checkpoint.classes == ("cats", "dogs")
    shipped = load_checkpoint(SHIPPED).model.state_dict()
    moved = {
        name: (tensor - shipped[name]).abs().max().item()
        for name, tensor in checkpoint.model.state_dict().items()
        if name in shipped and tensor.shape == shipped[name].shape
    }
    # Three steps of fine-tuning leave the weights near where they were.
    assert 0 < max(moved.values()) < 0.05


def test_a_plan_says_what_a_run_would_start_from(few: dict[str, Any]) -> None:
    plan = plan_training(few)
    assert plan.start.startswith(f"from the weights of {SHIPPED}")
    assert plan.work.model == SHIPPED
    anew = plan_training(few | {"model": {"init": "", "img_size": 8}})
    assert (anew.start, anew.work.model) == ("from the start", NANO)


def test_a_run_without_weights_goes_on_when_it_is_asked_to_have_none(few: dict[str, Any]) -> None:
    named = few | {"model": {"name": NANO, "img_size": 8}}
    run = train(named)
    assert yaml.safe_load((run.folder / "config.yaml").read_text())["model"]["init"] is None
    for model in (named["model"], {"init": "", "img_size": 8}, {"img_size": 8}):
        assert "is the end of the training" in plan_training(few | {"model": model}, resume="auto").start


def test_a_config_is_taken_as_it_is(few: dict[str, Any]) -> None:
    config = config_of(TrainConfig, few | {"model": {"img_size": 8}})
    assert config.model == ModelConfig(img_size=8)
    assert plan_training(config).work.model == NANO


def test_a_folder_is_not_passed_over_for_the_digits(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ConfigError, match=r"data\.root is PHOTOS, and nothing says.*data\.name.*folder or"):
        train({"data": {"root": "PHOTOS"}})
    assert main(["train", "--data.root", "PHOTOS", "--dry-run"]) == 2
    assert "data.root is PHOTOS" in capsys.readouterr().err
    named = {"data": {"name": "digits", "root": "PHOTOS"}}
    assert settled(named) == config_of(TrainConfig, named)
