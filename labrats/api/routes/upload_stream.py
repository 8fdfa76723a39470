"""Reception of one uploaded file, within its bounds."""

import asyncio
from collections.abc import Callable
from datetime import datetime
from typing import Any, Final

from pydantic import BaseModel, Field
from starlette.requests import Request

from labrats.api.http.body_bounds import UPLOAD_BYTES
from labrats.api.http.errors import ApiError
from labrats.api.http.idempotency import Intent
from labrats.api.http.multipart import FilePart
from labrats.api.routing import caller_of, services_of
from labrats.api.schemas.base import ResponseBody
from labrats.files.uploads import IncomingUpload, Upload, Uploads, new_upload_id
from labrats.model.errors import Conflict

UPLOADS_AT_ONCE: Final = 64
"""Uploads of one caller that are received at a time: each keeps a file open, for as long as its sender takes."""

_TOO_LARGE: Final = f"a file may have at most {UPLOAD_BYTES // 2**20} MiB"
_HEAD_BYTES: Final = 1024


class UploadView(ResponseBody):
    """An uploaded file."""

    id: str = Field(examples=["up-0123456789abcdef"])
    name: str = Field(examples=["report.pdf"])
    size: int = Field(description="Bytes.", examples=[12345])
    sha256: str = Field(examples=["9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"])
    owner: str = Field(description="The id of the API key or user that uploaded it.", examples=["ci"])
    created_at: datetime = Field(examples=["2030-01-01T12:00:00Z"])


def upload_view(upload: Upload) -> dict[str, Any]:
    return {
        "id": upload.id,
        "name": upload.name,
        "size": upload.size,
        "sha256": upload.sha256,
        "owner": upload.owner,
        "createdAt": upload.created_at,
    }


class _UploadIdentity(BaseModel):
    """The identity of an upload under an Idempotency-Key."""

    name: str
    sha256: str


def _accept(_: object) -> None:
    """Accept anything."""


async def receive_upload(
    request: Request,
    uploads: Uploads,
    idempotency_key: str | None,
    *,
    check_name: Callable[[str], None],
    check_head: Callable[[bytes], None] = _accept,
) -> Upload:
    """Store the file in the request's body. A second one with the same Idempotency-Key returns the first upload.

    check_name, check_head: raise for an unacceptable name or first KiB of the file, as soon as it has arrived.
    """
    part, head, caller_id = FilePart(request), b"", caller_of(request).id
    places = services_of(request).upload_places.setdefault(caller_id, asyncio.Semaphore(UPLOADS_AT_ONCE))
    async with places, uploads.incoming() as incoming:
        async for data in part.content():
            if incoming.size == 0:
                check_name(part.name)
            if incoming.size + len(data) > UPLOAD_BYTES:
                raise ApiError(413, "too_large", _TOO_LARGE)
            if len(head) < _HEAD_BYTES:
                head += data[: _HEAD_BYTES - len(head)]
                if len(head) == _HEAD_BYTES:
                    check_head(head)
            await incoming.write(data)
        check_name(part.name)
        check_head(head)
        return await _store_once(request, uploads, incoming, part.name, idempotency_key)


async def _store_once(
    request: Request, uploads: Uploads, incoming: IncomingUpload, name: str, idempotency_key: str | None
) -> Upload:
    owner, now = caller_of(request).id, services_of(request).clock.now()
    intent = Intent.of(idempotency_key, owner, _UploadIdentity(name=name, sha256=incoming.sha256))
    upload_id = f"up-{intent.key[:16]}" if intent else new_upload_id()
    try:
        return await uploads.add(incoming, upload_id, name, owner, now)
    except Conflict:
        first = await uploads.get(upload_id)
        if (first.name, first.sha256, first.owner) != (name, incoming.sha256, owner):
            message = "this Idempotency-Key was used before with another file"
            raise ApiError(422, "idempotency_key_reused", message) from None
        return first
