"""PDFs: upload, list, delete, and extract them with a job."""

from typing import Annotated, Final, cast

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
from labrats.api.services import Services
from labrats.model.ai_model import AiModel
from labrats.model.effort import Effort
from labrats.model.errors import Invalid, Problem
from labrats.model.pdf import begins_as_pdf

router = api_router("Uploads")

FIND_FACTS: Final = "Summarize this section: its facts, figures, definitions and conclusions, as concise Markdown."
"""The default prompt for each section."""

PdfId = Annotated[str, Field(description="The upload's id.", examples=["up-0123456789abcdef"])]


class Extraction(RequestBody):
    """The task for each section of a PDF."""

    model_config = RequestBody.model_config | {
        "json_schema_extra": {"examples": [{"prompt": "Summarise this section in three sentences.", "effort": "low"}]}
    }

    prompt: str | None = Field(default=None, min_length=1, description="The prompt for each section.")
    provider: Provider | None = Field(
        default=None,
        description="The provider, as in `config.provider` of a job. Default: that of the configured model.",
    )
    model: Label | None = None
    effort: Effort | None = None


class Extracting(ResponseBody):
    """The job that reads the PDF."""

    job_id: str = Field(examples=["ir-3ab1c2d4"])


class UploadList(ResponseBody):
    """All uploaded PDFs."""

    uploads: list[UploadView]


@router.get("/api/uploads", responses=answers(200, UploadList, "All uploaded PDFs"), summary="List PDFs")
async def list_pdfs(request: Request) -> Response:
    """List all uploaded PDFs, newest first."""
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
    """Store the form's `file`, at most 100 MiB. Its content must be a PDF, whatever its name is."""
    upload = await receive_upload(
        request, services_of(request).pdf_uploads, idempotency_key, check_name=check_title, check_head=check_is_pdf
    )
    return json_response(upload_view(upload), 201)


@router.delete(
    "/api/uploads/{upload_id}",
    status_code=204,
    responses=answers(204, None, "The PDF is deleted", 404),
    summary="Delete a PDF",
)
async def delete_pdf(request: Request, upload_id: PdfId) -> Response:
    """Delete the PDF. Jobs that use it have their own copy until they are deleted."""
    await services_of(request).pdf_uploads.remove(upload_id)
    return Response(status_code=204)


@router.post(
    "/api/uploads/{upload_id}/extract",
    status_code=201,
    responses=answers(201, Extracting, "The job is on stable storage", 400, 404, 413, 415, 422, 429),
    summary="Extract a PDF with a job",
)
async def extract(
    request: Request, upload_id: PdfId, body: Extraction | None = None, idempotency_key: IdempotencyKey = None
) -> Response:
    """Submit a job that runs its prompt on each section of the PDF, in order. Its result has an answer for each."""
    body = body or Extraction()
    services, caller = services_of(request), caller_of(request)
    names = job_names(idempotency_key, f"{caller.id} {upload_id} extract", body)
    if stored := await services.admission.find(names):
        return json_response({"jobId": stored.id}, 201)  # the upload may be gone since
    pdfs = services.pdf_uploads
    upload = await pdfs.get(upload_id)
    submission = Submission(
        source="dashboard",
        type="document-extraction",
        prompt=body.prompt or FIND_FACTS,
        config=ConfigBody(
            provider=body.provider or await _provider_of(body.model, services), model=body.model, effort=body.effort
        ),
        pipeline=PipelineBody(type="pdf-sections"),
        metadata={"upload": upload.id, "document": upload.name, "title": upload.name},
    )
    requested = job_request(submission, caller, [("document.pdf", pdfs.path(upload))])
    job, _ = await services.admission.admit(requested, names)
    return json_response({"jobId": job.id}, 201)


async def _provider_of(model: str | None, services: Services) -> Provider | None:
    """Return the only provider for which the model is configured; None if there is none or more than one."""
    providers = {each.spec.provider for each in await services.store.list(AiModel) if each.spec.model == model}
    providers |= {name for name, each in services.catalog.ai_config.providers.items() if each.model == model}
    return cast(Provider, providers.pop()) if model and len(providers) == 1 else None


def check_title(name: str) -> None:
    """Raise Invalid unless `name` is valid for a PDF. The volume stores the file under another name."""
    if not 0 < len(name) <= LONGEST_LABEL or not name.isprintable():
        raise Invalid(Problem("file", f"its file name must be 1 to {LONGEST_LABEL} printable characters"))


def check_is_pdf(head: bytes) -> None:
    """Raise 415 unless a file that starts with `head` is a PDF."""
    if not begins_as_pdf(head):
        raise ApiError(415, "unsupported_media_type", "the file is not a PDF")
