"""Filters: what they mean, by a second evaluator in Python, and that nothing but a filter gets through."""

from __future__ import annotations

import json
import sqlite3

import pytest
from drawn_filters import FIELDS, Filter, Image, filters, images
from hypothesis import given, settings
from hypothesis import strategies as st
from matmamba_retrieval import GalleryError
from matmamba_retrieval.storage.conditions import MOST_COMPARISONS, MOST_NESTED
from matmamba_retrieval.storage.where import compile_where


def selected(images: list[Image], text: str, fields: tuple[str, ...] = FIELDS) -> list[str]:
    """Ids that a filter finds, by SQLite."""
    db = sqlite3.connect(":memory:")
    db.execute(
        "CREATE TABLE images (key INTEGER PRIMARY KEY, id TEXT NOT NULL, path TEXT NOT NULL, label TEXT,"
        " metadata TEXT NOT NULL)"
    )
    rows = [(i.id, i.path, i.label, json.dumps(i.metadata, ensure_ascii=False)) for i in images]
    db.executemany("INSERT INTO images (id, path, label, metadata) VALUES (?, ?, ?, ?)", rows)
    db.execute("PRAGMA query_only = ON")
    condition, parameters = compile_where(text, fields)
    return [row[0] for row in db.execute(f"SELECT id FROM images WHERE {condition} ORDER BY key", parameters)]


@settings(max_examples=400, deadline=None)
@given(images, filters)
def test_a_filter_means_what_its_parts_mean(images: list[Image], where: Filter) -> None:
    wanted = [image.id for image in images if where.holds(image) is True]
    assert selected(images, where.sql) == wanted


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("year >= 2020 AND label = 'cat'", ["a"]),
        ("label = 'cat' OR label = 'dog' AND year = 2019", ["a", "b", "c"]),
        ("NOT label = 'cat'", ["b"]),
        ("year = 2e3 + 0", None),
        ("year > 9", ["a", "b"]),
        ("label == 'dog'", ["b"]),
        ("flag = TRUE", ["a"]),
        ("flag = 0", ["b"]),
        ("LABEL = 'dog'", ["b"]),
        ("tags LIKE '%\"wet\"%'", ["a"]),
        ("'2019' = metadata.label", ["c"]),
        ("label <> metadata.label", ["c"]),
        ("id IN ('a', 'c', 'never')", ["a", "c"]),
        ("path LIKE '%/B.JPG'", ["b"]),
        ("year NOTNULL", ["a", "b"]),
    ],
)
def test_filters_as_people_write_them(text: str, found: list[str] | None) -> None:
    images = [
        Image("a", "x/a.jpg", "cat", {"year": 2021, "flag": True, "tags": ["wet", "warm"]}),
        Image("b", "x/b.jpg", "dog", {"year": 2019, "flag": False}),
        Image("c", "x/c.jpg", "cat", {"label": "2019"}),
    ]
    fields = ("year", "flag", "tags", "label")
    if found is None:
        with pytest.raises(GalleryError, match="2e3 \\+ 0"):
            selected(images, text, fields)
    else:
        assert selected(images, text, fields) == found


HOSTILE = [
    "1 = 1; DROP TABLE images",
    "label = 'a' -- and no more",
    "label = 'a' /* nor here */",
    "/* nor */ label = 'a'",
    "label = 'a' UNION SELECT id FROM images",
    "id IN (SELECT id FROM images)",
    "EXISTS (SELECT 1)",
    "label = (SELECT 'a')",
    "load_extension('x') = 1",
    "lower(label) = 'a'",
    "label || 'a' = 'b'",
    "year + 1 > 2",
    "year & 1 = 1",
    "CASE WHEN year = 1 THEN 1 END = 1",
    "CAST(year AS TEXT) = '1'",
    "label COLLATE nocase = 'a'",
    "label GLOB '*'",
    "label REGEXP 'a'",
    "label MATCH 'a'",
    "label LIKE id",
    "label LIKE 'a' LIKE 'b'",
    "label LIKE ANY ('a', 'b')",
    "label LIKE 'a' ESCAPE 'ab'",
    f"label LIKE '{'%a' * 600}'",
    "label IN ()",
    "label IN (id, 'a')",
    "label IN images",
    "label IS 'a'",
    "label = NULL",
    "label IN ('a', NULL)",
    "year = ?",
    "year = :year",
    "year = @year",
    "year = x'00'",
    "year = 1e999",
    "year IN (1, 1e999)",
    "metadata = '{}'",
    "key = 1",
    "rowid = 1",
    "images.id = 'a'",
    "main.images.id = 'a'",
    "year -> 'a' = 1",
    "year",
    "1",
    "1 = 1",
    "'a' = 'a'",
    "TRUE",
    "NULL",
    "*",
    "year = 1 = 1",
    "1 < year < 3",
    "year = 1 ORDER BY id",
    "year = 1 LIMIT 1",
    "SELECT 1",
    "PRAGMA query_only = OFF",
    "ATTACH 'x' AS y",
    "DELETE FROM images",
    "",
    "   ",
    "(",
    "year = 'open",
    "year = 1)",
    'year = "open',
    "label = 'a\0b'",
    "label = '\udcff'",
    f"{'(' * 5000}year = 1{')' * 5000}",
    f"{'(' * (MOST_NESTED + 1)}year = 1{')' * (MOST_NESTED + 1)}",
    f"{'NOT ' * 5000}year = 1",
    f"year = {'-' * 5000}1",
    f"year = {'- ' * 5000}1",
    "a" + ".a" * 5000 + " = 1",
    " AND ".join(["year = 1"] * (MOST_COMPARISONS + 1)),
    "year = 1" + " " * 1_000_001,
]


