"""Every endpoint does its work, on one machine and on an installation: each group is walked once, to its end."""

import secrets
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import httpx2

from labrats.api.auth.permissions import TABLE
from tests.acceptance.engine import Engine, User, a_submission
from tests.support.pdfs import a_manual

SEEN_ELSEWHERE = {("GET", "/api/openapi.json"), ("GET", "/api/auth/oidc/callback"), ("GET", "/api/agents/triggers")}
"""Routes whose answers need another program (an OpenID provider), or that are documented as aliases."""

DIGEST = "0" * 64


@dataclass
class Walk:
    """An admin who calls endpoints and notes which. `{}` in a path stands for the next of `names`."""

    admin: User
    called: set[tuple[str, str]] = field(default_factory=set)

    async def call(self, method: str, path: str, *names: str, status: int | Sequence[int] = 200, **options: Any) -> Any:
        """Return the answer's JSON, or the answer where it is none. It must have the status."""
        self.called.add((method, path))
        answer: httpx2.Response = await self.admin.http.request(method, path.format(*names), **options)
        assert answer.status_code in ([status] if isinstance(status, int) else status), (method, path, answer.text)
        is_json = answer.headers.get("content-type", "").startswith("application/json")
        return answer.json() if is_json and answer.content else answer


async def test_every_endpoint_does_its_work(engine: Engine, admin: User) -> None:
    walk, name = Walk(admin), f"walk-{secrets.token_hex(4)}"
    for group in (
        health,
        jobs,
        workspace_uploads,
        pdfs,
        agents,
        ai_models,
        models,
        configuration,
        events,
        webhooks,
        keys,
    ):
        await group(walk, name)

    assert set(TABLE) - walk.called - SEEN_ELSEWHERE == set()


async def health(walk: Walk, name: str) -> None:
    for path in ("/health", "/ready", "/metrics", "/api/docs"):
        await walk.call("GET", path)
    await walk.call("GET", "/api/stats")
    await walk.call("GET", "/api/stats/timeseries", params={"metric": "jobs"}, status=(200, 422))
    await walk.call("GET", "/api/auth/me")
    await walk.call("GET", "/api/auth/oidc", status=(404, 501), follow_redirects=False)
    await walk.call("GET", "/api/auth/link", status=(401, 403, 404, 422))


async def jobs(walk: Walk, name: str) -> None:
    job_id = (await walk.call("POST", "/api/jobs/submit", json=a_submission({"log": "hello"}), status=201))["jobId"]
    assert (await walk.admin.wait(job_id))["status"] == "completed"
    listed = await walk.call("GET", "/api/jobs", params={"q": job_id})
    assert [job["id"] for job in listed["jobs"]] == [job_id]
    await walk.call("GET", "/api/jobs/{}", job_id)
    assert "hello" in (await walk.call("GET", "/api/jobs/{}/logs", job_id)).text
    await walk.call("GET", "/api/jobs/{}/events", job_id)
    await walk.call("GET", "/api/jobs/{}/patch", job_id, status=(200, 404))
    await walk.call("POST", "/api/jobs/{}/retry", job_id, status=400)
    await walk.call("POST", "/api/jobs/{}/cancel", job_id, status=400)


async def workspace_uploads(walk: Walk, name: str) -> None:
    files = {"file": ("a.txt", b"hello")}
    kept = await walk.call("POST", "/api/workspace-uploads", files=files, status=201)
    raw = await walk.call("GET", "/api/workspace-uploads/{}/{}/raw", kept["id"], "a.txt")
    assert raw.content == b"hello"
    assert kept["id"] in [each["id"] for each in (await walk.call("GET", "/api/workspace-uploads"))["files"]]
    await walk.call("DELETE", "/api/workspace-uploads/{}", kept["id"], status=204)


async def pdfs(walk: Walk, name: str) -> None:
    """From a PDF on somebody's disk to a job that is given it."""
    kept = await walk.call("POST", "/api/uploads", files={"file": ("manual.pdf", a_manual())}, status=201)
    assert kept["id"] in [each["id"] for each in (await walk.call("GET", "/api/uploads"))["uploads"]]
    asked = {"prompt": "Summarise this."}
    job_id = (await walk.call("POST", "/api/uploads/{}/extract", kept["id"], json=asked, status=201))["jobId"]
    await walk.call("POST", "/api/jobs/{}/cancel", job_id, status=(200, 400))
    assert (await walk.admin.wait(job_id))["name"] == "document-extraction"
    await walk.call("DELETE", "/api/uploads/{}", kept["id"], status=204)


