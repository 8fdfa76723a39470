"""Every endpoint works, both on one machine and on an installation. Each group of endpoints is called once."""

import secrets
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import httpx2

from labrats.api.auth.permissions import TABLE
from tests.acceptance.engine import Engine, User, a_submission
from tests.support.pdfs import a_manual

NOT_CALLED = {
    ("GET", "/api/openapi.json"),
    ("GET", "/api/auth/oidc/callback"),
    ("GET", "/api/agents/triggers"),
    ("GET", "/api/changes"),
    ("GET", "/api/github/app"),
    ("POST", "/api/github/app"),
    ("POST", "/api/github/app/form"),
    ("POST", "/api/github/connection"),
}
"""Routes that need another program (an OpenID provider, GitHub), are documented as aliases, or are tested elsewhere."""

DIGEST = "0" * 64


@dataclass
class CallRecorder:
    """An admin's client that records its calls. called: the method and path of each call so far."""

    admin: User
    called: set[tuple[str, str]] = field(default_factory=set)

    async def call(self, method: str, path: str, *names: str, status: int | Sequence[int] = 200, **options: Any) -> Any:
        """Call an endpoint, check the status, and return the answer's JSON, or the answer itself if it is not JSON.

        names: values for each `{}` in `path`.
        """
        self.called.add((method, path))
        answer: httpx2.Response = await self.admin.http.request(method, path.format(*names), **options)
        assert answer.status_code in ([status] if isinstance(status, int) else status), (method, path, answer.text)
        is_json = answer.headers.get("content-type", "").startswith("application/json")
        return answer.json() if is_json and answer.content else answer


async def test_every_endpoint_answers_with_the_expected_status(engine: Engine, admin: User) -> None:
    recorder, name = CallRecorder(admin), f"walk-{secrets.token_hex(4)}"
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
        await group(recorder, name)

    assert set(TABLE) - recorder.called - NOT_CALLED == set()


async def health(recorder: CallRecorder, name: str) -> None:
    for path in ("/health", "/ready", "/metrics", "/api/docs"):
        await recorder.call("GET", path)
    await recorder.call("GET", "/api/stats")
    await recorder.call("GET", "/api/stats/breakdown", params={"by": "repo"})
    assert (await recorder.call("GET", "/api/system"))["version"]
    await recorder.call("GET", "/api/secrets")
    secret = {"values": {"ANTHROPIC_API_KEY": "sk-test-0123456789"}}
    may_write = (200, 400)  # on a cluster only with `api.writeSecrets`
    await recorder.call("PUT", "/api/secrets/{}", name, json=secret, status=may_write)
    await recorder.call("DELETE", "/api/secrets/{}", name, status=(200, 204, 400))
    assert (await recorder.call("GET", "/api/pause"))["paused"] is False
    assert (await recorder.call("PUT", "/api/pause", json={"paused": False}))["paused"] is False
    await recorder.call("GET", "/api/stats/timeseries", params={"metric": "jobs"}, status=(200, 422))
    await recorder.call("GET", "/api/auth/me")
    await recorder.call("GET", "/api/auth/oidc", status=(404, 501), follow_redirects=False)
    await recorder.call("GET", "/api/auth/link", status=(401, 403, 404, 422))
    own = {"Sec-Fetch-Site": "same-origin"}
    await recorder.call("POST", "/api/auth/link", params={"token": "test-token"}, headers=own, status=401)
    await recorder.call("POST", "/api/auth/oidc/callback", headers=own, status=(401, 404))


