"""Parts of the jobs API that depend on time, failures or chance, so that acceptance tests cannot see them."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import httpx2
import pytest
from msgspec.structs import replace

from labrats.api.http.idempotency import Intent
from labrats.api.routes.job_streams import BEGINNING, parse_event_id, stream
from labrats.api.routes.jobs import log_line
from labrats.api.schemas.submission import Submission
from labrats.model.attempt_name import AttemptName
from labrats.model.core_resources import ConfigMap, Secret
from labrats.model.errors import RetryLater
from labrats.model.job import FailedCode, Job, JobSpec
from labrats.model.phases import Phase
from labrats.model.record import Metadata, Resource
from tests.api.conftest import Api, a_submission, api_in_memory
from tests.fakes.clock import VirtualTimeLoop
from tests.fakes.store import MemoryStore
from tests.support.builders import an_ai_model
from tests.support.waiting import eventually

A_FILE = [{"name": "a.txt", "data": "aGVsbG8K"}]
WITH_TOKEN = {"workspaceSetup": {"gitRepo": "https://octocat:test-token@1.1.1.1/octocat/hello.git"}}


def script(*steps: Any) -> dict[str, Any]:
    return {"metadata": {"mock": {"steps": list(steps)}}}


async def submit(user: httpx2.AsyncClient, **fields: Any) -> str:
    answer = await user.post("/api/jobs/submit", json=a_submission(**fields))
    assert answer.status_code == 201, answer.text
    return str(answer.json()["jobId"])


async def ended(api: Api, job_id: str) -> Job:
    """Return the job once it has ended."""
    async with asyncio.timeout(10):
        while not (job := await api.store.get(Job, job_id)).ended:
            await asyncio.sleep(0.001)
    return job


async def retry_refused(user: httpx2.AsyncClient, job_id: str) -> str | None:
    """Return the reason in the job's detail why it cannot be retried."""
    reason: str | None = (await user.get(f"/api/jobs/{job_id}")).json()["retryRefused"]
    return reason


def log_of(api: Api, job_id: str) -> AsyncGenerator[bytes]:
    """Return the frames of the job's log stream."""
    return stream(api.services, job_id, BEGINNING, log_line)


def stored_files(api: Api) -> list[Path]:
    """List the stored files of jobs."""
    return [path for path in api.services.settings.uploads.rglob("*") if path.is_file()]


class TestRetryOfAJobWithAToken:
    async def test_a_job_with_a_token_can_be_retried_for_ten_minutes(self, api: Api, user: httpx2.AsyncClient) -> None:
        job_id = await submit(user, **WITH_TOKEN, **script({"fail": "no"}))
        await ended(api, job_id)

        api.clock.step(590)
        assert await retry_refused(user, job_id) is None
        within = await user.post(f"/api/jobs/{job_id}/retry")
        await ended(api, job_id)
        api.clock.step(10)
        after = await user.post(f"/api/jobs/{job_id}/retry")
        assert after.json()["error"] == await retry_refused(user, job_id)
        rerun = await user.post(f"/api/jobs/{job_id}/rerun", json={})

        assert (within.status_code, after.status_code, rerun.status_code) == (200, 400, 400)
        assert "10 minutes" in after.json()["error"]
        assert "10 minutes" in rerun.json()["error"]
        assert (await api.store.get(Job, job_id)).status.attempts == 2

    async def test_a_repeated_rerun_gets_the_first_answer_after_the_token_has_expired(
        self, api: Api, user: httpx2.AsyncClient
    ) -> None:
        job_id = await submit(user, **WITH_TOKEN)
        headers = {"Idempotency-Key": "key-1"}
        first = await user.post(f"/api/jobs/{job_id}/rerun", json={}, headers=headers)
        api.clock.step(700)
        again = await user.post(f"/api/jobs/{job_id}/rerun", json={}, headers=headers)

        assert (first.status_code, again.status_code) == (201, 201)
        assert again.json() == first.json()

    async def test_a_job_without_a_token_can_always_be_retried(self, api: Api, user: httpx2.AsyncClient) -> None:
        plain = {"workspaceSetup": {"gitRepo": "https://1.1.1.1/octocat/hello.git"}}
        job_id = await submit(user, **plain, **script({"fail": "no"}))
        await ended(api, job_id)

        api.clock.step(10**6)

        assert (await user.post(f"/api/jobs/{job_id}/retry")).status_code == 200