@pytest.mark.parametrize("text", HOSTILE, ids=[str(n) for n in range(len(HOSTILE))])
def test_all_that_is_more_than_a_filter_is_refused_in_one_line(text: str) -> None:
    with pytest.raises(GalleryError) as raised:
        compile_where(text, ["year"])
    assert len(str(raised.value)) < 600
    assert "\n" not in str(raised.value)


# fmt: off
PIECES = [
    "year", "label", "'a'", "1", "=", "<", "AND", "OR", "NOT", "(", ")", "IN", ",", "LIKE",
    "IS", "NULL", "SELECT", "FROM", "images", ";", "--", "/*", "*/", "||", "+", "-", ".", "::",
    "->", "?", "BETWEEN", "ESCAPE", "x'00'", "lower(", "CASE", "END", "@a", "$1", "[", "]", "{", "}",
    '"', "`",
]
# fmt: on


@settings(max_examples=300, deadline=None)
@given(
    st.lists(
        st.sampled_from(PIECES),
        max_size=12,
    ).map(" ".join)
    | st.text(max_size=40)
)
def test_any_text_is_refused_or_selects(text: str) -> None:
    """And what selects holds no word of ours: texts are parameters, the rest is written anew."""
    images = [Image("a", "p", "a", {"year": 1})]
    try:
        condition, parameters = compile_where(text, ["year"])
    except GalleryError:
        return
    assert set(selected(images, text, ("year",))) <= {"a"}
    assert condition.count("?") == len(parameters)
    assert not {"'a'", "--", ";", "/*", "lower", "FROM images"} & set(condition.split())


def test_values_and_keys_are_parameters() -> None:
    text = "\"odd name\" = 'x' AND score > 7.5 AND label IN ('p', 'q') AND id LIKE '%r%'"
    condition, parameters = compile_where(text, FIELDS)
    assert {"x", 7.5, '["p", "q"]', "%r%", '$."odd name"', '$."score"'} == set(parameters)
    assert not any(word in condition for word in ("odd", "7.5", "'p'", "%r%"))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("lable = 'a'", "'lable'; did you mean label.; there are id, path, label, camera.model, year$"),
        ("lbl = 'a'", "'lbl'; did you mean label"),
        ("taken > 5", "unknown column 'taken'; there are id, path, label, camera.model, year$"),
        ("5 < taken", "unknown column 'taken'; there are"),
        ("Year = 1", "did you mean year"),
        ("camera.modle = 'x'", "did you mean camera.model"),
        ("label = kitten", "text takes single quotes: 'kitten'"),
        ('label = "kitten"', "text takes single quotes: 'kitten'"),
        ("label = 3", "label is text, in 'label = 3': compare it with '3'"),
        ("id IN ('a', 3)", "compare it with '3'"),
        ("year = NULL", "IS NULL"),
        ("label = 'a' GROUP BY id", "goes wrong at 'GROUP BY'"),
        ("lower(label) = 'a'", "cannot hold 'LOWER\\(label\\)'"),
        ("year LIKE 3", "LIKE takes a text"),
    ],
)
def test_a_mistake_is_named(text: str, message: str) -> None:
    with pytest.raises(GalleryError, match=message):
        compile_where(text, ["year", "camera.model"])


def test_a_long_list_of_ids_and_a_long_chain_are_answered() -> None:
    images = [Image(str(n), "", None, {"year": n}) for n in range(40)]
    ids = ", ".join(f"'{n}'" for n in range(0, 80_000, 2))
    assert len(selected(images, f"id IN ({ids})")) == 20
    chain = " OR ".join(f"year = {n}" for n in range(20, 20 + MOST_COMPARISONS))
    assert len(selected(images, chain)) == 20


def test_a_field_whose_name_json_escapes_is_refused() -> None:
    with pytest.raises(GalleryError, match="cannot name the field"):
        compile_where('"a\\b" = 1', ["a\\b"])
