"""What made a vector."""

from __future__ import annotations

from dataclasses import dataclass

from .errors import GalleryError


@dataclass(frozen=True)
class EmbeddingSpec:
    """Identity of an embedding: vectors of different checkpoints or of different dims cannot be compared.

    Attributes:
        checkpoint: digest of the model's file. width: label such as "full" or "1/8". dim: leading
            coordinates.
    """

    checkpoint: str
    width: str
    dim: int

    def require(self, other: EmbeddingSpec, what: str) -> None:
        """Raise `GalleryError` naming `what` if `other` was made by another checkpoint or has another dim."""
        if other.checkpoint != self.checkpoint:
            raise GalleryError(
                f"{what} was made by another checkpoint:"
                f" digest {self.checkpoint[:12]}, not {other.checkpoint[:12]}"
            )
        if other.dim != self.dim:
            raise GalleryError(f"{what} has embeddings of {self.dim} dims, not {other.dim}")