async def test_a_token_in_an_address_is_stored_in_a_secret_only(api: Api, user: httpx2.AsyncClient) -> None:
    job_id = await submit(user, **WITH_TOKEN)

    job = await api.store.get(Job, job_id)
    assert "test-token" not in repr(job)
    assert job.spec.workspace_setup is not None
    assert job.spec.workspace_setup.credentials_ref == f"{job_id}-git"
    secret = await api.store.get(Secret, f"{job_id}-git")
    assert secret.data == {"username": "octocat", "password": "test-token"}
    assert secret.metadata.owner is not None


async def test_the_parts_of_a_job_are_deleted_with_it(api: Api, user: httpx2.AsyncClient) -> None:
    job_id = await submit(user, **WITH_TOKEN)
    await ended(api, job_id)

    await api.store.delete(Job, job_id)

    assert await api.store.list(ConfigMap) == []
    assert f"{job_id}-git" not in [secret.name for secret in await api.store.list(Secret)]


async def test_too_many_waiting_jobs_are_answered_429(tmp_path: Path) -> None:
    async with api_in_memory(tmp_path, max_waiting_jobs=3, default_model_slots=0) as api, api.client() as user:
        accepted = [await submit(user) for _ in range(2)]
        keyed = {"Idempotency-Key": "key-1"}
        first = await user.post("/api/jobs/submit", json=a_submission(), headers=keyed)
        await eventually(lambda: api.services.job_index.count_in(Phase.PENDING) == 3)

        refused = await user.post("/api/jobs/submit", json=a_submission())
        again = await user.post("/api/jobs/submit", json=a_submission(), headers=keyed)

        assert (refused.status_code, refused.json()["code"]) == (429, "overloaded")
        assert int(refused.headers["Retry-After"]) > 0
        assert again.json() == first.json()
        await user.post(f"/api/jobs/{accepted[0]}/cancel")
        await eventually(lambda: api.services.job_index.count_in(Phase.PENDING) == 2)
        await submit(user)


async def test_too_many_waiting_jobs_of_one_owner_refuse_no_other(tmp_path: Path) -> None:
    limits: dict[str, Any] = {"max_waiting_jobs_per_owner": 2, "default_model_slots": 0}
    async with api_in_memory(tmp_path, **limits) as api, api.client() as user, api.client("other") as other:
        for _ in range(2):
            await submit(user)
        await eventually(lambda: api.services.job_index.count_in(Phase.PENDING) == 2)

        refused = await user.post("/api/jobs/submit", json=a_submission())
        await submit(other)

        assert (refused.status_code, refused.json()["code"]) == (429, "overloaded")
        assert "are waiting, the limit for one owner" in refused.json()["error"]


class FailingStore(MemoryStore):
    """A store that fails to create jobs: before the write, after it, or before the write of the parts."""

    trouble = ""

    async def create(self, resource: Any, parts: Sequence[Resource] = ()) -> Any:
        if isinstance(resource, Job) and self.trouble == "before":
            raise RetryLater("the disk is full", delay_seconds=7)
        if self.trouble == "between":
            if isinstance(resource, Job):
                await super().create(resource)
            raise RetryLater("the disk went away", delay_seconds=7)
        created = await super().create(resource, parts)
        if isinstance(resource, Job) and self.trouble == "after":
            raise RetryLater("the disk went away", delay_seconds=7)
        return created


