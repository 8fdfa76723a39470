"""The removal of files of jobs that were deleted while no engine ran."""

import os
from pathlib import Path

import pytest

from labrats.backends.kubernetes.client import ApiClient
from labrats.backends.kubernetes.codec import resource_type
from labrats.controller.retention import NEW_SECONDS
from labrats.model.job import Job
from tests.acceptance.engine import LocalEngine
from tests.cluster.volumes import bind_volume
from tests.kubernetes.conftest import EngineFactory
from tests.support.waiting import eventually

pytestmark = pytest.mark.kubernetes(node=True)

MARK = "left-by-a-deleted-job"


@pytest.fixture
async def engine(start_engine: EngineFactory, api_client: ApiClient, jobs_namespace: str) -> LocalEngine:
    """An engine with an uploads volume."""
    engine = start_engine(LABRATS_UPLOADS_CLAIM="uploads")
    await bind_volume(api_client, jobs_namespace, "uploads", str(engine.data_dir / "uploads"))
    return engine


async def test_files_of_a_job_deleted_while_no_engine_ran_are_removed(
    engine: LocalEngine, api_client: ApiClient, jobs_namespace: str
) -> None:
    async with engine.admin() as admin:
        await admin.post("/api/ai-models", {"name": "paused", "provider": "mock", "model": "none", "slots": 0})
        ended = await admin.submit({"log": MARK})
        await admin.wait(ended)
        waiting = await admin.submit(
            config={"model": "none"}, workspaceFiles=[{"name": "a.txt", "data": "bGVmdC1ieS1hLWRlbGV0ZWQtam9i"}]
        )
    assert len(files_with(engine, MARK)) == 2
    engine.stop()
    for job_id in (ended, waiting):
        await api_client.request("DELETE", resource_type(Job).path(jobs_namespace, job_id))
    [folder] = (engine.data_dir / "uploads" / "jobs").iterdir()
    long_ago = folder.stat().st_mtime - NEW_SECONDS - 60
    os.utime(folder, (long_ago, long_ago))

    engine.start()

    await eventually(lambda: not files_with(engine, MARK))


def files_with(engine: LocalEngine, text: str) -> list[Path]:
    files = [path for path in engine.data_dir.rglob("*") if path.is_file()]
    return [path for path in files if text.encode() in path.read_bytes()]
