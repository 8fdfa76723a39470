"""Engines for tests of the command line: one that plays a script over HTTP, and one in this process."""

import json
from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from labrats.api.spec_validation import problems_in
from labrats.main import Commands, OnCreate
from labrats.manifests.install import custom_resources, installation
from labrats.model.backup import BackupSummary
from labrats.model.errors import Problem
from labrats.model.record import Resource
from labrats.ports import Store
from labrats.settings import EngineSettings

R = TypeVar("R", bound=Resource)


@dataclass(frozen=True)
class Request:
    """A request that the command line sent."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


@dataclass(frozen=True)
class Answer:
    """A scripted answer. cut: the connection breaks after the body."""

    body: bytes
    status: int = 200
    content_type: str = "application/json"
    cut: bool = False


@dataclass
class ScriptedEngine:
    """An engine that answers each `METHOD /path`, without its query, from a script. The last answer repeats."""

    url: str
    requests: list[Request] = field(default_factory=list)
    scripts: dict[str, list[Answer]] = field(default_factory=dict)

    def answers(self, call: str, *bodies: Any, status: int = 200) -> None:
        """Script JSON answers."""
        self.script(call, *(Answer(json.dumps(body).encode(), status) for body in bodies))

    def streams(self, job_id: str, *lines: str, status: str = "completed") -> None:
        """Script the log of an ended job."""
        frames = [frame(f"1-{n}", {"log": line}) for n, line in enumerate(lines, start=1)]
        self.script(f"GET /api/jobs/{job_id}/logs", stream(*frames, frame(None, {"done": True, "status": status})))

    def script(self, call: str, *answers: Answer) -> None:
        self.scripts[call] = list(answers)

    def answer(self, request: Request) -> Answer:
        self.requests.append(request)
        script = self.scripts.get(f"{request.method} {request.path.partition('?')[0]}")
        if script is None:
            return Answer(b'{"error": "there is nothing here", "code": "not_found"}', 404)
        return script.pop(0) if len(script) > 1 else script[0]


def frame(event_id: str | None, data: dict[str, Any]) -> bytes:
    """Return one server-sent event as the engine writes it."""
    head = f"id: {event_id}\n" if event_id else ""
    return f"{head}data: {json.dumps(data, ensure_ascii=False)}\n\n".encode()


def stream(*frames: bytes, cut: bool = False) -> Answer:
    return Answer(b"".join(frames), content_type="text/event-stream", cut=cut)


@dataclass
class OwnEngine:
    """EngineCommands with a real store. `serve` and `create_api_key` only record their arguments, and raise `refusal`
    if it is set.
    """

    data_dir: Path
    served: list[dict[str, Any]] = field(default_factory=list)
    created_keys: list[tuple[Any, ...]] = field(default_factory=list)
    refusal: Exception | None = None
    on_ready: Callable[[str, str | None], None] | None = None

    def serve(
        self,
        on_ready: Callable[[str, str | None], None],
        **options: Any,
    ) -> None:
        self.served.append({name: value for name, value in options.items() if value is not None})
        self.on_ready = on_ready
        if self.refusal:
            raise self.refusal

    def open_store(
        self, data_dir: Path | None, on_create: OnCreate | None = None
    ) -> AbstractAsyncContextManager[Store]:
        return Commands().open_store(data_dir or self.data_dir, on_create)

    def back_up(self, data_dir: Path | None, target: Path) -> BackupSummary:
        return Commands().back_up(data_dir or self.data_dir, target)

    def restore(self, source: Path, data_dir: Path | None) -> BackupSummary:
        return Commands().restore(source, data_dir or self.data_dir)

    def create_api_key(
        self,
        name: str,
        scopes: Sequence[str],
        expires_at: datetime | None,
        data_dir: Path | None,
        on_create: OnCreate,
    ) -> str:
        if self.refusal:
            raise self.refusal
        self.created_keys.append((name, scopes, expires_at, data_dir))
        return "lr_test-of-a-key"

    def manifests(self, namespace: str, image: str, executor_image: str, *, labelled_credentials: bool) -> str:
        return installation(namespace, image, executor_image, labelled_credentials=labelled_credentials)

    def custom_resources(self) -> str:
        return custom_resources()

    async def login_link(self, data_dir: Path | None, url: str) -> str:
        return f"{url}/login-of/{(data_dir or self.data_dir).name}"

    def problems_in(self, kind: str, name: str, spec: dict[str, Any]) -> Sequence[Problem]:
        return problems_in(kind, name, spec)

    def settings(self) -> EngineSettings:
        return EngineSettings()

    def keeps_open_network(self) -> bool:
        return Commands().keeps_open_network()

    def stored(self, kind: type[R]) -> Sequence[R]:
        return Commands().stored(kind)

    def cluster_network(self) -> tuple[str | None, bool | None]:
        return Commands().cluster_network()


class Ended(NamedTuple):
    """The exit code and the output of a command."""

    code: int
    out: str
    err: str


Labrats = Callable[..., Ended]
"""A function that runs `labrats` with arguments."""


def a_job(**fields: Any) -> dict[str, Any]:
    """Build the detail of a job as the API answers it."""
    return {
        "id": "ir-3ab1c2d4",
        "name": "implement-issue",
        "source": "github",
        "agentRole": None,
        "repo": "octocat/hello-world",
        "status": "completed",
        "attempts": 1,
        "createdAt": "2030-01-01T12:00:00Z",
        "processedAt": "2030-01-01T12:00:02Z",
        "finishedAt": "2030-01-01T12:00:44Z",
        "failedReason": None,
        "failedCode": None,
        "cancelRequestedAt": None,
        "result": "done",
        "returnvalue": "done",
        "logs": [],
        "priority": 2,
        "config": {"provider": "mock", "model": "mock", "effort": "medium"},
        "usage": {"inputTokens": 0, "outputTokens": 0, "cacheReadTokens": 0, "costUsd": 0.0, "turns": 0},
        "outputs": {"branch": None, "commit": None, "pullRequestUrl": None},
        "workspaceSetup": None,
        "metadata": {},
    } | fields
