"""The one error of a gallery."""


class GalleryError(ValueError):
    """A gallery, vectors or a query that do not fit together, or files that are damaged; the message names which."""
