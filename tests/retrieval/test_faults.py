"""What goes wrong around a gallery: signals, failing disks, kills, foreign files; nothing is lost."""

from __future__ import annotations

import errno
import itertools
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import apsw
import numpy as np
import pytest
from damaged_galleries import answers, flip_in_page
from interrupted_galleries import ended, forked
from lookups import by_index
from matmamba_retrieval import EmbeddingSpec, Gallery, GalleryError, Row, SavedError
from matmamba_retrieval.gallery import repairing
from matmamba_retrieval.gallery.inspection import verify
from matmamba_retrieval.gallery.merging import merge_segments
from matmamba_retrieval.gallery.renewal import Renewal, compact
from matmamba_retrieval.gallery.repairing import repair
from matmamba_retrieval.storage import database, rewriting
from matmamba_retrieval.storage.catalog import Catalog
from matmamba_retrieval.storage.locks import Lock
from small import unit_vectors

TESTS = Path(__file__).parents[1]
# In a process without torch, whose threads would not survive a fork.
ATTACK = """
import sys
import threading
from pathlib import Path
sys.path.insert(0, sys.argv[1])
import faiss, interrupted_galleries, misplaced_pages
faiss.omp_set_num_threads(1)
folder = Path(sys.argv[2])
"""
NOBODY = 65534


def attacked(folder: Path, script: str) -> str:
    """What a script prints in a process of its own."""
    command = [sys.executable, "-c", ATTACK + script, str(TESTS), str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return done.stdout


def new_rows(count: int, name: str = "new") -> tuple[list[Row], np.ndarray]:
    return [Row(f"{name}{n}", f"{n}.jpg") for n in range(count)], unit_vectors(count, 32, 5)


# Signals


def test_writers_that_are_interrupted_lose_nothing(tmp_path: Path) -> None:
    said = attacked(tmp_path / "g", "print(interrupted_galleries.interrupt_writers(folder, 40))")
    assert "kept" in said


def test_an_interrupt_waits_for_the_commit(gallery: Gallery) -> None:
    rows, xb = new_rows(10)
    original = gallery.catalog._digests.settle

    def interrupted() -> None:
        os.kill(os.getpid(), signal.SIGINT)
        original()

    gallery.catalog._digests.settle = interrupted  # type: ignore[method-assign]
    with pytest.raises(KeyboardInterrupt):
        gallery.add(rows, xb)
    gallery.catalog._digests.settle = original  # type: ignore[method-assign]
    # The object goes on with what was saved.
    gallery.add(*new_rows(5, "later"))
    assert len(gallery) == 315
    gallery.close()
    with Gallery(gallery.folder) as reopened:
        assert len(reopened) == 315
    assert verify(gallery.folder) == []


@pytest.mark.parametrize("kind", ["compact", "reindex", "merge"])
def test_an_interrupted_change_of_generation_is_seen_by_the_next_addition(
    gallery: Gallery, kind: str
) -> None:
    gallery.delete(["id1"])
    gallery.save_plan({"kind": "single-shot"})
    for number in range(10 if kind == "merge" else 1):
        gallery.add(*new_rows(10, f"more{number}-"))
    there = len(gallery)
    put, original = Catalog.set_about, gallery.catalog._digests.settle

    def interrupted() -> None:
        os.kill(os.getpid(), signal.SIGINT)
        original()

    def switching(self: Catalog, name: str, value: str) -> None:
        put(self, name, value)
        if (name, value) == ("staged", ""):
            gallery.catalog._digests.settle = interrupted  # type: ignore[method-assign]

    renewal = Renewal(gallery, EmbeddingSpec("b" * 64, "full", 32)) if kind == "reindex" else None
    if renewal:
        renewal.add(renewal.pending(), unit_vectors(there, 32))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Catalog, "set_about", switching)
        if kind == "merge":
            gallery.catalog._digests.settle = interrupted  # type: ignore[method-assign]
        with pytest.raises(KeyboardInterrupt):
            renewal.finish() if renewal else compact(gallery) if kind == "compact" else merge_segments(
                gallery
            )
    gallery.catalog._digests.settle = original  # type: ignore[method-assign]
    gallery.add(*new_rows(7, "later"))
    assert len(gallery) == there + 7
    assert (gallery.plan is None) == (kind == "reindex")
    gallery.close()
    with Gallery(gallery.folder) as reopened:
        assert len(reopened) == there + 7
        assert "later3" in reopened.keys_of(["later3"])
    assert verify(gallery.folder) == []


