"""The trust of the jobs that an event requests."""

from collections.abc import Sequence
from typing import Any

import pytest

from labrats.index.catalog import Catalog
from labrats.index.jobs import JobIndex
from labrats.intake.event_requests import event_requests
from labrats.intake.events import IncomingEvent
from labrats.model.agent import AiAgent, AiAgentSpec, Trigger
from labrats.model.phases import Phase
from labrats.model.record import Metadata
from labrats.model.report import Published
from labrats.model.webhook_source import WebhookSource, WebhookSourceSpec
from tests.support.builders import a_job, a_spec
from tests.support.deliveries import a_pull_request_event
from tests.unit.index.test_jobs import index_of

PAGE = "https://github.com/octo/demo"
SOURCE = WebhookSource(metadata=Metadata(name="github"), spec=WebhookSourceSpec(type="github"))


async def an_index(*, untrusted: Sequence[bool], number: int = 8) -> JobIndex:
    """Return an index of jobs that have published commits in a pull request."""
    published = Published(pull_request_url=f"{PAGE}/pull/{number}")
    specs = [a_spec(untrusted=each) for each in untrusted]
    return await index_of(*(a_job(Phase.SUCCEEDED, spec=spec, published=published) for spec in specs))


def a_review(**fields: Any) -> dict[str, Any]:
    payload = a_pull_request_event("submitted", **fields)
    payload["repository"]["html_url"] = PAGE
    payload["review"] = {"user": payload["sender"], "author_association": "MEMBER", "body": "Please do it."}
    return payload


def a_check() -> dict[str, Any]:
    """Return the end of a check on the commit of two pull requests."""
    of_repository = {"id": 100}
    pulls = [{"number": number, "head": {"repo": of_repository}} for number in (6, 8)]
    payload = a_review()
    return {key: payload[key] for key in ("repository", "sender")} | {
        "action": "completed",
        "check_run": {"pull_requests": pulls, "head_sha": "1" * 40},
    }


async def trust_of(payload: dict[str, Any], index: JobIndex) -> list[bool]:
    catalog, trigger = Catalog(), Trigger(source="github", events=("*",))
    spec = AiAgentSpec(trigger_name="reviewer", event_triggers=(trigger,))
    catalog.put(AiAgent(metadata=Metadata(name="reviewer"), spec=spec))
    event = IncomingEvent("github", "an.event", payload)
    requests = await event_requests(event, catalog, "webhook-source/github", SOURCE, index)
    return [each.untrusted for each in requests]


@pytest.mark.parametrize("payload", [a_review(), a_check()])
async def test_a_pull_request_with_commits_of_an_untrusted_job_makes_the_event_untrusted(
    payload: dict[str, Any],
) -> None:
    assert await trust_of(payload, await an_index(untrusted=[])) == [False]
    assert await trust_of(payload, await an_index(untrusted=[False])) == [False]
    assert await trust_of(payload, await an_index(untrusted=[True], number=77)) == [False]
    assert await trust_of(payload, await an_index(untrusted=[False, True])) == [True]