async def agents(walk: Walk, name: str) -> None:
    await walk.call("POST", "/api/instructions", json={"name": name, "content": "Be kind."}, status=201)
    await walk.call("GET", "/api/instructions")
    await walk.call("GET", "/api/instructions/{}", name)
    await walk.call("PATCH", "/api/instructions/{}", name, json={"content": "Be kinder."})
    await walk.call("POST", "/api/agents", json={"name": name, "instructions": [name]}, status=201)
    await walk.call("GET", "/api/agents")
    await walk.call("GET", "/api/agents/{}", name)
    await walk.call("GET", "/api/agents/by-trigger/{}", name)
    await walk.call("GET", "/api/agents/{}/instructions", name)
    await walk.call("PATCH", "/api/agents/{}", name, json={"defaultModel": "opus"})
    await walk.call("POST", "/api/agents/seed", status=(200, 201))
    await walk.call("DELETE", "/api/agents/{}", name, status=204)
    await walk.call("DELETE", "/api/instructions/{}", name, status=204)


async def ai_models(walk: Walk, name: str) -> None:
    made = {"name": name, "provider": "mock", "model": name, "slots": 1}
    await walk.call("POST", "/api/ai-models", json=made, status=201)
    await walk.call("GET", "/api/ai-models")
    await walk.call("GET", "/api/ai-models/{}", name)
    await walk.call("PATCH", "/api/ai-models/{}", name, json={"slots": 2})
    await walk.call("DELETE", "/api/ai-models/{}", name, status=204)


async def models(walk: Walk, name: str) -> None:
    """Without a volume for them, as an installation is by default, files of models are no part of the engine: 501."""
    await walk.call("GET", "/api/models", status=(200, 501))
    await walk.call("POST", "/api/models/scan", status=(200, 501))
    await walk.call("GET", "/api/models/jobs", status=(200, 501))
    await walk.call("GET", "/api/models/jobs/{}/logs", name, status=(404, 501))
    await walk.call("DELETE", "/api/models/{}/{}", "qwen", f"{name}.gguf", status=(404, 501))
    asked = {"provider": "qwen", "model": name, "url": "https://127.0.0.1/a.gguf", "sha256": DIGEST}
    await walk.call("POST", "/api/models/download", json=asked, status=(422, 501))


async def configuration(walk: Walk, name: str) -> None:
    await walk.call("GET", "/api/config/defaults")
    await walk.call("PUT", "/api/config/defaults", json={})
    await walk.call("GET", "/api/config/sources")
    await walk.call("PUT", "/api/config/sources/{}", name, json={"effort": "low"})
    await walk.call("GET", "/api/config/sources/{}", name)
    await walk.call("DELETE", "/api/config/sources/{}", name)


async def events(walk: Walk, name: str) -> None:
    event = {"source": name, "event": "made", "payload": {"answer": 42}}
    await walk.call("POST", "/api/events/ingest", json=event, status=(200, 201, 202))


async def webhooks(walk: Walk, name: str) -> None:
    made = {"name": name, "type": "github", "secret": "a-secret-of-webhooks"}
    await walk.call("POST", "/api/webhook-sources", json=made, status=201)
    await walk.call("GET", "/api/webhook-sources")
    await walk.call("GET", "/api/webhook-sources/{}", name)
    await walk.call("PATCH", "/api/webhook-sources/{}", name, json={"enabled": False})
    await walk.call("POST", "/webhooks/{}", name, json={}, status=(401, 404))
    await walk.call("POST", "/api/webhooks/github", json={}, status=(401, 404))
    await walk.call("DELETE", "/api/webhook-sources/{}", name, status=204)


async def keys(walk: Walk, name: str) -> None:
    made = await walk.call("POST", "/api/api-keys", json={"name": name, "scopes": ["submit"]}, status=201)
    assert made["id"] in [key["id"] for key in (await walk.call("GET", "/api/api-keys"))["apiKeys"]]
    await walk.call("DELETE", "/api/api-keys/{}", made["id"], status=204)
    await walk.call("POST", "/api/auth/logout", status=(200, 204))
