"""Jobs of an installation: callbacks, and results after the pod is gone."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from tests.acceptance.engine import PATIENCE_SECONDS, POLL_SECONDS, User, a_submission
from tests.chart.fixture import SIGNING_KEY
from tests.chart.installation import Installation
from tests.chart.test_installation import a_user_of
from tests.support.pdfs import a_manual
from tests.support.webhook_receiver import a_receiver

pytestmark = [pytest.mark.kubernetes(node=True, helm=True, engine_image=True), pytest.mark.timeout(400)]


@pytest.fixture
async def user(installation: Installation) -> AsyncIterator[User]:
    async with a_user_of(installation) as user:
        yield user


async def test_caller_in_the_cluster_gets_signed_callbacks_for_start_and_end(
    installation: Installation, user: User
) -> None:
    async with a_receiver(listener=installation.cluster.listen()) as receiver:
        job_id = await user.submit({"result": "done"}, callbackUrl=receiver.url)
        received = await receiver.got("in_progress", "completed")

    assert [delivery.message["jobId"] for delivery in received] == [job_id, job_id]
    assert all(delivery.is_signed_by(SIGNING_KEY) for delivery in received)
    assert not any(delivery.is_signed_by(b"another key") for delivery in received)


async def test_callback_to_another_address_in_the_cluster_is_refused(installation: Installation, user: User) -> None:
    service = installation.get("service", "labrats")[0]["spec"]["clusterIP"]
    refused = await user.post("/api/jobs/submit", a_submission(callbackUrl=f"http://{service}/hook"))
    assert refused.status_code == 422, refused.text
    assert [each["field"] for each in refused.json()["details"]] == ["callbackUrl"]


async def test_results_of_a_pdf_job_outlive_its_pod(installation: Installation, user: User) -> None:
    uploaded = (await user.http.post("/api/workspace-uploads", files={"file": ("manual.pdf", a_manual())})).json()
    job_id = await user.submit(
        {"log": "reading"},
        {"result": "Said."},
        pipeline={"type": "pdf-sections"},
        workspaceUploads=[{"id": uploaded["id"], "name": "manual.pdf"}],
    )
    followed = await user.log_lines(job_id)
    detail = await user.wait(job_id)
    assert detail["status"] == "completed", detail
    titles = [each["title"] for each in detail["result"]["sections"]]
    assert titles == ["A manual", "One", "One, closer", "Two"]
    assert [line for line in followed if line.startswith("section ")][-1] == "section 4 of 4: Two (page 3)"

    installation.kubectl("delete", "job", detail["k8sJobName"], "--cascade=foreground")
    async with asyncio.timeout(PATIENCE_SECONDS):
        while installation.get("pods", f"--selector=labrats.work/job={job_id}"):
            await asyncio.sleep(POLL_SECONDS)
    assert await user.log_lines(job_id) == followed
    assert await user.job(job_id) == detail
