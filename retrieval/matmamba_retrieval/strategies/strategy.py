"""A strategy: one value that says how queries are answered, whatever the gallery."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np

from ..errors import GalleryError
from .forecast import Forecast
from .gate import Gate
from .json_values import filled, require_types

KINDS = ("single-shot", "shortlist", "funnel", "gated")
# How many steps each kind takes.
_STEPS = {"single-shot": "no", "funnel": "one or more"}


@dataclass(frozen=True, kw_only=True)
class Step:
    """One step towards the hits: which candidates are kept.

    The first step searches the FAISS index over the leading `dim` coordinates; later ones compare stored
    vectors by as many.

    Attributes:
        dim: leading coordinates that are compared.
        length: candidates that are kept.
        width: label of the width that encodes the query; "" for the full one.
        gallery_width: of the vectors in the index: "full", or a width that the gallery stores besides.
        index: name of the index, if not the only one of that dim.
        effort: how much of an approximate index is searched (nprobe, efSearch); by default what the index was
            built with.

    Raises:
        TypeError: a value of another type.
        GalleryError: a number below 1, or an effort below 0.
    """

    dim: int
    length: int
    width: str = ""
    gallery_width: str = "full"
    index: str = ""
    effort: int | None = None

    def __post_init__(self) -> None:
        for name in ("dim", "length", "effort"):
            _as_int(self, name)
        require_types(self)
        for name, least in (("dim", 1), ("length", 1), ("effort", 0)):
            value = getattr(self, name)
            if value is not None and value < least:
                raise GalleryError(f"{name} of a step is {value}: it has to be at least {least}")


@dataclass(frozen=True, kw_only=True)
class Strategy:
    """How queries are answered; one of the constructors makes it, `search` applies it to a gallery.

    Attributes:
        kind: single-shot, shortlist, funnel or gated.
        steps: none for single-shot, one for a shortlist and a gate, one or more for a funnel.
        rerank_width: of the query that ranks the last candidates by all coordinates; "" for the full width.
        gate: which queries the full width answers, of a gated strategy; None for all of them.
        again: whether these search the index once more, instead of reranking the list of the small width.
        expand: nearest candidates that the query is averaged with before the last comparison; 0 for none.

    Raises:
        TypeError: a value of another type.
        GalleryError: there is no such kind, or it takes another number of steps, or no such value.
    """

    kind: str
    steps: tuple[Step, ...] = ()
    rerank_width: str = ""
    gate: Gate | None = None
    again: bool = False
    expand: int = 0

    def __post_init__(self) -> None:
        _as_int(self, "expand")
        require_types(self)
        _require_kind(self.kind, self.dims, self.lengths)
        if self.expand < 0:
            raise GalleryError(f"expand is {self.expand}: it has to be at least 0")
        if self.kind != "gated" and (self.gate is not None or self.again):
            raise GalleryError(f"gate and again are of a gated strategy, not of {self.kind}")
        if self.kind == "single-shot" and self.expand:
            raise GalleryError("single-shot takes no expand")

    def __hash__(self) -> int:
        return self._hash

    @cached_property
    def _hash(self) -> int:
        """Made once: every search looks its strategy up."""
        return hash((self.kind, self.steps, self.rerank_width, self.gate, self.again, self.expand))

    @staticmethod
    def single_shot(*, width: str = "full") -> Strategy:
        """Exact search over full-length embeddings: at full width, the reference for quality.

        Args:
            width: label of the width that encodes the query; a smaller one spends less on the encoder.
        """
        return Strategy(kind="single-shot", rerank_width=width)

    @staticmethod
    def shortlist(
        *,
        width: str = "1/8",
        dim: int = 32,
        length: int = 200,
        gallery_width: str = "full",
        index: str = "",
        effort: int | None = None,
        rerank_width: str = "",
        expand: int = 0,
    ) -> Strategy:
        """A small-width query finds candidates by a prefix; the full width reranks them.

        MRL's adaptive retrieval (arXiv 2205.13147, section 4.3.1) with a cheaper encoder for the first stage.

        Args:
            width: of the query that finds the candidates.
            dim: leading coordinates that these are found by; longer ones lose less, and cost more memory.
            length: candidates; raise it where hits of single-shot are missed.
            gallery_width: see `Step`.
            index: see `Step`.
            effort: see `Step`.
            rerank_width: of the query that ranks the candidates; "" for the full width. That of `width`
                encodes the query once: cheaper, and as good as the small width alone.
            expand: nearest candidates that the query is averaged with before it is compared a last time
                (average query expansion: Chum et al., ICCV 2007), behind the nearest one, which stays first.
        """
        where: dict[str, Any] = {"gallery_width": gallery_width, "index": index, "effort": effort}
        step = Step(width=width, dim=dim, length=length, **where)
        return Strategy(kind="shortlist", steps=(step,), rerank_width=rerank_width, expand=expand)

    @staticmethod
    def funnel(
        *,
        width: str = "1/8",
        dims: Sequence[int] = (16, 32, 64),
        lengths: Sequence[int] = (200, 100, 50),
        widths: Sequence[str] = (),
        gallery_width: str = "full",
        index: str = "",
        effort: int | None = None,
        expand: int = 0,
    ) -> Strategy:
        """A shortlist reranked in steps, each shorter and with more dims than the last; full length ends it.

        MRL's funnel retrieval (arXiv 2205.13147, section 4.3.1), with a query width for each step.

        Args:
            width: of the first step.
            dims: of each step before the last.
            lengths: candidates that each of these keeps.
            widths: of the steps after the first, the last included; by default all full.
            gallery_width: of the first step, see `Step`.
            index: of the first step, see `Step`.
            effort: of the first step, see `Step`.
            expand: of the last step, see `shortlist`.

        Raises:
            GalleryError: there are not as many lengths, or later widths, as dims.
        """
        dims, lengths, widths = tuple(dims), tuple(lengths), tuple(widths)
        _require_kind("funnel", dims, lengths)
        if len(widths) not in (0, len(dims)):
            raise GalleryError(f"a funnel of {len(dims)} dims needs as many later widths, not {widths}")
        later = widths or ("",) * len(dims)
        where: dict[str, Any] = {"gallery_width": gallery_width, "index": index, "effort": effort}
        first = Step(width=width, dim=dims[0], length=lengths[0], **where)
        others = zip(dims[1:], lengths[1:], later[:-1], strict=True)
        steps = (first, *(Step(dim=dim, length=length, width=label) for dim, length, label in others))
        return Strategy(kind="funnel", steps=steps, rerank_width=later[-1], expand=expand)

    @staticmethod
    def gated(
        *,
        width: str = "1/8",
        dim: int = 32,
        length: int = 200,
        gallery_width: str = "full",
        index: str = "",
        effort: int | None = None,
        gate: Gate | None = None,
        again: bool = False,
        expand: int = 0,
    ) -> Strategy:
        """The small width finds a shortlist and ranks it; queries that fail the gate do that at full width.

        Args:
            width: small one.
            dim: see `shortlist`.
            length: see `shortlist`.
            gallery_width: see `Step`.
            index: see `Step`.
            effort: see `Step`.
            gate: which queries the small width may answer; by default none.
            again: whether a query that fails searches the index once more, by its full-width embedding,
                instead of reranking the shortlist of the small one.
            expand: of all answers, see `shortlist`; the gate looks at what the small query itself finds.
        """
        where: dict[str, Any] = {"gallery_width": gallery_width, "index": index, "effort": effort}
        step = Step(width=width, dim=dim, length=length, **where)
        return Strategy(kind="gated", steps=(step,), gate=gate, again=again, expand=expand)

    @property
    def query_width(self) -> str:
        """Label of the width that encodes a query first."""
        return (self.steps[0].width if self.steps else self.rerank_width) or "full"

    @property
    def dims(self) -> tuple[int, ...]:
        """Of each step."""
        return tuple(step.dim for step in self.steps)

    @property
    def lengths(self) -> tuple[int, ...]:
        """Of each step."""
        return tuple(step.length for step in self.steps)

    @cached_property
    def longest_dim(self) -> int:
        """Of its steps."""
        return max(self.dims)

    @cached_property
    def shortest_list(self) -> int:
        """Length of the shortest list that a step keeps."""
        return min(self.lengths)

    @property
    def widths(self) -> tuple[str, ...]:
        """Query widths after the first step, the last included; none where all are full by default."""
        later = (*(step.width for step in self.steps[1:]), self.rerank_width) if self.steps else ()
        return tuple(width or "full" for width in later) if any(later) else ()

    @cached_property
    def by_small_width(self) -> Strategy:
        """Of a gated one: the shortlist that the small width finds and ranks itself."""
        return replace(self, kind="shortlist", rerank_width=self.query_width, gate=None, again=False)

    @cached_property
    def by_both_widths(self) -> Strategy:
        """Of a gated one: the shortlist that the small width finds, ranked by the full width."""
        return replace(self.by_small_width, rerank_width="full")

    @cached_property
    def by_full_width(self) -> Strategy:
        """Of a gated one: the shortlist that a query which failed the gate finds by its full width."""
        step = replace(self.steps[0], width="full", gallery_width="full")
        return replace(self, kind="shortlist", steps=(step,), gate=None, again=False)

    def to_json(self) -> dict[str, Any]:
        """As JSON holds it: plans in galleries, and rows of measurements."""
        first = self.steps[0] if self.steps else Step(dim=1, length=1)
        return {
            "strategy": self.kind,
            "query_width": self.query_width,
            "dims": list(self.dims),
            "lengths": list(self.lengths),
            "widths": list(self.widths),
            "gallery_width": first.gallery_width,
            "index": first.index,
            "effort": first.effort,
            "gate": None if self.gate is None else asdict(self.gate),
            "again": self.again,
            "expand": self.expand,
        }

    @staticmethod
    def from_json(values: Mapping[str, Any]) -> Strategy:
        """The strategy that `to_json` gave; `GalleryError` naming a key that is unknown or of wrong type."""
        known = dict(values)
        for name in ("dims", "lengths", "widths"):
            if name in known:
                known[name] = _as_tuple(known[name])
        if isinstance(known.get("gate"), Mapping):
            known["gate"] = _gate(known["gate"])
        return filled(_Form, known, "strategy").strategy_value()


@dataclass(frozen=True)
class _Form:
    """A strategy as JSON holds it."""

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

    def strategy_value(self) -> Strategy:
        _require_kind(self.strategy, self.dims, self.lengths)
        if self.strategy == "single-shot":
            return Strategy.single_shot(width=self.query_width)
        first: dict[str, Any] = {
            "width": self.query_width,
            "gallery_width": self.gallery_width,
            "index": self.index,
            "effort": self.effort,
            "expand": self.expand,
        }
        if self.strategy == "funnel":
            return Strategy.funnel(dims=self.dims, lengths=self.lengths, widths=self.widths, **first)
        first |= {"dim": self.dims[0], "length": self.lengths[0]}
        if self.strategy == "gated":
            return Strategy.gated(gate=self.gate, again=self.again, **first)
        return Strategy.shortlist(rerank_width=(*self.widths, "")[0], **first)


def _require_kind(kind: str, dims: Sequence[int], lengths: Sequence[int]) -> None:
    """Raise `GalleryError` if there is no such kind of strategy, or not with so many steps."""
    if kind not in KINDS:
        raise GalleryError(f"unknown strategy {kind!r}: one of {', '.join(KINDS)}")
    steps = _STEPS.get(kind, "one")
    fits = {"no": not dims, "one": len(dims) == 1, "one or more": bool(dims)}[steps]
    if not fits or len(dims) != len(lengths):
        raise GalleryError(f"{kind} takes {steps} dim and length, not dims {dims}, lengths {lengths}")


def _as_int(value: object, name: str) -> None:
    """NumPy's whole numbers become Python's, which JSON can hold."""
    known = getattr(value, name)
    if isinstance(known, np.integer):
        object.__setattr__(value, name, int(known))


def _as_tuple(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def _gate(values: Mapping[str, Any]) -> Gate:
    known = dict(values)
    if isinstance(known.get("forecast"), Mapping):
        parts = {name: _as_tuple(part) for name, part in known["forecast"].items()}
        known["forecast"] = filled(Forecast, parts, "gate: forecast")
    return filled(Gate, known, "gate")
