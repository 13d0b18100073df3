"""Counts with their names, as messages have them."""


def counted(count: int, name: str) -> str:
    """A count with its name: 1 image, 2,000 images.

    Args:
        count: how many.
        name: of one; of more an s is put behind it.
    """
    return f"{count:,} {name}{'' if count == 1 else 's'}"
