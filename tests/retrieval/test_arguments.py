"""What a call of another type is told: which argument, and what would be allowed; nothing is changed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from matmamba_retrieval import (
    Encoded,
    EncodedQueries,
    Gallery,
    GalleryError,
    Row,
    Strategy,
    search,
)
from small import unit_vectors

ONE = Strategy.single_shot()


def asked() -> EncodedQueries:
    return EncodedQueries({"full": Encoded(unit_vectors(1, 32), 0.0, 0.0)})


def wrong(value: Any) -> Any:
    """A value of another type than that of the annotation."""
    return value


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda gallery: gallery.rows(["x"]), r"keys\[0\] is 'x': it can be a whole number"),
        (lambda gallery: gallery.rows(3), "keys is 3: it can be a list of whole numbers"),
        (lambda gallery: gallery.keys_of("id1"), "ids is 'id1': it can be a list of texts"),
        (lambda gallery: gallery.keys_of([3]), r"ids\[0\] is 3: it can be text"),
        (lambda gallery: gallery.allowed(3), "where is 3: it can be text"),
        (lambda gallery: gallery.add(["a"], unit_vectors(1, 32)), "rows has 'a': all have to be a Row"),
        (lambda gallery: gallery.add([Row("a", "")], [[1.0]]), r"xb is \[\[1.0\]\]: .* array \(n, D\) of"),
        (lambda gallery: gallery.delete("id1"), "ids is 'id1': it can be a list of texts"),
        (lambda gallery: gallery.build_shortlist("8"), "dim is '8': it can be a whole number"),
        (lambda gallery: gallery.build_shortlist(8, 3), "factory is 3: it can be text"),
        (
            lambda gallery: Gallery.create("other", wrong("spec")),
            "spec is 'spec': .* an EmbeddingSpec",
        ),
        (
            lambda gallery: Gallery(gallery.folder, version=wrong("x")),
            "version is 'x': .* a whole number",
        ),
        (lambda gallery: search(wrong("here"), ONE, asked(), 3), "gallery is 'here': it can be a Gallery"),
        (lambda gallery: search(gallery, wrong("exact"), asked(), 3), "strategy is 'exact': .* a Strategy"),
        (
            lambda gallery: search(gallery, ONE, wrong(unit_vectors(1, 32)), 3),
            "queries is an array of .*Encoded",
        ),
        (lambda gallery: search(gallery, ONE, asked(), wrong("3")), "k is '3': it can be a whole number"),
        (
            lambda gallery: search(gallery, ONE, asked(), 3, wrong([True] * 300)),
            "allowed is a list of 300: .*yes and no",
        ),
        (lambda gallery: Encoded(wrong([[1.0]]), 0.0, 0.0), r"xq is \[\[1.0\]\]"),
        (lambda gallery: EncodedQueries(wrong([1])), r"by_width is \[1\]: it can be Encoded by label"),
    ],
)
def test_another_type_is_named(gallery: Gallery, call: Callable[[Gallery], object], message: str) -> None:
    before = gallery.version
    with pytest.raises(TypeError, match=message):
        call(gallery)
    assert gallery.version == before


def test_a_closed_gallery_says_so(gallery: Gallery) -> None:
    gallery.close()
    for strategy in (ONE, Strategy.shortlist(width="full", dim=8)):
        with pytest.raises(GalleryError, match="is closed: open it again"):
            search(gallery, strategy, asked(), 3)
    for call in (lambda: gallery.rows([1]), lambda: gallery.labels(), lambda: gallery.plan):
        with pytest.raises(GalleryError, match="is closed: open the gallery again"):
            call()


def test_numbers_of_numpy_are_whole_numbers(gallery: Gallery) -> None:
    assert [row.id for row in gallery.rows(np.array([3, 1]))] == ["id3", "id1"]
    assert search(gallery, ONE, asked(), wrong(np.int64(3))).I.shape == (1, 3)
