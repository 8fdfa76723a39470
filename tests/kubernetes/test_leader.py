"""Leader election and fencing: one engine leads at a time, and writes of former leaders are refused."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path

import pytest
from aiohttp import web

from labrats.backends.kubernetes import fence as fencing
from labrats.backends.kubernetes.batch_client import BatchClient
from labrats.backends.kubernetes.client import ApiClient
from labrats.backends.kubernetes.fence import (
    POLICY,
    UNFENCED,
    Fence,
    field_manager,
    former_leaders_are_fenced,
    leader_policy,
)
from labrats.backends.kubernetes.leader import LEASE, Election, LeaseTiming, read_lease
from labrats.backends.kubernetes.pod import attempt_job
from labrats.backends.kubernetes.pod_settings import PodCredentials
from labrats.backends.kubernetes.store import KubernetesStore
from labrats.metrics import Metrics
from labrats.model.errors import NotFound, RetryLater
from labrats.model.job import advance
from labrats.model.phases import JobEvent
from labrats.model.record import encode
from labrats.ports import ControllerLease
from tests.cluster.proxy import FaultyProxy, Lose, Refuse, is_write
from tests.conformance.kubernetes_backend import a_pod_settings
from tests.support.background import run_in_background
from tests.support.builders import a_job, an_attempt
from tests.support.waiting import DEADLINE_SECONDS, eventually

pytestmark = pytest.mark.kubernetes

QUICK = LeaseTiming(lease=2.0, renew=0.2, give_up=1.0, poll=0.1)
PATIENT = LeaseTiming(lease=60.0, renew=0.2, give_up=40.0, poll=0.1)


def is_lease(request: web.BaseRequest) -> bool:
    return "/leases" in request.path


@dataclass
class Engine:
    """A candidate of the election that records its leaderships."""

    name: str
    epochs: list[int] = field(default_factory=list)
    leads: bool = False

    async def lead(self, epoch: int) -> None:
        self.epochs.append(epoch)
        self.leads = True
        try:
            await asyncio.Event().wait()
        finally:
            self.leads = False

    @asynccontextmanager
    async def taking_part(self, client: ApiClient, namespace: str, timing: LeaseTiming = QUICK) -> AsyncIterator[None]:
        election = asyncio.create_task(Election(client, namespace, self.name, timing).run(self.lead))
        try:
            yield
        finally:
            election.cancel()
            await asyncio.gather(election, return_exceptions=True)


async def renewals(client: ApiClient, namespace: str, *, for_longer_than: float) -> None:
    """Wait until the Lease has been renewed for longer than this number of seconds."""
    seen: set[bytes] = set()
    while len(seen) * QUICK.renew <= for_longer_than:
        with suppress(NotFound):
            seen.add(await client.request("GET", f"/apis/coordination.k8s.io/v1/namespaces/{namespace}/leases/{LEASE}"))
        await asyncio.sleep(0.01)


async def test_one_of_two_engines_leads(api_client: ApiClient, namespace: str) -> None:
    first, second = Engine("first"), Engine("second")
    async with first.taking_part(api_client, namespace), second.taking_part(api_client, namespace):
        await renewals(api_client, namespace, for_longer_than=3 * QUICK.lease)

        assert len(first.epochs + second.epochs) == 1


async def test_a_released_lease_is_taken_at_once(api_client: ApiClient, namespace: str) -> None:
    first, second = Engine("first"), Engine("second")
    async with first.taking_part(api_client, namespace):
        await eventually(lambda: first.leads)
    assert not first.leads

    patient = LeaseTiming(lease=3600.0, poll=0.1)
    async with second.taking_part(api_client, namespace, patient):
        await eventually(lambda: second.leads)
    async with first.taking_part(api_client, namespace):  # without waiting for the hour of the lease
        await eventually(lambda: first.leads)
    assert first.epochs[0] < second.epochs[0] < first.epochs[1]


async def test_a_leader_that_cannot_renew_stops_before_another_leads(
    api_client: ApiClient, namespace: str, tmp_path: Path
) -> None:
    first, second = Engine("first"), Engine("second")
    async with FaultyProxy.open(api_client, tmp_path) as proxy, first.taking_part(proxy.client, namespace):
        await eventually(lambda: first.leads)
        proxy.plan = lambda request: Refuse(503) if is_write(request) else None
        async with second.taking_part(api_client, namespace):
            await eventually(lambda: second.leads)
            assert not first.leads
            proxy.plan = lambda request: None
            await renewals(api_client, namespace, for_longer_than=QUICK.lease)
            assert (first.leads, second.leads) == (False, True)


async def test_a_renewal_with_a_lost_answer_does_not_lose_the_lease(
    api_client: ApiClient, namespace: str, tmp_path: Path
) -> None:
    first = Engine("first")
    async with FaultyProxy.open(api_client, tmp_path) as proxy, first.taking_part(proxy.client, namespace, PATIENT):
        await eventually(lambda: first.leads)
        async with proxy.faults(is_lease, Refuse(500), Lose(), Refuse(500), Refuse(500), Lose()):
            pass
        await renewals(api_client, namespace, for_longer_than=QUICK.lease)
        assert (first.leads, first.epochs) == (True, [1])


async def test_an_engine_that_leads_from_the_start_has_prepared_before(api_client: ApiClient, namespace: str) -> None:
    engine, prepared = Engine("first"), []

    async def prepare(epoch: int) -> None:
        prepared.append(epoch)

    election = Election(api_client, namespace, "first", PATIENT, prepare)
    before = time.monotonic()
    await election.try_acquire()
    assert (prepared, election.leader_since > before) == ([1], True)
    other = Election(api_client, namespace, "second", QUICK, prepare)
    await other.try_acquire()

    async with run_in_background(election.run(engine.lead)):
        await eventually(lambda: engine.leads)
        await renewals(api_client, namespace, for_longer_than=QUICK.lease)
        assert (engine.leads, engine.epochs, prepared) == (True, [1], [1])


async def test_a_lease_that_was_taken_too_long_ago_is_not_used(api_client: ApiClient, namespace: str) -> None:
    first, second = Engine("first"), Engine("second")
    election = Election(api_client, namespace, "first", QUICK)
    await election.try_acquire()

    async with second.taking_part(api_client, namespace):
        await eventually(lambda: second.leads)
        async with run_in_background(election.run(first.lead)):
            await renewals(api_client, namespace, for_longer_than=QUICK.lease)
            assert (first.epochs, second.leads) == ([], True)


async def test_an_unreachable_api_server_does_not_block_the_start(
    api_client: ApiClient, namespace: str, tmp_path: Path
) -> None:
    engine = Engine("first")
    async with FaultyProxy.open(api_client, tmp_path) as proxy:
        election = Election(proxy.client, namespace, "first", QUICK)
        async with proxy.outage(Refuse(503)):
            await election.try_acquire()
        async with run_in_background(election.run(engine.lead)):
            await eventually(lambda: engine.leads)


async def test_the_lease_is_renewed_while_an_engine_prepares_to_lead(api_client: ApiClient, namespace: str) -> None:
    first, second = Engine("first"), Engine("second")

    async def prepare(epoch: int) -> None:
        async with second.taking_part(api_client, namespace):
            await renewals(api_client, namespace, for_longer_than=2 * QUICK.lease)

    election = Election(api_client, namespace, "first", QUICK, prepare)
    async with run_in_background(election.run(first.lead)):
        await eventually(lambda: first.leads)
    assert second.epochs == []


async def test_an_error_of_the_leader_is_raised_and_the_lease_is_released(
    api_client: ApiClient, namespace: str
) -> None:
    async def fail(epoch: int) -> None:
        raise ZeroDivisionError

    with pytest.raises(ExceptionGroup):
        await Election(api_client, namespace, "first", QUICK).run(fail)
    second = Engine("second")
    async with second.taking_part(api_client, namespace):
        await eventually(lambda: second.leads)


# Fencing


async def lead_twice(client: ApiClient, namespace: str) -> None:
    """Let epoch 2 lead after epoch 1, and release the Lease."""
    engine = Engine("first")
    for epoch in (1, 2):
        async with engine.taking_part(client, namespace):
            await eventually(lambda count=epoch: len(engine.epochs) == count)  # type: ignore[misc]


async def test_writes_of_a_former_leader_are_refused(api_client: ApiClient, jobs_namespace: str) -> None:
    await lead_twice(api_client, jobs_namespace)
    assert await former_leaders_are_fenced(api_client, jobs_namespace, 2)

    former, current = (api_client.writing_as(partial(field_manager, epoch)) for epoch in (1, 2))
    async with (
        KubernetesStore.open(former, jobs_namespace) as stale,
        KubernetesStore.open(current, jobs_namespace) as store,
    ):
        job = await stale.create(a_job())
        with pytest.raises(RetryLater, match="another engine leads"):
            await stale.update(advance(job, JobEvent.START))
        await store.update(advance(job, JobEvent.START))
    manifest = attempt_job(an_attempt(), PodCredentials(), a_pod_settings("none"))
    with pytest.raises(RetryLater, match="another engine leads"):
        await BatchClient(former, jobs_namespace).create_job(manifest)
    await BatchClient(current, jobs_namespace).create_job(manifest)


async def test_writes_without_an_epoch_are_accepted(api_client: ApiClient, jobs_namespace: str) -> None:
    async with KubernetesStore.open(api_client, jobs_namespace) as store:
        job = await store.create(a_job())
        await store.update(advance(job, JobEvent.START))


async def test_a_leader_can_write_although_the_policy_reads_an_outdated_lease(
    api_client: ApiClient, namespace: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An API server that was without the policy for a while has an outdated Lease (kubernetes/kubernetes#130887)."""
    monkeypatch.setattr(fencing, "OUTDATED_SECONDS", 1.0)
    metrics = Metrics()
    fence = Fence(api_client, namespace, metrics)
    await lead_twice(api_client, namespace)
    async with a_policy_that_reads_only(1, api_client, namespace):
        async with asyncio.timeout(DEADLINE_SECONDS):
            while fence.manager(2) != UNFENCED:
                await fence.check(2)
        manifest = attempt_job(an_attempt(), PodCredentials(), a_pod_settings("none"))
        await BatchClient(api_client.writing_as(partial(fence.manager, 2)), namespace).create_job(manifest)
        assert 'labrats_degraded{what="leader-fence"} 1.0' in metrics.exposition().decode()

        await fence.check(3)  # epoch 3 does not lead, so it is refused rightly
        assert fence.manager(3) == field_manager(3)


