"""The whole job on handwritten digits: `demo` trains, indexes, searches, and writes a report."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from matmamba_common.settings import require_least
from matmamba_datasets import Splits, eval_transform, make_loader, open_splits
from matmamba_retrieval import Gallery

from ..checkpoint import Checkpoint, load_checkpoint
from ..config_file import shipped_config
from ..errors import ConfigError
from ..galleries.embedder import Embedder
from ..galleries.image_intake import index
from ..given import PathLike, require_folder
from ..measures.environment import environment, peak_memory_mib
from ..progress import Listener, Reporter
from ..public_call import public_call
from ..runs import TrainConfig, load_config, train
from ..widths.quality_and_cost import measure_widths
from .compare import Compared, compare_strategies
from .demo_images import FiledImages
from .demo_page import write_report
from .examples import pick_examples
from .goals import judge, require_goals

Row = dict[str, Any]
SHORTLIST_DIMS = (16, 32)


@dataclass(frozen=True, kw_only=True, eq=False)
class Demonstration:
    """What `demo` reached, and wrote.

    Attributes:
        output: the folder: a run, with the gallery and its images in folders of it, results.json, the report
            and its plots.
        report: the page.
        widths: a row for each trained width: accuracy, retrieval and cost.
        retrieval: a row for each strategy: quality and cost.
        environment: commit, versions and machine.
        seed: of weights, order and augmentation.
        images: how many there are in the gallery, and among the queries.
        seconds: by stage.
        peak_memory_mib: largest resident memory of this process so far.
        goals: a row for each: bound, value, and whether it was met.
    """

    output: Path
    report: Path
    widths: Sequence[Row]
    retrieval: Sequence[Row]
    environment: Mapping[str, Any]
    seed: int
    images: Mapping[str, int]
    seconds: Mapping[str, float]
    peak_memory_mib: int
    goals: Sequence[Row]

    def to_dict(self) -> dict[str, Any]:
        """Plain values, as in results.json."""
        return {
            "widths": list(self.widths),
            "retrieval": list(self.retrieval),
            **self.environment,
            "seed": self.seed,
            "images": dict(self.images),
            "seconds": dict(self.seconds),
            "peak_memory_mib": self.peak_memory_mib,
            "goals": list(self.goals),
        }

    def require_goals(self) -> None:
        """Raise `GoalsMissedError` naming the missed goals of quality and memory; times are left aside."""
        require_goals(self.goals)


@public_call
def demo(
    output: PathLike = "runs/demo",
    *,
    epochs: int | None = None,
    seed: int = 0,
    progress: Listener | None = None,
) -> Demonstration:
    """Train, index and search handwritten digits, and write a report: about two minutes on two CPU cores.

    Args:
        output: folder to write; what an earlier demonstration left in it is replaced.
        epochs: passes over the training images; by default those of configs/digits/demo.yaml.
        seed: of weights, order and augmentation.
        progress: is told how far it is, and the seconds of each stage.

    Returns:
        What each width and each strategy reached.

    Raises:
        ConfigError: the folder holds something else, or a number that cannot be.
        MissingPackageError: scikit-learn, which brings the digits, is not installed.
        TypeError: an argument of a wrong type.
    """
    folder, report = require_folder("output", output), Reporter(progress)
    require_least(1, epochs=epochs)
    require_least(0, seed=seed)
    _clear(folder)
    config, stages = _config(folder, epochs, seed), _Stages(report)
    with stages.timed("train"):
        checkpoint = load_checkpoint(train(config, progress=report.listener).folder)
    splits = open_splits(config.data)
    with stages.timed("index"):
        place = folder / "gallery"
        images = FiledImages(splits.train, folder / "images")
        index(images, place, model=checkpoint, dims=SHORTLIST_DIMS, progress=report.listener)
    with Gallery(place) as gallery:
        widths, compared = _measured(checkpoint, splits, gallery, stages)
        results: dict[str, Any] = {
            "widths": widths,
            "retrieval": [found.row for found in compared],
            **environment(),
            "seed": seed,
            "images": {"gallery": len(splits.train), "queries": len(splits.held_out)},
            "seconds": stages.seconds,
            "peak_memory_mib": round(peak_memory_mib()),
        }
        results["goals"] = judge(results)
        (folder / "results.json").write_text(json.dumps(results, indent=2))
        page = write_report(folder, results, pick_examples(splits, gallery, compared))
    own = ("widths", "retrieval", "seed", "images", "seconds", "peak_memory_mib", "goals")
    known = {name: results.pop(name) for name in own}
    return Demonstration(output=folder, report=page, **known, environment=results)


class _Stages:
    """Seconds by stage, told as they pass."""

    def __init__(self, report: Reporter) -> None:
        self.seconds: dict[str, float] = {}
        self._report = report

    @contextmanager
    def timed(self, stage: str) -> Iterator[None]:
        """Time the block."""
        start = time.monotonic()
        yield
        self.seconds[stage] = round(time.monotonic() - start, 2)
        self._report.say(f"{stage}: {self.seconds[stage]:.1f} s")


def _clear(output: Path) -> None:
    """Remove an earlier demo; refuse to touch a folder that holds anything else."""
    if output.exists() and any(output.iterdir()):
        if not (output / "config.yaml").is_file():
            raise ConfigError(f"output {output} exists and was not written by a demo: name another")
        shutil.rmtree(output)


def _config(output: Path, epochs: int | None, seed: int) -> TrainConfig:
    config = load_config(shipped_config("digits/demo.yaml"))
    config.output, config.seed = str(output), seed
    config.optim.epochs = config.optim.epochs if epochs is None else epochs
    return config


def _measured(
    checkpoint: Checkpoint, splits: Splits, gallery: Gallery, stages: _Stages
) -> tuple[list[Row], list[Compared]]:
    transform = eval_transform(checkpoint.model.input)
    stored, asked = (
        make_loader(images, transform, len(splits.held_out)) for images in (splits.train, splits.held_out)
    )
    with stages.timed("measure widths"):
        widths = measure_widths(checkpoint.model, checkpoint.model.trained_widths, stored, asked)
    with stages.timed("compare strategies"):
        labels = [splits.held_out.classes[label] for label in splits.held_out.labels]
        compared = compare_strategies(gallery, Embedder(checkpoint), next(iter(asked)).images, labels)
    return widths, compared