# Disks that fail


class FailingVFS(apsw.VFS):
    """The checked one, which reports an error behind the removal of a journal, or before it."""

    def __init__(self) -> None:
        self.fails = ""
        super().__init__("failing", database.CHECKED_VFS)

    def xDelete(self, name: str, sync: bool) -> None:
        fails, self.fails = self.fails, ""
        if fails != "before":
            super().xDelete(name, sync)
        if fails:
            error = apsw.IOError("the disk says EIO")
            error.extendedresult = apsw.SQLITE_IOERR_DIR_FSYNC  # type: ignore[attr-defined]
            raise error


@pytest.fixture
def failing(monkeypatch: pytest.MonkeyPatch, gallery: Gallery) -> Iterator[tuple[FailingVFS, Gallery]]:
    gallery.close()
    vfs = FailingVFS()
    with monkeypatch.context() as patch:
        patch.setattr(database, "CHECKED_VFS", "failing")
        opened = Gallery(gallery.folder, write=True)
    yield vfs, opened
    opened.close()


@pytest.mark.parametrize("change", ["add", "upsert", "delete", "build"])
def test_an_error_behind_the_commit_says_that_it_is_saved(
    failing: tuple[FailingVFS, Gallery], change: str
) -> None:
    vfs, gallery = failing
    vfs.fails = "behind"
    changes: dict[str, Callable[[], Any]] = {
        "add": lambda: gallery.add(*new_rows(10)),
        "upsert": lambda: gallery.upsert([Row("id3", "other.jpg")], unit_vectors(1, 32)),
        "delete": lambda: gallery.delete(["id3"]),
        "build": lambda: gallery.build_shortlist(4),
    }
    with pytest.raises(SavedError, match="the change is saved, but the disk reported"):
        changes[change]()
    saved = {"add": 310, "delete": 299}.get(change, 300)
    with Gallery(gallery.folder) as reader:
        assert len(reader) == saved
        assert (4 in reader.shortlist_dims()) == (change == "build")
    gallery.add(*new_rows(7, "later"))
    assert len(gallery) == saved + 7
    assert verify(gallery.folder) == []


def test_an_error_before_the_commit_changes_nothing(failing: tuple[FailingVFS, Gallery]) -> None:
    vfs, gallery = failing
    before, files = answers(gallery.folder), sorted((gallery.folder / "segments").iterdir())
    vfs.fails = "before"
    with pytest.raises(GalleryError, match="cannot be read or written"):
        gallery.add(*new_rows(10))
    assert answers(gallery.folder) == before
    assert sorted((gallery.folder / "segments").iterdir()) == files
    gallery.add(*new_rows(10))
    assert len(gallery) == 310
    assert verify(gallery.folder) == []


@pytest.mark.parametrize("room", [0, 300])
def test_a_limit_on_the_size_of_files_is_no_damage(gallery: Gallery, room: int) -> None:
    before = answers(gallery.folder)
    largest = (gallery.folder / "catalog.sqlite").stat().st_size + room

    def limited() -> None:
        with Gallery(gallery.folder, write=True) as opened:
            resource.setrlimit(resource.RLIMIT_FSIZE, (largest, largest))
            rows = [Row(f"new{n}", "x" * 3000) for n in range(100)]
            with pytest.raises(GalleryError, match="cannot be read or written") as caught:
                opened.add(rows, unit_vectors(100, 32))
            assert "damaged" not in str(caught.value)
            opened.delete(["id0"] if room else [])

    gallery.close()
    assert ended(forked(limited)) == 0
    if not room:
        assert answers(gallery.folder) == before
    assert verify(gallery.folder) == []


