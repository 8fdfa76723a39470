"""Jobs of deliveries on a cluster: nothing acts on what a receiver has written until the controller has checked it."""

from typing import Any

import pytest
from msgspec.structs import replace

from labrats.controller.applied_jobs import NEW_FOR
from labrats.controller.chains import End, plan_chain
from labrats.controller.schedule import JobSchedule
from labrats.github.publisher.publisher import _is_reported
from labrats.index.catalog import Catalog
from labrats.intake.reruns import Changes, rerun_request
from labrats.intake.stored_jobs import StoredJobs
from labrats.model.agent import ChainCondition, ChainLink
from labrats.model.caller import Caller
from labrats.model.concurrency import Concurrency, OnNew
from labrats.model.core_resources import ConfigMap
from labrats.model.errors import IllegalMove
from labrats.model.job import Chain, FailedCode, Job, KeyReference, without_large_fields
from labrats.model.phases import Phase
from labrats.model.record import Metadata
from labrats.model.report import CommentMode, Report, ReportTarget
from labrats.model.thread_requests import REQUEST_ANNOTATION
from labrats.model.webhook_source import WebhookSource, WebhookSourceSpec
from tests.fakes.clock import NOON
from tests.support.builders import a_job, a_spec, a_trigger, an_agent
from tests.unit.controller.lab import Lab

P = Phase
TARGET = ReportTarget(repository="octo/demo", issue=7, source="github")


def a_delivered_job(job_id: str = "ir-00000001", **fields: Any) -> Job:
    """Return the job of an issue that was labeled. fields: of JobSpec, and `config` as in `a_spec`."""
    usual: dict[str, Any] = {
        "source": "github",
        "type": "issues.labeled",
        "agent_role": "developer",
        "owner": "webhook-source/github",
        "prompt": None,
        "prompt_ref": KeyReference(name=f"{job_id}-prompt", key="prompt"),
        "metadata": {"event": "issues.labeled"},
    }
    return a_job(job_id=job_id, spec=a_spec(**usual | fields), resource_version="")


async def deliver(lab: Lab, **fields: Any) -> Job:
    """Create the job and its prompt, as a receiver does. fields: as in `a_delivered_job`."""
    job = a_delivered_job(**fields)
    texts = ConfigMap(metadata=Metadata(name=f"{job.id}-prompt"), data={"prompt": "An event."})
    return await lab.store.create(replace(job, metadata=replace(job.metadata, created_at=None)), [texts])


async def add_source(lab: Lab) -> None:
    source = WebhookSource(metadata=Metadata(name="github"), spec=WebhookSourceSpec(type="github"))
    await lab.store.create(source)


async def add_agent(lab: Lab, **fields: Any) -> None:
    await lab.store.create(an_agent("developer", a_trigger(), default_provider="mock", **fields))


@pytest.fixture
async def cluster(lab: Lab) -> Lab:
    """A lab with the settings of a cluster, and a webhook source."""
    lab.settings = lab.settings.model_copy(update={"backend": "kubernetes"})
    await add_source(lab)
    return lab


async def test_a_delivered_job_runs_with_the_settings_of_its_agent(cluster: Lab) -> None:
    await add_agent(cluster, default_model="small")
    job = await deliver(cluster, config={"model": "large", "max_turns": 1000})
    async with cluster.controller():
        ended = await cluster.ended(job)
    assert (ended.phase, ended.status.slot) == (P.SUCCEEDED, "mock/small")
    assert (ended.resolved.max_turns, ended.resolved.origins["model"]) == (25, "agent")


async def test_a_delivered_job_that_no_event_starts_fails_and_nothing_follows(cluster: Lab) -> None:
    await add_agent(cluster)
    link = ChainLink(agent_trigger_name="developer", condition=ChainCondition.ALWAYS)
    chain = Chain(id="chain", path=("developer",), next=link)
    report = Report(comment=CommentMode.FINAL, target=TARGET)
    job = await deliver(cluster, chain=chain, report=report)
    async with cluster.controller():
        ended = await cluster.ended(job)
    assert (ended.phase, ended.status.failed_code, ended.status.attempts) == (P.FAILED, FailedCode.INVALID, 0)
    assert "is not as the agent 'developer' and its triggers define it" in (ended.status.failed_reason or "")
    assert plan_chain(ended, Catalog(), 5) == End("the job was refused, and its chain with it")
    assert (_is_reported(ended), ended.is_published) == (False, True)


