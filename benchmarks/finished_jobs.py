"""Data folders with many finished jobs, written by the engine's store."""

import asyncio
from datetime import UTC, datetime
from pathlib import Path

from labrats.backends.embedded.store import EmbeddedStore
from labrats.model.config import ConfigLayer, JobConfig, resolve_config
from labrats.model.core_resources import PROMPT_KEY, ConfigMap
from labrats.model.job import FailedCode, Job, JobSpec, JobStatus, KeyReference
from labrats.model.phases import Phase
from labrats.model.record import Metadata
from labrats.ports import Store

_BATCH_SIZE = 500
_PROMPT = "Fix the failing test. " * 46  # 1 KB
_LOGS = ("reading the prompt", "calling the model", "done")


async def create_finished_jobs(data_dir: Path, jobs: int) -> None:
    """Add `jobs` ended jobs to the data folder."""
    async with EmbeddedStore.open(data_dir / "labrats.db") as store:
        for start in range(0, jobs, _BATCH_SIZE):
            await asyncio.gather(*(_add(store, number) for number in range(start, min(start + _BATCH_SIZE, jobs))))


async def _add(store: Store, number: int) -> None:
    job = a_finished_job(number)
    prompt = ConfigMap(metadata=Metadata(name=f"{job.id}-prompt"), data={PROMPT_KEY: _PROMPT})
    await store.create(job, [prompt])


def a_finished_job(number: int) -> Job:
    """Return a job as the engine stores it after its end. Every tenth has failed."""
    job_id, now = f"ir-{number:08x}", datetime.now(UTC)
    config, has_failed = JobConfig(provider="mock", model=f"model-{number % 4}"), number % 10 == 0
    return Job(
        metadata=Metadata(name=job_id),
        spec=JobSpec(
            source="benchmark",
            type=f"type-{number % 10}",
            prompt_ref=KeyReference(name=f"{job_id}-prompt", key=PROMPT_KEY),
            agent_role=f"agent-{number % 5}",
            title="Fix the failing test.",
            config=config,
            resolved=resolve_config([ConfigLayer("request", config)]),
            metadata={"repo": f"octocat/repository-{number % 50}"},
            owner=f"user-{number % 20}",
        ),
        status=JobStatus(
            phase=Phase.FAILED if has_failed else Phase.SUCCEEDED,
            failed_code=FailedCode.TIMEOUT if has_failed else None,
            attempts=1,
            slot="mock/mock",
            started_at=now,
            finished_at=now,
            result="some result",
            logs=_LOGS,
        ),
    )