async def test_a_leader_waits_for_a_slow_api_server_to_see_it(
    api_client: ApiClient, namespace: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fencing, "MISSING_SECONDS", 0.0)
    metrics = Metrics()
    fence = Fence(api_client, namespace, metrics)
    await lead_twice(api_client, namespace)
    lease = f"/apis/coordination.k8s.io/v1/namespaces/{namespace}/leases/seen"
    async with a_policy_that_reads_only(1, api_client, namespace):
        async with asyncio.timeout(DEADLINE_SECONDS):
            while not await fencing._refuses(api_client, namespace, 2):
                await asyncio.sleep(0.05)
        check = asyncio.create_task(fence.check(2))
        await asyncio.sleep(1)
        assert not check.done()
        seen = encode({"spec": {"leaseTransitions": 2}})
        await api_client.request("PATCH", lease, seen, content_type="application/merge-patch+json")
        async with asyncio.timeout(DEADLINE_SECONDS):
            await check
    assert fence.manager(2) == field_manager(2)
    assert 'labrats_degraded{what="leader-fence"} 0.0' in metrics.exposition().decode()


async def test_a_leader_notices_when_the_policy_starts_or_stops_to_refuse_it(
    api_client: ApiClient, namespace: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fencing, "CHECK_SECONDS", 0.1)
    monkeypatch.setattr(fencing, "OUTDATED_SECONDS", 1.0)
    metrics = Metrics()
    fence = Fence(api_client, namespace, metrics)
    await lead_twice(api_client, namespace)
    await fence.check(2)
    async with run_in_background(fence.check_periodically(2)):
        assert fence.manager(2) == field_manager(2)
        async with a_policy_that_reads_only(1, api_client, namespace):
            await eventually(lambda: fence.manager(2) == UNFENCED)
        await eventually(lambda: fence.manager(2) == field_manager(2))


