"""Signed deliveries are received once each, and start the agents whose triggers match."""

import asyncio
import base64
import hashlib
import hmac
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlencode

import httpx2
import pytest

from labrats.github.events.own_events import note_writes
from labrats.intake.delivery_log import KEPT_REFUSED
from labrats.model.core_resources import ConfigMap, Secret
from labrats.model.job import Job, KeyReference
from labrats.model.record import Metadata, Resource
from labrats.model.webhook_source import OwnWrite, WebhookSource, WebhookSourceSpec
from tests.api.conftest import Api, api_in_memory
from tests.api.test_agent_roles import stored
from tests.fakes.store import MemoryStore
from tests.support.builders import a_trigger, an_agent
from tests.support.deliveries import SECRET, an_issue_event, github_headers, hub_signature, json_body
from tests.support.waiting import DEADLINE_SECONDS

R = TypeVar("R", bound=Resource)

GITHUB = "/api/webhooks/github"


async def add_source(api: Api, name: str = "github", **fields: Any) -> dict[str, Any]:
    async with api.client("admin") as admin:
        asked = {"name": name, "type": "github", "secret": SECRET} | fields
        answer = await admin.post("/api/webhook-sources", json=asked)
    assert answer.status_code == 201, answer.text
    source: dict[str, Any] = answer.json()
    return source


@pytest.fixture
async def nobody(api: Api) -> AsyncIterator[httpx2.AsyncClient]:
    """Return a client without an API key, as GitHub has none."""
    async with api.client(None) as nobody:
        yield nobody


async def deliver(
    nobody: httpx2.AsyncClient, payload: Any, event: str = "issues", path: str = GITHUB, **how: str
) -> httpx2.Response:
    body = json_body(payload)
    return await nobody.post(path, content=body, headers=github_headers(event, body, **how))


async def accepted(nobody: httpx2.AsyncClient, payload: Any, event: str = "issues", **how: str) -> dict[str, Any]:
    answer = await deliver(nobody, payload, event, **how)
    assert answer.status_code == 200, answer.text
    received: dict[str, Any] = answer.json()
    return received


class TestFromGithub:
    @pytest.mark.parametrize("path", [GITHUB, "/webhooks/github"])
    async def test_a_signed_delivery_starts_the_agents_whose_triggers_match(
        self, api: Api, nobody: httpx2.AsyncClient, path: str
    ) -> None:
        await add_source(api)
        await stored(api, an_agent("a", a_trigger("issues.labeled", filters={"label.name": "ai"})), an_agent("b"))

        answer = await accepted(nobody, an_issue_event(), path=path)

        assert (answer["ok"], answer["matched"], [job["agent"] for job in answer["jobs"]]) == (True, 1, ["a"])
        (job,) = await api.store.list(Job)
        assert job.id == answer["jobs"][0]["jobId"]
        assert (job.spec.source, job.spec.owner) == ("github", "webhook-source/github")
        assert job.spec.metadata["repo"] == "octo/demo"

    async def test_a_ping_is_answered(self, api: Api, nobody: httpx2.AsyncClient) -> None:
        await add_source(api)
        for body in ({"zen": "Speak.", "hook_id": 1, "hook": {}}, {}, an_issue_event()):
            assert await accepted(nobody, body, "ping") == {"ok": True}
        assert await api.store.list(Job) == []

    async def test_a_form_is_accepted_like_json(self, api: Api, nobody: httpx2.AsyncClient) -> None:
        await add_source(api)
        await stored(api, an_agent("a", a_trigger()))
        body = urlencode({"payload": json_body(an_issue_event()).decode()}).encode()
        headers = github_headers("issues", body) | {"Content-Type": "application/x-www-form-urlencoded"}
        assert (await nobody.post(GITHUB, content=body, headers=headers)).json()["matched"] == 1

    async def test_events_start_ten_jobs_for_an_issue_within_an_hour(
        self, api: Api, nobody: httpx2.AsyncClient
    ) -> None:
        source = await add_source(api, credentialsRef="person")
        await stored(api, an_agent("a", a_trigger()), an_agent("b", a_trigger()))

        started = [await accepted(nobody, an_issue_event(number=number)) for number in range(7)]

        assert [answer["matched"] for answer in started] == [2] * 5 + [0] * 2
        assert "events have started 10 jobs for this issue or pull request" in started[-1]["ignored"]
        assert (await accepted(nobody, an_issue_event(number=0)))["jobs"] == started[0]["jobs"]
        stored_source = await api.store.get(WebhookSource, source["name"])
        (notice,) = stored_source.status.thread_requests
        assert notice.answer
        assert "events may start 10 jobs" in (notice.answer.text or "")
        elsewhere = an_issue_event(issue=an_issue_event()["issue"] | {"number": 8})
        assert (await accepted(nobody, elsewhere))["matched"] == 2

    async def test_label_of_the_engine_itself_starts_no_agent(self, api: Api, nobody: httpx2.AsyncClient) -> None:
        await add_source(api, credentialsRef="person")
        await stored(api, an_agent("a", a_trigger()))
        write = OwnWrite(at=api.services.clock.now(), login="octo", repository="octo/demo", number=7, label="ai")
        await note_writes(api.store, "github", [write], write.at)

        assert (await accepted(nobody, an_issue_event()))["ignored"] == "the engine itself has added this label"
        other = an_issue_event(label={"name": "other"})
        assert (await accepted(nobody, other))["matched"] == 1

    async def test_an_unauthorized_event_is_answered_with_the_reason(
        self, api: Api, nobody: httpx2.AsyncClient
    ) -> None:
        await add_source(api)
        await stored(api, an_agent("a", a_trigger("issues.*")))
        stranger = {"id": 2, "login": "stranger", "type": "User"}

        answer = await accepted(nobody, an_issue_event("opened", sender=stranger))

        assert (answer["matched"], answer["ignored"]) == (0, "its author is not one of `allowedAssociations`")
        assert await api.store.list(Job) == []


