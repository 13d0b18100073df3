"""Vectors made elsewhere, what is known about images, and galleries put together."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from matmamba_retrieval import EmbeddingSpec, Gallery, GalleryError, Row
from matmamba_retrieval.curation.annotations import Annotations
from matmamba_retrieval.exchange.joining import JOINING, join
from matmamba_retrieval.exchange.vector_files import checked, elsewhere, open_vectors
from matmamba_retrieval.gallery.destination import Destination, parse_shard
from matmamba_retrieval.overlap import Intake, ahead
from matmamba_retrieval.storage.distinct import first_repeated
from small import unit_vectors

FLOATS = {
    "fixed": pa.list_(pa.float32(), 8),
    "list": pa.list_(pa.float64()),
    "half": pa.list_(pa.float16(), 8),
}


@given(count=st.integers(0, 300), shards=st.integers(1, 9), block=st.integers(1, 70))
def test_shards_are_whole_blocks_that_cover_all_once(count: int, shards: int, block: int) -> None:
    parts = [parse_shard(f"{number}/{shards}", count, block) for number in range(1, shards + 1)]
    assert [place for part in parts for place in part] == list(range(count))
    assert all(part.start % block == 0 or part.start == count for part in parts)
    sizes = [-(-len(part) // block) for part in parts]
    assert max(sizes) - min(sizes) <= 1


@pytest.mark.parametrize("text", ["0/2", "3/2", "1", "a/b", "-1/2", "1/0", "1/2/3"])
def test_a_shard_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(GalleryError, match="i/n"):
        parse_shard(text, 10)


@given(ids=st.lists(st.text(max_size=3), max_size=30), size=st.integers(1, 7))
def test_a_repeated_id_is_found(ids: list[str], size: int) -> None:
    parts = [ids[start : start + size] for start in range(0, len(ids), size)]
    found = first_repeated(lambda: iter(parts))
    assert (found is None) == (len(set(ids)) == len(ids))
    assert found is None or ids.count(found) > 1


@given(count=st.integers(0, 20), deep=st.integers(1, 5))
def test_reading_ahead_changes_nothing(count: int, deep: int) -> None:
    assert list(ahead(range(count), deep)) == list(range(count))


def test_reading_ahead_is_bounded_and_fails_where_the_items_fail() -> None:
    made: list[int] = []

    def items() -> Iterator[int]:
        for number in range(100):
            made.append(number)
            if number == 7:
                raise OSError("item 7")
            yield number

    taken = ahead(items(), 2)
    assert next(taken) == 0
    assert len(made) <= 4
    with pytest.raises(OSError, match="item 7"):
        assert list(taken) == list(range(1, 7)), "unreachable"


def test_an_intake_commits_all_in_order_and_holds_two_parts_at_most() -> None:
    committed, waiting, most = [], threading.Semaphore(0), 0

    def commit(items: list[int], vectors: dict[str, np.ndarray]) -> int:
        waiting.acquire()
        assert (vectors["full"][:, 0] == items).all()
        committed.extend(items)
        return len(items)

    intake = Intake(commit, rows=3)
    for number in range(20):
        waiting.release()
        intake.add([number], {"full": np.full((1, 2), number)})
        most = max(most, number + 1 - len(committed))
    intake.flush()
    intake.close()
    assert committed == list(range(20))
    assert intake.committed == 20
    assert most <= 6


def test_what_a_commit_raises_stops_the_run() -> None:
    def commit(items: list[int], vectors: dict[str, np.ndarray]) -> int:
        raise GalleryError("the disk is full")

    intake = Intake(commit, rows=1)
    intake.add([0], {"full": np.ones((1, 2))})
    with pytest.raises(GalleryError, match="disk is full"):
        intake.add([1], {"full": np.ones((1, 2))})
    with pytest.raises(GalleryError, match="disk is full"):
        intake.flush()
    intake.close()


def write_parquet(file: Path, xb: np.ndarray, kind: pa.DataType, **more: list[object]) -> Path:
    columns = {"id": [f"n{place}" for place in range(len(xb))], "vector": pa.array(list(xb), kind), **more}
    pq.write_table(pa.table(columns), file, row_group_size=7)
    return file


@pytest.mark.parametrize("kind", FLOATS)
@given(first=st.integers(0, 40), last=st.integers(0, 40))
@settings(max_examples=15)
def test_parquet_gives_what_numpy_gives(
    kind: str, first: int, last: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    xb, folder = unit_vectors(40, 8).astype(np.float16), tmp_path_factory.mktemp("vectors")
    np.save(folder / "x.npy", xb)
    (folder / "ids.txt").write_text("".join(f"n{place}\n" for place in range(40)))
    write_parquet(folder / "x.parquet", xb.astype(FLOATS[kind].value_type.to_pandas_dtype()), FLOATS[kind])
    files = [open_vectors(folder / "x.npy", folder / "ids.txt"), open_vectors(folder / "x.parquet")]
    wanted = range(first, max(first, last))
    for file in files:
        parts = list(file.parts(wanted))
        rows = [row for part, _ in parts for row in part]
        found = np.concatenate([np.empty((0, 8), np.float32), *(part for _, part in parts)])
        assert [row.id for row in rows] == [f"n{place}" for place in wanted]
        assert (found == xb[wanted.start : wanted.stop].astype(np.float32)).all()
        assert [one for part in file.ids() for one in part] == [f"n{place}" for place in range(40)]
        assert (len(file), file.dim) == (40, 8)


def test_what_parquet_says_beside_the_vectors_is_kept(tmp_path: Path) -> None:
    xb = unit_vectors(2, 8)
    file = write_parquet(
        tmp_path / "x.parquet", xb, FLOATS["list"], path=["/a", None], label=["cat", None],
        metadata=['{"a": {"b": 1}}', None], year=[2020, None], score=[0.5, float("nan")], blob=[b"1", b"2"],
    )  # fmt: skip
    opened = open_vectors(file)
    ((rows, _),) = opened.parts(range(2))
    assert rows == [Row("n0", "/a", "cat", {"a": {"b": 1}, "year": 2020, "score": 0.5}), Row("n1", "")]
    assert opened.left_out == ["blob"]


def spoilt(name: str) -> Callable[[Path], tuple[Path, Path | None]]:
    """A file that cannot be taken."""

    def make(folder: Path) -> tuple[Path, Path | None]:
        file, ids = folder / ("x.npy" if "npy" in name else "x.parquet"), folder / "ids.txt"
        xb = unit_vectors(9, 8)
        if name in ("npy integers", "npy flat"):
            np.save(file, np.arange(9) if name == "npy integers" else xb[0])
        elif name in ("npy few ids", "npy gap in ids"):
            np.save(file, xb)
            ids.write_text("a\nb\n" if name == "npy few ids" else "a\n\n" + "b\n" * 7)
            return file, ids
        elif "damaged" in name:
            file.write_bytes(b"PAR1 nothing")
        elif name == "parquet lengths":
            write_parquet(file, np.array([*xb[:8], xb[8][:5]], dtype=object), FLOATS["list"])
        elif name == "parquet no vector":
            write_parquet(file, np.array([*xb[:8], None], dtype=object), FLOATS["fixed"])
        elif name == "parquet integers":
            write_parquet(file, np.ones((9, 8), int), pa.list_(pa.int64()))
        elif name == "parquet no ids":
            pq.write_table(pa.table({"vector": list(xb)}), file)
        elif name == "parquet an id is missing":
            pq.write_table(pa.table({"id": [*"abcdefgh", None], "vector": list(xb)}), file)
        elif name == "parquet metadata":
            write_parquet(file, xb, FLOATS["fixed"], metadata=["[]"] * 9)
        return file, None

    return make


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("npy integers", "int64 of shape"), ("npy flat", "shape"), ("npy few ids", "2 ids for 9"),
        ("npy gap in ids", "line 2"), ("npy damaged", "cannot read"), ("parquet damaged", "cannot read"),
        ("parquet lengths", "row 8 has 5 dims"), ("parquet no vector", "row 8 has none"),
        ("parquet integers", "not lists of floats"), ("parquet no ids", "no column 'id'"),
        ("parquet an id is missing", "row 8"), ("parquet metadata", "no JSON object"),
        ("npy none", "no such file"),
    ],
)  # fmt: skip
def test_a_file_that_cannot_be_taken_is_named(name: str, said: str, tmp_path: Path) -> None:
    file, ids = spoilt(name)(tmp_path)
    with pytest.raises(GalleryError, match=said) as raised:
        for _ in open_vectors(file, ids).parts(range(9)):
            pass
    assert str(tmp_path) in str(raised.value)


@pytest.mark.parametrize(("value", "hint"), [(3.0, True), (0.0, False), (np.nan, False), (np.inf, True)])
def test_vectors_must_have_length_one_or_be_brought_to_it(value: float, hint: bool) -> None:
    xb = unit_vectors(3, 8)
    xb[1] *= value
    rows = [Row(str(place), "") for place in range(3)]
    with pytest.raises(GalleryError, match="'1' has length") as raised:
        checked(Path("x.npy"), rows, xb, normalise=False)
    assert ("normalise" in str(raised.value)) == hint
    if value == 3:
        assert np.linalg.norm(checked(Path("x.npy"), rows, xb, normalise=True), axis=1) == pytest.approx(1)
    else:
        with pytest.raises(GalleryError, match="'1' has length"):
            checked(Path("x.npy"), rows, xb, normalise=True)


def test_vectors_of_another_model_are_refused(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", unit_vectors(3, 8))
    np.save(tmp_path / "y.npy", unit_vectors(3, 8, seed=1))
    files = [open_vectors(tmp_path / name) for name in ("x.npy", "y.npy")]
    assert (
        elsewhere(files[0], "clip") == elsewhere(files[1], "clip") == EmbeddingSpec("vectors:clip", "full", 8)
    )
    Gallery.create(tmp_path / "g", elsewhere(files[0])).close()
    with pytest.raises(GalleryError, match="vectors:"):
        Destination(tmp_path / "g", elsewhere(files[1]))


def annotated(tmp_path: Path, name: str, text: str) -> Annotations:
    (tmp_path / name).write_text(text)
    return Annotations(tmp_path / name)


def test_columns_hold_numbers_only_if_all_of_their_values_are_numbers(tmp_path: Path) -> None:
    known = annotated(
        tmp_path, "m.csv", 'id,year,code,score,mixed\na,2020,007,1,1\nb,,12,2.5,x\n"c, d",-3,1,1e999,2\n'
    )
    assert known.of(["a", "b", "c, d", "e"]) == [
        {"year": 2020, "code": "007", "score": "1", "mixed": "1"},
        {"code": "12", "score": "2.5", "mixed": "x"},
        {"year": -3, "code": "1", "score": "1e999", "mixed": "2"},
        {},
    ]
    assert annotated(tmp_path, "n.tsv", "id\ts\na\t1\nb\t2.5\n").of(["a", "b"]) == [{"s": 1.0}, {"s": 2.5}]


def test_lines_of_json_are_kept_and_found_by_path_beside_the_file(tmp_path: Path) -> None:
    known = annotated(tmp_path, "m.jsonl", '{"path": "a/b.jpg", "tags": ["x"], "n": {"m": 1}}\n\n')
    assert known.of([str(tmp_path / "a" / "b.jpg")]) == [{"tags": ["x"], "n": {"m": 1}}]
    assert known.require_known([str(tmp_path / "a" / "b.jpg"), "other"]) == 1


def test_entries_of_images_that_are_not_there_are_named(tmp_path: Path) -> None:
    known = annotated(tmp_path, "m.csv", "id,x\n" + "".join(f"i{number},1\n" for number in range(9)))
    with pytest.raises(GalleryError, match=r"'i0', .*'i4' and 4 more"):
        known.require_known(["x"])
    assert known.require_known(["i0", "i7"]) == 2
    assert len(known.left_out) == 7
    assert known.left_out[f"{tmp_path}/m.csv, line 3"] == "speaks of an image that is not there"


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("m.csv", "ID;Label;year\na\\b.jpg;cat;2020\n"),
        ("m.csv", "id\tLABEL\tyear\na/b.jpg\tcat\t2020\n"),
        ("m.csv", '"Id"|"label"|"year"\n"a\\b.jpg"|"cat"|"2020"\n'),
        ("m.tsv", "id,label,year\na/b.jpg,cat,2020\n"),
        ("m.jsonl", '{"Id": "a\\\\b.jpg", "Label": "cat", "year": 2020}\n'),
    ],
)
def test_metadata_are_read_however_they_are_written(name: str, text: str, tmp_path: Path) -> None:
    known = annotated(tmp_path, name, text)
    assert known.of(["a/b.jpg", "a\\b.jpg"]) == [{"label": "cat", "year": 2020}] * 2


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("m.csv", "id,x\na,1\nb\nc,2,3\n,4\na,5\n"),
        ("m.jsonl", '{"id": "a", "x": 1}\n[]\n{\n{"id": 3}\n{"id": "a"}\n'),
    ],
)
def test_a_line_that_cannot_be_used_is_left_out_and_listed(name: str, text: str, tmp_path: Path) -> None:
    known = annotated(tmp_path, name, text)
    assert known.of(["a"]) == [{"x": 1}]
    first = 3 if name == "m.csv" else 2
    assert set(known.left_out) == {f"{tmp_path / name}, line {line}" for line in range(first, first + 4)}


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("m.txt", "", "none of"),
        ("m.csv", "", "first line"),
        ("m.csv", "id,a,a\n", "first line"),
        ("m.csv", "id,a\n", "no rows"),
        ("m.jsonl", "\n", "no rows"),
        ("m.csv", "id,a\nx\n", "line 2: 1 values"),
        ("m.csv", "name;a\nx;1\n", "no column id or path.* 'name;a', separated by ','"),
        ("m.csv", "id,path\nx,1\n", "both"),
        ("m.csv", "id,a\n,1\n", "line 2"),
        ("m.csv", 'id,a\n"x,1\n', "line 2"),
        ("m.jsonl", "[]\n", "line 1: not a JSON object"),
        ("m.jsonl", "{", "line 1: not JSON"),
        ("m.jsonl", '{"id": "a", "x": NaN}\n', "line 1"),
        ("m.jsonl", '{"id": 3}\n', "line 1"),
        ("m.jsonl", '{"x": "b"}\n', "line 1: no column id"),
    ],
)
def test_a_damaged_file_of_metadata_is_named_with_its_line(
    name: str, text: str, said: str, tmp_path: Path
) -> None:
    with pytest.raises(GalleryError, match=said):
        annotated(tmp_path, name, text)


def test_metadata_that_is_no_text_is_named(tmp_path: Path) -> None:
    (tmp_path / "m.csv").write_bytes(b"id,a\n\xff\xfe,1\n")
    with pytest.raises(GalleryError, match="not UTF-8"):
        Annotations(tmp_path / "m.csv")


WIDTH = "1/8"


def part(folder: Path, start: int, stop: int, shard: str = "", model: str = "a") -> Path:
    """A gallery of some of 60 images, where every seventh was deleted."""
    target = Destination(folder, EmbeddingSpec(model * 64, "full", 8), "/run", [WIDTH], shard=shard)
    rows = [Row(f"id{n}", f"/p/{n}", str(n % 3), {"n": n}) for n in range(start, stop)]
    full, small = (unit_vectors(60, 8, seed)[start:stop] for seed in (0, 1))
    for first in range(0, len(rows), 9):
        piece = slice(first, first + 9)
        target.commit(rows[piece], {"full": full[piece], WIDTH: small[piece]})
    gallery = target.open()
    gallery.delete([row.id for row in rows if int(row.id[2:]) % 7 == 0])
    gallery.close()
    return folder


def content(folder: Path) -> tuple[list[Row], list[bytes]]:
    with Gallery(folder) as gallery:
        keys = gallery.live_keys()
        vectors = [gallery.segments_of(width).read(keys).tobytes() for width in ("full", WIDTH)]
        return gallery.rows(keys), vectors


@pytest.fixture
def shards(tmp_path: Path) -> list[Path]:
    ends = [0, 23, 23, 41, 60]
    return [
        part(tmp_path / f"s{n}", ends[n], ends[n + 1], f"{n + 1}/4") for n in range(4)
    ]  # the second one is empty


def test_merged_shards_equal_one_run(shards: list[Path], tmp_path: Path) -> None:
    whole = part(tmp_path / "whole", 0, 60)
    told: list[int] = []
    assert join([shards[3], shards[0], shards[2], shards[1]], tmp_path / "g", told.append) == 51
    assert content(tmp_path / "g") == content(whole)
    assert sum(told) == 51
    with Gallery(tmp_path / "g") as merged, Gallery(whole) as one:
        assert merged.spec == one.spec
        assert merged.key_count == 51
        assert merged.checkpoint_path == "/run"


@pytest.mark.parametrize("stop", range(4))
def test_a_merge_that_was_stopped_goes_on(
    shards: list[Path], tmp_path: Path, stop: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("matmamba_retrieval.exchange.joining.part_rows", lambda dim: 7)
    left, add = [stop], Gallery.add

    def failing(self: Gallery, *args: object, **more: object) -> None:
        left[0] -= 1
        if left[0] < 0:
            raise KeyboardInterrupt
        add(self, *args, **more)  # type: ignore[arg-type]

    with monkeypatch.context() as patched:
        patched.setattr(Gallery, "add", failing)
        with pytest.raises(KeyboardInterrupt):
            join(shards, tmp_path / "g")
    if stop:
        with pytest.raises(GalleryError, match="holds part of"):
            join([part(tmp_path / "other", 0, 5)], tmp_path / "g")
    join(shards, tmp_path / "g")
    assert content(tmp_path / "g") == content(part(tmp_path / "whole", 0, 60))
    with Gallery(tmp_path / "g") as merged:
        assert json.loads(merged.catalog.about(JOINING))["done"]
    assert join(shards, tmp_path / "g") == 0
    assert content(tmp_path / "g") == content(tmp_path / "whole")


def test_a_stopped_merge_does_not_go_on_in_a_changed_gallery(
    shards: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    add = Gallery.add

    def once(self: Gallery, *args: object, **more: object) -> None:
        add(self, *args, **more)  # type: ignore[arg-type]
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(Gallery, "add", once)
        with pytest.raises(KeyboardInterrupt):
            join(shards, tmp_path / "g")
    part(tmp_path / "g", 50, 54)
    before = content(tmp_path / "g")
    with pytest.raises(GalleryError, match="was changed since"):
        join(shards, tmp_path / "g")
    assert content(tmp_path / "g") == before


def test_galleries_that_do_not_fit_are_not_merged(shards: list[Path], tmp_path: Path) -> None:
    into = tmp_path / "g"
    other = part(tmp_path / "other", 0, 5, model="b")
    overlapping = part(tmp_path / "overlapping", 40, 50)
    plain = part(tmp_path / "plain", 0, 41)
    narrow = Gallery.create(tmp_path / "narrow", EmbeddingSpec("a" * 64, "full", 8))
    narrow.close()
    for folders, said in (
        (shards[:3], "4/4"),
        ([*shards, shards[0]], "given twice"),
        ([*shards[:3], plain], "is no shard"),
        ([part(tmp_path / "again", 0, 2, "1/4"), *shards], "both hold shard 1/4"),
        ([part(tmp_path / "third", 0, 2, "1/3"), *shards], "one run"),
        ([plain, other], "another checkpoint"),
        ([plain, narrow.folder], "no further width"),
        ([plain, overlapping], "'id40' is in .*plain and in .*overlapping"),
        ([], "no gallery"),
        ([plain, tmp_path / "none"], "no gallery at"),
    ):
        with pytest.raises(GalleryError, match=said):
            join(folders, into)
        assert not into.exists() or not len(Gallery(into))
    with pytest.raises(GalleryError, match="into itself"):
        join([plain], plain)
    join([plain], into)
    before = content(into)
    with pytest.raises(GalleryError, match="'id40' is in"):
        join([overlapping], into)
    assert content(into) == before


def test_a_shard_is_not_added_to_what_is_none(shards: list[Path], tmp_path: Path) -> None:
    for shard in ("2/4", ""):
        with pytest.raises(GalleryError, match="holds shard 1/4"):
            part(shards[0], 50, 60, shard)
    with pytest.raises(GalleryError, match="more than a shard"):
        part(part(tmp_path / "g", 0, 5), 5, 9, "1/4")


def test_replacing_an_image_keeps_what_was_known_about_it(tmp_path: Path) -> None:
    folder, xb = part(tmp_path / "g", 0, 3), unit_vectors(1, 8, seed=5)
    target = Destination(folder, EmbeddingSpec("a" * 64, "full", 8), upsert=True)
    target.commit([Row("id1", "/moved", None, {"m": 2})], {"full": xb, WIDTH: xb})
    target.close()
    with Gallery(folder) as gallery:
        (key,) = gallery.keys_of(["id1"]).values()
        assert gallery.rows([key]) == [Row("id1", "/moved", None, {"n": 1, "m": 2})]
        assert json.dumps(gallery.segments.read(np.array([key])).tolist()) == json.dumps(
            xb.astype(np.float16).tolist()
        )


@pytest.mark.parametrize("count", [20_000])
def test_looking_up_ids_does_not_look_at_all_images(tmp_path: Path, count: int) -> None:
    """By SQLite's own count of steps: a look-up among many costs what it costs among few."""
    steps = []
    for rows in (count // 10, count):
        gallery = Gallery.create(tmp_path / str(rows), EmbeddingSpec("a" * 64, "full", 2))
        xb = np.tile(np.array([[1.0, 0.0]], np.float32), (rows, 1))
        gallery.add([Row(str(n), "") for n in range(rows)], xb)
        made = [0]

        def step(made: list[int] = made) -> bool:
            made[0] += 1
            return False

        gallery.catalog._db.set_progress_handler(step, 100)
        assert len(gallery.keys_of([str(n) for n in range(500)])) == 500
        gallery.refresh()
        steps.append(made[0])
        gallery.catalog._db.set_progress_handler(None)
        gallery.close()
    assert steps[1] <= 1.5 * steps[0]