async def jobs(recorder: CallRecorder, name: str) -> None:
    job_id = (await recorder.call("POST", "/api/jobs/submit", json=a_submission({"log": "hello"}), status=201))["jobId"]
    assert (await recorder.admin.wait(job_id))["status"] == "completed"
    listed = await recorder.call("GET", "/api/jobs", params={"q": job_id})
    assert [job["id"] for job in listed["jobs"]] == [job_id]
    facets = await recorder.call("GET", "/api/jobs/facets", params={"q": job_id})
    assert facets["status"] == [{"value": "completed", "count": 1}]
    await recorder.call("GET", "/api/jobs/{}", job_id)
    assert "hello" in (await recorder.call("GET", "/api/jobs/{}/logs", job_id)).text
    await recorder.call("GET", "/api/jobs/{}/events", job_id)
    await recorder.call("GET", "/api/jobs/{}/patch", job_id, status=(200, 404))
    await recorder.call("GET", "/api/jobs/{}/bundle", job_id, status=(200, 404))
    assert (await recorder.call("GET", "/api/jobs/{}/prompt", job_id))["prompt"]
    assert (await recorder.call("GET", "/api/jobs/{}/report", job_id))["report"] is None
    assert "result" in await recorder.call("GET", "/api/jobs/{}/result", job_id)
    assert len((await recorder.call("GET", "/api/jobs/{}/attempts", job_id))["attempts"]) == 1
    await recorder.call("POST", "/api/jobs/{}/retry", job_id, status=400)
    await recorder.call("POST", "/api/jobs/{}/publish", job_id, status=400)
    nobody = {"action": "cancel", "filter": {"q": job_id}, "expected": 1}
    await recorder.call("POST", "/api/jobs/bulk", json=nobody, status=409)
    await recorder.call("GET", "/api/jobs/bulk/{}", "bulk-action-0000000000000000", status=404)
    await recorder.call("GET", "/api/queue/jobs", params={"id": job_id})
    again = await recorder.call("POST", "/api/jobs/{}/rerun", job_id, json={}, status=201)
    reply = {"prompt": "Greet again."}
    follow_up = await recorder.call("POST", "/api/jobs/{}/messages", job_id, json=reply, status=201)
    assert (await recorder.admin.wait(again["jobId"]))["rerunOf"] == job_id
    assert (await recorder.admin.wait(follow_up["jobId"]))["followUpOf"] == job_id
    await recorder.call("POST", "/api/jobs/{}/cancel", job_id, status=400)


async def workspace_uploads(recorder: CallRecorder, name: str) -> None:
    files = {"file": ("a.txt", b"hello")}
    uploaded = await recorder.call("POST", "/api/workspace-uploads", files=files, status=201)
    raw = await recorder.call("GET", "/api/workspace-uploads/{}/{}/raw", uploaded["id"], "a.txt")
    assert raw.content == b"hello"
    assert uploaded["id"] in [each["id"] for each in (await recorder.call("GET", "/api/workspace-uploads"))["files"]]
    await recorder.call("DELETE", "/api/workspace-uploads/{}", uploaded["id"], status=204)


async def pdfs(recorder: CallRecorder, name: str) -> None:
    """Upload a PDF, and start a job that extracts its text."""
    uploaded = await recorder.call("POST", "/api/uploads", files={"file": ("manual.pdf", a_manual())}, status=201)
    assert uploaded["id"] in [each["id"] for each in (await recorder.call("GET", "/api/uploads"))["uploads"]]
    body = {"prompt": "Summarise this."}
    job_id = (await recorder.call("POST", "/api/uploads/{}/extract", uploaded["id"], json=body, status=201))["jobId"]
    await recorder.call("POST", "/api/jobs/{}/cancel", job_id, status=(200, 400))
    assert (await recorder.admin.wait(job_id))["name"] == "document-extraction"
    await recorder.call("DELETE", "/api/uploads/{}", uploaded["id"], status=204)


async def agents(recorder: CallRecorder, name: str) -> None:
    await recorder.call("POST", "/api/instructions", json={"name": name, "content": "Be kind."}, status=201)
    await recorder.call("GET", "/api/instructions")
    await recorder.call("GET", "/api/instructions/{}", name)
    await recorder.call("PATCH", "/api/instructions/{}", name, json={"content": "Be kinder."})
    await recorder.call("POST", "/api/agents", json={"name": name, "instructions": [name]}, status=201)
    await recorder.call("GET", "/api/agents")
    await recorder.call("GET", "/api/agents/{}", name)
    await recorder.call("GET", "/api/agents/by-trigger/{}", name)
    await recorder.call("GET", "/api/agents/{}/instructions", name)
    await recorder.call("PATCH", "/api/agents/{}", name, json={"defaultModel": "opus"})
    await recorder.call("POST", "/api/agents/seed", status=(200, 201))
    await recorder.call("DELETE", "/api/agents/{}", name, status=204)
    await recorder.call("DELETE", "/api/instructions/{}", name, status=204)


