"""An engine installed with Helm, behind the interface of the acceptance tests."""

import asyncio
import base64
import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any, NoReturn

import httpx2
import pytest

from labrats.model.core_resources import JOB_CREDENTIALS
from tests.acceptance.engine import PATIENCE_SECONDS, Engine, User, an_http_client
from tests.chart.installation import Installation
from tests.support.waiting import poll_intervals


class InstalledEngine(Engine):
    """The engine of an installation, reached through its Service at `url`.

    A test that needs something an installation does not have is skipped with a reason.
    """

    many_jobs = 12  # twice the slots; the test's node starts about one pod in two seconds
    many_slots = 6
    start_seconds = 8.0

    def __init__(self, installation: Installation, url: str) -> None:
        self.url = url
        self.executor_image = installation.executor_image
        self._installation = installation
        self._admin_key = installation.admin_key

    @property
    def admin_key(self) -> str:
        return self._admin_key

    @property
    def log(self) -> str:
        return self._installation.log("api") + self._installation.log("controller")

    def run_labrats(self, *arguments: str) -> str:
        return self._installation.run_labrats(*arguments)

    def set_secret(self, name: str, key: str, value: str) -> None:
        metadata = {"name": name, "labels": dict(JOB_CREDENTIALS)}
        secret = {"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "stringData": {key: value}}
        self._installation.kubectl("apply", "-f", "-", stdin=json.dumps(secret))

    async def login_link(self) -> str:
        return self.run_labrats("login-link", "--url", self.url).strip()

    async def scrapes(self) -> list[httpx2.Response]:
        found = []
        for address in self._installation.addresses("api") + self._installation.addresses("controller"):
            with self._installation.reach(address, 3001) as url:
                async with an_http_client(url) as client:
                    found.append(await client.get("/metrics"))
        return found

    @asynccontextmanager
    async def user(self, *, scopes: Sequence[str] = ("submit",), **fields: Any) -> AsyncIterator[User]:
        """Yield a user once all pods know the key. The other pods learn of it through their watches."""
        async with super().user(scopes=scopes, **fields) as user:
            pause = poll_intervals()
            async with asyncio.timeout(PATIENCE_SECONDS):
                while not fields and (await user.get("/api/jobs")).status_code == 401:
                    await asyncio.sleep(next(pause))
            yield user

    @property
    def admin_key_file(self) -> NoReturn:
        pytest.skip("an engine with several replicas has no admin key file")

    def workspace(self, job_id: str, attempt: int = 1) -> NoReturn:
        pytest.skip("a workspace ends with its attempt's pod")

    def files_with(self, text: str) -> list[str]:
        return self._installation.files_with(text)

    def resources_with(self, text: str) -> list[str]:
        kinds = ("inferencerequests", "aimodels", "secrets", "configmaps", "jobs", "pods", "events")
        objects = [each for kind in kinds for each in self._installation.get(kind)]
        return [f"{each['kind']} {each['metadata']['name']}" for each in objects if text in str(_decoded(each))]

    def processes_of(self, job_id: str) -> list[str]:
        pods = self._installation.get("pods", f"--selector=labrats.work/job={job_id}")
        return [pod["metadata"]["name"] for pod in pods if pod["status"]["phase"] in ("Pending", "Running")]


def _decoded(each: dict[str, Any]) -> dict[str, Any]:
    """Return the object, with decoded values if it is a Secret."""
    if each["kind"] != "Secret":
        return each
    return each | {"data": {key: base64.b64decode(value) for key, value in each.get("data", {}).items()}}
