"""How fast images are read, decoded and augmented."""

from __future__ import annotations

import time

from .errors import DataError
from .loader import Loader
from .tally import BrokenTally


def reading_rate(loader: Loader, seconds: float) -> float:
    """Images/s over at least so many seconds, after the batch with which the workers start.

    Args:
        loader: what is measured.
        seconds: how long.

    Raises:
        DataError: no image can be read.
    """
    tally, epoch, done = BrokenTally(len(loader.images), 1.0), 0, 0
    next(loader.batches(epoch))
    start = time.monotonic()
    while True:
        for batch in loader.batches(epoch):
            tally.add(batch.broken)
            done += len(batch)
            elapsed = time.monotonic() - start
            if elapsed >= seconds and done:
                return done / elapsed
        if not done:
            raise DataError(f"no image can be read\n{tally.listing()}")
        epoch += 1
