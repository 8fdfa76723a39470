"""Answers to comments on GitHub, which may want no request for some time."""

from msgspec.structs import replace

from labrats.github.client.pause import LimitReached
from labrats.github.publisher.answers import Answers
from labrats.model.record import Metadata
from labrats.model.report import ReportTarget
from labrats.model.thread_requests import ThreadAction, ThreadAnswer, ThreadRequest
from labrats.model.webhook_source import WebhookSource, WebhookSourceSpec, WebhookSourceStatus
from tests.fakes.clock import NOON, FakeClock
from tests.fakes.store import MemoryStore
from tests.support.background import run_in_background


class LimitedAccess:
    """Access to a GitHub that wants no request for an hour. opened: number of its uses."""

    opened = 0

    async def open(self, target: ReportTarget, work: str) -> None:
        self.opened += 1
        raise LimitReached("GitHub answered 403", delay_seconds=3600)


async def test_no_change_of_its_source_ends_the_pause_that_github_wants() -> None:
    clock = FakeClock()
    store, access = MemoryStore(clock), LimitedAccess()
    request = ThreadRequest(
        id="1",
        event="issue_comment.created",
        action=ThreadAction.CANCEL,
        target=ReportTarget(source="github", repository="octo/demo", issue=1, comment=5),
        received_at=NOON,
        answer=ThreadAnswer(reaction="+1"),
    )
    spec = WebhookSourceSpec(type="github", credentials_ref="app")
    status = WebhookSourceStatus(thread_requests=(request,))
    source = await store.create(WebhookSource(metadata=Metadata(name="github"), spec=spec, status=status))
    async with run_in_background(Answers(store, access, clock).run()):  # type: ignore[arg-type]
        for number in range(20):
            await clock.sleep(5)
            source = await store.update(replace(source, status=replace(source.status, deliveries=number)))
    assert access.opened == 1
