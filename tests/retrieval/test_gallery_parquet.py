"""Galleries as Parquet files: the same to the bit after the journey, or one error and nothing changed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from matmamba_retrieval import EmbeddingSpec, Gallery, GalleryError, Row, Strategy
from matmamba_retrieval.exchange import gallery_parquet
from matmamba_retrieval.exchange.atlas import export_atlas, principal_axes
from matmamba_retrieval.exchange.gallery_parquet import ABOUT, Exported, export_parquet, import_parquet
from small import unit_vectors

COUNT, DIM = 120, 16
SPEC = EmbeddingSpec("a" * 64, "full", DIM)


@pytest.fixture
def gallery(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Gallery:
    """Odd ids, nested metadata, absent labels, a second width, holes; row groups of 32."""
    monkeypatch.setattr(gallery_parquet, "GROUP_ROWS", 32)
    rows = [
        Row(
            f"ordner/é {n} \"quoted\" 'x'.jpg",
            f"/somewhere/{n}.jpg",
            None if n % 5 == 0 else ["cat", "", "狗"][n % 3],
            {"n": n, "exif": {"iso": n / 7, "tags": ["a", None, True]}} if n % 2 else {},
        )
        for n in range(COUNT)
    ]
    with Gallery.create(tmp_path / "g", SPEC, "/runs/best.safetensors", ("1/8",)) as made:
        made.add(rows, unit_vectors(COUNT, DIM), {"1/8": unit_vectors(COUNT, DIM, seed=1)})
        made.delete([rows[0].id, rows[77].id])
    return Gallery(tmp_path / "g")


def content(gallery: Gallery) -> tuple[Any, ...]:
    keys = gallery.live_keys()
    vectors = [gallery.segments_of(width).read(keys).view(np.uint16) for width in ("full", "1/8")]
    return gallery.rows(keys), *[bits.tolist() for bits in vectors]


def test_a_gallery_survives_the_journey_to_the_bit(gallery: Gallery, tmp_path: Path) -> None:
    file = tmp_path / "out.parquet"
    told: list[int] = []
    assert export_parquet(gallery, file, progress=told.append) == COUNT - 2 == sum(told)
    assert pq.ParquetFile(file).num_row_groups == len(told) == 4
    assert import_parquet(file, tmp_path / "h") == COUNT - 2
    with Gallery(tmp_path / "h") as other:
        assert content(other) == content(gallery)
        assert other.generation.spec == SPEC
        assert (other.checkpoint_path, other.generation.widths) == ("/runs/best.safetensors", ("1/8",))
    again = tmp_path / "again.parquet"
    with Gallery(tmp_path / "h") as other:
        export_parquet(other, again)
    assert pq.read_table(again).equals(pq.read_table(file), check_metadata=True)


def test_a_part_goes_into_a_gallery_that_is_there(gallery: Gallery, tmp_path: Path) -> None:
    part, rest = tmp_path / "part.parquet", tmp_path / "rest.parquet"
    cats = gallery.allowed("label = 'cat'")
    others = gallery.allowed("label IS NULL OR label <> 'cat'")
    assert cats is not None
    assert others is not None
    export_parquet(gallery, part, np.flatnonzero(cats))
    export_parquet(gallery, rest, np.flatnonzero(others))
    import_parquet(part, tmp_path / "h")
    import_parquet(rest, tmp_path / "h")
    with Gallery(tmp_path / "h") as other:
        assert {row.id: row for row in other.rows(other.live_keys())} == {
            row.id: row for row in gallery.rows(gallery.live_keys())
        }


def test_images_that_are_there_are_refused_skipped_or_replaced(gallery: Gallery, tmp_path: Path) -> None:
    file, folder = tmp_path / "out.parquet", tmp_path / "h"
    export_parquet(gallery, file)
    first = gallery.rows([1])[0]
    changed = Row(first.id, "elsewhere.jpg")
    with Gallery.create(folder, SPEC, widths=("1/8",)) as other:
        other.add([changed], unit_vectors(1, DIM, 5), {"1/8": unit_vectors(1, DIM, 6)})
    with pytest.raises(GalleryError, match="has 1 of these images already"):
        import_parquet(file, folder)
    with Gallery(folder) as other:
        assert len(other) == 1
    # As a stopped import is continued.
    assert import_parquet(file, folder, "skip") == COUNT - 3
    assert import_parquet(file, folder, "skip") == 0
    with Gallery(folder) as other:
        assert other.rows(other.keys_of([first.id]).values())[0] == changed
    assert import_parquet(file, folder, "replace") == COUNT - 2
    with Gallery(folder) as other:
        assert content(other) == content(gallery)


def test_what_another_model_made_is_refused(gallery: Gallery, tmp_path: Path) -> None:
    file = tmp_path / "out.parquet"
    export_parquet(gallery, file)
    for name, spec, widths, message in (
        ("model", EmbeddingSpec("b" * 64, "full", DIM), ("1/8",), "another checkpoint"),
        ("width", EmbeddingSpec("a" * 64, "1/2", DIM), ("1/8",), "width"),
        ("widths", SPEC, (), "1/8"),
    ):
        with Gallery.create(tmp_path / name, spec, widths=widths):
            pass
        with pytest.raises(GalleryError, match=message):
            import_parquet(file, tmp_path / name)


def rewritten(file: Path, change: Any) -> Path:
    table = change(pq.read_table(file))
    pq.write_table(table, file.with_name("changed.parquet"))
    return file.with_name("changed.parquet")


def without_about(table: pa.Table) -> pa.Table:
    return table.replace_schema_metadata({})


def newer(table: pa.Table) -> pa.Table:
    about = json.loads(table.schema.metadata[ABOUT]) | {"format": 99}
    return table.replace_schema_metadata({ABOUT: json.dumps(about)})


def as_float(table: pa.Table) -> pa.Table:
    at = table.schema.get_field_index("vector")
    return table.set_column(at, "vector", table["vector"].cast(pa.list_(pa.float32(), DIM)))


def texts(name: str, value: str | None) -> Any:
    def change(table: pa.Table) -> pa.Table:
        at = table.schema.get_field_index(name)
        return table.set_column(at, name, pa.array([value] * len(table), pa.string()))

    return change


def zeros(table: pa.Table) -> pa.Table:
    xb = np.zeros(len(table) * DIM, dtype=np.float16)
    at = table.schema.get_field_index("vector")
    return table.set_column(at, "vector", pa.FixedSizeListArray.from_arrays(pa.array(xb), DIM))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (without_about, "was not exported from a gallery"),
        (newer, "format 99"),
        (as_float, "'vector' is fixed_size_list"),
        (lambda table: table.drop(["path"]), "no column 'path'"),
        (lambda table: table.drop(["vector_1/8"]), "no column 'vector_1/8'"),
        (texts("id", None), "without id"),
        (texts("metadata", "{"), "not JSON"),
        (texts("metadata", "[1]"), "no JSON object"),
        (zeros, "length 0"),
        (texts("id", "same"), "same"),
    ],
)
def test_a_file_that_is_not_one_of_ours_changes_nothing(
    gallery: Gallery, tmp_path: Path, change: Any, message: str
) -> None:
    export_parquet(gallery, tmp_path / "out.parquet")
    with Gallery.create(tmp_path / "h", SPEC, widths=("1/8",)) as other:
        other.add([Row("own", "own.jpg")], unit_vectors(1, DIM), {"1/8": unit_vectors(1, DIM)})
    file = rewritten(tmp_path / "out.parquet", change)
    with pytest.raises(GalleryError, match=message):
        import_parquet(file, tmp_path / "h")
    with Gallery(tmp_path / "h") as other:
        assert [row.id for row in other.rows(other.live_keys())] == ["own"]


def test_damaged_and_missing_files_are_named(gallery: Gallery, tmp_path: Path) -> None:
    file = tmp_path / "out.parquet"
    export_parquet(gallery, file)
    whole = file.read_bytes()
    for damaged in (b"", b"PAR1", whole[: len(whole) // 2], b"no Parquet at all" * 9):
        file.write_bytes(damaged)
        with pytest.raises(GalleryError, match=r"out\.parquet"):
            import_parquet(file, tmp_path / "h")
    with pytest.raises(GalleryError, match="nowhere"):
        Exported(tmp_path / "nowhere.parquet")
    assert not Gallery.exists(tmp_path / "h")


def test_an_export_is_complete_or_not_there(
    gallery: Gallery, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "out" / "out.parquet"
    with pytest.raises(GalleryError, match="cannot write"):
        export_parquet(gallery, file)
    file.parent.mkdir()

    def stop(rows: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        export_parquet(gallery, file, progress=stop)
    assert list(file.parent.iterdir()) == []
    file.write_bytes(b"mine")
    with pytest.raises(GalleryError, match="there already"):
        export_parquet(gallery, file)
    assert file.read_bytes() == b"mine"


def test_an_atlas_is_a_map_with_neighbours(gallery: Gallery, tmp_path: Path) -> None:
    """Coordinates against a singular value decomposition; neighbours as row numbers, the row itself first."""
    file, keys = tmp_path / "atlas.parquet", gallery.live_keys()
    pictures = {row.path: None if n % 2 else b"jpeg" for n, row in enumerate(gallery.rows(keys))}
    assert export_atlas(gallery, Strategy.single_shot(), file, keys, 6, pictures.__getitem__) == COUNT - 2
    table = pq.read_table(file).to_pylist()
    xb = gallery.segments.read(keys).astype(np.float64)
    centred = xb - xb.mean(0)
    left, singular, _ = np.linalg.svd(centred, full_matrices=False)
    for axis, name in enumerate("xy"):
        found = np.array([row[name] for row in table])
        wanted = left[:, axis] * singular[axis]
        assert np.allclose(np.abs(found), np.abs(wanted), atol=1e-3)
    scores = xb @ xb.T
    for number, row in enumerate(table):
        ids, distances = row["neighbors"]["ids"], row["neighbors"]["distances"]
        assert len(ids) == len(set(ids)) == 6
        assert (ids[0], distances[0]) == (number, 0)
        assert np.allclose(distances[1:], 1 - scores[number, ids[1:]], atol=1e-5)
        others = np.delete(scores[number], number)
        assert np.allclose(distances[1:], np.maximum(0, 1 - np.sort(others)[::-1][:5]), atol=1e-5)
        assert row["image"] == (None if number % 2 else {"bytes": b"jpeg"})
    assert [row["id"] for row in table] == [row.id for row in gallery.rows(keys)]


def test_principal_axes_of_few_images(gallery: Gallery) -> None:
    mean, axes = principal_axes(gallery, np.array([5]))
    assert np.allclose(mean, gallery.segments.read(np.array([5]))[0], atol=1e-6)
    assert np.allclose(axes @ axes.T, np.eye(2), atol=1e-5)
