"""The files of local models: which there should be, which there are, and their downloads and deletions."""

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

_A_URL = "https://models.example.com/qwen2.5-0.5b-instruct-q4_k_m.gguf"
_A_FILE = "qwen2.5-0.5b-instruct-q4_k_m.gguf"
_AN_OPERATION = "models-qwen-0123456789ab"

OperationName = Annotated[str, Field(description="The operation's name.", examples=[_AN_OPERATION])]


class Download(RequestBody):
    """A configured file to download: three fields of one of those that `GET /api/models` lists."""

    provider: Provider = Field(examples=["qwen"])
    model: Label = Field(examples=["qwen2.5-0.5b"])
    url: str = Field(max_length=2048, examples=[_A_URL])


class ModelFileView(ResponseBody):
    """A model that a provider's settings name, and its file; one entry for each of several files."""

    provider: str = Field(examples=["qwen"])
    model: str = Field(
        description="The provider's model in the settings; where they name none, the file's name.",
        examples=["qwen2.5-0.5b"],
    )
    filename: str | None = Field(description="Null for a model without a file.", examples=[_A_FILE])
    url: str | None = Field(description="Null for a model without a file.", examples=[_A_URL])
    sha256: str | None = Field(description="What it must be, where the settings say so.")
    downloaded: bool | None = Field(description="Null where the volume was not scanned yet.", examples=[True])
    size: int | None = Field(description="Bytes on the volume, also of a download that is not whole.", examples=[1024])


class ModelList(ResponseBody):
    """All models and files that the settings name, and where files go."""

    models: list[ModelFileView]
    folder: str | None = Field(description="On one machine, where they are.", examples=[None])
    pvc_name: str | None = Field(
        description="On Kubernetes, the claim of the volume that they are on.", examples=["labrats-models"]
    )
    scanned_at: datetime | None = Field(examples=["2030-01-01T12:00:00Z"])


class FoundView(ResponseBody):
    """A file on the volume."""

    provider: str = Field(examples=["qwen"])
    filename: str = Field(examples=[_A_FILE])
    size: int = Field(description="Bytes.", examples=[1024])
    complete: bool = Field(description="False while it is downloaded, and where that broke off.", examples=[True])
    configured: bool = Field(description="Whether the settings name it.", examples=[True])


class ScanView(ResponseBody):
    """What was on the volume."""

    files: list[FoundView]
    scanned_at: datetime = Field(examples=["2030-01-01T12:00:00Z"])


class OperationView(ResponseBody):
    """The last download, or the last deletion, of a file."""

    name: str = Field(examples=[_AN_OPERATION])
    operation: Literal["download", "delete"]
    provider: str = Field(examples=["qwen"])
    model: str | None = Field(description="Of a download.", examples=["qwen2.5-0.5b"])
    filename: str = Field(examples=[_A_FILE])
    status: Literal["waiting", "active", "completed", "failed"]
    failed_reason: str | None = Field(examples=[None])
    created_at: datetime = Field(examples=["2030-01-01T12:00:00Z"])
    finished_at: datetime | None


class OperationList(ResponseBody):
    """The last download and the last deletion of each file."""

    jobs: list[OperationView]


class OperationLog(ResponseBody):
    """What an operation said."""

    name: str = Field(examples=[_AN_OPERATION])
    logs: list[str] = Field(examples=[["2030-01-01T12:00:00Z asking models.example.com"]])


