"""`train`, `distill` and `plan_training` as a program calls them: results, events, files, refusals."""

from __future__ import annotations

import copy
import json
import os
import signal
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from matmamba_common.errors import MatMambaError
from matmamba_datasets import AugmentConfig, DataConfig
from matmamba_vision import load_checkpoint
from matmamba_vision.config_file import as_plain
from matmamba_vision.progress import Event, Notice, Progress
from matmamba_vision.runs import DistillConfig, Run, TrainConfig, distill, plan_training, train
from matmamba_vision.training import ModelConfig, ObjectiveConfig, OptimConfig
from safetensors.torch import load_file


def quick(output: Path, photos: Path) -> TrainConfig:
    """Two epochs of five steps."""
    return TrainConfig(
        output=str(output),
        threads=1,
        device="cpu",
        trackers=[],
        log_every=1,
        model=ModelConfig(img_size=8, trained_widths=["full", "1/2"]),
        data=DataConfig(
            name="folder",
            root=str(photos),
            batch_size=4,
            max_broken=0.5,
            augment=AugmentConfig(scale=(0.9, 1)),
        ),
        objective=ObjectiveConfig(mrl_dims=[8]),
        optim=OptimConfig(epochs=2, warmup_epochs=0),
    )


@pytest.fixture
def config(tmp_path: Path, photos: Path) -> TrainConfig:
    return quick(tmp_path / "run", photos)


def last_of_stages(events: list[Event]) -> dict[str, Progress]:
    return {event.stage: event for event in events if isinstance(event, Progress)}


def weights(run: Run) -> dict[str, torch.Tensor]:
    return load_file(run.checkpoint)


def assert_equal(one: Run, other: Run) -> None:
    first, second = weights(one), weights(other)
    assert all(torch.equal(tensor, second[name]) for name, tensor in first.items())
    assert (one.steps, one.loss, one.top1) == (other.steps, other.loss, other.top1)


def test_a_run_is_a_value_and_a_folder(config: TrainConfig, capfd: pytest.CaptureFixture[str]) -> None:
    events: list[Event] = []
    before = copy.deepcopy(config)
    run = train(config, progress=events.append)
    assert capfd.readouterr().out == ""
    assert config == before
    last = last_of_stages(events)["training"]
    assert last.finished
    assert last.done == last.total == 2 * run.images
    said = "\n".join(event.text for event in events if isinstance(event, Notice))
    assert "from the start" in said
    assert "epoch 2/2" in said
    assert run.folder == Path(config.output)
    assert (run.epochs, run.process) == (2, 0)
    assert set(run.top1) == ({"full", "1/2"} if run.held_out else set())
    rows = [json.loads(line) for line in (run.folder / "metrics.jsonl").read_text().splitlines()]
    assert (rows[-1]["step"], rows[-1]["loss"]) == (run.steps, run.loss)
    assert json.loads(json.dumps(run.to_dict()))["checkpoint"] == str(run.checkpoint)
    assert load_checkpoint(run.folder).run["optim"]["epochs"] == 2


def test_a_configuration_is_a_value_a_mapping_or_a_file(config: TrainConfig, tmp_path: Path) -> None:
    wanted = train(config)
    known = yaml.safe_load((wanted.folder / "config.yaml").read_text())
    assert_equal(train(known | {"output": str(tmp_path / "mapping")}), wanted)
    file = tmp_path / "config.yaml"
    file.write_text(yaml.safe_dump(known | {"output": str(tmp_path / "file")}))
    assert_equal(train(str(file)), wanted)


def test_a_stopped_run_is_saved_and_goes_on(config: TrainConfig, tmp_path: Path) -> None:
    """SIGINT after the first step ends that step, saves, and raises; the rest is as if never stopped."""
    wanted = train(config)
    events: list[Event] = []

    def stop(event: Event) -> None:
        events.append(event)
        if isinstance(event, Progress) and event.done and not event.finished and "step 1 " in event.note:
            os.kill(os.getpid(), signal.SIGINT)

    stopped = replace(config, output=str(tmp_path / "stopped"))
    with pytest.raises(KeyboardInterrupt):
        train(stopped, progress=stop)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    assert last_of_stages(events)["training"].finished
    assert any(isinstance(event, Notice) and "saved: " in event.text for event in events)
    assert_equal(train(stopped, resume="auto"), wanted)


def test_a_run_may_be_trained_in_another_thread(config: TrainConfig) -> None:
    found: list[Run] = []
    thread = threading.Thread(target=lambda: found.append(train(config)))
    thread.start()
    thread.join()
    assert found[0].checkpoint.is_file()


def test_a_plan_is_a_value_and_writes_nothing(config: TrainConfig, capfd: pytest.CaptureFixture[str]) -> None:
    plan = plan_training(config)
    assert capfd.readouterr().out == ""
    assert not Path(config.output).exists()
    assert [cost.width for cost in plan.widths] == ["full", "1/2"]
    assert plan.widths[0].macs > plan.widths[1].macs
    assert plan.start == "from the start"
    run = train(config)
    assert (plan.steps, plan.work.images) == (run.steps, run.images)
    told = json.loads(json.dumps(plan.to_dict()))
    assert told["memory"]["whole"] == plan.memory.whole > 2 * told["memory"]["weights"]
    assert "is the end of the training" in plan_training(config, resume="auto").start


