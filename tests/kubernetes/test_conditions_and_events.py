"""Conditions of jobs, and Events about jobs that may need attention."""

import json
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from msgspec.structs import replace

from labrats.backends.kubernetes.client import ApiClient
from labrats.backends.kubernetes.store import KubernetesStore
from labrats.model.job import FailedCode, Job, advance
from labrats.model.phases import JobEvent
from labrats.ports import Store
from tests.kubernetes.conftest import Kubectl
from tests.support.builders import a_job
from tests.support.waiting import eventually

pytestmark = pytest.mark.kubernetes

NOW = datetime(2030, 1, 1, 12, tzinfo=UTC)
REASON = "the image none:1 cannot be pulled: there is no such host"
FAILED: dict[str, Any] = {"failed_code": FailedCode.IMAGE_PULL, "failed_reason": REASON, "finished_at": NOW}


@pytest.fixture
async def store(api_client: ApiClient, namespace: str) -> AsyncIterator[Store]:
    async with KubernetesStore.open(api_client, namespace) as store:
        yield store


@pytest.fixture
async def running(store: Store) -> Job:
    """A job whose first attempt has started."""
    job = await store.create(a_job(resource_version=""))
    return await store.update(advance(job, JobEvent.START, attempts=1, started_at=NOW, slot="opus"))


def events_of(kubectl: Kubectl, job: Job) -> list[str]:
    """Return the type and reason of each Event of the job."""
    listed = json.loads(kubectl("get", "events", "-o", "json", f"--field-selector=involvedObject.name={job.id}"))
    return [f"{each['type']} {each['reason']}" for each in listed["items"]]


async def test_conditions_show_the_progress_of_a_job(kubectl: Kubectl, store: Store, running: Job) -> None:
    def conditions() -> dict[str, dict[str, Any]]:
        status = json.loads(kubectl("get", "ir", running.id, "-o", "json"))["status"]
        return {each["type"]: each for each in status["conditions"]}

    assert set(conditions()) == {"Accepted", "Started"}
    assert conditions()["Started"]["message"] == "attempt 1 got a slot of opus"
    await store.update(advance(running, JobEvent.SUCCEED, finished_at=NOW))
    assert conditions()["Finished"] == {
        "type": "Finished",
        "status": "True",
        "reason": "Succeeded",
        "message": "the agent returned a result",
        "lastTransitionTime": "2030-01-01T12:00:00Z",
        "observedGeneration": 1,
    }
    for condition in ("Finished", "Succeeded"):
        assert "condition met" in kubectl("wait", f"ir/{running.id}", f"--for=condition={condition}", "--timeout=1s")


async def test_a_failure_is_recorded_once_as_an_event_that_describe_shows(
    kubectl: Kubectl, store: Store, running: Job
) -> None:
    failed = await store.update(advance(running, JobEvent.FAIL, **FAILED))
    await eventually(lambda: events_of(kubectl, running) == ["Warning Failed"])
    labelled = await store.update(replace(failed, metadata=replace(failed.metadata, labels={"seen": "yes"})))
    retried = advance(labelled, JobEvent.RETRY, failed_code=None, failed_reason=None, finished_at=None)
    cancelled = advance(await store.update(retried), JobEvent.CANCEL, finished_at=NOW)
    await store.update(cancelled)
    await eventually(lambda: "Normal Cancelled" in events_of(kubectl, running))
    assert sorted(events_of(kubectl, running)) == ["Normal Cancelled", "Warning Failed"]

    described = kubectl("describe", "ir", running.id)
    assert f"image_pull: {REASON}" in described.split("Events:")[1]


async def test_a_requeued_job_has_an_event_and_a_condition_with_the_reason(
    kubectl: Kubectl, store: Store, running: Job
) -> None:
    requeued = FAILED | {"finished_at": None, "not_before": NOW + timedelta(seconds=10)}
    await store.update(advance(running, JobEvent.REQUEUE, **requeued))
    await eventually(lambda: events_of(kubectl, running) == ["Warning Requeued"])
    message = "{.status.conditions[?(@.type=='Started')].message}"
    assert REASON in kubectl("get", "ir", running.id, "-o", f"jsonpath={message}")


async def test_an_event_with_a_long_reason_is_recorded(kubectl: Kubectl, store: Store, running: Job) -> None:
    await store.update(advance(running, JobEvent.FAIL, **FAILED | {"failed_reason": "ü" * 5000}))
    await eventually(lambda: events_of(kubectl, running) == ["Warning Failed"])


async def test_a_job_that_succeeds_has_no_event(kubectl: Kubectl, store: Store, running: Job) -> None:
    await store.update(advance(running, JobEvent.SUCCEED, finished_at=NOW))
    failed = await store.create(a_job(resource_version=""))
    await store.update(advance(failed, JobEvent.FAIL, **FAILED))
    await eventually(lambda: events_of(kubectl, failed) == ["Warning Failed"])
    assert events_of(kubectl, running) == []