async def ai_models(recorder: CallRecorder, name: str) -> None:
    body = {"name": name, "provider": "mock", "model": name, "slots": 1}
    await recorder.call("POST", "/api/ai-models", json=body, status=201)
    await recorder.call("GET", "/api/ai-models")
    assert name in [each["aiModel"] for each in (await recorder.call("GET", "/api/queue"))["queues"]]
    await recorder.call("GET", "/api/ai-models/{}", name)
    await recorder.call("PATCH", "/api/ai-models/{}", name, json={"slots": 2})
    await recorder.call("DELETE", "/api/ai-models/{}", name, status=204)


async def models(recorder: CallRecorder, name: str) -> None:
    """Call the endpoints for model files. An installation has no volume for them by default, and answers 501."""
    await recorder.call("GET", "/api/models", status=(200, 501))
    await recorder.call("POST", "/api/models/scan", status=(200, 501))
    await recorder.call("GET", "/api/models/jobs", status=(200, 501))
    await recorder.call("GET", "/api/models/jobs/{}/logs", name, status=(404, 501))
    await recorder.call("DELETE", "/api/models/{}/{}", "qwen", f"{name}.gguf", status=(404, 501))
    body = {"provider": "qwen", "model": name, "url": "https://127.0.0.1/a.gguf", "sha256": DIGEST}
    await recorder.call("POST", "/api/models/download", json=body, status=(422, 501))


async def configuration(recorder: CallRecorder, name: str) -> None:
    await recorder.call("GET", "/api/config/defaults")
    await recorder.call("PUT", "/api/config/defaults", json={})
    await recorder.call("GET", "/api/config/sources")
    await recorder.call("PUT", "/api/config/sources/{}", name, json={"effort": "low"})
    await recorder.call("GET", "/api/config/sources/{}", name)
    await recorder.call("DELETE", "/api/config/sources/{}", name)


async def events(recorder: CallRecorder, name: str) -> None:
    event = {"source": name, "event": "made", "payload": {"answer": 42}}
    await recorder.call("POST", "/api/events/ingest", json=event, status=(200, 201, 202))
    assert (await recorder.call("POST", "/api/events/test", json=event))["matched"] == 0


async def webhooks(recorder: CallRecorder, name: str) -> None:
    body = {"name": name, "type": "github", "secret": "a-secret-of-webhooks"}
    await recorder.call("POST", "/api/webhook-sources", json=body, status=201)
    await recorder.call("GET", "/api/webhook-sources")
    await recorder.call("GET", "/api/webhook-sources/{}", name)
    await recorder.call("GET", "/api/webhook-sources/{}/deliveries", name)
    await recorder.call("GET", "/api/webhook-sources/{}/deliveries/{}", name, "0" * 20, status=404)
    await recorder.call("PATCH", "/api/webhook-sources/{}", name, json={"enabled": False})
    await recorder.call("POST", "/webhooks/{}", name, json={}, status=(401, 404))
    await recorder.call("POST", "/api/webhooks/github", json={}, status=(401, 404))
    await recorder.call("DELETE", "/api/webhook-sources/{}", name, status=204)


async def keys(recorder: CallRecorder, name: str) -> None:
    created = await recorder.call("POST", "/api/api-keys", json={"name": name, "scopes": ["submit"]}, status=201)
    assert created["id"] in [key["id"] for key in (await recorder.call("GET", "/api/api-keys"))["apiKeys"]]
    await recorder.call("DELETE", "/api/api-keys/{}", created["id"], status=204)
    await recorder.call("POST", "/api/auth/logout", status=(200, 204))
