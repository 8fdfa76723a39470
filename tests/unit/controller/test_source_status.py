"""Conditions of webhook sources whose receiver is the engine itself."""

from collections import Counter
from collections.abc import AsyncIterator, Sequence
from math import inf
from typing import Any

import pytest
from msgspec.structs import replace

from labrats.controller.credential_labels import CredentialLabels
from labrats.controller.source_status import LONGEST_START, PASS_SECONDS, OwnReceiver, SourceStatusReconciler
from labrats.model.condition import Condition, ConditionFactory
from labrats.model.core_resources import Secret
from labrats.model.errors import RetryLater
from labrats.model.job import KeyReference
from labrats.model.record import Metadata
from labrats.model.webhook_source import STARTING, WebhookSource, WebhookSourceSpec
from tests.fakes.clock import NOON, FakeClock, VirtualTimeLoop
from tests.fakes.store import MemoryStore
from tests.support.background import run_in_background

MISSING = "there is no Secret 'hook'"


@pytest.fixture
def anyio_backend() -> tuple[str, dict[str, Any]]:
    return "asyncio", {"loop_factory": VirtualTimeLoop}


class TroubledStore(MemoryStore):
    """A store that cannot read the Secrets named in `unreadable`, and counts updates."""

    unreadable: Sequence[str] = ()
    writes = 0

    async def get(self, kind: Any, name: str) -> Any:
        if kind is Secret and name in self.unreadable:
            raise RetryLater("the disk is gone")
        return await super().get(kind, name)

    async def update(self, resource: Any) -> Any:
        self.writes += 1
        return await super().update(resource)


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
async def store(clock: FakeClock) -> AsyncIterator[TroubledStore]:
    """A store whose webhook sources are reviewed."""
    store = TroubledStore(clock)
    async with run_in_background(SourceStatusReconciler(store, clock, OwnReceiver()).run()):
        yield store


def a_source(name: str = "github", **fields: Any) -> WebhookSource:
    reference = KeyReference(name="hook", key="token")
    spec = WebhookSourceSpec(type="github", **{"secret_ref": reference, **fields})
    return WebhookSource(metadata=Metadata(name=name), spec=spec)


TOKEN = "test-signing-secret"


def a_secret(**data: str) -> Secret:
    return Secret(metadata=Metadata(name="hook"), data=data)


async def conditions(store: MemoryStore, name: str = "github") -> dict[str, Condition]:
    return {each.type: each for each in (await store.get(WebhookSource, name)).status.conditions}


async def reasons(store: MemoryStore, name: str = "github") -> dict[str, tuple[str, str]]:
    """Return the status and reason of each condition, by type."""
    return {kind: (each.status, each.reason) for kind, each in (await conditions(store, name)).items()}


async def test_a_source_with_its_secret_is_served_by_the_engine(store: TroubledStore, clock: FakeClock) -> None:
    await store.create(a_secret(token=TOKEN))
    await store.create(a_source())
    await clock.advance(1)
    assert await reasons(store) == {
        "Provisioned": ("True", "BuiltIn"),
        "Ready": ("True", "Serving"),
        "SecretFound": ("True", "Found"),
    }


@pytest.mark.parametrize(
    ("source", "secret", "missing"),
    [
        (a_source(), None, MISSING),
        (a_source(), a_secret(other="test-secret"), "the Secret 'hook' has no key 'token'"),
        (a_source(secret_ref=None), None, "the source names no Secret"),
    ],
)
async def test_a_missing_secret_or_key_is_reported_in_a_sentence(
    store: TroubledStore, clock: FakeClock, source: WebhookSource, secret: Secret | None, missing: str
) -> None:
    if secret:
        await store.create(secret)
    await store.create(source)
    await clock.advance(1)
    found = await conditions(store)
    assert (found["SecretFound"].status, found["SecretFound"].message) == ("False", missing)
    assert (found["Ready"].status, found["Ready"].reason) == ("False", "SecretMissing")
    assert missing in found["Ready"].message


async def test_conditions_follow_a_secret_that_is_created_and_deleted(store: TroubledStore, clock: FakeClock) -> None:
    await store.create(a_source())
    await clock.advance(PASS_SECONDS + 1)
    for is_there in (True, False):
        await (store.create(a_secret(token=TOKEN)) if is_there else store.delete(Secret, "hook"))
        await clock.advance(PASS_SECONDS + 1)
        assert {kind: status for kind, (status, _) in (await reasons(store)).items()} == {
            "Provisioned": "True",
            "Ready": str(is_there),
            "SecretFound": str(is_there),
        }


async def test_a_secret_that_is_too_short_is_used_and_has_a_condition(store: TroubledStore, clock: FakeClock) -> None:
    await store.create(a_secret(token="short"))
    await store.create(a_source())
    await clock.advance(1)
    found = await reasons(store)
    assert (found["SecretFound"], found["Ready"]) == (("True", "TooShort"), ("True", "Serving"))


async def test_a_disabled_source_is_not_ready(store: TroubledStore, clock: FakeClock) -> None:
    await store.create(a_secret(token=TOKEN))
    created = await store.create(a_source())
    await clock.advance(1)
    source = await store.get(WebhookSource, created.name)
    await store.update(replace(source, spec=replace(source.spec, enabled=False)))
    await clock.advance(1)
    assert (await reasons(store))["Ready"] == ("False", "SwitchedOff")
    assert (await reasons(store))["SecretFound"] == ("True", "Found")