class TestSignature:
    @pytest.mark.parametrize(
        "signature",
        [
            None,
            "",
            "sha256=",
            "sha1={sha1}",
            "sha256={sha1}",
            "{hex}",
            "sha256={HEX}",
            "SHA256={hex}",
            "sha256={hex} ",
            "sha256= {hex}",
            "sha256={hex},sha256={hex}",
            "sha256=é{hex}",
        ],
    )
    async def test_a_malformed_signature_is_refused(
        self, api: Api, nobody: httpx2.AsyncClient, signature: str | None
    ) -> None:
        await add_source(api)
        body = json_body(an_issue_event())
        good = hub_signature(body).removeprefix("sha256=")
        sha1 = hmac.new(SECRET.encode(), body, "sha1").hexdigest()
        headers = [(name.encode(), value.encode()) for name, value in github_headers("issues", body).items()][:-1]
        if signature is not None:
            sent = signature.format(hex=good, HEX=good.upper(), sha1=sha1)
            headers.append((b"X-Hub-Signature-256", sent.encode("latin-1")))
        answer = await nobody.post(GITHUB, content=body, headers=headers)
        assert (answer.status_code, answer.json()["code"]) == (401, "unauthorized")

    async def test_two_signature_headers_are_refused_although_both_are_valid(
        self, api: Api, nobody: httpx2.AsyncClient
    ) -> None:
        await add_source(api)
        body = json_body(an_issue_event())
        headers = [*github_headers("issues", body).items(), ("X-Hub-Signature-256", hub_signature(body))]
        assert (await nobody.post(GITHUB, content=body, headers=headers)).status_code == 401

    async def test_an_unsigned_body_is_not_parsed(self, api: Api, nobody: httpx2.AsyncClient) -> None:
        await add_source(api)
        for body in (b"{", b"\xff", b"[" * 100_000):
            headers = github_headers("issues", body, secret="test-secret-of-another")
            assert (await nobody.post(GITHUB, content=body, headers=headers)).status_code == 401

    async def test_a_delivery_belongs_to_the_source_whose_secret_signed_it(
        self, api: Api, nobody: httpx2.AsyncClient
    ) -> None:
        await add_source(api, "a-first", secret="test-secret-number-one")
        await add_source(
            api, "b-second", secret="test-secret-number-two", defaults={"model": "opus", "provider": "mock"}
        )
        await stored(api, an_agent("a", a_trigger()))

        await accepted(nobody, an_issue_event(), secret="test-secret-number-two")

        (job,) = await api.store.list(Job)
        assert (job.spec.owner, job.resolved.model) == ("webhook-source/b-second", "opus")
        assert (await deliver(nobody, an_issue_event(), secret="test-secret-number-three")).status_code == 401

    async def test_the_address_of_a_source_refuses_another_sources_secret(
        self, api: Api, nobody: httpx2.AsyncClient
    ) -> None:
        await add_source(api, "one", secret="test-secret-number-one")
        await add_source(api, "two", secret="test-secret-number-two")
        answer = await deliver(nobody, an_issue_event(), path="/webhooks/one", secret="test-secret-number-two")
        assert answer.status_code == 401

    async def test_a_disabled_or_deleted_source_is_not_found(self, api: Api, nobody: httpx2.AsyncClient) -> None:
        await add_source(api)
        async with api.client("admin") as admin:
            await admin.patch("/api/webhook-sources/github", json={"enabled": False})
            assert (await deliver(nobody, an_issue_event(), path="/webhooks/github")).status_code == 404
            assert (await deliver(nobody, an_issue_event())).status_code == 401
            await admin.delete("/api/webhook-sources/github")
        assert (await deliver(nobody, an_issue_event(), path="/webhooks/github")).status_code == 404

    async def test_a_new_secret_replaces_the_old_one_at_once(self, api: Api, nobody: httpx2.AsyncClient) -> None:
        await add_source(api)
        async with api.client("admin") as admin:
            await admin.patch("/api/webhook-sources/github", json={"secret": "test-secret-number-new"})
        assert (await deliver(nobody, an_issue_event())).status_code == 401
        assert (await deliver(nobody, an_issue_event(), secret="test-secret-number-new")).status_code == 200

    @pytest.mark.parametrize("declared", [True, False])
    async def test_a_delivery_of_more_than_25_mib_is_refused(
        self, api: Api, nobody: httpx2.AsyncClient, declared: bool
    ) -> None:
        await add_source(api)
        body = b'{"zen": "' + b"x" * 25 * 2**20 + b'"}'

        async def chunks() -> AsyncIterator[bytes]:
            for start in range(0, len(body), 2**20):
                yield body[start : start + 2**20]

        for path in (GITHUB, "/webhooks/github"):
            headers = github_headers("ping", body)
            answer = await nobody.post(path, content=body if declared else chunks(), headers=headers)
            assert answer.status_code == 413

    @pytest.mark.parametrize("path", [GITHUB, "/webhooks/github"])
    @pytest.mark.parametrize("sources", ["none", "disabled"])
    async def test_a_body_that_no_source_can_have_signed_is_not_received(
        self, api: Api, nobody: httpx2.AsyncClient, path: str, sources: str
    ) -> None:
        if sources == "disabled":
            await add_source(api, enabled=False)
        received = 0

        async def chunks() -> AsyncIterator[bytes]:
            nonlocal received
            for _ in range(100):
                received += 2**16
                yield b"x" * 2**16

        answer = await nobody.post(path, content=chunks(), headers=github_headers("ping", b""))
        assert answer.status_code == (401 if path == GITHUB else 404)
        assert received <= 2**16


