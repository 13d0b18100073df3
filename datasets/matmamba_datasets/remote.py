"""Files by path or by any URL that fsspec knows; remote ones are copied here once, as a whole."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple
from uuid import uuid4

from matmamba_common.lazy import Deferred

from .errors import BrokenImageError, DataError
from .regular import open_regular, too_large

fsspec = Deferred("fsspec")
CACHE = "~/.cache/matmamba"
_BRACES = re.compile(r"\{([^{}]*)\}")
_RANGE = re.compile(r"(\d+)\.\.(\d+)")


def is_url(place: str) -> bool:
    """Whether a place is not a path of this machine."""
    return "://" in place


def join(folder: str, name: str) -> str:
    """The place of a file in a folder, which may lie in an archive: `zip://photos::s3://bucket/all.zip`."""
    before, folder, behind = parts_of(folder)
    return f"{before}{with_slash(folder)}{name}{behind}"


def with_slash(folder: str) -> str:
    """A folder as it stands before what is in it; the root of a file system is `memory://`."""
    return folder if folder.endswith("://") else f"{folder.rstrip('/')}/"


def parts_of(place: str) -> tuple[str, str, str]:
    """What stands before the path of a place, the path, and what stands behind; both mostly are empty."""
    parts = place.split("::") if is_url(place) else [place]
    at = next((number for number, part in enumerate(parts) if is_url(part)), 0)
    before, behind = (
        "".join(f"{part}::" for part in parts[:at]),
        "".join(f"::{part}" for part in parts[at + 1 :]),
    )
    return before, parts[at], behind


def expand(pattern: str) -> list[str]:
    """Places that a pattern with braces names: `{000..012}` counts, `{a,b}` lists; braces can be nested."""
    if not (found := _BRACES.search(pattern)):
        return [pattern]
    if limits := _RANGE.fullmatch(found[1]):
        width = len(limits[1])
        parts = [str(number).zfill(width) for number in range(int(limits[1]), int(limits[2]) + 1)]
    else:
        parts = found[1].split(",")
    before, after = pattern[: found.start()], pattern[found.end() :]
    # Inner braces come first: what stands beside them in a list comes up more than once.
    return list(dict.fromkeys(place for part in parts for place in expand(before + part + after)))


def list_places(folder: str, pattern: str) -> list[str]:
    """The places of the files in a folder whose names match a pattern with `*`, sorted.

    Raises:
        DataError: the folder cannot be listed.
    """
    if not is_url(folder):
        found = [path.name for path in Path(folder).glob(pattern)]
    else:
        try:
            system, path = fsspec.core.url_to_fs(join(folder, pattern))
            found = [place.rsplit("/", 1)[-1] for place in system.glob(path)]
        # Which extra brings it is said elsewhere.
        except ModuleNotFoundError:
            raise
        # Each file system has errors of its own.
        except Exception as error:
            raise DataError(f"cannot list {folder}: {error}") from error
    return [join(folder, name) for name in sorted(found)]


def read_small(place: str) -> bytes | None:
    """A small file's content, None if there is no such file.

    Raises:
        DataError: it is there but cannot be read, or the place cannot be reached.
    """
    try:
        with fsspec.open(place, "rb") if is_url(place) else open_regular(place) as file:
            return file.read()
    except (FileNotFoundError, NotADirectoryError):
        return None
    except ModuleNotFoundError:
        raise
    except Exception as error:
        raise DataError(f"cannot read {place}: {error}") from error


def local_copy(place: str, cache: str = "", version: str = "") -> Path:
    """Where a file lies on this machine: itself, or a copy of a remote one, made when it is first needed.

    Args:
        cache: folder of the copies, which stay; `CACHE` by default.
        version: tells a remote file from what was there before under the same name, if that is known.

    Raises:
        DataError: it cannot be fetched.
    """
    if not is_url(place):
        return Path(place)
    key = hashlib.sha256(f"{place}#{version}".encode()).hexdigest()[:16]
    name = f"{key}-{place.rstrip('/').rsplit('/', 1)[-1]}"
    copy = Path(cache or CACHE).expanduser() / name
    if not copy.is_file():
        copy.parent.mkdir(parents=True, exist_ok=True)
        # Several processes may fetch it, of several machines that share the folder and count processes alike:
        # each under a name of its own, and the last one stays.
        partial = copy.with_name(f"{copy.name}.{uuid4().hex}")
        try:
            system, path = fsspec.core.url_to_fs(place)
            system.get_file(path, str(partial))
            partial.replace(copy)
        except ModuleNotFoundError:
            raise
        except Exception as error:
            raise DataError(f"cannot fetch {place}: {error}") from error
        finally:
            partial.unlink(missing_ok=True)
    return copy


# Under which names file systems tell when a file was written, or a checksum of it: the first that is there.
_STAMPS = ("mtime", "LastModified", "last_modified", "updated", "modified", "ETag", "etag", "CRC", "created")


class RemoteEntry(NamedTuple):
    """A file or a folder at a URL.

    Attributes:
        name: without its folder.
        kind: "file", "directory", or what else the file system says.
        size: bytes of a file; None if the file system does not tell.
        stamp: nanoseconds since 1970 when the file was written, or a number made of its checksum, where the
            file system tells that alone; None if it tells neither.
    """

    name: str
    kind: str
    size: int | None
    stamp: int | None

    @staticmethod
    def of(detail: Mapping[str, Any]) -> RemoteEntry:
        """What a file system says of it."""
        name = str(detail["name"]).rstrip("/").rsplit("/", 1)[-1]
        kind = "link" if detail.get("islink") else str(detail.get("type"))
        return RemoteEntry(name, kind, detail.get("size"), _stamp(detail))


def _stamp(detail: Mapping[str, Any]) -> int | None:
    told = next((detail[name] for name in _STAMPS if detail.get(name) is not None), None)
    if isinstance(told, datetime):
        told = (told if told.tzinfo else told.replace(tzinfo=UTC)).timestamp()
    # More is no number of seconds, but a checksum, or in milliseconds.
    if isinstance(told, int | float) and 0 <= told < 2**32:
        return round(told * 1e9)
    return None if told is None else int(hashlib.sha256(str(told).encode()).hexdigest()[:15], 16)


def entries_at(folder: str) -> list[RemoteEntry]:
    """What is in a folder at a URL.

    Raises:
        OSError: it is not there, or cannot be listed.
    """
    try:
        system, path = fsspec.core.url_to_fs(folder)
        # What was listed before may have changed, and takes memory.
        system.invalidate_cache()
        found = system.ls(path, detail=True)
        system.invalidate_cache()
    # Each file system has errors of its own.
    except Exception as error:
        raise (
            error if isinstance(error, OSError) else OSError(str(error) or type(error).__name__)
        ) from error
    path = path.rstrip("/")
    # Stores keep a file of no bytes for a folder, and pages link to what lies elsewhere.
    return [RemoteEntry.of(one) for one in found if _is_below(str(one["name"]).rstrip("/"), path)]


def _is_below(name: str, folder: str) -> bool:
    return name != folder and not (is_url(name) and ("?" in name or not name.startswith(f"{folder}/")))


def entry_at(place: str) -> RemoteEntry:
    """What is at a URL.

    Raises:
        OSError: nothing, or it cannot be asked for.
    """
    try:
        system, path = fsspec.core.url_to_fs(place)
        system.invalidate_cache()
        return RemoteEntry.of(system.info(path))
    except OSError:
        raise
    except Exception as error:
        raise OSError(str(error) or type(error).__name__) from error


def read_remote(place: str, max_bytes: int, size: int | None = None) -> bytes:
    """The content of a file at a URL.

    Args:
        max_bytes: that it may have.
        size: that it has, if that is known.

    Raises:
        BrokenImageError: it cannot be read, or is larger.
    """
    try:
        system, path = fsspec.core.url_to_fs(place)
        if size is None:
            size = system.info(path).get("size")
        if size is not None and size > max_bytes:
            raise BrokenImageError(place, too_large(size, max_bytes))
        if size is None:
            with system.open(path, "rb") as opened:
                content: bytes = opened.read(max_bytes + 1)
        else:
            content = system.cat_file(path)
    except BrokenImageError:
        raise
    except FileNotFoundError as error:
        raise BrokenImageError(place, "no such file") from error
    except Exception as error:
        raise BrokenImageError(place, str(error).partition("\n")[0] or type(error).__name__) from error
    if len(content) > max_bytes:
        raise BrokenImageError(place, too_large(len(content), max_bytes))
    return content
