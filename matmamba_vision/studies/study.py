"""What a study of strategies found out, and the folder that it writes."""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from typing import Any

from ..checkpoint import write_whole

Row = dict[str, Any]
PLOTS = {
    "quality_macs.png": "draw_macs",
    "quality_ms.png": "draw_ms",
    "recall_qps.png": "draw_recall",
    "query_encoder.png": "draw_query_encoder",
    "memory.png": "draw_memory",
}
# Which of these show exact search by width, of which a study of a gallery has none.
OF_EXACT = ("query_encoder.png",)
# What is written besides of a student with its teacher.
MODE_FILES = ("modes.csv", "modes.png")


@dataclass(frozen=True, kw_only=True, eq=False)
class Study:
    """What `evaluate`, or `evaluate_gallery`, found out.

    Rows are plain values, and `NAME_interval` is the 95 % interval of `NAME`.

    Attributes:
        checkpoint: the file, or the name of another encoder.
        digest: SHA-256 of its weights.
        data: name and root of the data set; of a gallery where the queries are.
        settings: hits wanted, seed, number of resamples, and the grid.
        environment: commit, versions and machine.
        images: how many there are in the gallery, and among the queries.
        exact: quality of exact search by each query width, gallery width and dim, without rerank; of a
            student with its teacher by mode, with the loss against teacher-teacher at full length and the ms
            of the query's encoder. None of a gallery.
        rows: one for each strategy: what it is, its quality, its loss against single-shot, its cost by itself
            and over single-shot, and why a gate falls back to that.
        notes: what has to be said: gates that save nothing, small queries that do not pay.
        modes: of a student with its teacher, those that exact search is by; none for another model.
        output: the folder that was written; None if none was named.
        gallery: where the one is that was measured as it is; "" for one of the training images.
    """

    checkpoint: Path
    digest: str
    data: Mapping[str, str]
    settings: Mapping[str, Any]
    environment: Mapping[str, Any]
    images: Mapping[str, int]
    exact: Sequence[Row]
    rows: Sequence[Row]
    notes: Sequence[str] = ()
    modes: Sequence[str] = ()
    output: Path | None = None
    gallery: str = ""

    @property
    def plots(self) -> dict[str, str]:
        """What draws each file that shows it."""
        return {name: draw for name, draw in PLOTS.items() if self.exact or name not in OF_EXACT}

    def to_dict(self) -> dict[str, Any]:
        """Plain values, as in results.json."""
        return {
            "checkpoint": str(self.checkpoint),
            "digest": self.digest,
            "data": dict(self.data),
            "settings": dict(self.settings),
            **self.environment,
            "images": dict(self.images),
            **({"gallery": self.gallery} if self.gallery else {}),
            **({"modes": list(self.modes)} if self.modes else {}),
            "exact": list(self.exact),
            "rows": list(self.rows),
            "notes": list(self.notes),
        }


def write_study(folder: Path, study: Study) -> None:
    """Write results.json, results.csv and the plots into a folder that exists; all of them or none."""
    # Here, because importing it takes most of a second.
    from . import evaluation_plots
    from .mode_plot import draw_modes

    results = study.to_dict()
    drawn = {folder / name: getattr(evaluation_plots, draw)(results) for name, draw in study.plots.items()}
    tables = {
        folder / "results.csv": _csv(study.rows).encode(),
        folder / "results.json": json.dumps(results, indent=2).encode(),
    }
    if study.modes:
        drawn[folder / "modes.png"] = draw_modes(results)
        tables[folder / "modes.csv"] = _csv(study.exact).encode()
    write_whole(drawn | tables)


def _csv(rows: Sequence[Row]) -> str:
    """A line for each row; lists and objects as JSON."""
    names = list(dict.fromkeys(name for row in rows for name in row))
    text = StringIO()
    writer = csv.DictWriter(text, names, lineterminator="\n")
    writer.writeheader()
    for row in rows:
        writer.writerow(
            {
                name: json.dumps(value) if isinstance(value, list | dict) else value
                for name, value in row.items()
            }
        )
    return text.getvalue()
