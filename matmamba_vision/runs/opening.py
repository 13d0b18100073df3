"""What a run writes first: its configuration, what it runs on, and to which trackers its metrics go."""

from __future__ import annotations

import json
from pathlib import Path
from uuid import uuid4

from ..layers import Mixer
from ..measures.environment import environment
from ..models import MatMamba
from ..ops import resolve_for
from ..training import RunFolder, Saves, Training
from .trackers import PROJECT, tracker_settings, trackers_of
from .train_config import TrainConfig, save_config


class RunOpening:
    """Opens a run, and not before there is something to keep: a failed start leaves nothing.

    Args:
        config: of the run.
        training: of all processes.
        folder: of the run; None in all processes but the first.
        saves: checkpoints, which a new run forgets.

    Attributes:
        done: whether the run is open.
        run_id: by which trackers know the run, however often it is resumed.
    """

    def __init__(
        self, config: TrainConfig, training: Training, folder: RunFolder | None, saves: Saves
    ) -> None:
        self._config, self._training, self._folder, self._saves = config, training, folder, saves
        self.done, self.run_id = False, uuid4().hex

    def ensure(self) -> None:
        """Open a new run, unless it is open."""
        if not self.done:
            self.open(0)

    def open(self, step: int) -> None:
        """Open the trackers, and write what is known from the start unless the run goes on from a step."""
        self.done = True
        output = Path(self._config.output)
        settings = tracker_settings(trackers_of(self._config.trackers), output, self.run_id, step)
        self._training.accelerator.init_trackers(PROJECT, init_kwargs=settings)
        if self._folder and not step:
            self._saves.clear()
            self._folder.metrics.write_text("")
            save_config(self._config, self._folder.path / "config.yaml")
            known = {**environment(), "scan_backend": scan_backend(self._training.model)}
            (self._folder.path / "environment.json").write_text(json.dumps(known, indent=2))


def scan_backend(model: MatMamba) -> str:
    """What computes the scans; "" where there are none."""
    mixers = (block.mixer for block in model.stack if isinstance(block.mixer, Mixer))
    first = next(mixers, None)
    if first is None:
        return ""
    return resolve_for(model.ssd_backend, model.pos_embed, first.norm.shape[1], first.state_dim).name
