"""The published MatMamba-Vision checkpoints (ScaledFoundations/MatMamba), read and written."""

from typing import TYPE_CHECKING

from matmamba_common.lazy import names_of

if TYPE_CHECKING:
    from .convert import load_official, save_official, to_official
else:
    __getattr__, __dir__ = names_of(
        __name__,
        {
            ".convert": (
                "load_official",
                "save_official",
                "to_official",
            ),
        },
    )

__all__ = ["load_official", "save_official", "to_official"]
