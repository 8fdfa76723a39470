"""The files of local models: configured and existing files, downloads and deletions."""

from collections.abc import Iterator
from datetime import datetime
from typing import Annotated, Any, Literal

from fastapi import Request
from msgspec.structs import replace
from pydantic import Field
from starlette.responses import Response

from labrats.api.http.errors import ApiError
from labrats.api.http.idempotency import IdempotencyKey, Intent
from labrats.api.http.json_body import json_response
from labrats.api.model_file_scans import ModelFileScans, Scan
from labrats.api.openapi import answers
from labrats.api.routing import api_router, caller_of, services_of
from labrats.api.schemas.base import Label, Provider, RequestBody, ResponseBody
from labrats.api.services import Services
from labrats.model.ai_config import ModelFile
from labrats.model.errors import Invalid, NotFound, Problem
from labrats.model.model_files import (
    FileOperation,
    ModelFileError,
    OperationStatus,
    OperationType,
    check_file_name,
    check_file_type,
)
from labrats.model.record import Metadata
from labrats.ports import ModelPlace

router = api_router("Models")

_EXAMPLE_URL = "https://models.example.com/qwen2.5-0.5b-instruct-q4_k_m.gguf"
_EXAMPLE_FILE = "qwen2.5-0.5b-instruct-q4_k_m.gguf"
_EXAMPLE_OPERATION = "models-qwen-0123456789ab"

OperationName = Annotated[str, Field(description="The operation's name.", examples=[_EXAMPLE_OPERATION])]


class Download(RequestBody):
    """A configured file to download, as `GET /api/models` lists it."""

    provider: Provider = Field(examples=["qwen"])
    model: Label = Field(examples=["qwen2.5-0.5b"])
    url: str = Field(max_length=2048, examples=[_EXAMPLE_URL])


class ModelFileView(ResponseBody):
    """A model in a provider's settings, and its file. A model with several files has several entries."""

    provider: str = Field(examples=["qwen"])
    model: str = Field(
        description="The provider's model in the settings. Default: the file's name.",
        examples=["qwen2.5-0.5b"],
    )
    filename: str | None = Field(description="Null for a model without a file.", examples=[_EXAMPLE_FILE])
    url: str | None = Field(description="Null for a model without a file.", examples=[_EXAMPLE_URL])
    sha256: str | None = Field(description="The expected SHA-256, if the settings have one.")
    downloaded: bool | None = Field(description="Null before the first scan of the volume.", examples=[True])
    size: int | None = Field(description="Bytes on the volume, also of an incomplete download.", examples=[1024])


class ModelList(ResponseBody):
    """All models and files in the settings, and the location of the files."""

    models: list[ModelFileView]
    folder: str | None = Field(description="The folder of the files, on a single machine.", examples=[None])
    pvc_name: str | None = Field(
        description="The PersistentVolumeClaim of the files, on Kubernetes.", examples=["labrats-models"]
    )
    scanned_at: datetime | None = Field(examples=["2030-01-01T12:00:00Z"])


class FoundView(ResponseBody):
    """A file on the volume."""

    provider: str = Field(examples=["qwen"])
    filename: str = Field(examples=[_EXAMPLE_FILE])
    size: int = Field(description="Bytes.", examples=[1024])
    complete: bool = Field(description="False for an incomplete download.", examples=[True])
    configured: bool = Field(description="True if the settings name the file.", examples=[True])


class ScanView(ResponseBody):
    """The files on the volume at the time of a scan."""

    files: list[FoundView]
    scanned_at: datetime = Field(examples=["2030-01-01T12:00:00Z"])


