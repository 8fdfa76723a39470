"""The latest deliveries of a webhook source."""

import asyncio
from datetime import timedelta
from typing import Any

import httpx2
import pytest
from msgspec.structs import replace

from labrats.model.webhook_source import IGNORED, REFUSED, STARTED, DeliveryRecord, WebhookSource, new_delivery_id
from tests.api.conftest import Api
from tests.api.test_agent_roles import stored
from tests.support.builders import a_trigger, an_agent
from tests.support.deliveries import SECRET, an_issue_event, github_headers, json_body
from tests.support.waiting import DEADLINE_SECONDS

PATH = "/api/webhook-sources/github/deliveries"
SOURCE: dict[str, Any] = {"name": "github", "type": "github", "secret": SECRET}


@pytest.fixture(autouse=True)
async def source(admin: httpx2.AsyncClient) -> None:
    assert (await admin.post("/api/webhook-sources", json=SOURCE)).status_code == 201


async def deliver(api: Api, payload: Any, event: str = "issues", secret: str = SECRET) -> None:
    body = json_body(payload)
    async with api.client(None) as github:
        headers = github_headers(event, body, secret=secret) | {"Content-Type": "application/json"}
        await github.post("/webhooks/github", content=body, headers=headers)


async def listed(admin: httpx2.AsyncClient, number: int) -> list[dict[str, Any]]:
    """Wait until that many deliveries are recorded, which takes up to 5 seconds, and return them."""
    async with asyncio.timeout(DEADLINE_SECONDS):
        while len(found := (await admin.get(PATH)).json()["deliveries"]) < number:
            await asyncio.sleep(0.05)
    return list(found)


async def record(api: Api, *records: DeliveryRecord) -> None:
    stored = await api.store.get(WebhookSource, "github")
    await api.store.update(replace(stored, status=replace(stored.status, recent_deliveries=records)))


async def test_delivery_has_the_payload_that_a_test_of_an_agent_can_use(api: Api, admin: httpx2.AsyncClient) -> None:
    payload = an_issue_event()
    await deliver(api, payload)

    (delivery,) = await listed(admin, 1)
    detail = (await admin.get(f"{PATH}/{delivery['id']}")).json()

    assert delivery["hasPayload"] is True
    assert detail == delivery | {"source": "github", "payload": payload}
    event = {field: detail[field] for field in ("source", "event", "payload")}
    assert (await admin.post("/api/events/test", json=event)).status_code == 200


async def test_refused_and_large_deliveries_have_no_payload(api: Api, admin: httpx2.AsyncClient) -> None:
    await deliver(api, an_issue_event(), secret="test-secret-of-another")
    await deliver(api, an_issue_event() | {"padding": 300_000 * "x"})

    deliveries = await listed(admin, 2)

    assert [each["outcome"] for each in deliveries] == ["unmatched", "refused"]
    for each in deliveries:
        assert each["hasPayload"] is False
        assert (await admin.get(f"{PATH}/{each['id']}")).json()["payload"] is None


async def test_delivery_that_is_answered_with_an_error_is_listed_and_counted(
    api: Api, admin: httpx2.AsyncClient
) -> None:
    await stored(api, an_agent("a", a_trigger("issues.*")))
    repository = {"full_name": "octo/demo", "clone_url": "https://127.0.0.1/octo/demo.git"}
    await deliver(api, an_issue_event(repository=repository))
    await deliver(api, an_issue_event(), event="issue_comment")

    wrong_event, impossible = await listed(admin, 2)

    assert (impossible["outcome"], impossible["event"]) == (REFUSED, "issues.labeled")
    assert "the address of '127.0.0.1' is not allowed" in impossible["reason"]
    assert (await admin.get(f"{PATH}/{impossible['id']}")).json()["payload"]["repository"] == repository
    assert (wrong_event["outcome"], wrong_event["event"], wrong_event["hasPayload"]) == (REFUSED, None, False)
    assert "does not match the event" in wrong_event["reason"]
    assert 'deliveries_total{outcome="refused"} 2.0' in (await admin.get("/metrics")).text


async def test_deliveries_are_read_in_pages(api: Api, admin: httpx2.AsyncClient) -> None:
    now = api.clock.now()
    times = [now + timedelta(seconds=number) for number in range(7)]
    outcomes = [STARTED, IGNORED, STARTED, STARTED, REFUSED, STARTED, STARTED]
    records = [
        DeliveryRecord(at=at, outcome=outcome, id=new_delivery_id(at))
        for at, outcome in zip(times, outcomes, strict=True)
    ]
    await record(api, *records)

    seen: list[str] = []
    query: dict[str, Any] = {"limit": 2, "outcome": STARTED}
    while True:
        page = (await admin.get(PATH, params=query)).json()
        seen += [each["id"] for each in page["deliveries"]]
        if page["next"] is None:
            break
        query["cursor"] = page["next"]

    assert seen == [each.id for each in reversed(records) if each.outcome == STARTED]
    assert len((await admin.get(PATH)).json()["deliveries"]) == 7


async def test_records_without_an_id_are_ordered_by_time(api: Api, admin: httpx2.AsyncClient) -> None:
    now = api.clock.now()
    old = [DeliveryRecord(at=now + timedelta(seconds=number), outcome=STARTED, event=str(number)) for number in (0, 1)]
    later = now + timedelta(seconds=2)
    await record(api, *old, DeliveryRecord(at=later, outcome=STARTED, id=new_delivery_id(later), event="new"))

    page = (await admin.get(PATH, params={"limit": 2})).json()
    rest = (await admin.get(PATH, params={"cursor": page["next"]})).json()

    assert [each["event"] for each in (*page["deliveries"], *rest["deliveries"])] == ["new", "1", "0"]
    assert (await admin.get(f"{PATH}/{rest['deliveries'][0]['id']}")).json()["event"] == "0"


async def test_unknown_deliveries_and_invalid_cursors_are_refused(admin: httpx2.AsyncClient) -> None:
    assert (await admin.get(f"{PATH}/0123456789abcdef0123")).status_code == 404
    assert (await admin.get(PATH, params={"cursor": "x"})).status_code == 422
    assert (await admin.get(PATH, params={"limit": 201})).status_code == 422
