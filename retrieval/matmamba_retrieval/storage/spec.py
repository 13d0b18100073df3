"""What made a vector."""

from __future__ import annotations

from dataclasses import dataclass

from ..errors import GalleryError

# What stands in the place of a checkpoint's digest where vectors were made elsewhere, before a model's name.
ELSEWHERE = "vectors:"


@dataclass(frozen=True)
class EmbeddingSpec:
    """Identity of an embedding: vectors of different models, dims or image transforms cannot be compared.

    Attributes:
        checkpoint: digest of the model's file.
        width: label such as "full" or "1/8".
        dim: leading coordinates.
        transform: digest of how images are resized, cropped and normalised; "" for vectors that were made
            elsewhere.
    """

    checkpoint: str
    width: str
    dim: int
    transform: str = ""

    def require(self, other: EmbeddingSpec, what: str) -> None:
        """Raise `GalleryError` naming `what` if embeddings of `other` cannot be compared with these.

        Widths may differ: a small width's embedding is a query to those of the full one.
        """
        if other.checkpoint != self.checkpoint:
            raise GalleryError(
                f"{what} was made by another checkpoint:"
                f" {_named(self.checkpoint)}, not {_named(other.checkpoint)}"
            )
        if other.transform != self.transform:
            raise GalleryError(
                f"{what} was made from images transformed in another way:"
                f" digest {self.transform[:12] or 'none'}, not {other.transform[:12] or 'none'}"
            )
        if other.dim != self.dim:
            raise GalleryError(f"{what} has embeddings of {self.dim} dims, not {other.dim}")

    def require_same(self, other: EmbeddingSpec, what: str) -> None:
        """Raise `GalleryError` naming `what` if embeddings of `other` cannot be stored beside these."""
        self.require(other, what)
        if other.width != self.width:
            raise GalleryError(f"{what} has embeddings of width {self.width}, not {other.width}")


def made_elsewhere(spec: EmbeddingSpec) -> bool:
    """Whether vectors of this spec were not made by a checkpoint."""
    return spec.checkpoint.startswith(ELSEWHERE)


def _named(checkpoint: str) -> str:
    """A digest in short; in full the name of a model that is not ours."""
    return checkpoint if ":" in checkpoint else f"digest {checkpoint[:12]}"