class TestFailingStore:
    @pytest.fixture
    async def api(self, tmp_path: Path) -> AsyncIterator[Api]:
        async with api_in_memory(tmp_path, make_store=FailingStore) as api:
            yield api

    async def test_a_failure_before_the_write_is_answered_503_and_leaves_nothing(
        self, api: Api, user: httpx2.AsyncClient
    ) -> None:
        api.store.trouble = "before"  # type: ignore[attr-defined]

        answer = await user.post("/api/jobs/submit", json=a_submission(workspaceFiles=A_FILE))

        assert (answer.status_code, answer.json()["code"]) == (503, "unavailable")
        assert answer.headers["Retry-After"] == "7"
        assert b"labrats_store_errors_total 1.0" in api.services.metrics.exposition()
        assert await api.store.list(Job) == []
        assert stored_files(api) == []

    async def test_a_failure_after_the_write_still_accepts_the_job(self, api: Api, user: httpx2.AsyncClient) -> None:
        api.store.trouble = "after"  # type: ignore[attr-defined]

        job_id = await submit(user, workspaceFiles=A_FILE)

        assert (await ended(api, job_id)).spec.workspace_files
        assert len(stored_files(api)) == 1

    async def test_a_failure_between_the_writes_leaves_nothing(self, api: Api, user: httpx2.AsyncClient) -> None:
        api.store.trouble = "between"  # type: ignore[attr-defined]

        answer = await user.post("/api/jobs/submit", json=a_submission(workspaceFiles=A_FILE))

        assert answer.status_code == 503
        assert await api.store.list(Job) == []
        assert stored_files(api) == []

    @pytest.mark.parametrize("slots", [0, 1], ids=["while it waits", "after it failed"])
    async def test_the_same_request_completes_a_job_that_lacks_parts(
        self, api: Api, user: httpx2.AsyncClient, slots: int
    ) -> None:
        model = await api.store.create(an_ai_model(slots=slots))
        asked: dict[str, Any] = {"json": a_submission(workspaceFiles=A_FILE), "headers": {"Idempotency-Key": "key-1"}}
        api.store.trouble = "between"  # type: ignore[attr-defined]
        assert (await user.post("/api/jobs/submit", **asked)).status_code == 503
        (half,) = await api.store.list(Job)
        if slots:
            assert (await ended(api, half.id)).status.failed_code is FailedCode.INTERNAL
        api.store.trouble = ""  # type: ignore[attr-defined]

        answer = await user.post("/api/jobs/submit", **asked)

        assert (answer.status_code, answer.json()["jobId"]) == (201, half.id)
        await api.store.update(replace(model, spec=replace(model.spec, slots=1)))
        assert (await ended(api, half.id)).phase is Phase.SUCCEEDED
        assert len(stored_files(api)) == 1


class TestNames:
    async def test_a_repeated_key_finds_its_job_although_other_jobs_have_its_first_names(
        self, api: Api, user: httpx2.AsyncClient
    ) -> None:
        me = api.services.api_keys.caller("test-key-of-a-user", api.clock.now())
        assert me is not None
        intent = Intent.of("key-1", me.id, Submission.model_validate(a_submission()))
        assert intent is not None
        *taken, free = intent.job_names().candidates
        for name in taken:
            await api.store.create(Job(metadata=Metadata(name=name), spec=JobSpec(source="other", type="other")))

        answers = [
            await user.post("/api/jobs/submit", json=a_submission(), headers={"Idempotency-Key": "key-1"})
            for _ in range(2)
        ]

        assert [answer.json()["jobId"] for answer in answers] == [free] * 2

    async def test_an_attempt_under_a_taken_name_leaves_no_files(self, api: Api, user: httpx2.AsyncClient) -> None:
        headers = {"Idempotency-Key": "key-1"}
        body = a_submission(workspaceFiles=A_FILE)

        await asyncio.gather(*(user.post("/api/jobs/submit", json=body, headers=headers) for _ in range(10)))

        assert len(await api.store.list(Job)) == 1
        assert len(stored_files(api)) == 1


