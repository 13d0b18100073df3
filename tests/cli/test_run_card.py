"""The model card of a run says what is true, and what it tells to do works."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from matmamba_vision import MatMamba, save_checkpoint
from matmamba_vision.config_file import as_plain
from matmamba_vision.measures import count_macs, count_parameters
from matmamba_vision.runs import TrainConfig, load_config
from matmamba_vision.runs.run_card import RunFacts, save_run_card, write_run_card
from PIL import Image
from small import create

CLASSES = ("bright", "dark", "grey")


@pytest.fixture
def facts() -> RunFacts:
    torch.manual_seed(0)
    model = create("matmamba_hybrid_nano_patch4_32", num_classes=3, trained_widths=("full", "1/2"))
    assert isinstance(model, MatMamba)
    return RunFacts(
        model=model.eval(),
        classes=CLASSES,
        data="photos",
        images=1234,
        held_out=56,
        config=as_plain(TrainConfig()),
        top1={"full": 0.9, "1/2": 0.75},
    )


def blocks_of(card: str, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", card, re.DOTALL)


def metadata_of(card: str) -> dict[str, Any]:
    known: dict[str, Any] = yaml.safe_load(card.split("---\n")[1])
    return known


def test_it_says_where_it_was_trained_and_how_the_run_ended(facts: RunFacts) -> None:
    machine = {"processor": "a", "threads": 3, "gpu": "a large one", "system": "b"}
    made_with = {"commit": "abc", "versions": {"torch": "9.9"}, "machine": machine}
    card = write_run_card(replace(facts, made_with=made_with, note="It was stopped."))
    assert "torch 9.9" in card
    assert "| GPU | a large one |" in card
    assert "by the head. It was stopped.\n" in card


def test_it_says_what_is_true(facts: RunFacts, tmp_path: Path) -> None:
    card, model = write_run_card(facts), facts.model
    for label, top1 in facts.top1.items():
        costs = f"{count_parameters(model, label):,} | {count_macs(model, label):,}"
        assert f"| {label} | {costs} | {top1:.4f} |" in card
    assert "4, of which 1 mix by attention and 3 by Mamba2" in card
    assert "photos: 1,234 images, and 56 held out" in card
    (tmp_path / "recipe.yaml").write_text(blocks_of(card, "yaml")[0])
    assert load_config(tmp_path / "recipe.yaml") == TrainConfig()
    assert f"torch {torch.__version__}" in card
    (index,) = metadata_of(card)["model-index"]
    assert index["name"] == "matmamba_hybrid_nano_patch4_32 trained on photos"
    (result,) = index["results"]
    assert result["dataset"]["name"] == "photos"
    assert [(row["name"], row["value"]) for row in result["metrics"]] == [
        ("top-1 accuracy, width full", 0.9),
        ("top-1 accuracy, width 1/2", 0.75),
    ]


def test_without_a_measurement_it_claims_nothing(facts: RunFacts) -> None:
    card = write_run_card(
        RunFacts(
            model=facts.model, classes=CLASSES, data="photos", images=1234, held_out=56, config={}, top1={}
        )
    )
    assert "Accuracy was not measured." in card
    assert "model-index" not in metadata_of(card)


def test_what_was_trained_is_said(facts: RunFacts) -> None:
    assert "at the widths full, 1/2 together" in write_run_card(facts)
    alone = create("mamba2_nano_patch4_32", num_classes=3)
    card = write_run_card(
        RunFacts(model=alone, classes=CLASSES, data="photos", images=1234, held_out=56, config={}, top1={})
    )
    assert "at full width alone" in card
    assert "together" not in card


def test_an_accuracy_of_0_is_one(facts: RunFacts) -> None:
    card = write_run_card(
        RunFacts(
            model=facts.model,
            classes=CLASSES,
            data="photos",
            images=1234,
            held_out=56,
            config={},
            top1={"full": 0.0},
        )
    )
    assert "| 0.0000 |" in card


def test_its_examples_run_in_the_folder(facts: RunFacts, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    save_checkpoint(folder, facts.model, CLASSES)
    save_run_card(folder, facts)
    examples = blocks_of((folder / "README.md").read_text(), "python")
    assert len(examples) == 2
    images = torch.randn(2, 3, 32, 32)
    names: dict[str, Any] = {"images": images, "image": Image.new("RGB", (40, 50), "red")}
    for example in examples:
        exec(example.replace("FOLDER", str(folder)), names)
    assert names["checkpoint"].classes == CLASSES
    assert torch.equal(names["small"](images), facts.model(images, "1/2"))
    assert torch.equal(names["model"](images), facts.model(images))
    assert names["model"].trained_widths == facts.model.trained_widths
    assert names["logits"].shape == (1, 3)
    assert sorted(file.name for file in folder.iterdir()) == ["README.md", "config.json", "model.safetensors"]


def test_a_model_that_timm_does_not_know_has_a_card_too(model: MatMamba, tmp_path: Path) -> None:
    save_run_card(
        tmp_path,
        RunFacts(
            model=model, classes=tuple("abcde"), data="photos", images=1, held_out=1, config={}, top1={}
        ),
    )
    assert "local-dir" not in (tmp_path / "README.md").read_text()
    assert not (tmp_path / "config.json").exists()
