"""Files by path or by any URL that fsspec knows; remote ones are copied here once, as a whole."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path
from uuid import uuid4

from matmamba_common.lazy import Deferred

from .errors import DataError
from .regular import open_regular

fsspec = Deferred("fsspec")
CACHE = "~/.cache/matmamba"
_BRACES = re.compile(r"\{([^{}]*)\}")
_RANGE = re.compile(r"(\d+)\.\.(\d+)")


def is_url(place: str) -> bool:
    """Whether a place is not a path of this machine."""
    return "://" in place


def join(folder: str, name: str) -> str:
    """The place of a file in a folder."""
    return f"{folder.rstrip('/')}/{name}"


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
    except FileNotFoundError:
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
