"""Adding and deleting images, where the service may write."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from matmamba_datasets.image_file import formats
from PIL import Image
from starlette.requests import Request
from starlette.responses import Response

from .decoding import decoded
from .items import AnyId
from .limits import Holding
from .refusals import RequestError, json_response
from .schemas import MOST_QUERIES, ItemBody, ItemsBody
from .uploads import read_upload
from .work import Front, RequestNote


class ChangeRoutes:
    """The routes that write: refused unless the service was started to write.

    Args:
        front: the service as routes see it.
    """

    def __init__(self, front: Front) -> None:
        self._front = front

    async def add(self, gallery: str, request: Request) -> Response:
        """Add images, or replace them (`upsert`): searches see them once this is answered."""
        name = self._writable(gallery, request)
        with self._front.memory.hold() as holding:
            upload = await read_upload(request, self._front.options, holding, images=MOST_QUERIES)
            body = ItemsBody.read(upload.request)
            items = body.listed()
            if len(items) != len(upload.images):
                found = f"{len(items)} ids for {len(upload.images)} images"
                raise RequestError("bad_request", f"there are {found}: give one for each")
            await self._front.decoders.run(
                lambda: self._add(name, upload.images, items, body.upsert, holding)
            )
        return json_response({"changed": len(items), "version": self._version(name)}, 201)

    def _add(
        self, name: str, files: Sequence[bytes], items: Sequence[ItemBody], upsert: bool, holding: Holding
    ) -> None:
        ids = [item.id for item in items]
        if not upsert:
            self._require_new(name, ids)
        # All of them, before any is added.
        pictures = [decoded(file, self._front.options.limits, holding) for file in files]
        self._front.service.add(
            name,
            [self._kept(file, picture) for file, picture in zip(files, pictures, strict=True)],
            ids,
            [item.label for item in items],
            [item.metadata for item in items],
            upsert,
        )

    def _kept(self, file: bytes, picture: Image.Image) -> Image.Image | Path:
        """An image to add: by its path, where files are kept."""
        folder = self._front.options.keep
        if folder is None:
            return picture
        path = folder / f"{hashlib.sha256(file).hexdigest()}{suffix_of(file)}"
        if not path.is_file():
            part = path.with_suffix(".part")
            part.write_bytes(file)
            part.replace(path)
        return path

    def _require_new(self, name: str, ids: Sequence[str]) -> None:
        with self._front.reading(name) as gallery:
            known = gallery.keys_of(list(ids))
        if known:
            first = next(one for one in ids if one in known)
            raise RequestError(
                "bad_request", f"{name} has an image of id {first!r}: upsert replaces it", status=409
            )

    async def delete(self, gallery: str, request: Request, id: AnyId) -> Response:
        """Delete an image from the gallery; its file is never touched."""
        name = self._writable(gallery, request)
        await self._front.decoders.run(lambda: self._delete(name, id))
        return json_response({"changed": 1, "version": self._version(name)})

    def _delete(self, name: str, id: str) -> None:
        with self._front.reading(name) as gallery:
            if id not in gallery.keys_of([id]):
                raise RequestError("not_found", f"{name} has no image of id {id!r}")
        self._front.service.delete(name, [id])

    def _writable(self, gallery: str, request: Request) -> str:
        name = RequestNote.of(request).gallery = self._front.require_gallery(gallery)
        if not self._front.options.writable:
            raise RequestError("read_only", f"{name} is served for reading only")
        return name

    def _version(self, name: str) -> Any:
        return self._front.service.status()["galleries"].get(name, "")


def suffix_of(file: bytes) -> str:
    """Of the name of an image's file, by its content."""
    with Image.open(io.BytesIO(file), formats=formats()) as opened:
        return f".{(opened.format or 'image').lower()}"
