"""The three ways to use a student and its teacher: who encodes the query, and who the gallery."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from numpy.typing import NDArray

from ..errors import ConfigError
from ..galleries.embedder import Embedder
from ..galleries.model_widths import FULL, STUDENT
from ..given import require_texts

Values = dict[str, NDArray[Any]]
# Named after the encoder of the query, then that of the gallery.
REFERENCE, OWN, ACROSS = "teacher-teacher", "student-student", "student-teacher"
MODES = (REFERENCE, OWN, ACROSS)


def require_modes(modes: Sequence[str], embedder: Embedder) -> tuple[str, ...]:
    """The modes that are meant, teacher-teacher first; none for a model without a teacher.

    Args:
        modes: as a user named them; all three by default.
        embedder: of the model.

    Raises:
        ConfigError: there is no such mode, or the model has no teacher.
        TypeError: they are no texts.
    """
    wanted = require_texts("modes", modes)
    for mode in wanted:
        if mode not in MODES:
            raise ConfigError(f"modes {mode!r}: it can be {', '.join(MODES)}")
    if embedder.taught is None:
        if wanted:
            raise ConfigError(
                f"modes {wanted[0]}: {embedder.name} has no teacher here: name that of a student"
            )
        return ()
    return tuple(mode for mode in MODES if mode == REFERENCE or not wanted or mode in wanted)


def widths_asked(modes: Sequence[str], widths: Sequence[str]) -> Sequence[str]:
    """Of query widths, those of the strategies: without student-teacher, the teacher alone."""
    return [FULL] if modes and ACROSS not in modes else widths


def widths_stored(modes: Sequence[str], widths: Sequence[str]) -> list[str]:
    """Widths of galleries, with that of the student where it is asked in its own."""
    return [*widths, STUDENT] if OWN in modes else list(widths)


def mode_of(query: str, gallery: str) -> str:
    """The mode of a query width in a gallery of a width; "" for none of the three.

    Args:
        query: label of its width, "full" for the teacher.
        gallery: the same of the gallery.
    """
    if gallery not in (FULL, STUDENT):
        return ""
    asks, answers = ("teacher" if width == FULL else "student" for width in (query, gallery))
    mode = f"{asks}-{answers}"
    return mode if mode in MODES else ""


def losses(values: Values, reference: Values) -> Values:
    """What the queries lose against the teacher's own, query by query.

    Args:
        values: (nq,) by name.
        reference: the same of teacher-teacher at full length.
    """
    return {f"{name}_loss": 1.0 * reference[name] - found for name, found in values.items()}


def named(width: str) -> str:
    """What tables call the width of a query."""
    return "teacher" if width == FULL else width
