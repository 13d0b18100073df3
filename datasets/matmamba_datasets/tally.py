"""How many images are broken, and when they are too many."""

from __future__ import annotations

from dataclasses import dataclass, field

from .errors import BrokenImageError, DataError
from .names import shown

# So many files may be broken of a small collection, unless none may: 1 % of fifty photos is none.
FEW = 3


@dataclass
class BrokenTally:
    """Counts broken images and stops the run when they are too many.

    Attributes:
        total: images in the collection.
        allowed: share that may be broken; 0 for none.
        setting: what the user calls that share.
        few: files that may be broken of however small a collection, unless none may.
        found: reasons by name.
        foreign: of what is no image at all, which is no fault.
    """

    total: int
    allowed: float
    setting: str = "max_broken"
    few: int = FEW
    found: dict[str, str] = field(default_factory=dict)
    foreign: dict[str, str] = field(default_factory=dict)

    @property
    def is_over(self) -> bool:
        """Whether more were found than allowed."""
        return len(self.found) > (max(self.few, self.allowed * self.total) if self.allowed else 0)

    def add(self, broken: list[BrokenImageError]) -> None:
        """Count them; raises `DataError` once more of the collection are broken than allowed."""
        self.found |= {error.name: error.reason for error in broken if not error.foreign}
        self.foreign |= {error.name: error.reason for error in broken if error.foreign}
        if self.is_over:
            share = 100 * len(self.found) / self.total
            raise DataError(
                f"{len(self.found)} of {self.total} files cannot be read so far: {share:.1f} %, more than the"
                f" {100 * self.allowed:g} % allowed by {self.setting}; a larger one leaves them out, and"
                f" `verify_data` (`matmamba data verify`) lists all\n"
                f"{self.listing()}"
            )

    def listing(self, most: int = 20) -> str:
        """One line for each broken image, the first `most` of them."""
        lines = [f"  {shown(name)}: {shown(reason)}" for name, reason in list(self.found.items())[:most]]
        more = len(self.found) - most
        return "\n".join(lines + ([f"  ... and {more} more"] if more > 0 else []))
