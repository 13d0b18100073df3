"""The errors of galleries."""

from matmamba_common.errors import MatMambaError


class GalleryError(MatMambaError):
    """A gallery, vectors or queries that do not fit together, or damaged files; the message names which."""


class FormatError(GalleryError):
    """A gallery that another version of this package wrote, whole as it may be."""


class SavedError(GalleryError):
    """Something failed after a change was saved: it must not be made again."""


class WriterBusyError(GalleryError):
    """A gallery that another process writes to."""
