"""One version of a gallery that answers: held while requests use it, closed behind the last of them."""

from __future__ import annotations

import threading
from collections.abc import Sequence

from matmamba_retrieval.storage.spec import made_elsewhere
from matmamba_retrieval.strategies.engines import AnyGallery

from ..encoders.names import no_texts
from ..errors import ConfigError
from ..galleries.image_queries import QueryEncoder
from ..galleries.latency_table import LatencyTable
from ..galleries.newer import state_of
from ..galleries.ways import FULL
from ..upkeep.image_gallery import ImageGallery
from .policy import Lane
from .question import Question

# Kinds of requests: those of one kind are computed together.
IMAGE, TEXT, STORED = "image", "text", "stored"


class KindLane:
    """Requests of one kind to one version; see `policy.Lane`.

    Args:
        version: that answers.
        kind: image, text or stored; only images are encoded at a width.
        table: what they take.
    """

    def __init__(self, version: ServedVersion, kind: str, table: LatencyTable) -> None:
        self.version, self.kind, self.table = version, kind, table

    def seconds(self, rank: int, count: int) -> float:
        """What they take together at a width."""
        return self.table.seconds(rank, count)


class _NoWait:
    """The lane of requests that nothing is computed for."""

    def seconds(self, rank: int, count: int) -> float:
        """None."""
        return 0.0


NO_WAIT: Lane = _NoWait()


class ServedVersion:
    """A version of a gallery, with what encodes queries for it.

    Args:
        name: of the gallery.
        opened: at that version; it is never refreshed, and belongs to this.
        widths: that may encode queries; by default those that are at hand.
        narrowest: of them that is used, "" for all.

    Attributes:
        name: as given.
        opened: as given.
        gallery: its vectors and rows.
        label: of the version.
        widths: labels, the widest first; none for vectors that were made elsewhere.
        encoder: of queries; None where there are no widths.
        lanes: by kind of request; none before it was measured.
        single_ms: typical milliseconds of a single image, by width.
        changed: what is compared to see whether there is something newer.

    Raises:
        MatMambaError: an unknown width, or what encodes them is not to be had.
    """

    def __init__(
        self, name: str, opened: ImageGallery, widths: Sequence[str] = (), narrowest: str = ""
    ) -> None:
        self.name, self.opened = name, opened
        with opened.reading() as gallery:
            self.gallery: AnyGallery = gallery
        self.label = f"{self.gallery.generation.number}.{self.gallery.version.number}"
        self.encoder: QueryEncoder | None = None if made_elsewhere(self.gallery.spec) else opened.encoder()
        self.widths = self._widths(widths, narrowest)
        self.lanes: dict[str, KindLane] = {}
        self.single_ms: dict[str, float] = {}
        self.changed = state_of(self.gallery)
        self._users, self._retired, self._counting = 0, False, threading.Lock()

    def __len__(self) -> int:
        return len(self.gallery)

    def _widths(self, asked: Sequence[str], narrowest: str) -> tuple[str, ...]:
        if self.encoder is None:
            return ()
        encoder = self.encoder.encoder
        labels = [encoder.label(width) for width in asked] if asked else encoder.widths
        found = sorted(dict.fromkeys(labels), key=lambda one: (one != FULL, -encoder.macs(one)))
        if not narrowest:
            return tuple(found)
        least = encoder.label(narrowest)
        if least not in found:
            raise ConfigError(f"min_width is {narrowest!r}: {self.name} has {', '.join(found)}")
        return tuple(found[: found.index(least) + 1])

    def measured(self, image: LatencyTable | None, stored: LatencyTable) -> None:
        """Take the tables of what requests take.

        Args:
            image: of those with an image; None where no width encodes.
            stored: of those that need no encoding.
        """
        tables = {IMAGE: image or stored, TEXT: image or stored, STORED: stored}
        self.lanes = {kind: KindLane(self, kind, table) for kind, table in tables.items()}
        if image is not None:
            typical = 1e3 * image.typical[:, 0]
            self.single_ms = dict(zip(image.widths, map(float, typical), strict=True))

    def inherit(self, older: ServedVersion) -> None:
        """Take the tables of a version that is like this one: they follow what is seen."""
        self.lanes = {kind: KindLane(self, kind, lane.table) for kind, lane in older.lanes.items()}
        self.single_ms = older.single_ms

    def kind_of(self, question: Question) -> str:
        """Which kind of request a question is; `MatMambaError` for an image that nothing encodes."""
        if question.image is not None:
            if self.encoder is None:
                raise ConfigError(
                    f"{self.name} holds vectors that were made elsewhere, and no image can ask for them"
                )
            return IMAGE
        return TEXT if question.text else STORED

    def require_text(self, question: Question) -> None:
        """Raise `MatMambaError` for a text that no tower of the gallery's model takes."""
        if question.text and (self.encoder is None or self.opened.takes_text() is False):
            raise no_texts(self.name)

    def ranks(self, question: Question, kind: str, narrowest: int) -> tuple[int, int]:
        """Ranks of the widest and the narrowest width that may encode a question.

        Args:
            question: says which it wants, and how narrow it may be.
            kind: of it; what is no image is not encoded at a width, and has one rank.
            narrowest: rank of the narrowest width that is used now.

        Raises:
            ConfigError: there is no such width.
        """
        exact, least = self.rank("width", question.width), self.rank("min_width", question.min_width)
        if kind != IMAGE:
            return 0, 0
        if exact is not None:
            return exact, exact
        return 0, narrowest if least is None else min(least, narrowest)

    def rank(self, name: str, width: str) -> int | None:
        """Place of a width among all, 0 for the widest, None for ""; `ConfigError` naming the argument."""
        if not width:
            return None
        if width not in self.widths:
            known = ", ".join(self.widths) or "no widths"
            raise ConfigError(f"{name} is {width!r}: {self.name} is served at {known}")
        return self.widths.index(width)

    def encoded_by(self, width: str) -> str:
        """What computes a width."""
        return "" if self.encoder is None else self.encoder.encoder.encoded_by(width)

    def hold(self) -> bool:
        """Keep it open for a request; False if it was closed."""
        with self._counting:
            if self._retired and not self._users:
                return False
            self._users += 1
            return True

    def release(self) -> None:
        """A request is done with it."""
        with self._counting:
            self._users -= 1
            last = self._retired and not self._users
        if last:
            self.opened.close()

    def retire(self) -> None:
        """Another version answers from now on: close it behind the last request."""
        with self._counting:
            self._retired, last = True, not self._users
        if last:
            self.opened.close()