class OperationView(ResponseBody):
    """The latest download or the latest deletion of a file."""

    name: str = Field(examples=[_EXAMPLE_OPERATION])
    operation: Literal["download", "delete"]
    provider: str = Field(examples=["qwen"])
    model: str | None = Field(description="The model of a download.", examples=["qwen2.5-0.5b"])
    filename: str = Field(examples=[_EXAMPLE_FILE])
    status: Literal["waiting", "active", "completed", "failed"]
    failed_reason: str | None = Field(examples=[None])
    received_bytes: int | None = Field(
        description="Received by an active download; null if that is not known. Rounded on a cluster.", examples=[512]
    )
    total_bytes: int | None = Field(description="Size of its file, if the hub has sent it.", examples=[1024])
    created_at: datetime = Field(examples=["2030-01-01T12:00:00Z"])
    finished_at: datetime | None


class OperationList(ResponseBody):
    """The latest download and the latest deletion of each file."""

    jobs: list[OperationView]


class OperationLog(ResponseBody):
    """The log of an operation."""

    name: str = Field(examples=[_EXAMPLE_OPERATION])
    logs: list[str] = Field(examples=[["2030-01-01T12:00:00Z asking models.example.com"]])


@router.get("/api/models", responses=answers(200, ModelList, "The configured models"), summary="List configured models")
async def list_models(request: Request) -> Response:
    """List the models in the settings of providers, with their files and whether those exist.

    On Kubernetes, the existing files are those of the last scan.
    """
    services = services_of(request)
    place = services.model_file_scans.files.place if services.model_file_scans else ModelPlace()
    scan = (
        (await services.model_file_scans.current() if place.folder else services.model_file_scans.last)
        if services.model_file_scans
        else None
    )
    files = [_file_view(provider, model, file, scan) for provider, model, file in configured_files(services)]
    without_files = [
        _file_view(provider, config.model, None, scan)
        for provider, config in services.catalog.ai_config.providers.items()
        if config.model and not config.files
    ]
    models = sorted([*files, *without_files], key=lambda each: (each["provider"], each["model"]))
    location = {"folder": place.folder, "pvcName": place.claim, "scannedAt": scan.scanned_at if scan else None}
    return json_response({"models": models, **location})


def _file_view(provider: str, model: str, file: ModelFile | None, scan: Scan | None) -> dict[str, Any]:
    found = scan.find(provider, file.filename) if scan and file else None
    return {
        "provider": provider,
        "model": model,
        "filename": file and file.filename,
        "url": file and file.url,
        "sha256": file and file.sha256,
        "downloaded": bool(found and found.is_whole) if scan and file else None,
        "size": found.size if found else None,
    }


@router.post(
    "/api/models/scan",
    responses=answers(200, ScanView, "The files on the volume", 501),
    summary="Scan the models volume",
)
async def scan_models(request: Request) -> Response:
    """List the files on the volume. The result is cached for 30 seconds, unless an operation changes a file."""
    services, scan = services_of(request), await scans_of(request).current()
    known = {(provider, file.filename) for provider, _, file in configured_files(services)}
    files = [
        {
            "provider": each.provider,
            "filename": each.filename,
            "size": each.size,
            "complete": each.is_whole,
            "configured": (each.provider, each.filename) in known,
        }
        for each in scan.files
    ]
    return json_response({"files": files, "scannedAt": scan.scanned_at})


@router.post(
    "/api/models/download",
    status_code=201,
    responses=answers(201, OperationView, "The download has started", 400, 409, 413, 415, 422, 501),
    summary="Download a model's file",
)
async def download_model(request: Request, body: Download, idempotency_key: IdempotencyKey = None) -> Response:
    """Download a configured file. A running download of the same file is returned instead of a new one.

    A download resumes after a restart of the engine. The file appears once it is complete and matches the SHA-256 of
    the settings, if any.
    """
    services, files = services_of(request), scans_of(request).files
    intent = Intent.of(idempotency_key, caller_of(request).id, body)
    for existing in await files.operations() if intent else ():
        if intent and intent.matches(Metadata(name=existing.name, annotations=existing.annotations)):
            return json_response(_view(_as_started(existing)), 201)
    file = _find_configured(services, body)
    try:
        check_file_name(body.provider, file.filename)
        check_file_type(file.filename)
    except ModelFileError as refusal:
        raise Invalid(Problem("url", f"{file.filename} is refused: {refusal}")) from refusal
    operation = FileOperation(
        work=OperationType.DOWNLOAD,
        provider=body.provider,
        filename=file.filename,
        url=file.url,
        sha256=file.sha256,
        model=body.model,
        annotations=intent.annotations if intent else {},
    )
    return json_response(_view(await files.begin(operation)), 201)