@router.get("/api/models", responses=answers(200, ModelList, "The configured models"), summary="List configured models")
async def list_models(request: Request) -> Response:
    """The models that the settings of providers name, with their files, and which of these are there.

    On Kubernetes that is what the last scan found.
    """
    services = services_of(request)
    place = services.model_file_scans.files.place if services.model_file_scans else ModelPlace()
    scan = (
        (await services.model_file_scans.current() if place.folder else services.model_file_scans.last)
        if services.model_file_scans
        else None
    )
    files = [_file_view(provider, model, file, scan) for provider, model, file in configured(services)]
    without = [
        _file_view(provider, config.model, None, scan)
        for provider, config in services.catalog.ai_config.providers.items()
        if config.model and not config.files
    ]
    models = sorted([*files, *without], key=lambda each: (each["provider"], each["model"]))
    where = {"folder": place.folder, "pvcName": place.claim, "scannedAt": scan.scanned_at if scan else None}
    return json_response({"models": models, **where})


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
    "/api/models/scan", responses=answers(200, ScanView, "What is on the volume", 501), summary="Scan for models' files"
)
async def scan_models(request: Request) -> Response:
    """Look for files on the volume. The answer is kept for 30 seconds, unless a file is changed meanwhile."""
    services, scan = services_of(request), await models_of(request).current()
    known = {(provider, file.filename) for provider, _, file in configured(services)}
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
    responses=answers(201, OperationView, "The download is under way", 400, 409, 413, 415, 422, 501),
    summary="Download a model's file",
)
async def download_model(request: Request, asked: Download, idempotency_key: IdempotencyKey = None) -> Response:
    """Download a file that the settings name. A download of the same file that is under way is answered with itself.

    It goes on after a restart, from where it was. The file appears once it is whole and, where the settings have its
    SHA-256, is what it should be.
    """
    services, files = services_of(request), models_of(request).files
    intent = Intent.of(idempotency_key, caller_of(request).id, asked)
    for known in await files.operations() if intent else ():
        if intent and intent.matches(Metadata(name=known.name, annotations=known.annotations)):
            return json_response(_view(_as_begun(known)), 201)
    file = _file_meant(services, asked)
    try:
        check_file_name(asked.provider, file.filename)
        check_file_type(file.filename)
    except ModelFileError as refusal:
        raise Invalid(Problem("url", f"is of {file.filename}, which is refused: {refusal}")) from refusal
    operation = FileOperation(
        work=OperationType.DOWNLOAD,
        provider=asked.provider,
        filename=file.filename,
        url=file.url,
        sha256=file.sha256,
        model=asked.model,
        annotations=intent.annotations if intent else {},
    )
    return json_response(_view(await files.begin(operation)), 201)


@router.get(
    "/api/models/jobs",
    responses=answers(200, OperationList, "The operations", 501),
    summary="List operations on models' files",
)
async def list_model_jobs(request: Request) -> Response:
    """The last download or deletion of each file, the newest first."""
    return json_response({"jobs": [_view(each) for each in await models_of(request).files.operations()]})


@router.get(
    "/api/models/jobs/{name}/logs",
    responses=answers(200, OperationLog, "Its log", 404, 501),
    summary="The log of an operation on a model's file",
)
async def model_job_logs(request: Request, name: OperationName) -> Response:
    """What it said; while it goes on, what it has said so far."""
    return json_response({"name": name, "logs": await models_of(request).files.log(name)})


@router.delete(
    "/api/models/{provider}/{filename}",
    status_code=204,
    responses=answers(204, None, "It is being deleted", 404, 409, 501),
    summary="Delete a model's file",
)
async def delete_model(
    request: Request,
    provider: Annotated[str, Field(examples=["qwen"])],
    filename: Annotated[str, Field(examples=[_A_FILE])],
) -> Response:
    """Delete a file from the volume, or what has come of it. Whether the settings name it makes no difference.

    The deletion is an operation of its own: `GET /api/models/jobs` says what has become of it.
    """
    models = models_of(request)
    if (await models.current()).find(provider, filename) is None:
        raise NotFound(f"there is no file {filename!r} of {provider!r}")
    await models.files.begin(FileOperation(work=OperationType.DELETE, provider=provider, filename=filename))
    return Response(status_code=204)


def models_of(request: Request) -> ModelFileScans:
    """Raises 501 where the engine has no place for files."""
    if (models := services_of(request).model_file_scans) is None:
        message = "this installation has no volume for models' files: LABRATS_MODELS_CLAIM names its claim"
        raise ApiError(501, "not_implemented", message)
    return models


def configured(services: Services) -> Iterator[tuple[str, str, ModelFile]]:
    """The files that the settings name: each with its provider and its model."""
    for provider, config in sorted(services.catalog.ai_config.providers.items()):
        for file in config.files:
            yield provider, config.model or file.filename, file


def _file_meant(services: Services, asked: Download) -> ModelFile:
    """Raises Invalid unless the settings name it: nobody has the engine fetch what they like."""
    for provider, model, file in configured(services):
        if (provider, model, file.url) == (asked.provider, asked.model, asked.url):
            return file
    wrong = f"is not that of a file which the settings name for {asked.provider} and {asked.model}: see GET /api/models"
    raise Invalid(Problem("url", wrong))


def _as_begun(operation: FileOperation) -> FileOperation:
    """As it was when it was asked for: the same Idempotency-Key gives the first answer, however far it is by now."""
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
        "createdAt": operation.created_at,
        "finishedAt": operation.finished_at,
    }
