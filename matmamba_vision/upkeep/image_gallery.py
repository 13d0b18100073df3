"""A gallery of images as programs use it: opened once, searched, added to, planned for, and looked after."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from matmamba_retrieval import Gallery, Row
from matmamba_retrieval.metrics import VOTE_TEMPERATURE

from ..errors import ConfigError
from ..galleries.gallery_model import ModelLike, embedder_at
from ..galleries.queries import stored_queries
from ..galleries.searched_gallery import SearchedGallery
from ..galleries.strategies import Method
from ..given import require_texts, require_whole
from ..progress import Listener, Reporter
from ..public_call import public_call
from . import contents

if TYPE_CHECKING:
    from matmamba_retrieval.backends.comparison import PushCheck
    from matmamba_retrieval.backends.pushing import Pushed

    from ..galleries.freezing import KeptEncoder
    from .duplicates import DuplicatesFound
    from .health import Repaired, Verified
    from .labels import LabelFindings
    from .maker import EncoderSet
    from .moving import Moved


@public_call
def open_gallery(
    folder: str | os.PathLike[str],
    *,
    model: ModelLike | None = None,
    write: bool = False,
    device: str = "cpu",
    threads: int = 0,
) -> ImageGallery:
    """A gallery that is there, to be searched and looked after.

    Args:
        folder: of the gallery; or the address of one that was pushed: `qdrant://host:port/collection`,
            `qdrants://` for TLS, or `edge:FOLDER`.
        model: what made it, if that was moved, or is loaded already; by default from where it was.
        write: whether it may be changed; each change keeps others from writing only while it lasts.
        device: that encodes queries: cpu, cuda, or auto for whichever is there.
        threads: that encode and search, in the whole process; 0 for as many as there are.

    Returns:
        The gallery, which is a context manager.

    Raises:
        MatMambaError: no gallery there, a damaged one, or the model is missing or another one's.
        TypeError: an argument is of another type.
    """
    return ImageGallery.open(folder, model=model, write=write, device=device, threads=threads)


class ImageGallery(SearchedGallery):
    """A gallery of images: searched, added to, planned for, and looked after.

    Several threads may search it at once; the model and the indexes are loaded once.
    """

    @public_call
    def info(self) -> dict[str, Any]:
        """What it holds, what made it, and what it takes on the disk, as plain values; sizes in bytes.

        Raises:
            MatMambaError: it is closed, or damaged.
        """
        with self.reading() as gallery:
            return contents.describe(gallery) | {"takes_text": self.takes_text()}

    @public_call
    def rows(self, ids: str | Sequence[str] | None = None, *, where: str = "") -> list[Row]:
        """What the gallery knows of its images: id, path, label and metadata of each.

        Args:
            ids: of the images; by default all of them, in the order in which they were added.
            where: instead of ids: a condition, in SQL over id, path, label and metadata.

        Raises:
            MatMambaError: an id that is not there, a condition that cannot be understood, ids and where
                together; or the gallery is closed.
            TypeError: an argument is of another type.
        """
        if ids is not None and where:
            raise ConfigError("ids and where name images in two ways: give one of them")
        with self.reading() as gallery:
            if ids is not None:
                return gallery.rows([one.key for one in stored_queries("ids", ids, gallery)])
            return gallery.rows(contents.keys_where(gallery, where))

    @public_call
    def delete(self, ids: str | Sequence[str] = (), *, where: str = "") -> int:
        """Delete images; their files are never touched, and older versions keep them until `compact`.

        Args:
            ids: of images that are there, one or several.
            where: instead of ids: a condition, in SQL over id, path, label and metadata.

        Returns:
            How many were deleted.

        Raises:
            MatMambaError: an id that is not there, neither or both are given; it is closed, or was opened for
                reading. Nothing was deleted.
        """
        with self.changing() as folder, Gallery(folder, write=True) as gallery:
            return contents.delete(gallery, ids, where)

    @public_call
    def verify(self, *, images: int = 0) -> Verified:
        """Read every byte and compare it with its checksum.

        Args:
            images: so many images, taken by chance, are encoded again and compared with their vectors.

        Raises:
            MatMambaError: it is closed; images are to be encoded and its model is not to be had.
        """
        from . import health

        with self.reading_folder() as gallery:
            return health.verify(gallery.folder, images=images, model=self._model)

    @public_call
    def repair(self) -> Repaired:
        """Build again what can be built again: indexes from vectors, vectors from images.

        Raises:
            MatMambaError: it is closed, was opened for reading, or another process writes to it.
        """
        from . import health

        with self.changing() as folder:
            return health.repair(folder, model=self._model)

    @public_call
    def freeze(
        self, widths: Sequence[str] = (), *, kinds: Sequence[str] = (), progress: Listener | None = None
    ) -> list[KeptEncoder]:
        """Keep encoders of some widths with the gallery: searching it needs neither PyTorch nor a checkpoint.

        Args:
            widths: that may encode queries; by default those of its plan, or all that were trained.
            kinds: "native" for the kernels in C, "onnx" for ONNX Runtime, "onnx-int8" for the same with
                weights of 8 bits, which loses precision; by default the best that this machine can make.
            progress: is told how far it is.

        Returns:
            What was made, and what it takes for one image here.

        Raises:
            MatMambaError: no such width or kind, or a width that cannot have one; nothing can be written; it
                is closed, or was opened for reading; its model is not to be had.
        """
        from ..galleries.freezing import freeze_widths

        with self.changing(), self.reading_folder() as gallery:
            made = freeze_widths(
                gallery,
                self.require_model(),
                require_texts("widths", widths),
                require_texts("kinds", kinds),
                Reporter(progress),
            )
            self._encoder = None
        return made

    @public_call
    def set_encoder(self, model: ModelLike, *, images: int = 16, force: bool = False) -> EncoderSet:
        """Say which model made its vectors, of those that were made elsewhere: then images can ask.

        Args:
            model: as for `index`.
            images: so many, taken by chance among those whose files are found, are encoded and compared with
                their vectors; a mean cosine below 0.98 is refused, or one below 0.95 of what tells these
                images apart.
            force: take it whatever the comparison says, and whatever made the gallery as far as it knew.

        Returns:
            What is remembered, and how images and vectors compared.

        Raises:
            MatMambaError: vectors of other dims, or of another model; the model is not to be had; it is
                closed, or was opened for reading. Nothing was changed.
            TypeError: an argument is of another type.
        """
        from . import maker

        require_whole("images", images, 0)
        with self.changing() as folder, Gallery(folder, write=True) as gallery:
            embedder = embedder_at(model, self._device)
            done = maker.set_encoder(gallery, embedder, images=images, force=force)
            # What is named here is what was named to open it, from now on.
            self._model, self._loaded, self._encoder = embedder, embedder, None
        return done

    @public_call
    def compact(self) -> int:
        """Leave out for good what was deleted, and put the vectors in few files.

        Returns:
            How many deleted images were left out.

        Raises:
            MatMambaError: it is closed, was opened for reading, or another process writes to it.
        """
        from . import health

        with self.changing() as folder:
            return health.compact(folder)

    @public_call
    def export(
        self, file: str | os.PathLike[str], *, where: str = "", progress: Listener | None = None
    ) -> int:
        """Write its images, or some, to a Parquet file, to the bit; `import_gallery` reads it.

        Args:
            file: to write.
            where: condition on the images to write, in SQL.
            progress: is told how far it is.

        Returns:
            How many images were written.

        Raises:
            MatMambaError: no image fulfils the condition, pyarrow is missing, or the file cannot be written.
        """
        from . import exchange

        with self.reading_folder() as gallery:
            return exchange.export_gallery(gallery, file, where=where, progress=progress)

    @public_call
    def push(
        self,
        to: str,
        *,
        dims: Sequence[int] = (),
        target: str | Sequence[str] = (),
        budget: str | Sequence[str] = (),
        replace: bool = False,
        progress: Listener | None = None,
    ) -> Pushed:
        """Carry it to a Qdrant server, or to the same engine in a folder, and compare what is there then.

        The first push fills a collection beside the one that answers, and takes its place at the end; later
        ones carry over what was added and deleted. One that was stopped goes on when it is called again.

        Args:
            to: `qdrant://host:port/collection`, `qdrants://...` for TLS, or `edge:FOLDER`.
            dims: further prefixes, beside those that its plan compares.
            target: "recall=0.99": share of the 10 nearest by a prefix that a list of 100 has to hold.
            budget: "memory_mb=512": MiB of prefixes, graphs and codes, which every query goes through.
            replace: whether the collection of another gallery may be replaced, or the same be made anew.
            progress: is told how far it is.

        Returns:
            What was done, and what is there now.

        Raises:
            MatMambaError: an address of another form; the server is down or too old; the collection is of
                another gallery or model, or no push made it; a disk is full; what is there differs; or it is
                closed. What was acknowledged stays.
            TypeError: an argument is of another type.
        """
        from . import push

        with self.reading_folder() as gallery:
            return push.push(
                gallery, to, dims=dims, target=target, budget=budget, replace=replace, progress=progress
            )

    @public_call
    def verify_pushed(self, place: str, *, progress: Listener | None = None) -> PushCheck:
        """Compare it with where it was pushed: every key, and a sample of vectors and metadata.

        Args:
            place: as for `push`.
            progress: is told how far it is.

        Returns:
            What differs, and what came to it, or went, since it was pushed.

        Raises:
            MatMambaError: nothing was pushed there, or another gallery; the server is down; it is closed.
            TypeError: an argument is of another type.
        """
        from . import push

        with self.reading_folder() as gallery:
            return push.verify_pushed(gallery, place, progress=progress)

    @public_call
    def export_atlas(
        self,
        file: str | os.PathLike[str],
        *,
        where: str = "",
        k: int = 15,
        pictures: int = 0,
        method: Method = "auto",
        progress: Listener | None = None,
    ) -> int:
        """Write a Parquet file that Embedding Atlas reads: a map of the images and the neighbours of each.

        Args:
            file: to write.
            where: condition on the images to write, in SQL.
            k: neighbours of each image, the image itself among them.
            pictures: longer side of the pictures that are put into the file, in pixels; 0 for none.
            method: how neighbours are found: "exact", "shortlist" (by an index), or "auto" by the gallery's
                size.
            progress: is told how far it is.

        Returns:
            How many images were written.

        Raises:
            MatMambaError: no image fulfils the condition, pyarrow is missing, or the file cannot be written.
        """
        from . import exchange

        with self.reading_folder() as gallery:
            return exchange.export_atlas(
                gallery, file, where=where, k=k, pictures=pictures, method=method, progress=progress
            )

    @public_call
    def duplicates(
        self,
        *,
        threshold: float = 0.98,
        where: str = "",
        method: Method = "auto",
        neighbours: int = 32,
        progress: Listener | None = None,
    ) -> DuplicatesFound:
        """Find groups of images of which each is nearly equal to the one that was added first.

        Args:
            threshold: least cosine similarity to the first image of a group, in (0, 1].
            where: condition on the images to compare, in SQL.
            method: "exact" compares all pairs, "shortlist" each image with those that an index finds near it,
                and may miss pairs; "auto" takes exact up to 100,000 images.
            neighbours: nearest others that "shortlist" looks at, for each image.
            progress: is told how far it is.

        Raises:
            MatMambaError: a threshold or condition that cannot be; it is closed.
        """
        from .duplicates import duplicates

        with self.reading_folder() as gallery:
            return duplicates(
                gallery,
                threshold=threshold,
                where=where,
                method=method,
                neighbours=neighbours,
                progress=progress,
            )

    @public_call
    def suggest_labels(
        self,
        *,
        where: str = "",
        k: int = 20,
        temperature: float = VOTE_TEMPERATURE,
        min_confidence: float = 0.0,
        method: Method = "auto",
        progress: Listener | None = None,
    ) -> LabelFindings:
        """Let each image's nearest labelled others vote on its label; nothing is changed.

        Args:
            where: condition on the images to judge, in SQL; all labelled images vote.
            k: neighbours that vote.
            temperature: of the votes: the smaller, the more the nearest count.
            min_confidence: below which nothing is said.
            method: how neighbours are found: "exact", "shortlist" (by an index), or "auto" by the gallery's
                size.
            progress: is told how far it is.

        Raises:
            MatMambaError: a k or condition that cannot be; no image has a label; it is closed.
        """
        from .labels import suggest_labels

        with self.reading_folder() as gallery:
            return suggest_labels(
                gallery,
                where=where,
                k=k,
                temperature=temperature,
                min_confidence=min_confidence,
                method=method,
                progress=progress,
            )

    @public_call
    def relocate(self, old: str | os.PathLike[str], new: str | os.PathLike[str]) -> Moved:
        """Tell it that its files have moved: nothing is encoded again.

        Args:
            old: folder or file where the images were; it need not exist any more.
            new: where they are now.

        Raises:
            MatMambaError: no path begins with `old`, or no file is there; it is closed, or was opened for
                reading. Nothing was changed.
        """
        from . import moving

        with self.changing() as folder, Gallery(folder, write=True) as gallery:
            return moving.relocate(gallery, old, new)