def test_too_many_open_files_behind_the_commit(gallery: Gallery, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: object) -> None:
        raise GalleryError(os.strerror(errno.EMFILE))

    with monkeypatch.context() as patch:
        patch.setattr(gallery, "_segments_now", fails)
        with pytest.raises(
            SavedError, match=r"the 10 images are saved, but cannot be read back now: Too many"
        ):
            gallery.add(*new_rows(10))
        # What was seen before is seen on.
        assert len(gallery) == 300
        assert gallery.rows([299])[0].id == "id299"
    gallery.add(*new_rows(5, "later"))
    assert len(gallery) == 315
    assert gallery.rows([300, 310])[1].id == "later0"
    assert verify(gallery.folder) == []


def test_a_writer_that_cannot_lock_drops_nothing(gallery: Gallery, monkeypatch: pytest.MonkeyPatch) -> None:
    reader = Gallery(gallery.folder)

    def fails(*_: object, **__: object) -> None:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    gallery.delete(["id1"])
    with monkeypatch.context() as patch:
        patch.setattr(Lock, "__init__", fails)
        compact(gallery)
    assert len(reader.rows(reader.live_keys())) == 300
    assert reader.allowed("label = '1'") is not None


# Two processes


def test_two_processes_that_make_one_gallery(tmp_path: Path) -> None:
    said = attacked(tmp_path, "print(interrupted_galleries.create_at_once(folder, 20))")
    assert "one" in said


def test_a_gallery_is_not_made_where_another_was_just_made(tmp_path: Path, spec: EmbeddingSpec) -> None:
    first = Gallery.create(tmp_path / "g", spec)
    first.add(*new_rows(3))
    before = (tmp_path / "g/catalog.sqlite").read_bytes()
    with pytest.raises(GalleryError, match="exists and is not a gallery"):
        Gallery.create(tmp_path / "g", spec)
    with pytest.raises(GalleryError, match="made by another process"):
        Catalog.create(tmp_path / "g/catalog.sqlite", spec, "", ())
    assert (tmp_path / "g/catalog.sqlite").read_bytes() == before


def as_nobody(work: Callable[[], None]) -> int:
    """Do something as a user who may write nowhere."""

    def demoted() -> None:
        os.setgroups([])
        os.setgid(NOBODY)
        os.setuid(NOBODY)
        work()

    return ended(forked(demoted))


@pytest.mark.skipif(os.getuid() != 0, reason="only root can become another user")
@pytest.mark.parametrize("lock", ["readable", "missing"])
def test_a_reader_without_the_right_to_write(gallery: Gallery, lock: str) -> None:
    gallery.delete(["id1"])
    for place in (gallery.folder, *gallery.folder.parents):
        if place.stat().st_uid == os.getuid() and place != Path("/"):
            place.chmod(place.stat().st_mode | 0o055)
    held = gallery.folder / "locks" / f"generation-{gallery.generation.number}"
    if lock == "missing":
        held.unlink()
    asking, answering = os.pipe(), os.pipe()

    def read() -> None:
        with Gallery(gallery.folder) as reader:
            os.write(answering[1], b"o")
            os.read(asking[0], 1)
            try:
                found = int(np.count_nonzero(np.asarray(reader.allowed("id IS NOT NULL"))))
                ids = [row.id for row in reader.rows(reader.live_keys())]
                said = f"{found} {len(ids)}"
            except GalleryError as error:
                said = str(error)
            os.write(answering[1], said.encode())

    child = os.fork()
    if not child:
        os._exit(as_nobody(read))
    assert os.read(answering[0], 1) == b"o"
    compact(gallery)
    os.write(asking[1], b"c")
    said = os.read(answering[0], 1000).decode()
    assert ended(child) == 0
    # It held what it had opened, or says that it could not.
    assert said == "299 299" if lock == "readable" else "open it again" in said


