"""Concurrency keys: templates become plain text once."""

from typing import Any

import msgspec
import pytest

from labrats.intake.concurrency_keys import concurrency_of
from labrats.intake.events import IncomingEvent
from labrats.intake.request import FirstJob, JobRequest, Texts
from labrats.model.concurrency import Concurrency, OnNew
from labrats.model.config import JobConfig
from labrats.model.errors import Invalid
from labrats.model.job import JobSpec
from tests.support.builders import a_job, an_agent

EVENT = IncomingEvent("github", "issues.opened", {"issue": {"number": 7, "title": "{{ source }}\n\x1b[31m"}})


def key_of(key: str, **fields: Any) -> str:
    request = JobRequest(source="github", type="t", owner="key-1", concurrency=Concurrency(key=key), **fields)
    concurrency = concurrency_of(request, an_agent("reviewer"))
    assert concurrency
    return concurrency.key


def test_a_request_without_a_key_has_no_concurrency() -> None:
    assert concurrency_of(JobRequest(source="github", type="t", owner="key-1"), None) is None


def test_placeholders_are_replaced_by_values_that_are_not_searched_again() -> None:
    metadata = {"repo": "octo/demo", "number": 7}
    key = "{{ agent }} {{repo}}#{{ number }} {{ event }} {{ payload.issue.title }}"
    assert key_of(key, event=EVENT, metadata=metadata) == ("reviewer octo/demo#7 issues.opened {{ source }}\ufffd[31m")


def test_a_missing_value_of_an_event_reads_none() -> None:
    assert key_of("{{ repo }}#{{ payload.pull_request.number }}", event=EVENT) == "(none)#(none)"


def test_long_keys_of_events_stay_distinct() -> None:
    keys = {key_of("{{ metadata.a }}", event=EVENT, metadata={"a": "x" * 500 + end}) for end in "ab"}
    assert {len(key) for key in keys} == {200}
    assert len(keys) == 2


def test_only_the_start_of_a_very_long_value_counts() -> None:
    keys = {key_of("{{ payload.a }}", event=IncomingEvent("s", "e", {"a": "x" * 2**20 + end})) for end in "ab"}
    assert {len(key) for key in keys} == {200}
    assert len(keys) == 1


@pytest.mark.parametrize(
    ("key", "problem"),
    [
        ("{{ repo }}", "set metadata.repo"),
        ("{{ metadata.team }}", "set metadata.team"),
        ("{{ payload.number }}", "only jobs of events have one"),
        ("{{ event }}", "only jobs of events have one"),
        ("{{ metadata.long }}", "at most 200 characters"),
    ],
)
def test_a_submission_without_the_value_is_refused(key: str, problem: str) -> None:
    with pytest.raises(Invalid, match=problem) as refused:
        key_of(key, metadata={"long": "x" * 201})
    assert refused.value.problems[0].field == "concurrency.key"


def test_the_key_of_a_rerun_is_not_interpreted() -> None:
    first = FirstJob(a_job(), Texts("Do it."), JobConfig())
    assert key_of("{{ repo }}", first=first) == "{{ repo }}"


def test_a_job_of_an_earlier_version_has_no_concurrency() -> None:
    spec = msgspec.json.decode(b'{"source": "manual", "type": "task"}', type=JobSpec)
    assert spec.concurrency is None
    keyed = msgspec.json.decode(
        b'{"source": "a", "type": "b", "concurrency": {"key": "c", "onNew": "replaceWaiting"}}', type=JobSpec
    )
    assert keyed.concurrency == Concurrency(key="c", on_new=OnNew.REPLACE_WAITING)