class TestShape:
    @pytest.mark.parametrize(
        ("event", "claimed"),
        [("issues", "issue_comment"), ("issues", "pull_request"), ("issues", "made_up"), ("issues", "push")],
    )
    async def test_a_body_is_refused_under_the_name_of_another_event(
        self, api: Api, nobody: httpx2.AsyncClient, event: str, claimed: str
    ) -> None:
        await add_source(api)
        await stored(api, an_agent("a", a_trigger("*")))
        answer = await deliver(nobody, an_issue_event(), claimed)
        assert answer.status_code == 400
        assert claimed in answer.json()["error"]
        assert await api.store.list(Job) == []

    async def test_a_delivery_without_an_event_name_is_refused(self, api: Api, nobody: httpx2.AsyncClient) -> None:
        await add_source(api)
        body = json_body(an_issue_event())
        headers = github_headers("issues", body)
        del headers["X-GitHub-Event"]
        answer = await nobody.post(GITHUB, content=body, headers=headers)
        assert (answer.status_code, "X-GitHub-Event" in answer.json()["error"]) == (400, True)

    @pytest.mark.parametrize(
        ("body", "content_type", "status"),
        [
            (b"{", "application/json", 400),
            (b"[]", "application/json", 400),
            (b"\xff", "application/json", 400),
            (b"{}", "text/plain", 415),
            (b"payload=%7B", "application/x-www-form-urlencoded", 400),
            (b"other=1", "application/x-www-form-urlencoded", 400),
            (b"payload=%7B%7D&payload=%7B%7D", "application/x-www-form-urlencoded", 400),
        ],
    )
    async def test_a_body_that_is_no_json_object_is_refused(
        self, api: Api, nobody: httpx2.AsyncClient, body: bytes, content_type: str, status: int
    ) -> None:
        await add_source(api)
        headers = github_headers("issues", body) | {"Content-Type": content_type}
        assert (await nobody.post(GITHUB, content=body, headers=headers)).status_code == status


