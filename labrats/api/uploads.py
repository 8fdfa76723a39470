"""PDFs: upload, list, delete."""

from typing import Annotated, Final

from fastapi import Request
from pydantic import Field
from starlette.responses import Response

from labrats.api.bodies import LONGEST_LABEL, ResponseBody
from labrats.api.errors import ApiError
from labrats.api.idempotency import IdempotencyKey
from labrats.api.json_body import json_response
from labrats.api.multipart import FORM
from labrats.api.openapi import answers
from labrats.api.receiving import UploadView, receive_upload, upload_view
from labrats.api.routing import api_router, engine_of
from labrats.model.errors import Invalid, Problem

router = api_router("Uploads")

PDF_MARK: Final = b"%PDF-"

PdfId = Annotated[str, Field(description="The upload's id.", examples=["up-0123456789abcdef"])]


class UploadList(ResponseBody):
    """All uploaded PDFs."""

    uploads: list[UploadView]


@router.get("/api/uploads", responses=answers(200, UploadList, "All uploaded PDFs"), summary="List PDFs")
async def list_pdfs(request: Request) -> Response:
    """The newest first."""
    uploads = await engine_of(request).pdf_uploads.every()
    return json_response({"uploads": [upload_view(upload) for upload in uploads]})


@router.post(
    "/api/uploads",
    status_code=201,
    openapi_extra={"requestBody": FORM},
    responses=answers(201, UploadView, "The PDF is on stable storage", 400, 413, 415, 422),
    summary="Upload a PDF",
)
async def upload_pdf(request: Request, idempotency_key: IdempotencyKey = None) -> Response:
    """Keep the form's `file`, at most 100 MiB. It must be a PDF by what is in it, whatever it is called."""
    upload = await receive_upload(
        request, engine_of(request).pdf_uploads, idempotency_key, check_name=check_title, check_head=check_is_pdf
    )
    return json_response(upload_view(upload), 201)


@router.delete(
    "/api/uploads/{upload_id}",
    status_code=204,
    responses=answers(204, None, "It is gone", 404),
    summary="Delete a PDF",
)
async def delete_pdf(request: Request, upload_id: PdfId) -> Response:
    """Delete it. Jobs that were submitted about it keep it until they are forgotten."""
    await engine_of(request).pdf_uploads.remove(upload_id)
    return Response(status_code=204)


def check_title(name: str) -> None:
    """Raises Invalid unless a PDF may be called so. The name is only shown: it is no name on the volume."""
    if not 0 < len(name) <= LONGEST_LABEL or not name.isprintable():
        raise Invalid(Problem("file", f"its file name must be 1 to {LONGEST_LABEL} printable characters"))


def check_is_pdf(head: bytes) -> None:
    """Raises 415 unless `head`, the first KiB of a file, holds the mark of a PDF. Some have a few bytes before it."""
    if PDF_MARK not in head:
        raise ApiError(415, "unsupported_media_type", "the file is not a PDF")
