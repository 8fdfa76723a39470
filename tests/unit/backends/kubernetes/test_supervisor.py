"""The supervision of attempts of different jobs with the same name."""

import asyncio
import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest
from aiohttp import web

from labrats.backends.kubernetes import supervisor
from labrats.backends.kubernetes.batch_client import BatchClient
from labrats.backends.kubernetes.batch_objects import FAILED_CODE_ANNOTATION, JobObject
from labrats.backends.kubernetes.claims import Claims
from labrats.backends.kubernetes.files import AttemptFiles
from labrats.backends.kubernetes.observed_attempt import ObservedAttempt
from labrats.backends.kubernetes.supervisor import Supervisor
from tests.support.waiting import eventually
from tests.unit.backends.kubernetes.objects import NAME, a_job_object
from tests.unit.backends.kubernetes.test_client import serving
from tests.unit.backends.kubernetes.test_observed_attempt import a_pod

ENDED: dict[str, Any] = {"terminated": {"exitCode": 0}}
NO_CLIENT: Any = None  # no request is sent while a Job is running


def a_supervisor(folder: Path) -> Supervisor:
    return Supervisor(
        BatchClient(NO_CLIENT, "default"), folder, Claims(folder), start_timeout_seconds=60, parts_seconds=60
    )


def a_job_of(uid: str) -> JobObject:
    owner = {"kind": "InferenceRequest", "name": "ir-0000000a", "uid": uid}
    return a_job_object(uid=f"job-of-{uid}", ownerReferences=[owner])


async def test_supervision_of_an_earlier_job_of_the_same_name_is_cancelled(tmp_path: Path) -> None:
    supervisor = a_supervisor(tmp_path)
    files = AttemptFiles.of(tmp_path, NAME)
    async with supervisor._tasks:
        supervisor._update_job(a_job_of("first"))
        earlier = supervisor._supervisions[NAME]
        await eventually(lambda: files.owner == "first")
        files.remove()

        supervisor._update_job(a_job_of("second"))
        later = supervisor._supervisions[NAME]
        await eventually(lambda: files.owner == "second")
        assert earlier.cancelled()
        assert supervisor._supervisions == {NAME: later}

        await supervisor.stop_supervising(NAME)
        assert later.cancelled()
        assert supervisor._supervisions == {}


async def test_attempt_that_is_being_started_lives_before_the_watches_report_it(tmp_path: Path) -> None:
    supervisor = a_supervisor(tmp_path)
    async with supervisor._tasks:
        supervisor.expect_start(NAME)
        assert supervisor.living() == {NAME}
        supervisor._update_job(a_job_of("first"))
        assert supervisor.living() == {NAME}
        await eventually(lambda: AttemptFiles.of(tmp_path, NAME).owner == "first")
        supervisor._supervisions[NAME].cancel()
        await eventually(lambda: not supervisor.living())
        supervisor.expect_start(NAME)
        await supervisor.stop_supervising(NAME)
        assert supervisor.living() == set()


