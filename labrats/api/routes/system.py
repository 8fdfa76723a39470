"""The engine itself: its version, the space on its disk, and the limits that apply."""

import os
from datetime import datetime
from typing import Any, Literal

import structlog
from fastapi import Request
from pydantic import Field
from starlette.responses import Response

from labrats import __version__
from labrats.api.http.json_body import json_response
from labrats.api.openapi import answers
from labrats.api.routes.readiness import readiness_of_github, readiness_of_providers
from labrats.api.routing import api_router, services_of
from labrats.api.schemas.base import IsolationName, ResponseBody
from labrats.api.schemas.network import NetworkView
from labrats.api.services import Services
from labrats.files.full_disk import problem_of_full_disk
from labrats.intake.github_readiness import GitHubReadiness
from labrats.intake.provider_readiness import MissingPart, ProviderReadiness
from labrats.intake.validation import FILES_BYTES
from labrats.model.errors import LabratsError
from labrats.model.job import METADATA_BYTES, PROMPT_BYTES
from labrats.model.network import OPEN

log = structlog.get_logger()

router = api_router("Health")


class DiskView(ResponseBody):
    """The file system of the data folder."""

    free_bytes: int = Field(examples=[52_000_000_000])
    total_bytes: int = Field(examples=[100_000_000_000])
    problem: str | None = Field(
        description="Why the engine refuses writes for lack of space; null while there is some.", examples=[None]
    )


class LimitsView(ResponseBody):
    """The limits of this engine. docs/limits.md explains them."""

    prompt_bytes: int = Field(examples=[921_600])
    metadata_bytes: int = Field(examples=[65_536])
    files_bytes: int = Field(description="All files in the body of a submission, decoded.", examples=[10_485_760])
    output_bytes: int = Field(description="Output of one attempt.", examples=[268_435_456])
    waiting_jobs: int = Field(examples=[100_000])
    default_model_slots: int = Field(description="Slots of a model without an AiModel.", examples=[4])
    priority_aging_seconds: float = Field(description="Waiting time for one level of priority.", examples=[600.0])
    chain_depth: int = Field(description="Agents after the first one of a chain.", examples=[10])
    workspace_retention_hours: float = Field(examples=[24.0])
    job_retention_days: float = Field(examples=[30.0])


class ContainmentView(ResponseBody):
    """The defaults for jobs whose settings name no network and no isolation, and the levels that work here."""

    network: NetworkView = Field(examples=["public"])
    network_problem: str | None = Field(description="Why no job can have a network rule here; null if jobs can.")
    isolation: IsolationName = Field(examples=["sandbox"])
    isolation_of_untrusted: IsolationName = Field(
        description="The minimum for jobs that external contributors cause.", examples=["sandbox"]
    )
    isolation_levels: list[IsolationName] = Field(
        description="The levels that work here, the weakest first.", examples=[["process", "sandbox"]]
    )
    no_sandbox: str | None = Field(
        description="Why no sandbox works here although the settings ask for one, so that only jobs of administrators "
        "run; null if agents have one, or need none.",
    )


class ProviderView(ResponseBody):
    """A provider, and what it needs before it can run a job."""

    name: str = Field(examples=["claude"])
    can_run: bool
    missing: MissingPart | None = Field(description="The kind of the missing part.", examples=["program"])
    problem: str | None = Field(
        description="The missing part; null if the provider can run.", examples=["Claude Code is not installed"]
    )
    command: str | None = Field(
        description="The command that helps; a word in capitals is a placeholder. Null without one.",
        examples=["npm install -g @anthropic-ai/claude-code"],
    )


class GitHubSourceView(ResponseBody):
    """An enabled source of GitHub's events."""

    name: str = Field(examples=["github"])
    mode: str = Field(examples=["poll"])
    repositories: list[str] = Field(
        description="In the mode `webhook`, others deliver events, too.", examples=[["octocat/hello-world"]]
    )


class GitHubView(ResponseBody):
    """The connection with GitHub."""

    url: str = Field(description="The address of its pages.", examples=["https://github.com"])
    has_app: bool = Field(description="True if an App was created by `labrats connect github`.")
    sources: list[GitHubSourceView]
    summary: str = Field(
        description="The sources in one line.", examples=["the source github reads octocat/hello-world"]
    )
    problem: str | None = Field(
        description="Why its events start no agents, or some of them; null without a problem.",
        examples=["no repository is connected"],
    )
    command: str | None = Field(
        description="The command that helps; null without one.", examples=["labrats connect github"]
    )


