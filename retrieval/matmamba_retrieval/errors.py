"""The one error of a gallery."""


class GalleryError(ValueError):
    """A gallery, vectors or queries that do not fit together, or damaged files; the message names which."""
