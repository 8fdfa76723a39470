"""The API of an engine in memory, with fakes for the store, the runner and the clock."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx2
import pytest
from starlette.types import ASGIApp

from labrats.api.app import create_app
from labrats.api.auth.keys import ApiKeyIndex, key_secret
from labrats.api.auth.sessions import Sessions, Signer, User
from labrats.api.model_file_scans import ModelFileScans
from labrats.api.services import Services
from labrats.backends.embedded.model_files import LocalModelFiles
from labrats.files.attachments import Attachments
from labrats.files.model_folder import ModelFolder
from labrats.files.uploads import Uploads
from labrats.github.forge import GitHubForge
from labrats.index.catalog import Catalog
from labrats.index.jobs import JobIndex
from labrats.intake.signing_secrets import StoredSecrets
from labrats.metrics import Metrics
from labrats.model.caller import ADMIN, SUBMIT
from labrats.net.client import OutboundClient
from labrats.ports import Clock
from labrats.settings import EngineSettings
from tests.fakes.clock import FakeClock
from tests.fakes.runner import MemoryMachine, MemoryRunner
from tests.fakes.store import MemoryStore
from tests.support.controllers import a_controller

KEYS = {"user": "test-key-of-a-user", "other": "test-key-of-another", "admin": "test-key-of-the-admin"}
CLOSED_PORT = 9
"""A port where no GitHub listens."""

SESSION_SECRET = "test-secret-of-the-sessions-of-a-test"
USER = User("user-of-a-test", "Ada", "ada@example.com")


@dataclass(frozen=True)
class Api:
    """The application, its services and the fakes."""

    services: Services
    app: ASGIApp
    store: MemoryStore
    clock: FakeClock

    def client(self, who: str | None = "user") -> httpx2.AsyncClient:
        """Return a client with the key of `user`, `other` or `admin`, or without a key."""
        headers = {"Authorization": f"Bearer {KEYS[who]}"} if who else {}
        transport = httpx2.ASGITransport(self.app)
        return httpx2.AsyncClient(transport=transport, base_url="http://engine.test", headers=headers)

    def browser(self, user: User | None = USER) -> httpx2.AsyncClient:
        """Return a client that sends requests like a page of the dashboard. `user` is signed in."""
        client = self.client(None)
        client.headers["Sec-Fetch-Site"] = "same-origin"
        if user:
            client.cookies["auth_token"] = self.services.sessions.begin(user, self.clock.now())
        return client


@asynccontextmanager
async def api_in_memory(
    folder: Path,
    make_store: Callable[[Clock], MemoryStore] = MemoryStore,
    *,
    handles_files: bool = True,
    **settings: Any,
) -> AsyncIterator[Api]:
    """Run an engine in memory that runs jobs and knows the three KEYS.

    handles_files: download and delete model files, in threads for which virtual time does not wait.
    """
    clock = FakeClock()
    store = make_store(clock)
    for who, key in KEYS.items():
        await store.create(key_secret(who, key, [ADMIN if who == "admin" else SUBMIT]))
    async with MemoryMachine(clock) as machine, asyncio.TaskGroup() as loops:
        catalog, metrics = Catalog(), Metrics()
        allowed = settings.get("outbound_allowed_cidrs", ())
        model_files = LocalModelFiles(ModelFolder(folder / "models", OutboundClient(allowed), 2**26), clock)
        usual: dict[str, Any] = {
            "data_dir": folder,
            "allowed_hosts": ("engine.test",),
            "github_api_url": f"http://127.0.0.1:{CLOSED_PORT}",
        }
        engine_settings = EngineSettings(**usual | settings)
        forge = GitHubForge(engine_settings, clock, metrics)
        services = Services(
            store=store,
            runner=MemoryRunner(store, machine),
            clock=clock,
            settings=engine_settings,
            job_index=JobIndex(),
            catalog=catalog,
            api_keys=ApiKeyIndex([]),
            sessions=Sessions(Signer(SESSION_SECRET), timedelta(hours=12)),
            attachments=Attachments(folder / "uploads"),
            workspace_uploads=Uploads(folder / "uploads"),
            pdf_uploads=Uploads(folder / "workspaces" / "uploads", stored_as="document.pdf"),
            model_file_scans=ModelFileScans(model_files, clock),
            metrics=metrics,
            signing_secrets=StoredSecrets(store),
            forge=forge,
            forge_setup=forge.setup(),
        )
        controller = a_controller(store, services.runner, catalog, clock, services.settings, metrics)
        followers = (services.job_index, services.catalog, services.api_keys, services.sessions)
        parts = [each.follow(store) for each in followers]
        parts += [
            controller.run(),
            services.deliveries.run(store, clock),
            services.key_uses.run(store, clock),
            services.change_feed.run(store),
            services.activities.run(),
            services.bulk_actions.run(),
        ]
        if handles_files:
            parts.append(model_files.run())
        background = [loops.create_task(part) for part in parts]
        await services.job_index.synced.wait()
        await services.catalog.synced.wait()
        await services.api_keys.synced.wait()
        await services.sessions.synced.wait()
        yield Api(services, create_app(services), store, clock)
        for task in background:
            task.cancel()


@pytest.fixture
async def api(tmp_path: Path) -> AsyncIterator[Api]:
    async with api_in_memory(tmp_path) as api:
        yield api


@pytest.fixture
async def user(api: Api) -> AsyncIterator[httpx2.AsyncClient]:
    async with api.client() as user:
        yield user


@pytest.fixture
async def admin(api: Api) -> AsyncIterator[httpx2.AsyncClient]:
    async with api.client("admin") as admin:
        yield admin


def a_submission(**fields: Any) -> dict[str, Any]:
    """Return a valid submission, with `fields` over its defaults."""
    return {
        "source": "manual",
        "type": "code-review",
        "prompt": "Review the change.",
        "config": {"provider": "mock"},
    } | fields
