"""Answers as a page with a strip of frames for each scene."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence

import numpy as np
from matmamba_datasets.frame_names import minutes_of
from matmamba_retrieval import Row
from matmamba_retrieval.strategies.searchable import Searchable

from ..galleries.answers import Answer
from ..galleries.page import Card, Section
from ..galleries.pictures import Pictures
from ..galleries.result_page import answer_section, write_sections
from ..public_call import public_call
from ..upkeep.contents import keys_where
from .known_videos import FrameNote
from .scene_hits import SceneHits, by_scene

# Frames in a strip.
STRIP = 12


@public_call
def write_scene_page(
    gallery: Searchable, answers: Answer | Sequence[Answer], file: str | os.PathLike[str], *, intro: str = ""
) -> None:
    """Write answers of a gallery with frames of videos into one HTML file that opens from disk.

    Args:
        gallery: an open one, whose answers they are.
        answers: of a search, one or several.
        file: to write; it is complete or not there, and an older one is replaced.
        intro: a sentence below the title.

    Raises:
        ConfigError: the folder of the file is not there.
        SystemRefusalError: the file cannot be written.
        TypeError: an argument is of another type.
    """

    def sections(answer: Answer, pictures: Pictures) -> Iterator[Section]:
        yield answer_section(answer, pictures)
        for scene in by_scene(answer.hits):
            if scene.note is not None:
                yield _strip(gallery, scene, scene.note, pictures)

    write_sections(answers, file, intro, sections)


def frames_in(gallery: Searchable, note: FrameNote) -> list[Row]:
    """The frames that a gallery has of a scene, in the order of time.

    Args:
        gallery: an open one.
        note: of one of them.
    """
    video = note.video.replace("'", "''")
    return gallery.rows(keys_where(gallery, f"video = '{video}' AND scene = {note.scene:d}"))


def _strip(gallery: Searchable, scene: SceneHits, note: FrameNote, pictures: Pictures) -> Section:
    rows, scores = frames_in(gallery, note), {hit.id: hit.score for hit in scene.hits}
    # Hits are shown in any case, the others at even distances.
    even = set(np.linspace(0, len(rows) - 1, min(STRIP, len(rows))).round().astype(int).tolist())
    shown = [row for place, row in enumerate(rows) if place in even or row.id in scores]
    cards = [_card(row, scores.get(row.id), pictures) for row in shown]
    said = f"scene {note.scene} of {note.video}  ·  {scene.span}  ·  {scene.best.score:.3f}"
    return Section(said, cards, note=f"{len(rows)} frames, {len(scene.hits)} of them found", dense=True)


def _card(row: Row, score: float | None, pictures: Pictures) -> Card:
    note = FrameNote.of(row.metadata)
    time = minutes_of(note.time) if note is not None else row.id
    mark = "" if score is None else "lead"
    badge = "" if score is None else f"{score:.3f}"
    return Card(pictures.data_url(row.path, 112), time, path=row.path, score=score, badge=badge, mark=mark)
