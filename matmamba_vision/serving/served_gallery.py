"""A gallery that is served: its present version, exchanged for a newer one while it answers."""

from __future__ import annotations

import logging
import threading
from collections.abc import Sequence
from pathlib import Path

from matmamba_retrieval.gallery.addresses import address_of

from ..errors import MatMambaError
from ..galleries.gallery_model import ModelLike
from ..galleries.light_files import light_files
from ..galleries.newer import state_of
from ..upkeep.image_gallery import ImageGallery
from .quality import Windows
from .question import OverloadedError
from .served_version import ServedVersion
from .settings import Settings
from .trial import Crew, Measured, best_measured, try_once

log = logging.getLogger(__name__)
# Seconds for measuring a version while others are answered: it takes their time.
BESIDE_OTHERS = 0.4


class ServedGallery:
    """A gallery by its name.

    Args:
        name: that questions call it.
        folder: where it is.
        settings: of the service.
        model: what made it, None for the one that it names.
        device: that encodes queries.

    Attributes:
        name: as given.
        folder: as given.
        present: the version that answers from now on.
        windows: how good its answers are.
        notice: what is wrong with a newer version, "" if nothing is.

    Raises:
        MatMambaError: no gallery there, a damaged one, or what encodes queries is not to be had.
    """

    def __init__(
        self, name: str, folder: Path, settings: Settings, model: ModelLike | None, device: str
    ) -> None:
        # A path has lost a slash of an address, which messages name.
        self.name, self.folder, self.notice = name, address_of(folder) or folder, ""
        self._settings, self._model, self._device = settings, model, device
        self._exchanging = threading.Lock()
        self.present = self._opened()
        self.windows = self._windows()

    def _opened(self, older: ServedVersion | None = None) -> ServedVersion:
        """The version that is there now, with the model of an older one where that is the same."""
        opened = ImageGallery.open(self.folder, model=self._model, device=self._device)
        try:
            if older is not None and self._shares_model(opened, older):
                model = older.opened.require_model()
                opened.close()
                opened = ImageGallery.open(self.folder, model=model, device=self._device)
            return ServedVersion(self.name, opened, self._settings.widths, self._settings.min_width)
        except BaseException:
            opened.close()
            raise

    def _shares_model(self, opened: ImageGallery, older: ServedVersion) -> bool:
        """Whether both ask one model that is loaded: none that is named here, and no kept encoders."""
        if self._model is not None or older.encoder is None or opened.spec != older.gallery.spec:
            return False
        return not light_files(Path(self.folder), opened.spec.checkpoint)

    def _windows(self) -> Windows:
        return Windows(self.present.widths, self._settings.quality_floor)

    def measure(self, ways: Sequence[Crew], seconds: float) -> Measured | None:
        """Measure what requests take, by the best of some ways to share the cores; None without images."""
        if not len(self.present):
            return None
        found = best_measured(self.present, list(ways), self._settings.max_batch_size, seconds)
        self.present.measured(found.image, found.stored)
        return found

    def hold(self) -> ServedVersion:
        """The present version, kept open until it is released.

        Raises:
            OverloadedError: the service is closing.
        """
        # One that has just been exchanged may be closed already: the one after it is not.
        for _ in range(3):
            if (version := self.present).hold():
                return version
        raise OverloadedError(f"{self.name} is being closed", 1.0)

    def refresh(self, crew: Crew) -> bool:
        """Exchange the version for a newer one, if there is one; whether there was.

        The newer one is opened, and its widths are tried, beside the old one. What cannot be opened is noted,
        and the old one goes on.

        Args:
            crew: that computes.
        """
        with self._exchanging:
            try:
                if not self._is_outdated():
                    self.notice = ""
                    return False
                newer = self._newer(crew)
            except (MatMambaError, OSError) as error:
                if self.notice != str(error):
                    log.warning("%s: a newer version cannot be opened: %s", self.name, error)
                self.notice = str(error)
                return False
            old, self.present, self.notice = self.present, newer, ""
            if old.widths != newer.widths or old.gallery.spec != newer.gallery.spec:
                self.windows = self._windows()
            old.retire()
            return True

    def _is_outdated(self) -> bool:
        return state_of(self.present.gallery) != self.present.changed

    def _newer(self, crew: Crew) -> ServedVersion:
        old = self.present
        newer = self._opened(old)
        try:
            same = old.widths == newer.widths and old.gallery.spec == newer.gallery.spec
            if same and old.lanes:
                newer.inherit(old)
                # What loads at first use is loaded before anyone waits for it.
                try_once(newer)
            elif len(newer):
                most = self._settings.max_batch_size
                found = best_measured(newer, [crew], most, min(BESIDE_OTHERS, self._settings.measure_s))
                newer.measured(found.image, found.stored)
        except BaseException:
            newer.opened.close()
            raise
        return newer

    def close(self) -> None:
        """Close the version behind its last request."""
        self.present.retire()
