"""Strategies as plain values, and the plan that a gallery keeps."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any, TypeVar

from ..errors import GalleryError
from ..gallery.gallery import Gallery
from ..storage.spec import EmbeddingSpec
from .forecast import Forecast
from .gate import Gate
from .gated import Gated
from .hits import Strategy
from .strategies import Funnel, Shortlist, SingleShot

T = TypeVar("T")
STRATEGIES = ("single-shot", "shortlist", "funnel", "gated")


@dataclass(frozen=True)
class Settings:
    """A strategy without its gallery; `open` joins them.

    Attributes:
        strategy: single-shot, shortlist, funnel or gated. dims, lengths: of each step, one for a shortlist
            and a gate, none for single-shot. The others are those of the strategies.

    Raises:
        GalleryError: there is no such strategy, or it has another number of steps.
    """

    strategy: str = "single-shot"
    query_width: str = "full"
    dims: tuple[int, ...] = ()
    lengths: tuple[int, ...] = ()
    widths: tuple[str, ...] = ()
    gallery_width: str = "full"
    index: str = ""
    effort: int | None = None
    gate: Gate | None = None
    again: bool = False
    expand: int = 0

    def __post_init__(self) -> None:
        if self.strategy not in STRATEGIES:
            raise GalleryError(f"unknown strategy {self.strategy!r}: one of {', '.join(STRATEGIES)}")
        steps = {"single-shot": "no", "funnel": "one or more"}.get(self.strategy, "one")
        fits = {"no": not self.dims, "one": len(self.dims) == 1, "one or more": bool(self.dims)}[steps]
        if not fits or len(self.dims) != len(self.lengths):
            known = f"dims {self.dims}, lengths {self.lengths}"
            raise GalleryError(f"{self.strategy} takes {steps} dim and length, not {known}")

    def open(self, gallery: Gallery) -> Strategy:
        """The strategy on a gallery."""
        if self.strategy == "single-shot":
            return SingleShot(gallery, self.query_width)
        where = (self.gallery_width, self.index, self.effort)
        if self.strategy == "funnel":
            return Funnel(
                gallery, self.query_width, self.dims, self.lengths, self.widths, *where, self.expand
            )
        first = (gallery, self.query_width, self.dims[0], self.lengths[0], *where)
        if self.strategy == "shortlist":
            return Shortlist(*first, self.expand)
        return Gated(*first, self.gate or Gate(), self.again, self.expand)

    def to_json(self) -> dict[str, Any]:
        """As JSON holds them."""
        return asdict(self) | {name: list(getattr(self, name)) for name in ("dims", "lengths", "widths")}

    @staticmethod
    def from_json(values: Mapping[str, Any]) -> Settings:
        """The settings that `to_json` gave; `GalleryError` naming a key that is unknown or of wrong type."""
        known = dict(values)
        for name in ("dims", "lengths", "widths"):
            if name in known:
                known[name] = tuple(known[name])
        if isinstance(known.get("gate"), Mapping):
            known["gate"] = _gate(known["gate"])
        return _filled(Settings, known, "strategy")


@dataclass(frozen=True)
class Plan:
    """What `matmamba plan` chose for a gallery.

    Attributes:
        settings: the strategy. spec: of the vectors that it was measured on. k: hits that were asked for.
            goal: target and budget, as they were given. measured: what it reached then.
    """

    settings: Settings
    spec: EmbeddingSpec
    k: int
    goal: str
    measured: dict[str, Any] = field(default_factory=dict)

    def strategy(self, gallery: Gallery) -> Strategy:
        """The planned strategy; `GalleryError` if the plan was made for vectors of another spec."""
        if self.spec != gallery.spec:
            raise GalleryError(
                f"the plan of {gallery.folder} was made for other vectors ({_words(self.spec)}, here"
                f" {_words(gallery.spec)}): run `matmamba plan` again"
            )
        return self.settings.open(gallery)

    def to_json(self) -> dict[str, Any]:
        """As JSON holds it."""
        return asdict(self) | {"settings": self.settings.to_json()}

    @staticmethod
    def from_json(values: Mapping[str, Any]) -> Plan:
        """The plan that `to_json` gave; `GalleryError` naming a key that is unknown or of another type."""
        known = dict(values)
        if "settings" in known:
            known["settings"] = Settings.from_json(known["settings"])
        if "spec" in known:
            known["spec"] = _filled(EmbeddingSpec, known["spec"], "spec")
        return _filled(Plan, known, "plan")


def planned(gallery: Gallery) -> Strategy | None:
    """The strategy of the gallery's plan, None if it has none; `GalleryError` if the plan does not fit."""
    known = gallery.plan
    return None if known is None else Plan.from_json(known).strategy(gallery)


def _gate(values: Mapping[str, Any]) -> Gate:
    known = dict(values)
    if isinstance(known.get("forecast"), Mapping):
        forecast = known["forecast"].items()
        parts = {name: tuple(part) if isinstance(part, list) else part for name, part in forecast}
        known["forecast"] = _filled(Forecast, parts, "gate: forecast")
    return _filled(Gate, known, "gate")


def _filled(kind: type[T], values: Mapping[str, Any], what: str) -> T:
    names = {known.name: known for known in fields(kind)}  # type: ignore[arg-type]
    if unknown := values.keys() - names.keys():
        raise GalleryError(f"{what}: unknown key {min(unknown)!r}: one of {', '.join(names)}")
    for name, value in values.items():
        if not _TYPES[str(names[name].type)](value):
            raise GalleryError(f"{what}: {name} is {value!r}, not {names[name].type}")
    try:
        return kind(**values)
    except TypeError as error:
        raise GalleryError(f"{what}: {error}") from error


def _whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _number(value: Any) -> bool:
    return _whole(value) or isinstance(value, float)


_TYPES: dict[str, Callable[[Any], bool]] = {
    "str": lambda value: isinstance(value, str),
    "int": _whole,
    "float": lambda value: _number(value),
    "bool": lambda value: isinstance(value, bool),
    "int | None": lambda value: value is None or _whole(value),
    "tuple[int, ...]": lambda value: isinstance(value, tuple) and all(map(_whole, value)),
    "tuple[str, ...]": lambda value: (
        isinstance(value, tuple) and all(isinstance(item, str) for item in value)
    ),
    "tuple[float, ...]": lambda value: isinstance(value, tuple) and all(map(_number, value)),
    "Gate | None": lambda value: value is None or isinstance(value, Gate),
    "Forecast | None": lambda value: value is None or isinstance(value, Forecast),
    "Settings": lambda value: isinstance(value, Settings),
    "EmbeddingSpec": lambda value: isinstance(value, EmbeddingSpec),
    "dict[str, Any]": lambda value: isinstance(value, dict),
}


def _words(spec: EmbeddingSpec) -> str:
    return f"checkpoint {spec.checkpoint[:12]}, width {spec.width}, {spec.dim} dims"