class TestOnce:
    async def test_the_same_body_creates_one_job_although_its_delivery_id_differs(
        self, api: Api, nobody: httpx2.AsyncClient
    ) -> None:
        await add_source(api)
        await stored(api, an_agent("a", a_trigger()))
        first = await accepted(nobody, an_issue_event())

        again = await asyncio.gather(
            *(accepted(nobody, an_issue_event(), delivery=delivery) for delivery in ("one", "two", "three"))
        )

        assert again == [first] * 3
        assert len(await api.store.list(Job)) == 1

    async def test_the_same_delivery_id_creates_one_job_although_its_body_differs(
        self, api: Api, nobody: httpx2.AsyncClient
    ) -> None:
        await add_source(api)
        await stored(api, an_agent("a", a_trigger()))
        first = await accepted(nobody, an_issue_event(), delivery="the-same")
        other = an_issue_event() | {"changed": True}

        assert await accepted(nobody, other, delivery="the-same") == first
        assert await accepted(nobody, other, delivery="another") != first
        assert len(await api.store.list(Job)) == 2

    async def test_two_descriptions_of_one_event_create_one_job(self, api: Api, nobody: httpx2.AsyncClient) -> None:
        await add_source(api)
        await stored(api, an_agent("a", a_trigger("issues.*")))
        first, later, other = (
            an_issue_event(issue=an_issue_event()["issue"] | {"id": 1007, "title": title, "updated_at": at})
            for title, at in (
                ("It crashes", "2026-01-01T12:00:00Z"),
                ("It crashed", "2026-01-01T12:00:01Z"),
                ("It crashes", "2026-01-01T12:00:09Z"),
            )
        )

        jobs = [(await accepted(nobody, each))["jobs"][0]["jobId"] for each in (first, later, other)]

        assert jobs[0] == jobs[1] != jobs[2]
        assert len(await api.store.list(Job)) == 2

    async def test_a_delivery_id_is_deleted_with_its_job(self, api: Api, nobody: httpx2.AsyncClient) -> None:
        await add_source(api)
        await stored(api, an_agent("a", a_trigger()))
        first = await accepted(nobody, an_issue_event(), delivery="the-same")
        await api.store.delete(Job, first["jobs"][0]["jobId"])
        assert [part for part in await api.store.list(ConfigMap) if part.name.startswith("delivery-")] == []

    async def test_the_answer_explains_why_no_agent_starts(self, api: Api, nobody: httpx2.AsyncClient) -> None:
        await add_source(api)
        ignored = (await accepted(nobody, an_issue_event()))["ignored"]
        assert ignored == "no agent has a trigger for issues.labeled of github"
        await stored(api, an_agent("a", a_trigger(enabled=False)))
        assert "is disabled" in (await accepted(nobody, an_issue_event(), delivery="2"))["ignored"]
        await stored(api, an_agent("b", a_trigger(filters={"label.name": "none"})))
        assert "has filters that match" in (await accepted(nobody, an_issue_event(), delivery="3"))["ignored"]

    async def test_a_redelivery_starts_no_agent_created_since(self, api: Api, nobody: httpx2.AsyncClient) -> None:
        await add_source(api)
        await stored(api, an_agent("a", a_trigger()))
        first = await accepted(nobody, an_issue_event())
        await stored(api, an_agent("b", a_trigger()))
        assert await accepted(nobody, an_issue_event(), delivery="two") == first

    async def test_the_same_body_from_two_sources_creates_two_jobs(self, api: Api, nobody: httpx2.AsyncClient) -> None:
        await stored(api, an_agent("a", a_trigger()))
        for name in ("one", "two"):
            await add_source(api, name, secret=f"test-secret-number-{name}")
            await accepted(nobody, an_issue_event(), secret=f"test-secret-number-{name}")
        assert len(await api.store.list(Job)) == 2


