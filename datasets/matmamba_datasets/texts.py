"""Millions of strings in little memory.

A list of Python strings costs about 100 bytes for each beside its letters, and once more in every worker that
only looks at them, because looking changes their reference counts. These hold arrays instead.
"""

from __future__ import annotations

from abc import abstractmethod
from array import array
from collections.abc import Iterable, Sequence
from typing import overload

import numpy as np
from numpy.typing import NDArray


class Texts(Sequence[str]):
    """Strings that are made when asked for; equal to any sequence of the same strings."""

    @abstractmethod
    def text(self, index: int) -> str:
        """The string at `index`, which is in range."""

    @overload
    def __getitem__(self, index: int) -> str: ...

    @overload
    def __getitem__(self, index: slice) -> list[str]: ...

    def __getitem__(self, index: int | slice) -> str | list[str]:
        if isinstance(index, slice):
            return [self.text(place) for place in range(*index.indices(len(self)))]
        return self.text(range(len(self))[index])

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Sequence) or isinstance(other, str):
            return NotImplemented
        return len(self) == len(other) and all(a == b for a, b in zip(self, other, strict=True))

    __hash__ = None  # type: ignore[assignment]


class Packed(Texts):
    """Strings one after the other in one array of UTF-8.

    Attributes:
        letters: (m,) uint8.
        ends: (n,) int64, where each string ends.
    """

    def __init__(self, letters: NDArray[np.uint8], ends: NDArray[np.int64]) -> None:
        self.letters, self.ends = letters, ends

    @classmethod
    def of(cls, texts: Iterable[str]) -> Packed:
        """Pack strings; file names that are not UTF-8 come back as the system gave them."""
        letters, ends = bytearray(), array("q")
        for text in texts:
            letters += text.encode(errors="surrogateescape")
            ends.append(len(letters))
        return cls(np.frombuffer(letters, np.uint8), np.array(ends, np.int64))

    @classmethod
    def of_runs(cls, runs: Iterable[Sequence[str]]) -> Packed:
        """The same from strings that come many at a time."""
        letters, lengths = bytearray(), array("q")
        for run in runs:
            text = "".join(run)
            letters += text.encode(errors="surrogateescape")
            plain = text.isascii()
            lengths.extend(map(len, run if plain else [one.encode(errors="surrogateescape") for one in run]))
        return cls(np.frombuffer(letters, np.uint8), np.cumsum(np.frombuffer(lengths, np.int64)))

    @classmethod
    def joined(cls, parts: Sequence[Packed]) -> Packed:
        """One after the other."""
        before = np.cumsum([0] + [len(part.letters) for part in parts[:-1]])
        ends = [part.ends + shift for part, shift in zip(parts, before, strict=True)]
        return cls(np.concatenate([part.letters for part in parts]), np.concatenate(ends))

    def part(self, start: int, stop: int) -> Packed:
        """Those from `start` to `stop`."""
        first = int(self.ends[start - 1]) if start else 0
        ends = self.ends[start:stop] - first
        return Packed(self.letters[first : first + int(ends[-1]) if len(ends) else first], ends)

    def __len__(self) -> int:
        return len(self.ends)

    def text(self, index: int) -> str:
        start = int(self.ends[index - 1]) if index else 0
        return self.letters[start : self.ends[index]].tobytes().decode(errors="surrogateescape")


class Picked(Texts):
    """Some strings of others, in the order of `indices`."""

    def __init__(self, texts: Sequence[str], indices: NDArray[np.int64]) -> None:
        self._texts, self._indices = texts, indices

    def __len__(self) -> int:
        return len(self._indices)

    def text(self, index: int) -> str:
        return self._texts[int(self._indices[index])]


class Prefixed(Texts):
    """Strings with the beginnings that groups of them share: `prefixes[g]` before those of group g.

    Args:
        groups: how many consecutive strings each prefix is for; the only prefix is for all of them.
    """

    def __init__(self, prefixes: Sequence[str], texts: Sequence[str], groups: Sequence[int] = ()) -> None:
        self._prefixes, self._texts = tuple(prefixes), texts
        self._ends = np.cumsum(groups or [len(texts)])

    def __len__(self) -> int:
        return len(self._texts)

    def text(self, index: int) -> str:
        group = int(np.searchsorted(self._ends, index, side="right"))
        return self._prefixes[group] + self._texts[index]
