"""PDFs: upload, list, delete, and have a job read them."""

from typing import Annotated, Final, Literal

from fastapi import Request
from pydantic import Field
from starlette.responses import Response

from labrats.api.http.errors import ApiError
from labrats.api.http.idempotency import IdempotencyKey, job_names
from labrats.api.http.json_body import json_response
from labrats.api.http.multipart import FORM
from labrats.api.openapi import answers
from labrats.api.routes.upload_stream import UploadView, receive_upload, upload_view
from labrats.api.routing import api_router, caller_of, services_of
from labrats.api.schemas.base import LONGEST_LABEL, Label, Provider, RequestBody, ResponseBody
from labrats.api.schemas.submission import ConfigBody, PipelineBody, Submission, job_request
from labrats.model.errors import Invalid, Problem
from labrats.model.pdf import begins_as_pdf

router = api_router("Uploads")

FIND_FACTS: Final = "Say what this section holds: its facts, figures, definitions and conclusions, as concise Markdown."
"""What is asked about each section where nobody says otherwise."""

PdfId = Annotated[str, Field(description="The upload's id.", examples=["up-0123456789abcdef"])]


class Extraction(RequestBody):
    """What to do with each section of a PDF."""

    model_config = RequestBody.model_config | {
        "json_schema_extra": {"examples": [{"prompt": "Summarise this section in three sentences.", "effort": "low"}]}
    }

    prompt: str | None = Field(default=None, min_length=1, description="What is asked about each section.")
    provider: Provider | None = Field(default=None, description="What runs the job; as `config.provider` of a job.")
    model: Label | None = None
    effort: Literal["low", "medium", "high"] | None = None


class Extracting(ResponseBody):
    """The job that reads the PDF."""

    job_id: str = Field(examples=["ir-3ab1c2d4"])


class UploadList(ResponseBody):
    """All uploaded PDFs."""

    uploads: list[UploadView]


@router.get("/api/uploads", responses=answers(200, UploadList, "All uploaded PDFs"), summary="List PDFs")
async def list_pdfs(request: Request) -> Response:
    """The newest first."""
    uploads = await services_of(request).pdf_uploads.list_all()
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
        request, services_of(request).pdf_uploads, idempotency_key, check_name=check_title, check_head=check_is_pdf
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
    await services_of(request).pdf_uploads.remove(upload_id)
    return Response(status_code=204)


@router.post(
    "/api/uploads/{upload_id}/extract",
    status_code=201,
    responses=answers(201, Extracting, "The job is on stable storage", 400, 404, 413, 415, 422, 429),
    summary="Have a job read a PDF",
)
async def extract(
    request: Request, upload_id: PdfId, asked: Extraction | None = None, idempotency_key: IdempotencyKey = None
) -> Response:
    """Submit a job that runs one inference for each section of the PDF, in order. Its result has all of them."""
    asked = asked or Extraction()
    pdfs = services_of(request).pdf_uploads
    upload = await pdfs.get(upload_id)
    submission = Submission(
        source="dashboard",
        type="document-extraction",
        prompt=asked.prompt or FIND_FACTS,
        config=ConfigBody(provider=asked.provider, model=asked.model, effort=asked.effort),
        pipeline=PipelineBody(type="pdf-sections"),
        metadata={"upload": upload.id, "document": upload.name},
    )
    caller = caller_of(request)
    names = job_names(idempotency_key, caller.id, submission)
    requested = job_request(submission, caller, [("document.pdf", pdfs.path(upload))])
    job, _ = await services_of(request).admission.admit(requested, names)
    return json_response({"jobId": job.id}, 201)


def check_title(name: str) -> None:
    """Raises Invalid unless a PDF may be called so. The name is only shown: it is no name on the volume."""
    if not 0 < len(name) <= LONGEST_LABEL or not name.isprintable():
        raise Invalid(Problem("file", f"its file name must be 1 to {LONGEST_LABEL} printable characters"))


def check_is_pdf(head: bytes) -> None:
    """Raises 415 unless a file that begins with `head` is a PDF."""
    if not begins_as_pdf(head):
        raise ApiError(415, "unsupported_media_type", "the file is not a PDF")
