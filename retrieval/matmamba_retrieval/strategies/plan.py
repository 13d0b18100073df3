"""The plan that a gallery keeps: the strategy that was measured on it and chosen."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from ..errors import GalleryError
from ..remedies import PLAN
from ..storage.spec import EmbeddingSpec
from .json_values import filled
from .searchable import Searchable
from .strategy import Strategy


@dataclass(frozen=True, kw_only=True)
class Plan:
    """The strategy that was measured on a gallery and chosen.

    Attributes:
        strategy: that was chosen.
        spec: of the vectors that it was measured on.
        k: hits that were asked for.
        goal: target and budget, as they were given.
        measured: what it reached then.
    """

    strategy: Strategy
    spec: EmbeddingSpec
    k: int
    goal: str
    measured: dict[str, Any] = field(default_factory=dict)

    def require(self, gallery: Searchable) -> Strategy:
        """The planned strategy; `GalleryError` if the plan was made for vectors of another spec."""
        if self.spec != gallery.spec:
            raise GalleryError(
                f"the plan of {gallery.folder} was made for other vectors ({_words(self.spec)}, here"
                f" {_words(gallery.spec)}): {PLAN} makes another"
            )
        return self.strategy

    def to_json(self) -> dict[str, Any]:
        """As JSON holds it; its strategy is called settings there."""
        return {
            "settings": self.strategy.to_json(),
            "spec": asdict(self.spec),
            "k": self.k,
            "goal": self.goal,
            "measured": dict(self.measured),
        }

    @staticmethod
    def from_json(values: Mapping[str, Any]) -> Plan:
        """The plan that `to_json` gave; `GalleryError` naming a key that is unknown or of another type."""
        form = filled(_Form, values, "plan")
        spec = filled(EmbeddingSpec, form.spec, "spec")
        strategy = Strategy.from_json(form.settings)
        return Plan(strategy=strategy, spec=spec, k=form.k, goal=form.goal, measured=form.measured)


@dataclass(frozen=True)
class _Form:
    """A plan as JSON holds it."""

    settings: dict[str, Any]
    spec: dict[str, Any]
    k: int
    goal: str
    measured: dict[str, Any] = field(default_factory=dict)


def planned(gallery: Searchable) -> Strategy | None:
    """The strategy of the gallery's plan, None if it has none; `GalleryError` if the plan does not fit."""
    known = gallery.plan
    return None if known is None else Plan.from_json(known).require(gallery)


def _words(spec: EmbeddingSpec) -> str:
    return f"checkpoint {spec.checkpoint[:12]}, width {spec.width}, {spec.dim} dims"