# Repair


def damaged_index(gallery: Gallery) -> Path:
    """A catalogue one of whose indexes has a flipped bit: repair writes it anew."""
    return flip_in_page(gallery, "live", 700)


@pytest.mark.parametrize("step", ["_copy_tables", "_keep", "flush_folder", "behind"])
def test_a_repair_that_is_killed_can_be_done_again(
    gallery: Gallery, step: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = answers(gallery.folder)
    file = damaged_index(gallery)

    def killed(*_: object) -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    module, name = (repairing, "flush_folder") if step == "behind" else (rewriting, step)
    with monkeypatch.context() as patch:
        patch.setattr(module, name, killed)
        assert ended(forked(lambda: print(repair(gallery.folder)))) == -signal.SIGKILL
    assert file.is_file()
    repair(gallery.folder)
    assert verify(gallery.folder) == []
    assert answers(gallery.folder) == before


def test_what_an_earlier_version_left_when_its_repair_was_killed(gallery: Gallery) -> None:
    before = answers(gallery.folder)
    file = damaged_index(gallery)
    file.rename(file.with_suffix(".damaged"))
    for opened in (Gallery, verify, lambda folder: Gallery.open_or_create(folder, gallery.spec)):
        with pytest.raises(GalleryError, match=r"gallery repair`\) finishes it"):
            opened(gallery.folder)
    assert "put the catalogue back" in repair(gallery.folder)[0]
    assert verify(gallery.folder) == []
    assert answers(gallery.folder) == before


def test_a_generation_in_the_making_is_repaired_by_its_own_model(tmp_path: Path, spec: EmbeddingSpec) -> None:
    old, new = unit_vectors(60, 32, 1), unit_vectors(60, 32, 2)
    other = EmbeddingSpec("b" * 64, "full", 32)
    gallery = Gallery.create(tmp_path / "g", spec)
    gallery.add([Row(f"id{n}", "") for n in range(60)], old)
    Renewal(gallery, other).add(np.arange(40), new[:40])
    (record,) = gallery.catalog.segments(2, "full")
    gallery.close()
    file = tmp_path / "g/segments" / record.file
    content = bytearray(file.read_bytes())
    content[-9] ^= 1

    def encoder_of(generation: Any) -> Callable[[Sequence[Row], str], np.ndarray]:
        if generation.spec != known:
            raise GalleryError("another model")
        return lambda rows, width: new[[int(row.id[2:]) for row in rows]]

    for known in (other, spec):
        file.write_bytes(content)
        repair(tmp_path / "g", encoder_of)
        assert verify(tmp_path / "g") == []
        with Gallery(tmp_path / "g", write=True) as reopened:
            renewal = Renewal(reopened, other)
            pending = renewal.pending()
            assert len(pending) == (20 if known == other else 60)
            if known == other:
                (record,) = reopened.catalog.segments(2, "full")
                file = tmp_path / "g/segments" / record.file
                continue
            renewal.add(pending, new[pending])
            renewal.finish()
            ids = [int(row.id[2:]) for row in reopened.rows(reopened.live_keys())]
            assert np.array_equal(reopened.segments.read(reopened.live_keys()), new[ids].astype(np.float16))
            assert sorted(ids) == list(range(60))


def test_a_repair_drops_nothing_where_the_current_generation_is_not_known(gallery: Gallery) -> None:
    with gallery.catalog.transaction():
        gallery.catalog.run("UPDATE about SET value = '7' WHERE name = 'generation'")
    gallery.close()
    files = sorted(gallery.folder.glob("s*/*"))
    with pytest.raises(GalleryError, match="no generation '7'"):
        repair(gallery.folder)
    with Catalog(gallery.folder / "catalog.sqlite")._db as database:
        assert database.execute("SELECT count(*) FROM images").get == 300
    assert sorted(gallery.folder.glob("s*/*")) == files


def test_a_reader_follows_a_repair(gallery: Gallery) -> None:
    file = damaged_index(gallery)
    content = file.read_bytes()
    repair(gallery.folder)
    reader = Gallery(gallery.folder)
    file.write_bytes(content)
    repair(gallery.folder)
    with Gallery(gallery.folder, write=True) as writer:
        writer.delete(["id1"])
        writer.add(*new_rows(10))
    reader.refresh()
    assert len(reader) == 309
    assert reader.keys_of(["id1", "new3"]) == {"new3": 303}


def test_verify_beside_a_writer_finds_nothing(gallery: Gallery) -> None:
    stop = threading.Event()

    def write() -> None:
        for number in itertools.count():
            if stop.is_set():
                return
            gallery.add(*new_rows(5, f"n{number}-"))
            if number % 7 == 6:
                compact(gallery)

    with ThreadPoolExecutor(1) as threads:
        writing = threads.submit(write)
        found = [verify(gallery.folder) for _ in range(20)]
        stop.set()
        writing.result()
    assert found == [[]] * 20


# Pages that are whole, in the wrong place


def test_misplaced_pages_are_found_and_never_answer(tmp_path: Path) -> None:
    script = """
import logging
logging.disable(logging.CRITICAL)
import json
print(json.dumps(misplaced_pages.misplace_and_restore(misplaced_pages.wide_gallery(folder), 60)))
"""
    counts = json.loads(attacked(tmp_path / "g", script))
    wrong = {name for name in counts if "wrong" in name}
    assert not wrong, counts
    assert counts["seen"] >= 57
    # Free pages only: nothing speaks of them.
    assert counts.get("not seen", 0) <= sum(
        counts.get(f"{kind} answered right", 0) for kind in ("blank", "twice")
    )


def test_a_gallery_of_the_format_before_is_read_and_gets_digests_when_written_to(
    gallery: Gallery, tmp_path: Path
) -> None:
    before = answers(gallery.folder)
    gallery.close()
    old = tmp_path / "old"
    shutil.copytree(gallery.folder, old)
    with apsw.Connection(str(old / "catalog.sqlite"), vfs=database.CHECKED_VFS) as made:
        made.execute(
            "DROP TABLE digests; DROP TABLE sources; UPDATE about SET value = '2' WHERE name = 'format'"
        )
        made.execute("DELETE FROM about WHERE name = 'transaction'")
    made.close()
    assert answers(old) == before
    assert verify(old) == []
    with Gallery(old) as reader:
        assert reader.catalog.about("format") == "2"
    Gallery(old, write=True).close()
    with Gallery(old) as reader:
        assert reader.catalog.about("format") == "3"
        assert reader.catalog.run("SELECT count(*) FROM digests WHERE name = 'images'")[0][0] == 5
    assert answers(old) == before
    assert verify(old) == []


def stale_pages(gallery: Gallery, change: Callable[[], Any]) -> None:
    """Make a change, and put back the pages of one index as they were before it."""
    (root,) = gallery.catalog.run("SELECT rootpage FROM sqlite_master WHERE name = 'gone'")[0]
    file = gallery.folder / "catalog.sqlite"
    before = file.read_bytes()
    change()
    gallery.close()
    now = bytearray(file.read_bytes())
    now[4096 * (root - 1) : 4096 * root] = before[4096 * (root - 1) : 4096 * root]
    file.write_bytes(now)


def test_an_old_version_never_says_that_it_lacks_what_it_has(gallery: Gallery) -> None:
    number = gallery.version.number
    stale_pages(gallery, lambda: gallery.upsert([Row("id5", "other.jpg")], unit_vectors(1, 32)))
    with (
        pytest.raises(GalleryError, match="missing from index gone"),
        Gallery(gallery.folder, version=number) as old,
    ):
        old.keys_of(["id5"])


def test_a_writer_does_not_trust_a_stale_list_of_free_pages(gallery: Gallery) -> None:
    long = [Row(f"long{n}", "x" * 900) for n in range(300)]
    gallery.add(long, unit_vectors(300, 32))
    gallery.delete([row.id for row in long])
    compact(gallery)
    file = gallery.folder / "catalog.sqlite"
    before = file.read_bytes()
    first = 4096 * (int.from_bytes(before[32:36], "big") - 1)
    assert first >= 0, "no page is free"
    gallery.add([Row(f"more{n}", "y" * 900) for n in range(40)], unit_vectors(40, 32))
    gallery.close()
    now = bytearray(file.read_bytes())
    assert now[first : first + 4096] != before[first : first + 4096]
    now[first : first + 4096] = before[first : first + 4096]
    file.write_bytes(now)
    with pytest.raises(GalleryError, match="damaged"), Gallery(gallery.folder, write=True) as writer:
        writer.add(*new_rows(64))
    with Gallery(gallery.folder) as reader:
        assert len(reader.rows(reader.live_keys())) == 340


# Foreign files


@pytest.mark.parametrize(
    "name", ["shortlist", "segments", "locks", "catalog.sqlite", "catalog.sqlite-journal"]
)
def test_symbolic_links_inside_a_gallery_are_refused(gallery: Gallery, tmp_path: Path, name: str) -> None:
    gallery.delete(["id1"])
    gallery.close()
    outside, place = tmp_path / "outside", gallery.folder / name
    if place.exists():
        place.rename(outside)
    else:
        outside.write_text("precious")
    place.symlink_to(outside)
    before = {file: file.read_bytes() for file in tmp_path.rglob("*") if file.is_file()}
    for opened in (Gallery, lambda folder: Gallery(folder, write=True), verify, repair):
        with pytest.raises(GalleryError, match=f"{name} is a symbolic link"):
            opened(gallery.folder)
    assert {file: file.read_bytes() for file in tmp_path.rglob("*") if file.is_file()} == before


def test_only_files_of_its_own_names_are_removed(gallery: Gallery) -> None:
    foreign = [gallery.folder / folder / "precious.npy" for folder in ("segments", "shortlist")]
    for file in foreign:
        file.write_text("precious")
    gallery.delete(["id1"])
    compact(gallery)
    assert all(file.read_text() == "precious" for file in foreign)


@pytest.mark.parametrize(
    "sql",
    [
        "CREATE TABLE \"x SELECT 1; ATTACH '{victim}' AS v; DELETE FROM v.t; --\" (y)",
        "CREATE TRIGGER t AFTER INSERT ON versions BEGIN DELETE FROM images; END",
        "CREATE VIEW v AS SELECT 1",
    ],
)
def test_a_catalogue_that_brings_more_than_its_tables(gallery: Gallery, tmp_path: Path, sql: str) -> None:
    before = answers(gallery.folder)
    gallery.close()
    victim, file = tmp_path / "victim.sqlite", gallery.folder / "catalog.sqlite"
    with apsw.Connection(str(victim)) as other:
        other.execute("CREATE TABLE t (x); INSERT INTO t VALUES (1)")
    with apsw.Connection(str(file), vfs=database.CHECKED_VFS) as crafted:
        crafted.execute(sql.format(victim=victim))
    crafted.close()
    with pytest.raises(GalleryError, match="a foreign"):
        Gallery(gallery.folder)
    assert "a foreign" in verify(gallery.folder)[0].what
    repair(gallery.folder)
    assert other.execute("SELECT count(*) FROM t").get == 1
    # Its own tables are taken along, and nothing else.
    assert verify(gallery.folder) == []
    assert answers(gallery.folder) == before


def test_no_other_database_can_be_attached(gallery: Gallery, tmp_path: Path) -> None:
    for opened in (gallery.catalog._db, database.open_to_filter(gallery.folder / "catalog.sqlite")):
        with pytest.raises(apsw.Error):
            opened.execute("ATTACH ? AS other", (str(tmp_path / "other"),))


# Values that mean nothing


@pytest.mark.parametrize(
    "change",
    [
        """UPDATE generations SET spec = json_insert(spec, '$.surplus', 1)""",
        """UPDATE generations SET spec = '{"checkpoint": 3, "width": "full", "dim": 32}'""",
        """UPDATE generations SET spec = '[]'""",
        """UPDATE generations SET spec = '{'""",
        """UPDATE generations SET widths = '[3]'""",
        """UPDATE about SET value = '7' WHERE name = 'generation'""",
        """UPDATE about SET value = 'x' WHERE name = 'generation'""",
        """UPDATE versions SET keys = 1000000000000 WHERE number = 4""",
        """UPDATE versions SET live = -1 WHERE number = 4""",
        """UPDATE segments SET checks = x''""",
        """UPDATE segments SET start = start + 1""",
        """UPDATE segments SET rows = 1000000000000""",
        """UPDATE segments SET file = '../../etc/passwd'""",
        """UPDATE shortlists SET file = '../segments/x'""",
        """UPDATE shortlists SET dim = 0""",
        """UPDATE images SET metadata = '{' WHERE key = 7""",
        """UPDATE images SET metadata = '[1]' WHERE key = 7""",
        """UPDATE images SET path = x'ff' WHERE key = 7""",
        """DELETE FROM images WHERE key = 7""",
        """DELETE FROM versions""",
        """UPDATE generations SET plan = '{'""",
    ],
)
def test_stored_values_that_mean_nothing_are_one_clear_error(gallery: Gallery, change: str) -> None:
    gallery.add([Row("more", "m.jpg", "1", {"year": 2000})], unit_vectors(1, 32))
    expected = answers(gallery.folder)
    # With digests that fit: as somebody would make it who knows the format.
    with gallery.catalog.transaction():
        gallery.catalog.run(change)
    gallery.close()

    def ask() -> None:
        with Gallery(gallery.folder) as opened:
            assert answers(gallery.folder) == expected
            opened.rows(range(opened.key_count))
            opened.allowed("year > 3")
            assert opened.plan is None

    with pytest.raises(GalleryError):
        ask()
    assert verify(gallery.folder)


def test_a_version_that_has_not_all_images_is_found(gallery: Gallery) -> None:
    with gallery.catalog.transaction():
        gallery.catalog.run("UPDATE versions SET keys = 5, live = 5 WHERE number = 3")
    gallery.close()
    assert "version 3 has 5 images of 300" in verify(gallery.folder)[0].what


def test_a_damaged_block_cannot_be_changed(gallery: Gallery) -> None:
    """Its new digest would make the damage good."""
    gallery.close()
    with apsw.Connection(str(gallery.folder / "catalog.sqlite"), vfs=database.CHECKED_VFS) as made:
        made.execute("UPDATE images SET label = 'other' WHERE key = 7")
    made.close()
    with Gallery(gallery.folder, write=True) as opened:
        with pytest.raises(
            GalleryError, match="images of generation 1 from key 0 on differ from their digest"
        ):
            opened.delete(["id8"])
        opened.delete(["id200"])
    assert "from key 0 on differ" in verify(gallery.folder)[0].what
    with pytest.raises(GalleryError, match="from key 0 on differ"):
        repair(gallery.folder)


# Threads


def test_threads_share_a_gallery(gallery: Gallery) -> None:
    xq = unit_vectors(1, 8)
    expected = by_index(gallery, xq, 5).tolist()

    def ask(number: int) -> None:
        found = by_index(gallery, xq, 5)
        assert found.tolist() == expected
        assert gallery.rows(found[0])[0].id == f"id{found[0][0]}"
        mask = gallery.allowed(f"label = '{number % 3}'")
        assert mask is not None
        assert np.count_nonzero(mask) == 100
        assert gallery.keys_of([f"id{number}", "nobody"]) == {f"id{number}": number}

    with ThreadPoolExecutor(8) as threads:
        list(threads.map(ask, range(200)))