class TestOverrides:
    async def test_settings_of_a_repository_override_the_sources_defaults(
        self, api: Api, nobody: httpx2.AsyncClient
    ) -> None:
        override = {"Octo/Demo": {"model": "opus", "effort": "high"}}
        await add_source(api, defaults={"model": "haiku", "provider": "mock", "maxTurns": 3}, repoOverrides=override)
        await stored(api, an_agent("a", a_trigger()))
        await accepted(nobody, an_issue_event())
        (job,) = await api.store.list(Job)
        assert (job.resolved.model, job.resolved.config.effort, job.resolved.max_turns) == ("opus", "high", 3)
        assert job.resolved.origins["model"] == "webhook-source-override"

    async def test_a_disabled_repository_starts_no_agent(self, api: Api, nobody: httpx2.AsyncClient) -> None:
        await add_source(api, repoOverrides={"octo/demo": {"enabled": False}})
        await stored(api, an_agent("a", a_trigger()))
        assert (await accepted(nobody, an_issue_event()))["matched"] == 0

    @pytest.mark.parametrize(("name", "started"), [("b", ["b"]), ("silent", ["silent"]), ("gone", []), ("off", [])])
    async def test_a_repository_may_override_the_agent(
        self, api: Api, nobody: httpx2.AsyncClient, name: str, started: list[str]
    ) -> None:
        await add_source(api, repoOverrides={"octo/demo": {"agentTriggerName": name}})
        await stored(api, an_agent("a", a_trigger()), an_agent("b", a_trigger()), an_agent("silent"))
        await stored(api, an_agent("off", a_trigger(), enabled=False))
        answer = await accepted(nobody, an_issue_event())
        assert [job["agent"] for job in answer["jobs"]] == started


class TestGeneric:
    @pytest.fixture(autouse=True)
    async def source(self, api: Api) -> None:
        await add_source(api, "alerts", type="generic")
        await stored(api, an_agent("a", a_trigger("disk.full", source="alerts")))

    async def test_a_generic_event_is_named_after_its_body(self, api: Api, nobody: httpx2.AsyncClient) -> None:
        for key in ("type", "event"):
            body = json_body({key: "disk.full"})
            headers = {"X-Hub-Signature-256": hub_signature(body), "Content-Type": "application/json"}
            answer = await nobody.post("/webhooks/alerts", content=body, headers=headers)
            assert answer.json()["matched"] == 1, key

    async def test_a_generic_source_receives_nothing_at_githubs_address(
        self, api: Api, nobody: httpx2.AsyncClient
    ) -> None:
        assert (await deliver(nobody, an_issue_event())).status_code == 401

    async def test_standard_webhooks_are_accepted_once_per_id_within_the_time_tolerance(
        self, api: Api, nobody: httpx2.AsyncClient
    ) -> None:
        now = api.clock.now()
        fresh = [await self._deliver(nobody, each, now.timestamp()) for each in ("msg_1", "msg_1", "msg_2")]
        assert [answer.status_code for answer in fresh] == [200] * 3
        assert len(await api.store.list(Job)) == 2
        for late in (now - timedelta(minutes=6), now + timedelta(minutes=6)):
            assert (await self._deliver(nobody, "msg_3", late.timestamp())).status_code == 401

    async def _deliver(self, nobody: httpx2.AsyncClient, message_id: str, timestamp: float) -> httpx2.Response:
        body = json_body({"type": "disk.full"})
        signed = f"{message_id}.{int(timestamp)}.".encode() + body
        digest = base64.b64encode(hmac.digest(SECRET.encode(), signed, hashlib.sha256)).decode()
        headers = {
            "webhook-id": message_id,
            "webhook-timestamp": str(int(timestamp)),
            "webhook-signature": f"v1a,ignored v1,{digest}",
            "Content-Type": "application/json",
        }
        return await nobody.post("/webhooks/alerts", content=body, headers=headers)