async def test_a_pod_that_outlives_its_executor_is_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An admission webhook may add a container that never ends, such as the proxy of a service mesh."""
    monkeypatch.setattr(supervisor, "LINGERING_SECONDS", 0.01)
    ended, job = asyncio.Event(), a_job_of("first")
    pod = a_pod("a", ENDED, phase="Running")

    async def answer(request: web.BaseRequest) -> web.Response:
        if request.method == "PATCH":
            assert json.loads(await request.read()) == {"spec": {"activeDeadlineSeconds": 1}}
            ended.set()
        found = job if "/jobs/" in request.path else pod
        return web.Response(body=msgspec.json.encode({"items": [pod]} if request.path.endswith("/pods") else found))

    async with serving(answer, tmp_path, {}) as client:
        supervised = Supervisor(
            BatchClient(client, "default"), tmp_path, Claims(tmp_path), start_timeout_seconds=60, parts_seconds=60
        )
        async with supervised._tasks:
            observed = ObservedAttempt(NAME)
            observed.update_job(job)
            observed.update_pod(pod)
            waiting = asyncio.create_task(supervised._wait_for_end(observed))
            async with asyncio.timeout(10):
                await ended.wait()
            waiting.cancel()


async def test_start_timeout_counts_from_the_creation_of_the_job_also_with_a_new_leader(tmp_path: Path) -> None:
    failed: asyncio.Future[dict[str, Any]] = asyncio.get_running_loop().create_future()
    a_minute_ago = (datetime.now(UTC) - timedelta(seconds=60)).isoformat()
    job = a_job_object(resourceVersion="1", creationTimestamp=a_minute_ago)

    async def answer(request: web.BaseRequest) -> web.Response:
        if request.method == "PATCH":
            failed.set_result(json.loads(await request.read()))
        return web.Response(body=msgspec.json.encode({"items": []} if request.path.endswith("/pods") else job))

    async with serving(answer, tmp_path, {}) as client:
        supervised = Supervisor(
            BatchClient(client, "default"), tmp_path, Claims(tmp_path), start_timeout_seconds=60, parts_seconds=600
        )
        async with supervised._tasks:
            supervised._update_job(job)
            async with asyncio.timeout(10):
                patch = await failed
            await supervised.stop_supervising(NAME)
    assert patch["metadata"]["annotations"][FAILED_CODE_ANNOTATION] == "start_timeout"


async def test_an_ended_pod_whose_job_is_not_decided_yet_is_waited_for_without_a_deadline(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The controller manager of the cluster may be down for minutes."""
    monkeypatch.setattr(supervisor, "LINGERING_SECONDS", 0.01)
    deadlines: list[float | None] = []

    def timeout_at(when: float | None) -> asyncio.Timeout:
        deadlines.append(when)
        return asyncio.Timeout(when)

    monkeypatch.setattr(asyncio, "timeout_at", timeout_at)
    supervised, observed = a_supervisor(tmp_path), ObservedAttempt(NAME)
    monkeypatch.setattr(supervised._api, "end_pod", lambda _: asyncio.sleep(0))
    observed.update_job(a_job_of("first"))
    observed.update_pod(a_pod("a", ENDED, version=1, phase="Running"))
    waiting = asyncio.create_task(supervised._wait_for_end(observed))
    await eventually(lambda: len(deadlines) >= 2)

    observed.update_pod(a_pod("a", ENDED, version=2, phase="Succeeded"))

    await eventually(lambda: deadlines[-1] is None)
    waiting.cancel()


@pytest.mark.parametrize(
    ("reports", "deadline_passed", "ends_after"),
    [
        (["09:00:00", "09:00:00", "09:00:10", "09:00:20"], False, 4),
        (["09:00:00", None], False, 2),
        ([None], False, 1),
        ([403], False, 1),
        (["09:00:00"], True, 1),
    ],
)
async def test_a_pod_deleted_by_force_ends_its_attempt_once_its_node_has_reported_or_is_gone(
    tmp_path: Path, reports: list[Any], deadline_passed: bool, ends_after: int
) -> None:
    """Its node may be out of reach and run the agent, so that a second attempt would run beside it."""
    due = iter(reports)
    created = datetime.now(UTC) - timedelta(seconds=60)
    job = a_job_object({"type": "Failed"}, resourceVersion="1", creationTimestamp=created.isoformat())
    job = msgspec.structs.replace(
        job, spec=msgspec.structs.replace(job.spec, active_deadline_seconds=59 if deadline_passed else 600)
    )

    async def answer(request: web.BaseRequest) -> web.Response:
        if request.path.endswith("/pods"):
            return web.Response(body=msgspec.json.encode({"metadata": {"resourceVersion": "2"}, "items": []}))
        assert request.path == "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases/node-1"
        if not isinstance(report := next(due), str):
            status = {"code": report or 404, "reason": "Forbidden" if report else "NotFound", "message": "no"}
            return web.Response(body=msgspec.json.encode(status), status=report or 404)
        return web.Response(body=msgspec.json.encode({"spec": {"renewTime": f"2026-01-01T{report}.000000Z"}}))

    async with serving(answer, tmp_path, {}) as client:
        supervised = Supervisor(
            BatchClient(client, "default"), tmp_path, Claims(tmp_path), start_timeout_seconds=60, parts_seconds=60
        )
        observed = ObservedAttempt(NAME)
        observed.update_job(job)
        pod = a_pod("a", {"running": {}}, phase="Running", deleted=True)
        observed.update_pod(pod)
        observed.remove_pod(pod)
        looks = [await supervised._is_over(observed) for _ in range(ends_after)]
    assert looks == [False] * (ends_after - 1) + [True]
