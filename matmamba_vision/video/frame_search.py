"""A frame is encoded as wide as its time allows, and its images are found."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import numpy as np
from matmamba_retrieval import GalleryError, Strategy
from matmamba_retrieval.storage.spec import made_elsewhere
from matmamba_retrieval.strategies.engines import AnyGallery
from matmamba_retrieval.strategies.searchable import Selection
from PIL import Image

from ..galleries.answers import Hit
from ..galleries.image_queries import QueryEncoder
from ..galleries.latency_table import LatencyTable, table_of, time_batches
from ..galleries.newer import state_of
from ..galleries.opened_gallery import OpenedGallery
from ..galleries.search_pass import SearchPass, hits_wanted
from ..galleries.ways import FULL, way
from .frame_encoding import frame_edge

# Seconds for which all widths together are measured at start.
MEASURE_S = 0.5
# Share of a frame's time that is kept for what is done beside encoding and searching, and at least so much.
MARGIN_SHARE, LEAST_MARGIN_S = 0.08, 0.002
# A frame as it may come, to measure with: pixels each side.
PIXELS = 256
NAME = "frame"


class FrameSearch:
    """Finds what frames resemble, at any width, in a gallery that others may change.

    Args:
        opened: the gallery; its images are looked for.
        k: hits for each frame.
        min_score: cosine similarity below which images are no hits.
        where: condition that hits have to fulfil.
        widths: that may encode frames; by default those that are at hand.

    Attributes:
        widths: labels, the widest first.
        images: of the gallery.
        edge: pixels that the shorter edge of a frame needs before it is prepared.
        version: of the gallery that answers.

    Raises:
        MatMambaError: a gallery without images, or of vectors made elsewhere; an unknown width, a condition
            that cannot be understood, or what encodes frames is not to be had.
    """

    def __init__(
        self, opened: OpenedGallery, *, k: int, min_score: float, where: str = "", widths: Sequence[str] = ()
    ) -> None:
        self._opened, self._k, self._min_score, self._where = opened, k, min_score, where
        with opened.reading() as gallery:
            hits_wanted(k, gallery)
            if made_elsewhere(gallery.spec):
                raise GalleryError(
                    f"{gallery.folder} holds vectors that were made elsewhere, and no frame can ask for them"
                )
        self._asked = tuple(widths)
        with opened.reading() as gallery:
            state = state_of(gallery)
        opened.refresh()
        self._look(state)
        self._load()
        self._is_ready = True

    def _load(self) -> None:
        """Have what encodes for the gallery as it is now, and the widths that it has."""
        self._encoder: QueryEncoder = self._opened.encoder()
        self._encoded = self._spec
        encoder = self._encoder.encoder
        labels = [encoder.label(width) for width in self._asked] if self._asked else encoder.widths
        ordered = sorted(dict.fromkeys(labels), key=lambda one: (one != FULL, -encoder.macs(one)))
        self.widths = tuple(ordered)
        self.edge = frame_edge(encoder, self.widths)

    def _look(self, state: tuple[Any, ...]) -> None:
        """Look at the gallery, which was refreshed after it was in a state."""
        with self._opened.reading() as gallery:
            self._spec, self._state, self.images = gallery.spec, state, len(gallery)
            self.version = f"{gallery.generation.number}.{gallery.version.number}"
            self._ways: dict[str, Strategy] = {}
            self._allowed: Selection | None = gallery.allowed(self._where or None)

    def measure(self) -> None:
        """Measure what a frame takes at each width, from what is prepared to what is found.

        Raises:
            MatMambaError: a width that cannot encode, or a gallery that cannot be searched.
        """
        pixels = np.random.default_rng(0).integers(0, 256, (PIXELS, PIXELS, 3)).astype(np.uint8)
        prepared = self.prepare(Image.fromarray(pixels))

        def run(rank: int, count: int) -> None:
            self._found(prepared, rank)

        # What loads at first use is loaded now.
        for rank in range(len(self.widths)):
            run(rank, 1)
        self.table: LatencyTable = table_of(self.widths, 1, time_batches(run, len(self.widths), 1, MEASURE_S))

    def prepare(self, image: Image.Image) -> Any:
        """What is encoded of a frame."""
        return self._encoder.read(image)

    def rank(self, left_s: float) -> int:
        """Rank of the widest width that takes no longer than what is left, or else of the narrowest.

        Args:
            left_s: seconds until the frame has to be answered.
        """
        left_s -= max(LEAST_MARGIN_S, MARGIN_SHARE * left_s)
        ranks = range(len(self.widths))
        return next((rank for rank in ranks if self.table.seconds(rank, 1) <= left_s), ranks[-1])

    def hits(self, prepared: Any, rank: int) -> tuple[Hit, ...]:
        """The images that a prepared frame resembles, best first; what it takes is followed.

        Args:
            prepared: of a frame.
            rank: of the width that encodes it.
        """
        start = time.perf_counter()
        found = self._found(prepared, rank)
        self.table.seen(rank, 1, time.perf_counter() - start)
        return found

    def _found(self, prepared: Any, rank: int) -> tuple[Hit, ...]:
        width = self.widths[rank]
        with self._opened.reading() as gallery:
            if not (self._is_ready and len(gallery)):
                return ()
            search = SearchPass(
                gallery=gallery,
                strategy=self._way(gallery, width),
                plan=None,
                k=hits_wanted(self._k, gallery),
                allowed=self._allowed,
                min_score=self._min_score,
            )
            return search.one(NAME, self._encoder.queries([prepared])).hits

    def _way(self, gallery: AnyGallery, width: str) -> Strategy:
        """The strategy of a width, looked up once for each version of the gallery."""
        if width not in self._ways:
            self._ways[width] = way(gallery, "auto", width, hits_wanted(self._k, gallery), send_on=False)
        return self._ways[width]

    def refresh(self) -> bool:
        """See what others changed in the gallery; whether they did.

        Raises:
            MatMambaError: what is there now cannot be read: then what was there before goes on answering. Or
                it cannot be asked, for its model is missing: then nothing is found, until it can.
        """
        with self._opened.reading() as gallery:
            state = state_of(gallery)
        if self._is_ready and state == self._state:
            return False
        self._opened.refresh()
        self._is_ready = False
        self._look(state)
        if self._encoded != self._spec:
            # Another model encodes from now on, and nobody knows what it takes.
            self._load()
            self._is_ready = True
            self.measure()
        self._is_ready = True
        return True