@router.get(
    "/api/models/jobs",
    responses=answers(200, OperationList, "The operations", 501),
    summary="List operations on model files",
)
async def list_model_jobs(request: Request) -> Response:
    """List the latest download and deletion of each file, newest first."""
    return json_response({"jobs": [_view(each) for each in await scans_of(request).files.operations()]})


@router.get(
    "/api/models/jobs/{name}/logs",
    responses=answers(200, OperationLog, "The log", 404, 501),
    summary="Read the log of an operation on a model file",
)
async def model_job_logs(request: Request, name: OperationName) -> Response:
    """Read the log of an operation, which may still be running."""
    return json_response({"name": name, "logs": await scans_of(request).files.log(name)})


@router.delete(
    "/api/models/{provider}/{filename}",
    status_code=204,
    responses=answers(204, None, "The deletion has started", 404, 409, 501),
    summary="Delete a model file",
)
async def delete_model(
    request: Request,
    provider: Annotated[str, Field(examples=["qwen"])],
    filename: Annotated[str, Field(examples=[_EXAMPLE_FILE])],
) -> Response:
    """Delete a file, or an incomplete download, from the volume. The file need not be configured.

    The deletion is an operation, which `GET /api/models/jobs` lists.
    """
    scans = scans_of(request)
    if (await scans.current()).find(provider, filename) is None:
        raise NotFound(f"there is no file {filename!r} of {provider!r}")
    await scans.files.begin(FileOperation(work=OperationType.DELETE, provider=provider, filename=filename))
    return Response(status_code=204)


def scans_of(request: Request) -> ModelFileScans:
    """Return the scans of model files. Raises ApiError 501 if the engine has no volume for them."""
    if (scans := services_of(request).model_file_scans) is None:
        message = "this installation has no volume for model files; set LABRATS_MODELS_CLAIM to a claim"
        raise ApiError(501, "not_implemented", message)
    return scans


def configured_files(services: Services) -> Iterator[tuple[str, str, ModelFile]]:
    """Yield the configured files, each with its provider and model."""
    for provider, config in sorted(services.catalog.ai_config.providers.items()):
        for file in config.files:
            yield provider, config.model or file.filename, file


def _find_configured(services: Services, body: Download) -> ModelFile:
    """Return the configured file. Raises Invalid for other files, so that callers cannot make the engine fetch them."""
    for provider, model, file in configured_files(services):
        if (provider, model, file.url) == (body.provider, body.model, body.url):
            return file
    message = f"is not a configured file of {body.provider} and {body.model}; GET /api/models lists them"
    raise Invalid(Problem("url", message))


def _as_started(operation: FileOperation) -> FileOperation:
    """Return the operation as at its start, since a repeated Idempotency-Key gets the first response."""
    return replace(operation, status=OperationStatus.WAITING, reason=None, finished_at=None)


def _view(operation: FileOperation) -> dict[str, Any]:
    return {
        "name": operation.name,
        "operation": operation.work,
        "provider": operation.provider,
        "model": operation.model or None,
        "filename": operation.filename,
        "status": operation.status,
        "failedReason": operation.reason,
        "receivedBytes": operation.progress and operation.progress.received_bytes,
        "totalBytes": operation.progress and operation.progress.total_bytes,
        "createdAt": operation.created_at,
        "finishedAt": operation.finished_at,
    }
