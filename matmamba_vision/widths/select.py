"""Choosing the best width within a budget: `select`, and what it gives back and writes."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from matmamba_common.settings import require_crew, require_least
from matmamba_common.words import shown

from ..device import limit_threads
from ..errors import ConfigError
from ..galleries.embedder import Embedder
from ..galleries.gallery_model import CheckpointLike, checkpoint_at
from ..given import PathLike, require_folder
from ..measures.budget import MEASURED, Budget, parse_budget
from ..measures.choice import Choice
from ..measures.cost import count_macs, count_parameters
from ..measures.environment import environment
from ..measures.mixnmatch import Candidate
from ..measures.pareto import pareto_front
from ..measures.score import Score
from ..progress import Listener, Reporter
from ..public_call import public_call
from ..width import Width
from .held_out import BatchReader, data_config, open_data_of_its_classes
from .slices import SLICE_FILE, write_slice
from .width_search import SearchOutcome, SearchSettings, WidthSearch

Row = dict[str, Any]
# Search images below which a difference of some points is chance.
FEW = 200


@dataclass(frozen=True, kw_only=True, eq=False)
class Selected:
    """The best width within a budget, and what it was chosen from.

    Attributes:
        checkpoint: the file of the nested model.
        width: the chosen one.
        label: its short name.
        budget: as it was given, such as "gmacs=2".
        found_by: what proposed it: trained, uniform, rule, smallest or search.
        costs: multiply-adds per image in billions, parameters, latency of a batch in ms with quartiles, MiB;
            and how that was measured.
        accuracy: on images that took no part in the search.
        accuracy_of_search: on the images that decided.
        search_against_rule: where the search found another width than the best without search, which of
            them is used, and the gain of log-likelihood on images held back; else None.
        rule: the candidate that is best without search; None if none is within the budget.
        candidates: all that were evaluated, as in candidates.json.
        shown: those of them that are worth a row: measured, ascending in cost.
        images: how many decided, and how many were held back.
        cut_short: whether the search was interrupted.
        slice: the file of the chosen width, which `extract` and `validate` take; None if none was written.
    """

    checkpoint: Path
    width: Width
    label: str
    budget: str
    found_by: str
    costs: Mapping[str, Any]
    accuracy: Mapping[str, Any]
    accuracy_of_search: Mapping[str, Any]
    search_against_rule: Mapping[str, Any] | None
    rule: Row | None
    candidates: Sequence[Row]
    shown: Sequence[Row]
    images: tuple[int, int]
    cut_short: bool
    slice: Path | None = None

    def about(self) -> dict[str, Any]:
        """What is known of the chosen width, as plain values."""
        against = {"search_against_rule": self.search_against_rule} if self.search_against_rule else {}
        return {
            "budget": self.budget,
            "found_by": self.found_by,
            "evaluated": len(self.candidates),
            "cut_short": self.cut_short,
            "costs": self.costs,
            "accuracy": self.accuracy,
            "accuracy_of_search": self.accuracy_of_search,
            **against,
        }

    def to_dict(self) -> dict[str, Any]:
        """The chosen width and what is known of it, as plain values."""
        own = {"label": self.label, "heads": list(self.width.heads)}
        return {"slice": None if self.slice is None else str(self.slice), **own, **self.about()}


@public_call
def select(
    checkpoint: CheckpointLike,
    budget: str | Budget,
    *,
    output: PathLike | None = None,
    overwrite: bool = False,
    data: str = "",
    root: PathLike = "",
    images: int = 1000,
    evaluations: int = 60,
    profile_batch: int = 1,
    skip_blocks: bool = False,
    batch_size: int = 64,
    workers: int = 0,
    device: str = "auto",
    threads: int = 0,
    seed: int = 0,
    progress: Listener | None = None,
) -> Selected:
    """Choose the best width within a budget, by measuring it on this machine and on held-out images.

    Tried are the trained and uniform widths, MatFormer's rule for Mix'n'Match (arXiv 2310.07707), then
    neighbours of the best. Half of the held-out images decide; accuracy is reported on the other half, and a
    find of the search that is no better than the rule there is dropped for the rule. Ctrl-C ends the search
    early: the choice is then among what was evaluated.

    Args:
        checkpoint: run folder, checkpoint file, the name of a model whose weights are shipped, or a loaded
            checkpoint.
        budget: the most that the width may cost: gmacs=2.0 (multiply-adds per image, billions), params=5M,
            latency_ms=20 (median of one batch, measured here) or memory_mb=64 (weights and the largest
            tensors alive at once, MiB).
        output: folder to write slice.yaml, candidates.json and pareto.png to; by default nothing is written.
        overwrite: replace a slice that is already there.
        data: name of the data set, if not that of the training run.
        root: its folder, if not that of the training run.
        images: most images in each half of the held-out ones; they are kept in memory.
        evaluations: widths to evaluate, those before the search included; more find better widths.
        profile_batch: images in one forward when latency and memory are measured.
        skip_blocks: let the search skip blocks.
        batch_size: images encoded at once.
        workers: processes that decode images.
        device: cpu, cuda, or auto for whichever is there.
        threads: that compute, in this process from now on; 0 for as many as there are.
        seed: of all that is left to chance.
        progress: is told how far it is.

    Returns:
        The chosen width, with all that was evaluated.

    Raises:
        BudgetError: no such budget, or no width is within it.
        CheckpointError: no such checkpoint, or it has other classes than the data set.
        ConfigError: an argument that cannot be, or a slice that would be replaced.
        DataError: the data set is missing, unreadable, or has less than 2 held-out images.
        TypeError: an argument of a wrong type.
    """
    wanted = _budget(budget)
    require_least(1, images=images, evaluations=evaluations, profile_batch=profile_batch)
    require_least(1, batch_size=batch_size)
    require_crew(workers=workers, threads=threads)
    require_least(0, seed=seed)
    folder = None if output is None else require_folder("output", output)
    if folder is not None and (folder / SLICE_FILE).exists() and not overwrite:
        raise ConfigError(f"{folder / SLICE_FILE} exists: name another output, or overwrite it")
    limit_threads(threads)
    known, report = checkpoint_at(checkpoint, device, name="checkpoint"), Reporter(progress)
    embedder = Embedder(known)
    config = data_config(embedder, data, root)
    held_out = open_data_of_its_classes(report, embedder, config, folder).held_out
    reader = BatchReader(embedder=embedder, report=report, batch_size=batch_size, workers=workers)
    settings = SearchSettings(
        images=images,
        evaluations=evaluations,
        profile_batch=profile_batch,
        skip_blocks=skip_blocks,
        seed=seed,
    )
    search = WidthSearch(reader, held_out, wanted, settings)
    _say_few(report, search.deciding)
    if folder is not None:
        # Before the work, so that a folder that cannot be written costs none.
        folder.mkdir(parents=True, exist_ok=True)
    outcome = search.run()
    found = _selected(outcome, None if folder is None else folder / SLICE_FILE)
    if folder is not None:
        asked: dict[str, Any] = {"checkpoint": str(known.path), "budget": str(wanted), "output": str(folder)}
        asked |= {
            "overwrite": overwrite,
            "data": config.name,
            "root": config.root,
            **asdict(settings),
            "batch_size": batch_size,
        }
        asked |= {"workers": workers, "device": device, "threads": threads}
        _write(folder, outcome, found, asked)
    return found


def _budget(budget: str | Budget) -> Budget:
    if isinstance(budget, Budget):
        return budget
    if not isinstance(budget, str):
        raise TypeError(f"budget is {shown(budget)}: it can be text such as 'gmacs=2.0'")
    return parse_budget(budget)


def _say_few(report: Reporter, deciding: int) -> None:
    if deciding < FEW:
        report.say(
            f"note: {deciding} images decide, fewer than {FEW}: accuracies that differ by less than"
            f" {100 / deciding**0.5:.0f} points are hardly told apart; allow more images, or name another"
            " data set"
        )


def _selected(outcome: SearchOutcome, file: Path | None) -> Selected:
    choice = outcome.choice
    rows = dict(zip(outcome.candidates, _rows(outcome), strict=True))
    return Selected(
        checkpoint=outcome.checkpoint.path,
        width=choice.chosen.width,
        label=outcome.label(choice.chosen),
        budget=str(outcome.budget),
        found_by=choice.chosen.origin,
        costs=_costs(outcome, choice.chosen),
        accuracy=_accuracy(choice.held_back[choice.chosen.width], "held back"),
        accuracy_of_search=_accuracy(choice.chosen.score, "search"),
        search_against_rule=_against_rule(outcome),
        rule=None if choice.rule is None else rows[choice.rule],
        candidates=list(rows.values()),
        shown=[rows[candidate] for candidate in outcome.shown],
        images=outcome.images,
        cut_short=outcome.cut_short,
        slice=file,
    )


def _against_rule(outcome: SearchOutcome) -> dict[str, Any] | None:
    choice = outcome.choice
    if choice.rule is None or choice.found is choice.rule:
        return None
    gain, error = choice.held_back[choice.found.width].gain_over(choice.held_back[choice.rule.width])
    return {
        "found": outcome.label(choice.found),
        "rule": outcome.label(choice.rule),
        "log_likelihood_gain": gain,
        "standard_error": error,
        "used": choice.chosen is choice.found,
    }


def _costs(outcome: SearchOutcome, candidate: Candidate) -> dict[str, Any]:
    (costs,) = outcome.measurements.of([candidate.width])
    return {
        "gmacs": costs.gmacs,
        "params": costs.params,
        "latency_ms": {name: round(ms, 4) for name, ms in asdict(costs.latency).items()},
        "memory_mb": costs.memory_mb,
        "batch": outcome.measurements.batch_size,
        "device": str(outcome.checkpoint.model.pos_embed.device),
    }


def _accuracy(score: Score, images: str) -> dict[str, Any]:
    known = {"top1": score.top1, "log_likelihood": score.log_likelihood}
    return known | {"images": len(score.correct), "which": images}


def _rows(outcome: SearchOutcome) -> list[Row]:
    """One row for each candidate, in the order of evaluation."""
    model, key = outcome.checkpoint.model, outcome.budget.key
    front = pareto_front(
        outcome.candidates, lambda known: known.cost, lambda known: known.score.log_likelihood
    )
    held_back = outcome.choice.held_back
    rows = []
    for candidate in outcome.candidates:
        width, known = candidate.width, candidate.width in outcome.measurements
        row = {
            "width": outcome.label(candidate),
            "heads": list(width.heads),
            "found_by": candidate.origin,
            "gmacs": count_macs(model, width) / 1e9,
            "params": count_parameters(model, width),
            "cost": candidate.cost,
            "within_budget": outcome.cost(candidate) <= outcome.budget.limit,
            "on_front": candidate in front,
            "search": _accuracy(candidate.score, "search"),
        }
        row["predicted"] = key in MEASURED
        row["costs"] = _costs(outcome, candidate) if known else None
        row["held_back"] = _accuracy(held_back[width], "held back") if width in held_back else None
        rows.append(row)
    return rows


def _write(folder: Path, outcome: SearchOutcome, found: Selected, asked: Mapping[str, Any]) -> None:
    """Write candidates.json, pareto.png and, last, slice.yaml into a folder that exists."""
    # Here, because importing it takes most of a second.
    from .front_plot import draw_front

    content = {
        **found.about(),
        "checkpoint": str(outcome.checkpoint.path),
        "digest": outcome.checkpoint.digest,
        "settings": dict(asked),
        "candidates": list(found.candidates),
        **environment(),
    }
    (folder / "candidates.json").write_text(json.dumps(content, indent=2))
    draw_front(
        outcome.candidates,
        outcome.choice.chosen,
        found.label,
        outcome.budget,
        _title(outcome.choice, len(outcome.candidates), outcome.images[0]),
        folder / "pareto.png",
        predicted=outcome.budget.key in MEASURED,
    )
    write_slice(folder / SLICE_FILE, found.width, outcome.checkpoint, found.about())


def _title(choice: Choice, candidates: int, images: int) -> str:
    title = f"{candidates} widths, each on the same {images:,} held-out images"
    if choice.chosen is choice.found:
        return title
    return f"{title}; finds of the search were no better than the chosen one on others"