@asynccontextmanager
async def a_policy_that_reads_only(epoch: int, client: ApiClient, namespace: str) -> AsyncIterator[None]:
    policy, binding = leader_policy()
    policy["spec"]["matchConstraints"]["namespaceSelector"] = {
        "matchLabels": {"kubernetes.io/metadata.name": namespace}
    }
    binding["spec"] |= {"policyName": namespace, "paramRef": {"name": "seen", "parameterNotFoundAction": "Deny"}}
    lease = {"metadata": {"name": "seen"}, "spec": {"leaseTransitions": epoch}}
    await client.request("POST", f"/apis/coordination.k8s.io/v1/namespaces/{namespace}/leases", encode(lease))
    api = "/apis/admissionregistration.k8s.io/v1/validatingadmission"
    for kind, each in (("policies", policy), ("policybindings", binding)):
        await client.request("POST", f"{api}{kind}", encode(each | {"metadata": {"name": namespace}}))
    yield
    for kind in ("policies", "policybindings"):
        await client.request("DELETE", f"{api}{kind}/{namespace}")


async def test_a_policy_that_denies_nothing_is_noticed(api_client: ApiClient, jobs_namespace: str) -> None:
    await lead_twice(api_client, jobs_namespace)
    await until_fenced(api_client, jobs_namespace, 2, expected=True)
    await set_actions(api_client, "Warn")
    try:
        await until_fenced(api_client, jobs_namespace, 2, expected=False)
    finally:  # later tests need the fence
        await set_actions(api_client, "Deny")
        await until_fenced(api_client, jobs_namespace, 2, expected=True)


