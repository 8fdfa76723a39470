"""The history of jobs on a cluster, from a separate watch, the outputs and the pods."""

import asyncio
import json
import time
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing, asynccontextmanager
from pathlib import Path
from typing import Final

import msgspec

from labrats.backends.kubernetes.batch_client import BatchClient
from labrats.backends.kubernetes.batch_objects import PodObject
from labrats.backends.kubernetes.client import ApiClient
from labrats.backends.kubernetes.codec import resource_type
from labrats.backends.kubernetes.files import AttemptFiles
from labrats.files.attempt_output import attempt_names
from labrats.model.job import Job
from tests.acceptance.engine import LocalEngine
from tests.torture.history import History, JobVersion, Run
from tests.torture.load import SLOTS, Answers
from tests.torture.witnesses import run_of, version_of

NOT_UNDER_FAULTS: Final = {"priority"}
"""Guarantees that do not hold under faults.

A job whose start could not be recorded keeps its slot until the next try, while others start. And jobs that get their
slots at the same time, as after a change of leadership, are recorded as started in any order.
"""


async def history_of(
    client: ApiClient, namespace: str, engine: LocalEngine, answers: Answers, written: Sequence[JobVersion]
) -> History:
    """Return the history once every job has ended."""
    return History(
        accepted=answers.accepted,
        commands=answers.commands,
        reported=answers.reported,
        followed=answers.followed,
        unexpected_answers=answers.unexpected_answers,
        written=written,
        runs=read_runs(engine.data_dir / "attempts"),
        leftovers=await living_pods(client, namespace),
        slots=SLOTS,
    )


class _Event(msgspec.Struct):
    type: str
    object: msgspec.Raw


@asynccontextmanager
async def recorded_versions(client: ApiClient, namespace: str) -> AsyncIterator[list[JobVersion]]:
    """Record every version of every job that is written during the block, by a watch without faults.

    Deleted jobs are left out: they were rolled back because not all parts could be created, so never accepted.
    """
    jobs, versions = resource_type(Job), list[JobVersion]()
    path = jobs.path(namespace)
    start = json.loads(await client.request("GET", path, query={"limit": "1"}))["metadata"]["resourceVersion"]

    async def record() -> None:
        async with aclosing(client.lines(path, {"watch": "true", "resourceVersion": start})) as lines:
            async for line in lines:
                event = msgspec.json.decode(line, type=_Event)
                version = version_of(time.time(), jobs.read(event.object))
                if event.type == "DELETED":
                    versions[:] = [each for each in versions if each.job_id != version.job_id]
                else:
                    versions.append(version)

    async with asyncio.TaskGroup() as tasks:
        recording = tasks.create_task(record())
        yield versions
        recording.cancel()


def read_runs(attempts: Path) -> list[Run]:
    """Return every attempt that has output."""
    runs = [run_of(name, AttemptFiles.of(attempts, name).output) for name in sorted(attempt_names(attempts))]
    return [run for run in runs if run]


async def living_pods(client: ApiClient, namespace: str) -> list[str]:
    return [pod.name for pod in await _pods(client, namespace) if not pod.is_over]


async def pods_by_job(client: ApiClient, namespace: str) -> Counter[str]:
    """Return the number of pods of each job."""
    return Counter(pod.attempt.job_id for pod in await _pods(client, namespace) if pod.attempt)


async def _pods(client: ApiClient, namespace: str) -> list[PodObject]:
    pods = BatchClient(client, namespace).all_pods
    return [pods.read(item) async for page in client.pages(pods.path, pods.query) for item in page.items]


def errors_in(engine: LocalEngine) -> list[str]:
    """Return the lines of the log that are errors, or neither JSON nor the greeting of `labrats serve`."""
    expected = ("{", f"The engine is running at {engine.url}")
    return [line for line in engine.log.splitlines() if '"level": "error"' in line or not line.startswith(expected)]
