"""Which strategy a search follows, and how strategies are told."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Annotated, Any, Literal, get_args

from matmamba_common.settings import OneOf, require
from matmamba_retrieval import GalleryError, Gate, Plan, Strategy
from matmamba_retrieval.planning.planner import funnel_schedule
from matmamba_retrieval.strategies.searchable import Searchable

from ..errors import ConfigError
from ..given import require_type, require_whole
from ..progress import Reporter

# Up to so many images the exact answer takes milliseconds, about as long as encoding the query a second time:
# measured by benchmarks/small_gallery.py.
SMALL_GALLERY = 10_000
KINDS = ("auto", "single-shot", "shortlist", "funnel")

Method = Literal["auto", "exact", "shortlist"]
# Up to so many images all are compared with all others.
EXACT_IMAGES = 100_000
SHORTLIST = 200


def own_strategy(gallery: Searchable, method: Method, k: int) -> Strategy:
    """Exact search, or a shortlist by the longest index, reranked by stored vectors; `auto` goes by size.

    Raises:
        GalleryError: a gallery that needs an index has none, when it is searched.
    """
    width = gallery.spec.width
    if is_exact(gallery, method):
        return Strategy.single_shot(width=width)
    dim = max(gallery.shortlist_dims(), default=gallery.spec.dim)
    return Strategy.shortlist(width=width, dim=dim, length=min(len(gallery), max(SHORTLIST, 10 * k)))


def say_few(report: Reporter, gallery: Searchable, k: int, itself: bool = True) -> None:
    """Say so where there are fewer images than asked for; all of them are answered with then.

    Args:
        itself: whether an image is asked with that is one of them, and left out.
    """
    there = len(gallery) - itself
    if k > there:
        images = "other images" if itself else "images"
        report.say(f"note: {gallery.folder} has {there:,} {images}: fewer than k = {k}")


def is_exact(gallery: Searchable, method: Method) -> bool:
    """Whether all images are compared with all others; `ConfigError` if there is no such method."""
    require("method", method, Annotated[str, OneOf(get_args(Method))])
    return method == "exact" or (method == "auto" and len(gallery) <= EXACT_IMAGES)


@dataclass(frozen=True, kw_only=True)
class StrategyChoice:
    """What a caller says about the way to search.

    Attributes:
        strategy: a whole strategy, or auto, single-shot, shortlist or funnel.
        query_width: that encodes the query first; by default full for single-shot, else the smallest
            trained one.
        dim: of the shortlist index; by default the shortest that the gallery has.
        shortlist: candidates to rerank; by default 200, or 10 k.

    Raises:
        TypeError: an argument is of another type.
        ConfigError: an argument cannot be, or has no meaning beside the others.
    """

    strategy: str | Strategy = "auto"
    query_width: str = ""
    dim: int | None = None
    shortlist: int | None = None

    def __post_init__(self) -> None:
        require_type("strategy", self.strategy, (str, Strategy), f"a Strategy, or one of {', '.join(KINDS)}")
        require("query_width", self.query_width, str)
        for name in ("dim", "shortlist"):
            if (value := getattr(self, name)) is not None:
                require_whole(name, value, 1)
        if isinstance(self.strategy, Strategy) and (self.query_width or self._listed):
            raise ConfigError(
                "query_width, dim and shortlist mean nothing beside a Strategy, which has its own"
            )
        if isinstance(self.strategy, str) and self.strategy not in KINDS:
            raise ConfigError(
                f"strategy is {self.strategy!r}: it can be a Strategy, or one of {', '.join(KINDS)}"
            )
        if self.strategy == "single-shot" and self._listed:
            raise ConfigError("dim and shortlist mean nothing for strategy single-shot")

    @property
    def _listed(self) -> bool:
        """Whether anything is said that only a shortlist has."""
        return bool(self.dim or self.shortlist)

    def of(
        self, gallery: Searchable, k: int, label: Callable[[str, str], str]
    ) -> tuple[Strategy, Plan | None]:
        """The strategy for k hits, and the stored plan if it is that one's.

        Args:
            gallery: to be searched.
            k: hits.
            label: gives the label of a width that was asked for, or of the default: "full" or "smallest".

        Raises:
            GalleryError: there is no index for a shortlist, or the plan was made for other vectors.
            WidthError: there is no such width.
        """
        if isinstance(self.strategy, Strategy):
            return self.strategy, None
        if (plan := self._plan(gallery, k)) is not None:
            return plan.require(gallery), plan
        dims = gallery.shortlist_dims()
        alone = (len(gallery) <= SMALL_GALLERY or not dims) and not self._listed
        if self.strategy == "single-shot" or (self.strategy == "auto" and alone):
            return Strategy.single_shot(width=label(self.query_width, "full")), None
        if not dims:
            raise GalleryError(
                f"{gallery.folder} has no index for a shortlist: `index` with dims, such as 32, builds one"
            )
        width, dim = label(self.query_width, "smallest"), self.dim or min(dims)
        length = min(len(gallery), self.shortlist or max(SHORTLIST, 10 * k))
        if self.strategy in ("auto", "shortlist"):
            return Strategy.shortlist(width=width, dim=dim, length=length), None
        steps, lengths = funnel_schedule(dim, gallery.spec.dim, length, k, gallery.step_dims())
        return Strategy.funnel(width=width, dims=steps, lengths=lengths), None

    def _plan(self, gallery: Searchable, k: int) -> Plan | None:
        """The plan that is followed, if there is one and nothing else was asked for."""
        if self.strategy != "auto" or self.query_width or self._listed or not (stored := gallery.plan):
            return None
        plan = Plan.from_json(stored)
        # Made for another k, it may keep too few candidates.
        return plan if min(plan.strategy.lengths, default=k) >= k else None


def settings_of(strategy: Strategy) -> dict[str, Any]:
    """Name and settings of a strategy for JSON, without those that are not set."""
    chosen = _chosen(strategy)
    plain = {key: asdict(value) if isinstance(value, Gate) else value for key, value in chosen.items()}
    return {"name": strategy.kind, **plain}


def _chosen(strategy: Strategy) -> dict[str, Any]:
    """Settings of a strategy that are set."""
    values: dict[str, Any] = {"query_width": strategy.query_width}
    if strategy.steps:
        first = strategy.steps[0]
        if strategy.kind == "funnel":
            values |= {"dims": strategy.dims, "lengths": strategy.lengths, "widths": strategy.widths}
        else:
            rerank = strategy.rerank_width if strategy.kind == "shortlist" else ""
            values |= {"dim": first.dim, "shortlist": first.length, "rerank_width": rerank}
        values |= {"gallery_width": first.gallery_width, "index": first.index, "effort": first.effort}
        if strategy.kind == "gated":
            values |= {"gate": strategy.gate or Gate(), "again": strategy.again}
        values["expand"] = strategy.expand
    return {key: value for key, value in values.items() if value not in ("", (), None)}


def strategy_text(strategy: Strategy) -> str:
    """Name and settings on one line."""
    parts = [f"{name.replace('_', ' ')} {_plain(value)}" for name, value in _chosen(strategy).items()]
    return ", ".join([strategy.kind, *parts])


def plan_text(plan: Plan) -> str:
    """In plain words what a plan does, and what it was made for."""
    chosen = plan.strategy
    encoded = f"encodes the query by width {chosen.query_width}"
    where = (
        f"finds {chosen.lengths[0]} images by {chosen.dims[0]} dims" if chosen.dims else "compares all images"
    )
    last = {
        "single-shot": "",
        "shortlist": f", and ranks these by {_ranking(chosen)}",
        "funnel": ", and ranks fewer and fewer of these by longer embeddings",
        "gated": ", and asks the full width where the small one is likely to be wrong",
    }[chosen.kind]
    return f"this follows the plan of `matmamba plan` for {plan.goal}: it {encoded}, {where}{last}"


def _ranking(strategy: Strategy) -> str:
    """Which query ranks the candidates of a shortlist."""
    known = strategy.rerank_width or "full"
    return "the full width" if known == "full" else f"the query of width {known}"


def _plain(value: Any) -> str:
    return "-".join(map(str, value)) if isinstance(value, tuple) else str(value)
