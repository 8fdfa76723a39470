"""Comments that say why an event starts no agent."""

from datetime import timedelta
from typing import Any

from labrats.github.events.notices import notice_of
from labrats.intake.events import IncomingEvent
from labrats.model.record import Metadata
from labrats.model.thread_requests import ThreadRequest
from labrats.model.webhook_source import WebhookSource, WebhookSourceSpec
from tests.fakes.clock import NOON


def a_source(**spec: Any) -> WebhookSource:
    return WebhookSource(metadata=Metadata(name="github"), spec=WebhookSourceSpec(type="github", **spec))


SOURCE = a_source(credentials_ref="app")


def of_issue(number: int = 7, source: WebhookSource = SOURCE, *, days: int = 0) -> ThreadRequest | None:
    payload = {"repository": {"full_name": "octo/demo"}, "issue": {"number": number}}
    return notice_of(
        IncomingEvent("github", "issues.labeled", payload), source, "why", "Because.", NOON + timedelta(days)
    )


def test_notice_is_a_comment_in_the_thread_of_the_event() -> None:
    notice = of_issue()
    assert notice
    assert notice.answer
    assert (notice.target.repository, notice.target.issue, notice.answer.text) == ("octo/demo", 7, "Because.")


def test_repository_gets_one_notice_a_day() -> None:
    today, again, tomorrow = of_issue(), of_issue(8), of_issue(days=1)
    assert today
    assert again
    assert tomorrow
    assert today.id == again.id != tomorrow.id


def test_source_without_credentials_gets_none() -> None:
    assert of_issue(source=a_source()) is None