def test_a_student_follows_stored_vectors(
    photos: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    base = quick(tmp_path / "student", photos)
    events: list[Event] = []
    known = {
        name: getattr(base, name) for name in ("output", "threads", "device", "trackers", "optim", "data")
    }
    images = len([file for file in photos.rglob("*") if file.suffix in (".png", ".jpg")])
    file = tmp_path / "teacher.npy"
    np.save(file, np.random.default_rng(0).standard_normal((images, 12)).astype(np.float32))
    student = DistillConfig(
        **known,
        model=ModelConfig(name="matmamba_nano_patch4_32", img_size=8),
        teacher=str(file),
        images=[str(photos)],
        dim=8,
        rotation_images=images,
    )
    run = distill(student, progress=events.append)
    assert capfd.readouterr().out == ""
    assert student.repeats == []
    assert last_of_stages(events)["training"].finished
    assert load_checkpoint(run.folder).model.embedding_dim == 8
    assert (run.folder / "rotation.safetensors").is_file()


@pytest.mark.parametrize(
    ("change", "error", "said"),
    [
        ({"optim": {"epochs": 0}}, MatMambaError, "optim.epochs is 0: it can be 1 or more"),
        ({"optim": {"epochs": "many"}}, MatMambaError, "config: optim.epochs"),
        ({"optim": {"steps": 3}}, MatMambaError, "config: unknown key optim.steps"),
        ({"model": {"name": "matmamba_nano"}}, MatMambaError, "model 'matmamba_nano' is none"),
        ({"model": {"trained_widths": ["full", "9/8"]}}, MatMambaError, "9/8"),
        ({"save": {"best": "1/3"}}, MatMambaError, "save.best '1/3' is neither mean nor one of"),
        ({"engine": {"precision": "fp8"}}, MatMambaError, "engine.precision 'fp8' is none of"),
        ({"device": "tpu"}, MatMambaError, "device 'tpu' is none of"),
        ({"trackers": ["paper"]}, MatMambaError, "trackers: 'paper' is none of"),
        ({"optim": {"sched": "zigzag"}}, MatMambaError, "optim.sched 'zigzag' is none of"),
        ({"optim": {"opt": "sgdx"}}, MatMambaError, "optimiser 'sgdx'"),
        ({"data": {"root": "no-such-folder"}}, MatMambaError, "no-such-folder"),
        (
            {"data": {"augment": {"auto_augment": "paint"}}},
            MatMambaError,
            "data.augment.auto_augment 'paint'",
        ),
    ],
)
def test_a_setting_that_cannot_work_is_named(
    change: dict[str, dict[str, object]],
    error: type[Exception],
    said: str,
    config: TrainConfig,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
) -> None:
    known = as_plain(config)
    for section, values in change.items():
        known[section] = {**known[section], **values} if isinstance(values, dict) else values
    if isinstance(augment := known["data"]["augment"], dict):
        known["data"]["augment"] = {**as_plain(config)["data"]["augment"], **augment}
    events: list[Event] = []
    for call in (train, plan_training):
        with pytest.raises(error) as caught:
            call(known, progress=events.append)
        assert said in str(caught.value)
        if "trackers" in change or "save" in change:
            break
    assert capfd.readouterr().out == ""
    assert not (tmp_path / "run").exists()
    assert all(event.finished for event in last_of_stages(events).values())


@pytest.mark.parametrize(
    ("call", "given", "error", "said"),
    [
        (train, 3, TypeError, "config is 3: it can be a TrainConfig, a mapping"),
        (train, DistillConfig(), TypeError, "config is a DistillConfig: it can be a TrainConfig"),
        (distill, TrainConfig(), TypeError, "config is a TrainConfig: it can be a DistillConfig"),
        (train, TrainConfig(seed="1"), TypeError, "seed is '1': it can be a whole number"),  # type: ignore[arg-type]
        (train, "no-such.yaml", MatMambaError, "no config file no-such.yaml"),
        (plan_training, None, TypeError, "config is nothing"),
        (distill, DistillConfig(), MatMambaError, "a student needs a teacher"),
        (distill, {"teacher": "x.npy", "images": ["none"]}, MatMambaError, "none"),
        (distill, {"teacher": "x.npy", "images": ["a"], "dim": 0}, MatMambaError, "dim is 0: it can be 1"),
    ],
)
def test_what_is_no_configuration_is_refused(
    call: Callable[[Any], object],
    given: object,
    error: type[Exception],
    said: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(error) as caught:
        call(given)
    assert said in str(caught.value)
    assert not any(tmp_path.iterdir())


def test_what_the_system_refuses_is_an_error_of_the_family(config: TrainConfig, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(MatMambaError, match=r"^output .*/run: .*file is a file, and holds no folders"):
        train(replace(config, output=str(tmp_path / "file" / "run")))
    train(config)
    with pytest.raises(MatMambaError, match=r"holds a finished or interrupted run: go on with resume auto"):
        train(config)
    with pytest.raises(MatMambaError, match=r"resume is .*no-such.: it can be no, auto"):
        train(config, resume=tmp_path / "no-such")
