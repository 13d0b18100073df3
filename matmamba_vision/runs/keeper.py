"""What a run leaves for others: the model, the best one, and a card, a table and curves about them."""

from __future__ import annotations

from pathlib import Path
from time import monotonic
from typing import Any

import numpy as np
from matmamba_datasets import Images

from ..checkpoint import save_checkpoint
from ..config_file import as_plain
from ..models import MatMamba
from ..training import RunFolder
from .run_card import RunFacts, save_run_card
from .train_config import TrainConfig

BEST = "best.safetensors"
# Drawing takes a second, which may be longer than an epoch; the end is drawn in any case.
SECONDS_BETWEEN_CURVES = 10.0


class RunKeeper:
    """Writes the model of each epoch, and what is said about it.

    Args:
        config: of the run.
        images: trained on.
        held_out: number of images measured on.
        folder: of the run; None in all processes but the first, where nothing is written.

    Attributes:
        best: accuracy of the best model so far; negative before one was measured.
        kept_epoch: of which epoch the model is; 0 before the first.
    """

    def __init__(self, config: TrainConfig, images: Images, held_out: int, folder: RunFolder | None) -> None:
        self._config, self._images, self._held_out, self._folder = config, images, held_out, folder
        self.best, self.kept_epoch = -1.0, 0
        self._drawn = monotonic()

    def keep(self, model: MatMamba, row: dict[str, Any]) -> None:
        """Write the model, and write it as the best if it is.

        Args:
            model: to keep.
            row: of its epoch, with "top1" if that was measured.
        """
        if not self._folder:
            return
        run, self.kept_epoch = as_plain(self._config), row["epoch"]
        save_checkpoint(self._folder.path, model, self._images.classes, run)
        if row.get("top1"):
            found = self._figure(row["top1"])
            if found > self.best:
                self.best = found
                save_checkpoint(self._folder.path / BEST, model, self._images.classes, run)

    def describe(self, model: MatMamba, row: dict[str, Any], ended: bool) -> None:
        """Curves, table and model card, whenever there is something new about accuracy.

        Args:
            model: of the epoch.
            row: of its epoch, with "top1" if that was measured.
            ended: nothing follows: curves are drawn however new the last are.
        """
        if not self._folder or "top1" not in row:
            return
        self._folder.write_csv()
        if ended or monotonic() - self._drawn >= SECONDS_BETWEEN_CURVES:
            self._draw(self._folder)
        data = self._config.data
        # The folder's name says more than its format.
        name = f"{Path(data.root).name} ({data.name})" if data.root else data.name
        facts = RunFacts(
            model=model,
            classes=self._images.classes,
            data=name,
            images=len(self._images),
            held_out=self._held_out,
            config=as_plain(self._config),
            top1=row["top1"],
        )
        save_run_card(self._folder.path, facts)

    def _draw(self, folder: RunFolder) -> None:
        # Here, because it loads matplotlib.
        from .curves import draw_curves

        draw_curves(folder.metrics, folder.path / "curves.png")
        self._drawn = monotonic()

    def _figure(self, top1: dict[str, float]) -> float:
        wanted = self._config.save.best
        return float(np.mean([*top1.values()])) if wanted == "mean" else top1[wanted]