async def test_a_receiver_at_another_path_accepts_bodies_of_the_same_size(tmp_path: Path) -> None:
    settings: dict[str, Any] = {
        "role": "webhook-receiver",
        "webhook_source": "github",
        "webhook_path": "/hooks/gh",
        "webhook_secret_file": tmp_path / "secret",
    }
    body = json_body(an_issue_event(text=20 * 2**20 * "x"))
    async with api_in_memory(tmp_path, **settings) as api, api.client(None) as github:
        await api.store.create(Secret(metadata=Metadata(name="signing"), data={"key": SECRET}))
        spec = WebhookSourceSpec(type="github", secret_ref=KeyReference(name="signing", key="key"))
        await stored(api, WebhookSource(metadata=Metadata(name="github"), spec=spec))

        answer = await github.post("/hooks/gh", content=body, headers=github_headers("issues", body))

    assert (answer.status_code, answer.json()["matched"]) == (200, 0)


async def test_deliveries_are_counted(api: Api, nobody: httpx2.AsyncClient) -> None:
    await add_source(api)
    await accepted(nobody, an_issue_event())

    async with api.client("admin") as admin, asyncio.timeout(DEADLINE_SECONDS):
        while not (found := (await admin.get("/api/webhook-sources/github")).json())["deliveries"]:
            await asyncio.sleep(0.01)

    assert (found["deliveries"], bool(found["lastDeliveryAt"])) == (1, True)


async def test_latest_deliveries_tell_what_became_of_them(api: Api, nobody: httpx2.AsyncClient) -> None:
    await add_source(api)
    await accepted(nobody, an_issue_event())
    await accepted(nobody, {}, "ping")
    refused = await deliver(nobody, an_issue_event(), path="/webhooks/github", secret="another-secret-of-a-test")
    assert refused.status_code == 401

    async with api.client("admin") as admin, asyncio.timeout(3 * DEADLINE_SECONDS):
        path = "/api/webhook-sources/github/deliveries"
        while len(found := (await admin.get(path)).json()["deliveries"]) < 3:
            await asyncio.sleep(0.01)
        only_refused = (await admin.get(path, params={"outcome": "refused"})).json()["deliveries"]

    assert [(each["outcome"], each["event"]) for each in found] == [
        ("refused", None), ("ping", "ping"), ("unmatched", "issues.labeled"),
    ]  # fmt: skip
    assert found[2]["repo"]
    assert "no agent has a trigger" in found[2]["reason"]
    assert only_refused == found[:1]


async def refused(api: Api, number: int = 1, name: str = "github") -> list[str]:
    """Wait until that many refused deliveries of a source are listed. Return their reasons, the latest first."""
    path = f"/api/webhook-sources/{name}/deliveries?outcome=refused"
    async with api.client("admin") as admin, asyncio.timeout(3 * DEADLINE_SECONDS):
        while len(found := (await admin.get(path)).json()["deliveries"]) < number:
            await asyncio.sleep(0.01)
    return [delivery["reason"] for delivery in found]


