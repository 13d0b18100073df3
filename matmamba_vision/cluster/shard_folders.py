"""The folder of the shards of one call: where their galleries lie, what was begun there, who sees it."""

from __future__ import annotations

import hashlib
import json
import shutil
import uuid
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from matmamba_retrieval import GalleryError
from matmamba_retrieval.storage.locks import Busy, Lock

from .ray_cluster import ClusterError

FORMAT = 1
# Written by whoever calls; each process answers with a file of its own.
_BEGUN, _PROBE, _LOCK = "begun.json", "probe", "caller.lock"


@dataclass(frozen=True)
class ShardFolders:
    """The folder beside a gallery in which the galleries of its shards lie, until they are merged.

    Attributes:
        folder: absolute, on a disk that all machines share.
    """

    folder: Path

    @staticmethod
    def beside(gallery: Path) -> ShardFolders:
        """That of a gallery."""
        return ShardFolders(gallery.with_name(f"{gallery.name}.shards"))

    def gallery_of(self, number: int, shards: int) -> Path:
        """Folder of the gallery of one shard, the first of which is 1."""
        return self.folder / f"{number:0{len(str(shards))}d}-of-{shards}"

    def hold(self) -> Lock:
        """Keep other calls out until the lock is released; makes the folder.

        Raises:
            GalleryError: another call has it, or it holds what no call has begun, and what none may delete.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        names = {file.name for file in self.folder.iterdir()}
        if _BEGUN not in names and (foreign := sorted(filter(_is_foreign, names))):
            raise GalleryError(
                f"{self.folder} has {foreign[0]}, and is no folder of shards that a call has begun: choose"
                " another gallery, or move it"
            )
        try:
            return Lock(self.folder / _LOCK)
        except Busy as error:
            raise GalleryError(f"another call indexes by way of {self.folder}: wait for it to end") from error

    def begun(self) -> dict[str, Any] | None:
        """What was noted of the call that was begun here; None if there was none.

        Raises:
            GalleryError: what is noted is damaged, or of another version.
        """
        file = self.folder / _BEGUN
        try:
            noted = json.loads(file.read_text())
        except FileNotFoundError:
            return None
        except (ValueError, RecursionError) as error:
            raise GalleryError(f"{file} is damaged: delete {self.folder} to begin anew") from error
        if not isinstance(noted, dict) or noted.get("format") != FORMAT:
            raise GalleryError(f"{file} is of another version: delete {self.folder} to begin anew")
        return noted

    def note(self, about: dict[str, Any]) -> None:
        """Note what is begun, whole or not at all."""
        partial = self.folder / f"{_BEGUN}.partial"
        partial.write_text(json.dumps({"format": FORMAT, **about}))
        partial.replace(self.folder / _BEGUN)

    def remove(self) -> None:
        """Delete all that is there: the note last, without which the rest would be nobody's."""
        for file in self.folder.iterdir():
            if file.is_dir():
                shutil.rmtree(file, ignore_errors=True)
            elif file.name not in (_BEGUN, _LOCK):
                file.unlink(missing_ok=True)
        for name in (_BEGUN, _LOCK):
            (self.folder / name).unlink(missing_ok=True)
        self.remove_if_empty()

    def remove_if_empty(self) -> None:
        """Delete the folder itself; on NFS only when nobody has a file of it open any more."""
        with suppress(OSError):
            self.folder.rmdir()

    def ask(self, token: str) -> None:
        """Write what every process of the cluster has to find here."""
        (self.folder / _PROBE).write_text(token)

    def answer(self, token: str, host: str) -> str:
        """On a machine of the cluster: find what was written, and write an answer; returns its name.

        Raises:
            ClusterError: this machine has another folder here, or none.
        """
        with suppress(OSError, ValueError):
            if (self.folder / _PROBE).read_text() == token:
                answer = f"{_PROBE}-{uuid.uuid4().hex}"
                (self.folder / answer).write_text(token)
                return answer
        raise self.not_shared(host)

    def require_answer(self, host: str, answer: str) -> None:
        """Raise `ClusterError` if what a machine has written is not here."""
        file = self.folder / answer
        if not file.is_file():
            raise self.not_shared(host)
        file.unlink()

    def not_shared(self, host: str) -> ClusterError:
        """What is said where a machine cannot read or write here."""
        return ClusterError(
            f"{host} does not see {self.folder}, or cannot write there: the gallery has to lie in a folder"
            " that all machines of the cluster share"
        )


def _is_foreign(name: str) -> bool:
    """Whether a file is not what a call leaves that was killed before it began."""
    return name != _LOCK and not name.startswith((_PROBE, _BEGUN, ".nfs"))


def digest_of(texts: Sequence[str]) -> str:
    """Of many texts and their order."""
    digest = hashlib.sha256()
    for start in range(0, len(texts), 8192):
        part = texts[start : start + 8192]
        digest.update("\0".join(part).encode(errors="surrogateescape") + b"\0")
    return digest.hexdigest()
