"""Facts about the engine: whether a controller is alive."""

from collections.abc import Awaitable, Callable
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx2
import pytest

from labrats.api.app import create_app
from labrats.model.core_resources import Secret
from labrats.model.errors import LabratsError, RetryLater
from labrats.model.isolation import Isolation, IsolationLevels
from labrats.model.network import AllowedHosts
from labrats.model.record import Metadata
from labrats.ports import ControllerLease
from tests.api.conftest import Api
from tests.fakes.clock import NOON
from tests.fakes.runner import MemoryRunner
from tests.support.builders import a_job
from tests.support.waiting import eventually

LEASE = ControllerLease("controller-0", NOON, 10)


async def unreadable() -> ControllerLease:
    raise LabratsError("leases.coordination.k8s.io is forbidden")


def returning(lease: ControllerLease) -> Callable[[], Awaitable[ControllerLease]]:
    async def read() -> ControllerLease:
        return lease

    return read


@pytest.mark.parametrize(
    ("read", "expected"),
    [
        (returning(LEASE), (True, "controller-0")),
        (returning(replace(LEASE, renewed_at=NOON - timedelta(seconds=11))), (False, "controller-0")),
        (returning(replace(LEASE, holder=None)), (False, None)),
        (returning(ControllerLease()), (False, None)),
        (unreadable, (None, None)),
        (None, (True, None)),
    ],
)
async def test_system_shows_whether_a_controller_is_alive(
    api: Api, read: Callable[[], Awaitable[ControllerLease]] | None, expected: tuple[bool | None, str | None]
) -> None:
    app = create_app(replace(api.services, read_controller_lease=read))
    async with replace(api, app=app).client("admin") as admin:
        answer = await admin.get("/api/system")
    assert answer.status_code == 200, answer.text
    assert (answer.json()["controller"]["alive"], answer.json()["controller"]["name"]) == expected


@pytest.mark.parametrize(
    ("read", "reason"),
    [
        (returning(replace(LEASE, renewed_at=NOON - timedelta(seconds=11))), "no_controller"),
        (returning(LEASE), "starting"),
        (unreadable, "starting"),
        (None, "starting"),
    ],
)
async def test_job_that_could_start_shows_that_no_controller_is_alive(
    api: Api, monkeypatch: pytest.MonkeyPatch, read: Callable[[], Awaitable[ControllerLease]] | None, reason: str
) -> None:
    async def refuse(resource: Any) -> None:
        raise RetryLater("the disk is full", delay_seconds=3600)

    monkeypatch.setattr(api.store, "update", refuse)  # the controller of this engine cannot start the job
    job = await api.store.create(a_job())
    await eventually(lambda: api.services.job_index.contains(job.id))
    app = create_app(replace(api.services, read_controller_lease=read))
    async with replace(api, app=app).client("admin") as admin:
        detail = (await admin.get(f"/api/jobs/{job.id}")).json()
        places = (await admin.get("/api/queue/jobs", params={"id": job.id})).json()["jobs"]
    assert (detail["waiting"]["reason"], [place["reason"] for place in places]) == (reason, [reason])


async def test_system_shows_the_network_and_isolation_of_jobs(api: Api) -> None:
    async with api.client("admin") as admin:
        defaults = (await admin.get("/api/system")).json()["containment"]
    assert defaults == {
        "network": "open",
        "networkProblem": None,
        "isolation": "sandbox",
        "isolationOfUntrusted": "sandbox",
        "isolationLevels": ["process", "sandbox"],
        "noSandbox": None,
    }


async def test_system_shows_the_default_network_of_the_backend(api: Api) -> None:
    runner = api.services.runner
    assert isinstance(runner, MemoryRunner)
    for default, network in ((Isolation.SANDBOX, "public"), (Isolation.PROCESS, "open")):
        runner.isolation = IsolationLevels((Isolation.PROCESS, Isolation.SANDBOX), default, network="public")
        async with api.client("admin") as admin:
            found = (await admin.get("/api/system")).json()["containment"]
        assert (found["network"], found["isolation"]) == (network, default)


async def test_system_shows_the_level_that_takes_the_place_of_the_set_one(api: Api) -> None:
    runner = api.services.runner
    assert isinstance(runner, MemoryRunner)
    runner.isolation = IsolationLevels((Isolation.CONTAINER, Isolation.VM), Isolation.CONTAINER, Isolation.VM)
    settings = api.services.settings.model_copy(
        update={"isolation": Isolation.SANDBOX, "network": AllowedHosts(allow=("npm",))}
    )
    app = create_app(replace(api.services, settings=settings))
    async with replace(api, app=app).client("admin") as admin:
        found = (await admin.get("/api/system")).json()["containment"]
    assert (found["network"], found["isolation"]) == ({"allow": ["npm"]}, "container")
    assert (found["isolationOfUntrusted"], found["isolationLevels"]) == ("vm", ["container", "vm"])


async def test_system_names_what_each_provider_needs(api: Api, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("ANTHROPIC_API_KEY", "ANTHROPIC_AUTH_TOKEN", "CLAUDE_CODE_OAUTH_TOKEN", "CODEX_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))  # without agent programs
    codex = tmp_path / "my-codex"
    codex.write_text("#!/bin/sh\n")
    codex.chmod(0o755)
    settings = api.services.settings.model_copy(update={"codex_path": str(codex), "claude_use_login": False})
    app = create_app(replace(api.services, settings=settings))
    async with replace(api, app=app).client("admin") as admin:
        before = await providers(admin)
        assert before["mock"] == (True, None, None)
        assert before["claude"] == (
            False,
            "Claude Code is not installed",
            "npm install -g @anthropic-ai/claude-code",
        )
        assert before["codex"] == (False, "no credentials are stored", "labrats connect codex")
        assert before["qwen"][:2] == (False, "no AiModel names the server of its model")
        await api.services.store.create(Secret(metadata=Metadata(name="codex-key"), data={"OPENAI_API_KEY": "sk-1"}))
        for model in (
            {"name": "gpt", "provider": "codex", "model": "gpt", "credentialsRef": "codex-key"},
            {"name": "local", "provider": "qwen", "model": "coder", "endpoint": "http://127.0.0.1:8000/v1"},
        ):
            assert (await admin.post("/api/ai-models", json=model)).status_code == 201
        after = await providers(admin)
    assert [after["codex"], after["qwen"]] == [(True, None, None)] * 2


async def test_system_names_a_program_that_the_engine_may_not_execute(
    api: Api, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    (tmp_path / "codex").touch(mode=0o644)
    settings = api.services.settings.model_copy(update={"codex_path": None})
    app = create_app(replace(api.services, settings=settings))
    async with replace(api, app=app).client("admin") as admin:
        can_run, problem, command = (await providers(admin))["codex"]
    assert (can_run, command) == (False, None)
    assert (problem or "").startswith("Codex cannot be run: permission denied: the user ")
    assert (problem or "").endswith(f" may not execute {tmp_path / 'codex'}")


async def providers(admin: httpx2.AsyncClient) -> dict[str, tuple[bool, str | None, str | None]]:
    found = (await admin.get("/api/system")).json()["providers"]
    return {each["name"]: (each["canRun"], each["problem"], each["command"]) for each in found}
