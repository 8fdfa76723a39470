"""Workspace uploads: files for the workspaces of later jobs."""

from typing import Annotated

from fastapi import Request
from pydantic import Field
from starlette.responses import FileResponse, Response

from labrats.api.http.download import Download
from labrats.api.http.idempotency import IdempotencyKey
from labrats.api.http.json_body import json_response
from labrats.api.http.multipart import FORM
from labrats.api.openapi import answers
from labrats.api.routes.upload_stream import UploadView, receive_upload, upload_view
from labrats.api.routing import api_router, caller_of, services_of
from labrats.api.schemas.base import LONGEST_LABEL, ResponseBody
from labrats.api.schemas.file_names import why_unsafe
from labrats.files.uploads import META_FILE
from labrats.intake.validation import find_upload
from labrats.model.errors import Invalid, Problem

router = api_router("Workspace uploads")

UploadId = Annotated[str, Field(description="The upload's id.", examples=["up-0123456789abcdef"])]


FileName = Annotated[str, Field(description="The name under which the file was uploaded.", examples=["report.csv"])]


class UploadedFile(ResponseBody):
    """A file for the workspaces of jobs."""

    id: str = Field(examples=["up-0123456789abcdef"])
    name: str = Field(examples=["report.csv"])
    size: int = Field(description="Bytes.", examples=[12345])
    sha256: str = Field(examples=["9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"])


class WorkspaceUploadList(ResponseBody):
    """All workspace uploads."""

    files: list[UploadView]
    uploads: list[UploadView] = Field(description="The same list, under its first name.")


@router.post(
    "/api/workspace-uploads",
    status_code=201,
    openapi_extra={"requestBody": FORM},
    responses=answers(201, UploadedFile, "The file is on stable storage", 400, 413, 415, 422),
    summary="Upload a file for workspaces",
)
async def upload_workspace_file(request: Request, idempotency_key: IdempotencyKey = None) -> Response:
    """Store the form's `file`, at most 100 MiB. Jobs may name it in `workspaceUploads` until it is deleted."""
    upload = await receive_upload(
        request, services_of(request).workspace_uploads, idempotency_key, check_name=check_file_name
    )
    view = {"id": upload.id, "name": upload.name, "size": upload.size, "sha256": upload.sha256}
    return json_response(view, 201)


@router.get(
    "/api/workspace-uploads/{upload_id}/{name}/raw",
    response_class=FileResponse,
    responses=answers(200, None, "The file", 403, 404, 416, text={"application/octet-stream": "the file's bytes"}),
    summary="Download a workspace upload",
)
async def download_workspace_file(request: Request, upload_id: UploadId, name: FileName) -> Response:
    """Return the file as an attachment. Supports `Range`."""
    uploads = services_of(request).workspace_uploads
    upload = await find_upload(uploads, upload_id, name, caller_of(request).may_see)
    return Download(
        uploads.path(upload),
        media_type="application/octet-stream",  # a page in it must not run with the engine's origin
        filename=upload.name,
        headers={"content-security-policy": "sandbox"},
    )


@router.get(
    "/api/workspace-uploads",
    responses=answers(200, WorkspaceUploadList, "All workspace uploads"),
    summary="List workspace uploads",
)
async def list_workspace_uploads(request: Request) -> Response:
    """List the uploads of all callers, newest first."""
    files = [upload_view(upload) for upload in await services_of(request).workspace_uploads.list_all()]
    return json_response({"files": files, "uploads": files})


@router.delete(
    "/api/workspace-uploads/{upload_id}",
    status_code=204,
    responses=answers(204, None, "The file is deleted", 404),
    summary="Delete a workspace upload",
)
async def delete_workspace_upload(request: Request, upload_id: UploadId) -> Response:
    """Delete the file. Jobs that were submitted with it have their own copy until they end."""
    await services_of(request).workspace_uploads.remove(upload_id)
    return Response(status_code=204)


def check_file_name(name: str) -> None:
    """Raise Invalid unless `name` is valid for a file in a workspace and on the volume."""
    if reason := why_unsafe(name):
        raise Invalid(Problem("file", f"its file name {reason}"))
    if "/" in name or name == META_FILE or len(name) > LONGEST_LABEL:
        reason = f"must be a plain one without folders, of at most {LONGEST_LABEL} characters"
        raise Invalid(Problem("file", f"its file name {reason}"))