class TestLogStream:
    async def test_a_log_stream_ends_when_the_engine_stops(self, api: Api, user: httpx2.AsyncClient) -> None:
        job_id = await submit(user, **script({"log": "on"}, {"hang": True}))
        frames = log_of(api, job_id)
        assert b'{"log":"on"}' in await anext(frames)

        api.services.stopping.set()

        assert [frame async for frame in frames] == []

    async def test_a_log_stream_ends_when_the_job_is_deleted(self, tmp_path: Path) -> None:
        async with api_in_memory(tmp_path, default_model_slots=0) as api, api.client() as user:
            job_id = await submit(user)
            reading = asyncio.create_task(_all(log_of(api, job_id)))
            await asyncio.sleep(0)

            await api.store.delete(Job, job_id)

            assert await reading == []

    async def test_a_log_stream_has_the_last_lines_after_the_output_is_removed(
        self, api: Api, user: httpx2.AsyncClient
    ) -> None:
        job_id = await submit(user, **script({"log": "line {n}", "times": 150}))
        await api.services.runner.remove((await ended(api, job_id)).attempt_name)

        body = b"".join(await _all(log_of(api, job_id)))

        assert body.count(b'{"log":') == 100
        assert b"line 51" in body
        assert b"line 50" not in body
        assert body.endswith(b'data: {"done":true,"status":"completed"}\n\n')

    async def test_a_closed_log_stream_leaves_no_task(self, api: Api, user: httpx2.AsyncClient) -> None:
        job_id = await submit(user, **script({"log": "on"}, {"hang": True}))
        staying = log_of(api, job_id)
        await anext(staying)
        tasks_before = asyncio.all_tasks()

        leaving = log_of(api, job_id)
        await anext(leaving)
        assert b"labrats_log_streams 2.0" in api.services.metrics.exposition()
        await leaving.aclose()

        await eventually(lambda: asyncio.all_tasks() == tasks_before)
        assert b"labrats_log_streams 1.0" in api.services.metrics.exposition()
        await staying.aclose()
        assert b"labrats_log_streams 0.0" in api.services.metrics.exposition()

    async def test_a_log_stream_that_opens_as_the_job_starts_misses_nothing(
        self, api: Api, user: httpx2.AsyncClient
    ) -> None:
        for turns in range(20):
            job_id = await submit(
                user, **script({"log": "on"}, {"hang": True}), config={"provider": "mock", "model": f"{turns}"}
            )
            for _ in range(turns):
                await asyncio.sleep(0)

            frames = log_of(api, job_id)

            assert b'{"log":"on"}' in await anext(frames)  # without a ping before it, which a late start would cause
            await frames.aclose()

    @pytest.mark.parametrize(
        ("event_id", "position"),
        [
            ("1-17", (1, 17)),
            ("3-0", (3, 0)),
            (None, (1, 0)),
            ("", (1, 0)),
            ("0-5", (1, 0)),
            ("x-1", (1, 0)),
            ("1", (1, 0)),
        ],
    )
    def test_a_log_stream_resumes_only_after_valid_ids(self, event_id: str | None, position: tuple[int, int]) -> None:
        assert parse_event_id(event_id) == position


class TestPings:
    @pytest.fixture
    def anyio_backend(self) -> tuple[str, dict[str, Any]]:
        return "asyncio", {"loop_factory": VirtualTimeLoop}

    @pytest.fixture
    async def api(self, tmp_path: Path) -> AsyncIterator[Api]:
        async with api_in_memory(tmp_path, handles_files=False) as api:
            yield api

    async def test_pings_are_sent_while_only_unlogged_events_arrive(self, api: Api, user: httpx2.AsyncClient) -> None:
        busy = [{"sleepMs": 10_000}, {"usage": {"turns": 1}}] * 4
        job_id = await submit(user, **script(*busy))

        *pings, done = await _all(log_of(api, job_id))

        assert pings == [b": ping\n\n"] * 2
        assert b'"done":true' in done

    async def test_a_silent_stream_can_be_closed(self, api: Api, user: httpx2.AsyncClient) -> None:
        job_id = await submit(user, **script({"log": "on"}, {"hang": True}))
        frames = log_of(api, job_id)
        await anext(frames)
        assert await anext(frames) == b": ping\n\n"

        await frames.aclose()

        assert b"labrats_log_streams 0.0" in api.services.metrics.exposition()

    async def test_a_silent_stream_has_a_comment_every_15_seconds(self, api: Api, user: httpx2.AsyncClient) -> None:
        began = asyncio.get_running_loop().time()
        job_id = await submit(user, **script({"sleepMs": 40_000}, {"log": "at last"}))

        frames = await _all(log_of(api, job_id))

        assert frames[:2] == [b": ping\n\n"] * 2
        assert [frame[:3] for frame in frames[2:]] == [b"id:", b"dat"]
        assert asyncio.get_running_loop().time() - began == pytest.approx(40, abs=0.1)


async def _all(frames: AsyncIterator[bytes]) -> list[bytes]:
    return [frame async for frame in frames]


async def test_jobs_with_large_results_are_continued_one_at_a_time(
    api: Api, user: httpx2.AsyncClient, admin: httpx2.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each result may take hundreds of MiB of the engine's memory."""
    job = await ended(api, await submit(user))
    await api.store.update(replace(job, status=replace(job.status, result_cut=True)))
    reading, at_once = set[object](), []

    async def result(_: AttemptName) -> str:
        reading.add(this := object())
        at_once.append(len(reading))
        await asyncio.sleep(0.01)
        reading.remove(this)
        return "done"

    monkeypatch.setattr(api.services.runner, "result", result)
    path = f"/api/jobs/{job.id}/messages"
    sent = (who.post(path, json={"prompt": f"message {number}"}) for number, who in enumerate((user, user, admin)))
    assert [answer.status_code for answer in await asyncio.gather(*sent)] == [201, 201, 201]
    assert at_once == [1, 1, 1]
