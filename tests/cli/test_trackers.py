"""Trackers that are there, that are not, and that would ask for an account."""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from matmamba_vision.errors import ConfigError
from matmamba_vision.runs import trackers
from matmamba_vision.runs.trackers import tracker_settings, trackers_of


def test_auto_takes_what_is_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    for installed, names in ((True, ["tensorboard", "wandb"]), (False, ["tensorboard"])):
        monkeypatch.setitem(trackers.TRACKERS, "wandb", lambda installed=installed: installed)
        assert trackers_of(["auto"]) == names
    assert trackers_of([]) == []


def test_a_tracker_that_cannot_be_used_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(trackers.TRACKERS, "wandb", lambda: False)
    with pytest.raises(ConfigError, match=r"'paper' is none of auto, tensorboard, wandb"):
        trackers_of(["paper"])
    with pytest.raises(ConfigError, match="pip install wandb"):
        trackers_of(["tensorboard", "wandb"])


@pytest.mark.parametrize(("key", "mode"), [(None, "offline"), ("secret", "online")])
def test_without_an_account_the_log_stays_here(
    key: str | None, mode: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("WANDB_MODE", raising=False)
    monkeypatch.setitem(sys.modules, "wandb", SimpleNamespace(api=SimpleNamespace(api_key=key)))
    settings = tracker_settings(["tensorboard", "wandb"], tmp_path, "run", 7)
    assert settings["tensorboard"] == {"purge_step": 7}
    assert settings["wandb"]["mode"] == mode
    assert settings["wandb"]["dir"] == str(tmp_path)