class ControllerView(ResponseBody):
    """The engine that drives jobs. On one machine it is the one that answers."""

    alive: bool | None = Field(
        description="False if none has shown a sign of life lately: no job starts. Null if it could not be found out."
    )
    name: str | None = Field(description="Its name, on a cluster.", examples=["labrats-controller-0-1a2b3c4d"])
    renewed_at: datetime | None = Field(description="Its last sign of life, on a cluster.")


class SystemView(ResponseBody):
    """The engine that answers. On a cluster, other replicas may have another version."""

    version: str = Field(examples=["0.2.0"])
    backend: Literal["embedded", "kubernetes"]
    role: str = Field(description="The tasks of this replica.", examples=["all"])
    drives_jobs: bool = Field(description="True if this replica can start jobs; others leave that to a controller.")
    controller: ControllerView
    time: datetime = Field(description="The engine's clock.", examples=["2030-01-01T12:00:00Z"])
    disk: DiskView
    limits: LimitsView
    containment: ContainmentView
    providers: list[ProviderView] = Field(description="The providers that can run jobs here, and what others need.")
    github: GitHubView


@router.get("/api/system", responses=answers(200, SystemView, "The engine"), summary="Get facts about the engine")
async def get_system(request: Request) -> Response:
    """Return the version, the free space and the limits of the engine, and whether a controller drives jobs."""
    services = services_of(request)
    settings, disk = services.settings, os.statvfs(services.settings.data_dir)
    limits = {
        "promptBytes": PROMPT_BYTES,
        "metadataBytes": METADATA_BYTES,
        "filesBytes": FILES_BYTES,
        "outputBytes": settings.max_output_mib * 2**20,
        "waitingJobs": settings.max_waiting_jobs,
        "defaultModelSlots": settings.default_model_slots,
        "priorityAgingSeconds": settings.priority_aging_seconds,
        "chainDepth": settings.max_chain_depth,
        "workspaceRetentionHours": settings.workspace_retention_hours,
        "jobRetentionDays": settings.job_retention_days,
    }
    return json_response(
        {
            "version": __version__,
            "backend": settings.backend,
            "role": settings.role,
            "drivesJobs": settings.drives_jobs,
            "controller": await controller_view(services),
            "time": services.clock.now(),
            "disk": {
                "freeBytes": disk.f_bavail * disk.f_frsize,
                "totalBytes": disk.f_blocks * disk.f_frsize,
                "problem": problem_of_full_disk(settings.data_dir),
            },
            "limits": limits,
            "containment": _containment(services),
            "providers": [_provider(each) for each in await readiness_of_providers(services)],
            "github": _github(await readiness_of_github(services), services),
        }
    )


def _provider(readiness: ProviderReadiness) -> dict[str, Any]:
    return {
        "name": readiness.name,
        "canRun": readiness.problem is None,
        "missing": readiness.missing,
        "problem": readiness.problem,
        "command": readiness.command,
    }


def _github(readiness: GitHubReadiness, services: Services) -> dict[str, Any]:
    shown = [(each.name, each.spec.mode, each.spec.repositories) for each in readiness.sources]
    return {
        "url": services.forge_setup.web_url,
        "hasApp": readiness.has_app,
        "sources": [{"name": name, "mode": mode, "repositories": known} for name, mode, known in shown],
        "summary": readiness.summary,
        "problem": readiness.problem,
        "command": readiness.command,
    }


def _containment(services: Services) -> dict[str, Any]:
    settings, levels = services.settings, services.runner.isolation
    isolation = levels.at_least(settings.isolation or levels.default) or levels.default
    return {
        "network": settings.network or levels.default_network(isolation) or OPEN,
        "networkProblem": services.runner.network_problem(),
        "isolation": isolation,
        "isolationOfUntrusted": levels.untrusted,
        "isolationLevels": levels.available,
        "noSandbox": levels.no_sandbox or None,
    }


async def controller_view(services: Services) -> dict[str, Any]:
    """Return the JSON that ControllerView describes."""
    if services.read_controller_lease is None:
        return {"alive": True, "name": None, "renewedAt": None}
    try:
        lease = await services.read_controller_lease()
    except LabratsError as error:  # such as a missing permission
        log.warning("lease of the controller not read", reason=str(error))
        return {"alive": None, "name": None, "renewedAt": None}
    return {"alive": lease.is_alive(services.clock.now()), "name": lease.holder, "renewedAt": lease.renewed_at}