async def test_a_refused_job_of_a_delivery_cannot_be_run_again(cluster: Lab, tmp_path: Any) -> None:
    refused = a_delivered_job()
    for has_receivers in (True, False):
        stored_jobs = StoredJobs(cluster.store, tmp_path, cluster.clock, False, has_receivers)
        assert stored_jobs.has_accepted(refused) is not has_receivers
    stored_jobs = StoredJobs(cluster.store, tmp_path, cluster.clock, labelled_only=False, has_receivers=True)
    with pytest.raises(IllegalMove, match="was never accepted"):
        await rerun_request(stored_jobs, refused, Changes(), Caller(id="key", scopes=frozenset()))


async def test_a_delivered_job_waits_for_an_agent_that_its_creator_has_seen_first(cluster: Lab) -> None:
    async with cluster.controller():
        job = await deliver(cluster)
        await cluster.clock.sleep(2)
        await add_agent(cluster)
        ended = await cluster.ended(job)
    assert ended.phase is P.SUCCEEDED
    assert ended.status.started_at
    assert ended.status.started_at - NOON < NEW_FOR


async def test_an_unchecked_job_supersedes_none_of_its_key(cluster: Lab) -> None:
    await add_agent(cluster)
    key = Concurrency(key="octo/demo#7", on_new=OnNew.SUPERSEDE)
    async with cluster.controller():
        older = await cluster.submit(
            [{"sleepMs": 60_000}], owner="webhook-source/github", rerun_of="ir-0", concurrency=key
        )
        await cluster.started(older)
        await cluster.clock.sleep(1)
        forged = await deliver(cluster, concurrency=key)
        assert (await cluster.ended(forged)).phase is P.FAILED
        assert (await cluster.ended(older)).phase is P.SUCCEEDED


def test_a_checked_job_supersedes_those_of_its_key() -> None:
    schedule, key = JobSchedule(1, 600), Concurrency(key="octo/demo#7", on_new=OnNew.SUPERSEDE)
    older = replace(a_delivered_job("ir-00000000", concurrency=key, rerun_of="ir-0"))
    job = a_delivered_job(concurrency=key)
    for version, each in enumerate((older, job), start=1):
        schedule.observe(replace(each, metadata=replace(each.metadata, resource_version=str(version))), NOON)
    assert schedule.superseder(older) is None
    checked = replace(job, status=replace(job.status, resolved=job.spec.resolved))
    schedule.observe(replace(checked, metadata=replace(job.metadata, resource_version="3")), NOON)
    assert schedule.superseder(older) == job.id


async def test_one_machine_trusts_the_settings_that_it_has_resolved_itself(lab: Lab) -> None:
    job = await deliver(lab, agent_role="deleted", config={"model": "large"})
    async with lab.controller():
        ended = await lab.ended(job)
    assert (ended.phase, ended.status.slot) == (P.SUCCEEDED, "mock/large")


@pytest.mark.parametrize(
    ("fields", "annotations"),
    [
        ({"chain": Chain(id="chain", parent_job_id="ir-0")}, {}),
        ({"rerun_of": "ir-0"}, {}),
        ({"follow_up_of": "ir-0"}, {}),
        ({}, {REQUEST_ANNOTATION: "uid/1"}),
        ({"owner": "key"}, {}),
    ],
    ids=["chain", "rerun", "follow-up", "request of a thread", "submission"],
)
def test_a_job_that_no_receiver_can_create_needs_no_check(fields: dict[str, Any], annotations: dict[str, str]) -> None:
    job = a_delivered_job(**fields)
    job = replace(job, metadata=replace(job.metadata, annotations=annotations))
    assert [each.is_unchecked for each in (job, without_large_fields(job))] == [False, False]


def test_an_unchecked_job_is_known_as_one_without_its_large_fields() -> None:
    job = a_delivered_job(chain=Chain(id="chain", path=("developer",)))
    assert [each.is_unchecked for each in (job, without_large_fields(job))] == [True, True]