async def set_actions(client: ApiClient, *actions: str) -> None:
    """Set the actions of the policy of leaders after a validation has failed."""
    binding = f"/apis/admissionregistration.k8s.io/v1/validatingadmissionpolicybindings/{POLICY}"
    change = encode({"spec": {"validationActions": actions}})
    await client.request("PATCH", binding, change, content_type="application/merge-patch+json")


async def until_fenced(client: ApiClient, namespace: str, epoch: int, *, expected: bool) -> None:
    """Wait until the API server has noticed the change of the policy."""
    async with asyncio.timeout(DEADLINE_SECONDS):
        while await former_leaders_are_fenced(client, namespace, epoch) is not expected:
            await asyncio.sleep(0.1)


async def test_lease_shows_whether_an_engine_leads(api_client: ApiClient, namespace: str) -> None:
    assert await read_lease(api_client, namespace) == ControllerLease()
    engine = Engine("one")
    async with engine.taking_part(api_client, namespace):
        await eventually(lambda: engine.leads)
        leading = await read_lease(api_client, namespace)
    assert (leading.holder, leading.seconds) == ("one", QUICK.lease)
    assert leading.is_alive(datetime.now(UTC))
    assert not leading.is_alive(datetime.now(UTC) + timedelta(seconds=QUICK.lease + 1))
    assert not (await read_lease(api_client, namespace)).is_alive(datetime.now(UTC))
