"""Actions on many jobs: a job that cannot be changed stops neither the action nor the engine."""

from typing import Any

import httpx2
import pytest

from labrats.model.errors import Invalid, Problem, RetryLater
from labrats.model.job import Job
from tests.api.conftest import Api, a_submission
from tests.support.builders import an_ai_model


async def test_action_leaves_out_an_invalid_job_and_repeats_a_failed_write(
    api: Api, user: httpx2.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    await api.store.create(an_ai_model("mock", model="mock", slots=0))
    jobs = [(await user.post("/api/jobs/submit", json=a_submission())).json()["jobId"] for _ in range(3)]
    invalid, unlucky, _ = jobs
    errors = {invalid: Invalid(Problem("spec.title", "is too long")), unlucky: RetryLater("the disk is full")}
    update = api.store.update

    async def failing(resource: Any) -> Any:
        if isinstance(resource, Job) and (error := errors.pop(resource.id, None)):
            raise error
        return await update(resource)

    monkeypatch.setattr(api.store, "update", failing)
    await api.clock.sleep(1)  # until the index has the jobs
    body: dict[str, Any] = {"action": "cancel", "filter": {}, "expected": 3}
    assert (await user.post("/api/jobs/bulk", json=body)).status_code == 202
    await api.clock.sleep(5)

    assert not errors
    statuses = [(await user.get(f"/api/jobs/{job_id}")).json()["status"] for job_id in jobs]
    assert statuses == ["waiting", "cancelled", "cancelled"]