async def test_unchanged_conditions_are_not_written_and_keep_their_time(store: TroubledStore, clock: FakeClock) -> None:
    await store.create(a_source())
    await clock.advance(10 * PASS_SECONDS)
    assert store.writes == 1
    await store.create(a_secret(token=TOKEN))
    await clock.advance(10 * PASS_SECONDS)
    assert store.writes == 2
    found = await conditions(store)
    assert found["Provisioned"].last_transition_time == NOON
    assert found["Ready"].last_transition_time > NOON


async def test_conditions_of_other_writers_stay(store: TroubledStore, clock: FakeClock) -> None:
    created = await store.create(a_source())
    await clock.advance(1)
    source = await store.get(WebhookSource, created.name)
    another = Condition(type="Another", status="True", reason="Said", last_transition_time=NOON)
    status = replace(source.status, deliveries=7, conditions=(another, *source.status.conditions))
    await store.update(replace(source, status=status))
    await store.create(a_secret(token=TOKEN))
    await clock.advance(PASS_SECONDS + 1)
    status = (await store.get(WebhookSource, created.name)).status
    assert (status.deliveries, [each.type for each in status.conditions]) == (
        7,
        ["Another", "Provisioned", "Ready", "SecretFound"],
    )


async def test_an_error_with_one_source_blocks_no_other(store: TroubledStore, clock: FakeClock) -> None:
    store.unreadable = ["broken"]
    await store.create(a_source("a", secret_ref=KeyReference(name="broken", key="token")))
    await store.create(a_source("b"))
    await clock.advance(1)
    assert await reasons(store, "a") == {}
    assert (await reasons(store, "b"))["Ready"] == ("False", "SecretMissing")
    store.unreadable = []
    await clock.advance(PASS_SECONDS + 1)
    assert (await reasons(store, "a"))["SecretFound"] == ("False", "Missing")


class SlowReceivers(OwnReceiver):
    """Receivers that start `ready_at` seconds after noon. Those of a source named `ready` need no time."""

    def __init__(self, clock: FakeClock, ready_at: float) -> None:
        self._clock, self._ready_at = clock, ready_at
        self.reviews: Counter[str] = Counter()

    async def provide(self, source: WebhookSource, secret: Secret, report: ConditionFactory) -> Sequence[Condition]:
        self.reviews[source.name] += 1
        if source.name == "ready" or (self._clock.now() - NOON).total_seconds() >= self._ready_at:
            return [report("Ready", True, "Serving", "the receiver accepts deliveries")]
        return [report("Ready", False, STARTING, "the receiver is starting")]


async def test_a_receiver_that_starts_is_reviewed_each_second_and_no_other_one(clock: FakeClock) -> None:
    store, receivers = MemoryStore(clock), SlowReceivers(clock, ready_at=5.5)
    for each in (a_secret(token=TOKEN), a_source("slow"), a_source("ready")):
        await store.create(each)
    async with run_in_background(SourceStatusReconciler(store, clock, receivers).run()):
        await clock.advance(5)
        assert (await reasons(store, "slow"))["Ready"] == ("False", STARTING)
        before = receivers.reviews["ready"]
        await clock.advance(2)
        assert (await reasons(store, "slow"))["Ready"] == ("True", "Serving")
        assert receivers.reviews["ready"] <= before + 1  # the change of the other source
        after = receivers.reviews.copy()
        await clock.advance(PASS_SECONDS)
        assert receivers.reviews - after == {"slow": 1, "ready": 1}


async def test_a_receiver_that_does_not_start_is_reviewed_less_often_in_the_end(clock: FakeClock) -> None:
    store, receivers = MemoryStore(clock), SlowReceivers(clock, ready_at=inf)
    for each in (a_secret(token=TOKEN), a_source("slow")):
        await store.create(each)
    async with run_in_background(SourceStatusReconciler(store, clock, receivers).run()):
        await clock.advance(LONGEST_START.total_seconds() + 2)
        before = receivers.reviews["slow"]
        await clock.advance(6 * PASS_SECONDS)
        assert receivers.reviews["slow"] - before == 6


async def test_unlabelled_credentials_are_reported_on_a_cluster(clock: FakeClock) -> None:
    store = TroubledStore(clock)
    await store.create(Secret(metadata=Metadata(name="github-app")))
    await store.create(a_source(credentials_ref="github-app"))
    async with run_in_background(
        SourceStatusReconciler(store, clock, OwnReceiver(), labels=CredentialLabels(store, required=True)).run()
    ):
        await clock.advance(1)
        labelled = (await conditions(store))["CredentialsLabelled"]

    assert (labelled.status, labelled.reason) == ("False", "Unlabelled")
    assert "kubectl label secret github-app labrats.work/type=job-credentials" in labelled.message


async def test_a_full_queue_is_reported_on_a_cluster_until_it_has_room(clock: FakeClock) -> None:
    store, full = TroubledStore(clock), {"webhook-source/github": "too many jobs are waiting; try again later"}
    for each in (a_secret(token=TOKEN), a_source(), a_source("other")):
        await store.create(each)
    async with run_in_background(SourceStatusReconciler(store, clock, OwnReceiver(), full_queue=full.get).run()):
        await clock.advance(1)
        refused, other = await store.get(WebhookSource, "github"), await store.get(WebhookSource, "other")
        assert (refused.full_queue, other.full_queue) == ("too many jobs are waiting; try again later", None)
        assert (await reasons(store, "other"))["Accepting"] == ("True", "QueueHasRoom")
        writes = store.writes
        await clock.advance(3 * PASS_SECONDS)
        assert store.writes == writes
        full.clear()
        await clock.advance(PASS_SECONDS)
        assert (await store.get(WebhookSource, "github")).full_queue is None
