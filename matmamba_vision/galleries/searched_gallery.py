"""A gallery as programs use it: opened once, searched by images, ids and vectors, from several threads."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from itertools import groupby
from typing import TYPE_CHECKING, Any, Self, TypeAlias, overload

import numpy as np
from matmamba_datasets import BrokenImageError, Limits, TableReading
from matmamba_retrieval import Gallery, GalleryError, Strategy
from matmamba_retrieval.backends.opening import open_to_ask
from matmamba_retrieval.remedies import ENCODER
from matmamba_retrieval.storage.spec import made_elsewhere
from matmamba_retrieval.strategies.engines import AnyGallery
from matmamba_retrieval.strategies.searchable import Searchable
from numpy.typing import NDArray

from ..device import limit_threads, place_called
from ..encoders.names import is_taught, no_texts
from ..errors import ConfigError
from ..given import PathLike, require_path, require_place
from ..progress import Listener, Meter, Reporter
from ..public_call import public_call
from .answers import Answer
from .gallery_model import ModelLike
from .given_images import ImageLike
from .given_vectors import GivenVectors
from .negatives import Away, read_negatives
from .opened_gallery import OpenedGallery
from .queries import (
    Query,
    QueryLike,
    StoredQuery,
    VectorQuery,
    is_one,
    read_queries,
    stored_queries,
    vector_parts,
)
from .query_images import Asked
from .search_pass import BATCH, DEFAULT_LIMITS, ORIGINALS, SearchPass, hits_wanted, require_search, why_few
from .strategies import StrategyChoice
from .text_queries import TextQueries, TextQuery, read_texts

if TYPE_CHECKING:
    from .intake import Indexed
    from .plans import Numbers, PlanFound, QueryImages, QueryVectors

# Ids, images or both.
Examples: TypeAlias = "QueryLike | Sequence[QueryLike]"
MOST_QUERIES = 1000


class SearchedGallery(OpenedGallery):
    """Images of a gallery: searched by images, ids and vectors, added to, and planned for.

    Several threads may search it at once; the model and the indexes are loaded once.
    """

    @classmethod
    def open(
        cls,
        folder: PathLike,
        *,
        model: ModelLike | None = None,
        write: bool = False,
        device: str = "cpu",
        threads: int = 0,
    ) -> Self:
        """One that is there; see `open_gallery`."""
        place = require_path("folder", folder)
        limit_threads(threads)
        where = place_called(device)
        opened = cls(open_to_ask(place), model=model, write=write, device=where)
        try:
            if model is not None and not made_elsewhere(opened.spec):
                opened.require_model()
        except BaseException:
            opened.close()
            raise
        return opened

    @overload
    def search(  # type: ignore[overload-overlap]  # a text is a sequence of texts, too
        self,
        query: QueryLike,
        k: int | None = None,
        *,
        text: str | None = None,
        unlike: Examples = (),
        unlike_weight: float = 0.5,
        where: str = "",
        min_score: float | None = None,
        strategy: str | Strategy = "auto",
        query_width: str = "",
        dim: int | None = None,
        shortlist: int | None = None,
        reading: Limits | None = None,
        progress: Listener | None = None,
    ) -> Answer: ...

    @overload
    def search(  # type: ignore[overload-overlap]  # a text is a sequence of texts, too
        self,
        query: None = None,
        k: int | None = None,
        *,
        text: str,
        unlike: Examples = (),
        unlike_weight: float = 0.5,
        where: str = "",
        min_score: float | None = None,
        strategy: str | Strategy = "auto",
        query_width: str = "",
        dim: int | None = None,
        shortlist: int | None = None,
        reading: Limits | None = None,
        progress: Listener | None = None,
    ) -> Answer: ...

    @overload
    def search(
        self,
        query: Sequence[QueryLike] | None = None,
        k: int | None = None,
        *,
        text: str | Sequence[str] | None = None,
        like: str | Sequence[str] = (),
        unlike: Examples = (),
        unlike_weight: float = 0.5,
        vectors: NDArray[np.floating] | GivenVectors | PathLike | None = None,
        where: str = "",
        min_score: float | None = None,
        strategy: str | Strategy = "auto",
        query_width: str = "",
        dim: int | None = None,
        shortlist: int | None = None,
        reading: Limits | None = None,
        progress: Listener | None = None,
    ) -> list[Answer]: ...

    @public_call
    def search(
        self,
        query: QueryLike | Sequence[QueryLike] | None = None,
        k: int | None = None,
        *,
        text: str | Sequence[str] | None = None,
        like: str | Sequence[str] = (),
        unlike: Examples = (),
        unlike_weight: float = 0.5,
        vectors: NDArray[np.floating] | GivenVectors | PathLike | None = None,
        where: str = "",
        min_score: float | None = None,
        strategy: str | Strategy = "auto",
        query_width: str = "",
        dim: int | None = None,
        shortlist: int | None = None,
        reading: Limits | None = None,
        progress: Listener | None = None,
    ) -> Answer | list[Answer]:
        """The images that are most like each query, best first.

        An image of the gallery that is asked with, by its id, is left out of its own answer.

        Args:
            query: an image (path, PIL image, array (H, W, 3) of uint8, or the bytes of a file), the id of
                an image of the gallery (a text that is no file), or a vector (D,) of length 1; or a
                sequence of these.
            k: hits for each query; by default 10, or all where the gallery has fewer images.
            text: what pictures should show, for a model with a text tower: alone, or joined with each query
                (the mean of the two unit vectors, normalised again). Several texts are queries of their own.
            like: ids of images of the gallery that are asked with besides.
            unlike: images or ids that answers should not be like: queries become query - weight * mean of
                these, normalised again, at each width (Rocchio's relevance feedback); ids among them are
                not answered.
            unlike_weight: how far queries are moved away from those.
            vectors: that are asked with besides: an array (n, D), or a file of vectors made elsewhere.
            where: condition that hits have to fulfil, in SQL over id, path, label and metadata. k hits are
                found among the images that fulfil it, or the answer says why there are fewer.
            min_score: cosine similarity below which images are no hits.
            strategy: a `Strategy`, or single-shot, shortlist or funnel; auto does what was planned for this
                gallery, else single-shot up to 10,000 images and shortlist beyond.
            query_width: width that encodes the query first; by default full for single-shot, else the
                smallest trained one.
            dim: of the shortlist index; by default the shortest that the gallery has.
            shortlist: candidates to rerank; by default 200, or 10 k; raise it where hits of single-shot are
                missed.
            reading: limits that files are read within.
            progress: is told how far it is; it must not refresh or close the gallery.

        Returns:
            An answer, for one query or text; a list of answers, for a sequence of queries or texts,
            `vectors` and `like`, in this order. In a list, the answer to an image that cannot be read has an
            `error`.

        Raises:
            MatMambaError: a query that cannot be read, an id that the gallery does not have, a vector of
                another length, an unknown width, a condition that cannot be understood; the model is
                missing, another one's, or without a text tower; the gallery is closed.
            TypeError: an argument is of another type.
        """
        alone = is_one(query) or (query is None and text is not None)
        single = alone and isinstance(text, str | None) and not len(like) and vectors is None
        choice = StrategyChoice(strategy=strategy, query_width=query_width, dim=dim, shortlist=shortlist)
        require_search(k, unlike_weight, where, min_score, reading)
        limits = reading or DEFAULT_LIMITS
        with self.reading() as gallery:
            queries = read_queries(query, gallery, limits)
            liked = stored_queries("like", like, gallery)
            count, parts = vector_parts(vectors, gallery)
            texts, joined = read_texts(text, bool(queries or liked or count))
            self._require_encodable([*queries, *texts, *joined], gallery)
            queries += texts
            if not (queries or liked or count):
                empty = "" if query is None else "query is empty, and "
                raise ConfigError(f"{empty}there is no query: give query, text, like or vectors")
            itself = bool(liked) or any(isinstance(one, StoredQuery) for one in queries)
            away = read_negatives(unlike, gallery, limits, self.encoder)
            search = self._pass(gallery, choice, k, itself, where, away)
            words = self._texts([one.name for one in joined]) if joined else None
            search = replace(search, text=words, weight=unlike_weight, min_score=min_score)
            total = len(queries) + count + len(liked)
            with Reporter(progress).meter("searching", total, "queries") as meter:
                answers = [
                    *self._answers(search, queries, meter),
                    *(answer for names, xq in parts for answer in _told(search.vectors(names, xq), meter)),
                    *self._answers(search, liked, meter),
                ]
        if single and answers[0].error:
            raise BrokenImageError(answers[0].query, answers[0].error)
        return answers[0] if single else answers

    def _pass(
        self, gallery: AnyGallery, choice: StrategyChoice, k: int | None, itself: bool, where: str, away: Away
    ) -> SearchPass:
        """How queries are answered; `itself`: whether images of the gallery are among them."""
        negatives, avoided = away
        allowed = gallery.allowed(where or None, avoided)
        wanted = hits_wanted(k, gallery)
        # An image of the gallery that is asked with is found first, and left out.
        asked = choice, min(wanted + itself, len(gallery))
        if (known := self._chosen.get(asked)) is None:
            known = self._chosen[asked] = choice.of(gallery, asked[1], self._label)
        strategy, plan = known
        return SearchPass(
            gallery=gallery,
            strategy=strategy,
            plan=plan,
            k=wanted,
            allowed=allowed,
            negatives=negatives,
            few=why_few(k, gallery),
        )

    def _answers(self, search: SearchPass, queries: Sequence[Query], meter: Meter) -> Iterator[Answer]:
        """Answers in the order of the queries; neighbours of one kind are asked together."""
        for kind, group in groupby(queries, type):
            together: list[Any] = list(group)
            if kind is Asked:
                taught = is_taught(search.gallery.generation.checkpoint_path)
                found = search.images(together, self.encoder, ORIGINALS if taught else BATCH)
            elif kind is TextQuery:
                found = search.texts([one.name for one in together], self._texts)
            elif kind is VectorQuery:
                found = search.vectors([one.name for one in together], np.array([one.xq for one in together]))
            else:
                found = search.more_like(np.array([one.key for one in together], dtype=np.int64))
            yield from _told(found, meter)

    def _require_encodable(self, queries: Sequence[Query], gallery: Searchable) -> None:
        """Raise if there is something to be encoded, and nothing that encodes it.

        Raises:
            GalleryError: images or texts for vectors that were made elsewhere.
            EncoderError: texts for a model without a text tower.
        """
        named = next((one.name for one in queries if isinstance(one, Asked | TextQuery)), None)
        if named is not None and made_elsewhere(gallery.spec):
            raise GalleryError(
                f"{self.folder} holds vectors that were made elsewhere: ask with vectors or like, not with"
                f" {named}, unless {ENCODER} says which encoder made them"
            )
        if any(isinstance(one, TextQuery) for one in queries) and self.takes_text() is False:
            raise no_texts(str(gallery.checkpoint_path))

    def _texts(self, texts: Sequence[str]) -> TextQueries:
        """Texts to be encoded by the gallery's model."""
        return TextQueries(self.require_model(), texts)

    def _label(self, asked: str, default: str) -> str:
        """Label of the width that was asked for, by default the full or the smallest trained one.

        Raises:
            GalleryError: vectors that were made elsewhere have no such width.
            WidthError: the model has none.
        """
        if made_elsewhere(self._opened().spec):
            if asked not in ("", "full"):
                raise GalleryError(f"query_width {asked}: vectors made elsewhere have only the full one")
            return "full"
        if asked in ("", "full") and (asked or default) == "full":
            return "full"
        return self.encoder().encoder.label(asked)

    @public_call
    def add(
        self,
        images: PathLike | Sequence[ImageLike],
        *,
        ids: Sequence[str] | None = None,
        labels: Sequence[str | None] | None = None,
        prefix: str = "",
        dims: Sequence[int] = (),
        factory: str = "",
        metadata: PathLike | None = None,
        reading: TableReading | None = None,
        upsert: bool = False,
        changed: bool = False,
        prune: bool = False,
        max_broken: float = 0.01,
        batch_size: int = 64,
        workers: int = 0,
        progress: Listener | None = None,
    ) -> Indexed:
        """Add images to this gallery by its own model, and see them; see `index`.

        Args:
            images: a folder of images, of Parquet files or of shards, or a single Parquet file or shard; or a
                sequence of images, each a path, a PIL image, an array (H, W, 3) of uint8, or the bytes of a
                file.
            ids: of a sequence of images, one each; by default their paths, so images in memory need them.
            labels: of a sequence of images, one each, None for an image without.
            prefix: put before each id: keeps two folders apart.
            dims: leading dims over which shortlist indexes are built; by default those that the gallery has.
            factory: kind of these indexes, such as flat, hnsw or ivfpq; by default what the gallery has.
            metadata: CSV file or JSON lines with what is known about the images, by a column id or path.
            reading: what is read of a place; by default everything within the usual limits.
            upsert: encode images that the gallery has once more, and replace them.
            changed: encode images of a place once more whose files changed since.
            prune: delete images of a place whose files are gone.
            max_broken: share of files that may be unreadable before the call stops.
            batch_size: images encoded at once.
            workers: processes that decode images; with 0, a thread does.
            progress: is told how far it is.

        Returns:
            What became of the images.

        Raises:
            MatMambaError: what `index` refuses; or the gallery is closed, or was opened for reading.
            TypeError: an argument is of another type.
        """
        from .image_intake import index

        with self.changing() as folder:
            return index(
                images,
                folder,
                model=self.require_model(),
                ids=ids,
                labels=labels,
                prefix=prefix,
                dims=dims,
                factory=factory,
                metadata=metadata,
                reading=reading,
                upsert=upsert,
                changed=changed,
                prune=prune,
                max_broken=max_broken,
                batch_size=batch_size,
                workers=workers,
                progress=progress,
            )

    @public_call
    def plan(
        self,
        queries: QueryImages | None = None,
        *,
        target: Numbers = (),
        budget: Numbers = (),
        k: int = 10,
        vectors: QueryVectors | None = None,
        labels: Sequence[str | None] | None = None,
        widths: Sequence[str] = (),
        dims: Sequence[int] = (),
        indexes: Sequence[str] = (),
        most: int = MOST_QUERIES,
        max_broken: float = 0.01,
        reading: TableReading | None = None,
        plot: PathLike | None = None,
        batch_size: int = 64,
        workers: int = 0,
        seed: int = 0,
        progress: Listener | None = None,
    ) -> PlanFound:
        """Find the best way to search this gallery, measured here on queries, and let searches follow it.

        The encoders of its widths are kept with the gallery, as by `freeze`, where this machine can.

        With targets, the fastest strategy that reaches them is chosen, or where gmacs have a budget and ms
        has none, the one of fewest multiply-adds; with budgets alone, the one that finds most of what
        single-shot finds. A gate that saves nothing of that against single-shot is not chosen; `notes` of
        what is given back say so.

        Args:
            queries: images that are not those of the gallery, which find themselves: a folder, Parquet
                files or shards, or a sequence of images.
            target: at least so much of recall (share of the hits of single-shot), same1 (of its first
                hits), knn1 (queries whose first hit has their class) or map, by name, such as {"recall":
                0.99}.
            budget: at most so many ms (of one query), gmacs (multiply-adds, billions) or memory_mb (of the
                index).
            k: hits for each query.
            vectors: instead of images: an array (n, D), or a file of vectors made elsewhere.
            labels: of a sequence of images or an array of vectors, one each; knn1 and map need them.
            widths: that may encode a query first; by default those that were trained.
            dims: of the first stage to try; by default those that the gallery has. Indexes that lack are
                built.
            indexes: to try over these dims, such as flat, hnsw or ivf; by default those that are built. Of
                those over the same dims, the chosen one stays.
            most: queries, picked by chance, at most.
            max_broken: share of query images that may be unreadable before the call stops.
            reading: what is read of a place.
            plot: PNG file to draw what was tried into.
            batch_size: images encoded at once.
            workers: processes that decode images; with 0, a thread does.
            seed: of all that is left to chance.
            progress: is told how far it is.

        Returns:
            What was tried, and what was chosen.

        Raises:
            MatMambaError: nothing reaches the targets within the budgets, queries that cannot be read, an
                argument that cannot be; the gallery is closed, or was opened for reading.
            TypeError: an argument is of another type.
        """
        from .freezing import try_to_freeze
        from .plans import PlanWanted, encoded_queries, find_plan, given_queries, goal_of

        if (queries is None) == (vectors is None):
            raise ConfigError("a plan needs either queries, images, or vectors")
        if vectors is not None and len(widths):
            raise ConfigError("widths: vectors have only the full one")
        wanted = PlanWanted(
            goal=goal_of(target, budget),
            k=k,
            widths=widths,
            dims=dims,
            indexes=indexes,
            most=most,
            max_broken=max_broken,
            batch_size=batch_size,
            workers=workers,
            seed=seed,
            report=Reporter(progress),
        )
        if plot is not None:
            require_place("plot", plot)
        with self._planned() as gallery:
            if vectors is not None:
                encoded, known = given_queries(vectors, labels, gallery, wanted)
            else:
                assert queries is not None
                encoded, known = encoded_queries(queries, labels, reading, self.require_model(), wanted)
            found = find_plan(gallery, encoded, known, wanted)
            if vectors is None and str(self._device) == "cpu" and isinstance(gallery, Gallery):
                try_to_freeze(gallery, self.require_model())
                self._encoder = None
        if plot is not None:
            found.write_plot(plot)
        return found

    @contextmanager
    def _planned(self) -> Iterator[AnyGallery]:
        """What a plan is kept with: open for writing; of one that was pushed, its collection."""
        if isinstance(self._gallery, Gallery):
            with self.changing() as folder, Gallery(folder, write=True) as gallery:
                yield gallery
            return
        with self.reading() as pushed:
            yield pushed
        self._chosen.clear()


def _told(answers: Iterator[Answer], meter: Meter) -> Iterator[Answer]:
    for answer in answers:
        yield answer
        meter.advance(1)