class TestUnsignedDelivery:
    @pytest.mark.parametrize("path", [GITHUB, "/webhooks/github"])
    async def test_is_listed_with_its_remedy(self, api: Api, nobody: httpx2.AsyncClient, path: str) -> None:
        await add_source(api)

        assert (await nobody.post(path, json=an_issue_event())).status_code == 401

        assert await refused(api) == ["it is not signed: enter the source's secret at GitHub"]

    async def test_of_another_sender_is_listed_with_its_remedy(self, api: Api, nobody: httpx2.AsyncClient) -> None:
        await add_source(api, "alerts", type="generic")
        await nobody.post("/webhooks/alerts", json={})
        assert await refused(api, name="alerts") == ["it is not signed: sign it with the source's secret"]

    async def test_with_a_malformed_signature_is_not_called_unsigned(
        self, api: Api, nobody: httpx2.AsyncClient
    ) -> None:
        await add_source(api)
        await nobody.post("/webhooks/github", json={}, headers={"X-Hub-Signature-256": "sha1=abc"})
        assert await refused(api) == ["its signature is malformed, repeated or out of date"]

    async def test_does_not_show_whether_its_source_exists(self, api: Api, nobody: httpx2.AsyncClient) -> None:
        await add_source(api)
        await add_source(api, "off", enabled=False)
        answers = [await nobody.post(f"/webhooks/{name}", json={}) for name in ("github", "off", "unknown")]
        assert {(answer.status_code, answer.text) for answer in answers} == {(401, answers[0].text)}

        await refused(api)
        off = await api.store.get(WebhookSource, "off")
        assert off.status.recent_deliveries == ()

    async def test_counts_as_recent_for_a_day(self, api: Api, nobody: httpx2.AsyncClient) -> None:
        await add_source(api)
        await nobody.post("/webhooks/github", json={})
        await refused(api)
        async with api.client("admin") as admin:
            recent = (await admin.get("/api/webhook-sources/github")).json()["refusedDeliveries"]
            api.clock.step(86_401)
            later = (await admin.get("/api/webhook-sources/github")).json()["refusedDeliveries"]
        assert (recent, later) == (1, 0)

    async def test_at_a_shared_address_is_listed_for_none_of_several_sources(
        self, api: Api, nobody: httpx2.AsyncClient
    ) -> None:
        await add_source(api, "one", secret="test-secret-number-one")
        await add_source(api, "two", secret="test-secret-number-two")
        await nobody.post(GITHUB, json={})
        await nobody.post("/webhooks/two", json={})

        await refused(api, name="two")
        assert (await api.store.get(WebhookSource, "one")).status.recent_deliveries == ()

    async def test_flood_displaces_no_accepted_delivery_and_reads_neither_secrets_nor_bodies(
        self, tmp_path: Path
    ) -> None:
        async with api_in_memory(tmp_path, CountedSecrets) as api, api.client(None) as nobody:
            await add_source(api)
            await accepted(nobody, an_issue_event())
            store, bodies = api.store, []
            assert isinstance(store, CountedSecrets)
            reads = store.reads_of_secrets

            async def body() -> AsyncIterator[bytes]:
                bodies.append("read")
                yield b"{}"

            for number in range(1_000):
                answer = await nobody.post(("/webhooks/github", GITHUB)[number % 2], content=body())
                assert answer.status_code == 401

            await refused(api, KEPT_REFUSED)
            outcomes = [each.outcome for each in (await store.get(WebhookSource, "github")).status.recent_deliveries]
            assert outcomes == ["unmatched", *KEPT_REFUSED * ["refused"]]
            assert (store.reads_of_secrets - reads, bodies) == (0, [])

    async def test_at_a_receiver_is_listed_only_for_its_own_source(self, tmp_path: Path) -> None:
        secret = tmp_path / "secret"
        settings: dict[str, Any] = {"webhook_source": "one", "webhook_secret_file": secret, "role": "webhook-receiver"}
        async with api_in_memory(tmp_path, **settings) as api, api.client(None) as nobody:
            spec = WebhookSourceSpec(type="github")
            await stored(api, *(WebhookSource(metadata=Metadata(name=name), spec=spec) for name in ("one", "two")))
            for name in ("two", "one"):
                assert (await nobody.post(f"/webhooks/{name}", json={})).status_code == 401
            async with asyncio.timeout(3 * DEADLINE_SECONDS):
                while not (await api.store.get(WebhookSource, "one")).status.recent_deliveries:
                    await asyncio.sleep(0.01)
            assert (await api.store.get(WebhookSource, "two")).status.recent_deliveries == ()


class CountedSecrets(MemoryStore):
    """A store that counts the reads of Secrets."""

    reads_of_secrets = 0

    async def get(self, kind: type[R], name: str) -> R:
        self.reads_of_secrets += issubclass(kind, Secret)
        return await super().get(kind, name)


async def test_deliveries_are_measured_by_outcome(api: Api, nobody: httpx2.AsyncClient) -> None:
    await add_source(api)
    await stored(api, an_agent("a", a_trigger("issues.labeled")))
    await accepted(nobody, {"zen": "Speak.", "hook_id": 1, "hook": {}}, "ping")
    await accepted(nobody, an_issue_event())
    await accepted(nobody, an_issue_event(action="reopened"))
    await nobody.post(GITHUB, content=b"{}")
    await deliver(nobody, an_issue_event(), secret="another-secret-of-a-test")

    metrics = (await nobody.get("/metrics")).text

    for outcome, count in (("ping", 1), ("started", 1), ("unmatched", 1), ("refused", 2)):
        assert f'labrats_webhook_deliveries_total{{outcome="{outcome}"}} {count}.0' in metrics
