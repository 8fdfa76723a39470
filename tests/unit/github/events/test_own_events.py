"""Events that the engine has caused itself with a personal token, and the jobs that events start in a thread."""

from datetime import timedelta
from typing import Any

import pytest

from labrats.github.events.own_events import REMEMBERED, may_be_own, note_writes, reason_of_own_event
from labrats.intake.event_starts import release_starts, reserve_starts, thread_of
from labrats.intake.events import IncomingEvent
from labrats.model.record import Metadata
from labrats.model.webhook_source import OwnWrite, WebhookSource, WebhookSourceSpec
from tests.fakes.clock import NOON
from tests.fakes.store import MemoryStore
from tests.support.deliveries import a_pull_request_event, an_issue_event

LABEL = OwnWrite(at=NOON, login="Octo", repository="octo/demo", number=7, label="AI")
COMMIT = OwnWrite(at=NOON, login="octo", repository="octo/demo", commit="c" * 40)


@pytest.fixture
async def store() -> MemoryStore:
    store = MemoryStore()
    await store.create(WebhookSource(metadata=Metadata(name="github"), spec=WebhookSourceSpec(type="github")))
    return store


async def source_of(store: MemoryStore) -> WebhookSource:
    return await store.get(WebhookSource, "github")


def event(payload: dict[str, Any], name: str = "issues.labeled") -> IncomingEvent:
    return IncomingEvent("github", name, payload)


OTHER = {"id": 2, "login": "mona", "type": "User"}


@pytest.mark.parametrize(
    ("payload", "is_own"),
    [
        (an_issue_event(), True),
        (an_issue_event(label={"name": "bug"}), False),
        (an_issue_event("unlabeled"), False),
        (an_issue_event("opened"), False),
        (an_issue_event(sender=OTHER), False),
        (an_issue_event(issue={"number": 8}), False),
        (an_issue_event(repository={"id": 1, "full_name": "octo/other"}), False),
        (a_pull_request_event("labeled", pull_request={"number": 7}, label={"name": "ai"}), True),
    ],
)
async def test_label_that_the_engine_has_added_starts_no_agent(
    store: MemoryStore, payload: dict[str, Any], is_own: bool
) -> None:
    await note_writes(store, "github", [LABEL], NOON)

    reason = reason_of_own_event(event(payload), await source_of(store), NOON + timedelta(minutes=9))

    assert (reason == "the engine itself has added this label") is is_own
    assert may_be_own(event(payload)) or not is_own


@pytest.mark.parametrize(
    "payload",
    [
        {"ref": "refs/heads/main", "after": "c" * 40, "commits": []},
        {"ref": "refs/heads/main", "head_commit": {"id": "c" * 40}, "commits": [{}]},
        {"action": "synchronize", "pull_request": {"number": 8, "head": {"sha": "c" * 40}}},
    ],
)
async def test_commit_that_the_engine_has_pushed_starts_no_agent(store: MemoryStore, payload: dict[str, Any]) -> None:
    await note_writes(store, "github", [COMMIT], NOON)
    usual = {key: an_issue_event()[key] for key in ("repository", "sender")}
    pushed, by_other = event(usual | payload, "push"), event(usual | payload | {"sender": OTHER}, "push")

    assert may_be_own(pushed)
    assert reason_of_own_event(pushed, await source_of(store), NOON) == "the engine itself has pushed this commit"
    assert reason_of_own_event(by_other, await source_of(store), NOON) is None


async def test_writes_are_remembered_for_ten_minutes(store: MemoryStore) -> None:
    await note_writes(store, "github", [LABEL], NOON)
    later = NOON + REMEMBERED
    assert reason_of_own_event(event(an_issue_event()), await source_of(store), later) is None

    await note_writes(store, "github", [COMMIT], later)
    assert (await source_of(store)).status.own_writes == (COMMIT,)


async def reserve(store: MemoryStore, name: str, wanted: int = 1, minute: int = 0, thread: str = "octo/demo#7") -> int:
    now = NOON + timedelta(minutes=minute)
    return await reserve_starts(store, await source_of(store), thread, name * 8, wanted, 3, now)


async def test_events_start_so_many_jobs_for_a_thread_and_hour(store: MemoryStore) -> None:
    found = [await reserve(store, *each) for each in (("a", 2, 0), ("b", 2, 10), ("c", 1, 20))]
    assert found == [2, 1, 0]
    assert await reserve(store, "d", 2, 20, "octo/demo#8") == 2
    assert await reserve(store, "e", 3, 61) == 2  # those of `a` no longer count
    assert await reserve(store, "f", 1, 65) == 0


async def test_event_that_has_started_no_job_does_not_count(store: MemoryStore) -> None:
    await reserve(store, "a", 2)
    await reserve(store, "b", 1)
    await release_starts(store, await source_of(store), "octo/demo#7", "a" * 8)
    assert await reserve(store, "c", 3) == 2


async def test_event_that_comes_again_counts_once(store: MemoryStore) -> None:
    assert [await reserve(store, "a", 2) for _ in range(3)] == [2, 2, 2]
    assert [await reserve(store, "b", 2) for _ in range(3)] == [1, 1, 1]


async def test_counts_of_few_threads_are_kept(store: MemoryStore) -> None:
    for number in range(1100):
        await reserve(store, "a", thread=f"octo/demo#{number}")

    starts = (await source_of(store)).status.event_starts
    assert len(starts) == 1000
    assert "octo/demo#1099" in starts


@pytest.mark.parametrize(
    ("payload", "thread"),
    [
        (an_issue_event(), "octo/demo#7"),
        (a_pull_request_event(), "octo/demo#8"),
        ({"ref": "refs/heads/main", "commits": [], "repository": {"full_name": "Octo/Demo"}}, None),
        ({"issue": {"number": 7}}, None),
    ],
)
def test_thread_is_an_issue_or_pull_request(payload: dict[str, Any], thread: str | None) -> None:
    assert thread_of(event(payload)) == thread
