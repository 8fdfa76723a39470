"""Texts of ended jobs move from etcd to the data volume, and back for a retry."""

from collections.abc import AsyncIterator
from contextlib import suppress
from datetime import timedelta
from pathlib import Path

import pytest
from msgspec.structs import replace

from labrats.backends.kubernetes.client import ApiClient
from labrats.backends.kubernetes.store import KubernetesStore
from labrats.backends.kubernetes.text_archive import TextArchive
from labrats.backends.kubernetes.text_archiver import ARCHIVED_AFTER, TextArchiver
from labrats.index.jobs import JobIndex
from labrats.model.core_resources import PROMPT_KEY, ConfigMap
from labrats.model.errors import NotFound
from labrats.model.job import Job, KeyReference, after_retry_request
from labrats.model.phases import Phase
from labrats.model.record import Metadata
from tests.fakes.clock import FakeClock
from tests.support.background import run_in_background
from tests.support.builders import a_job, a_spec
from tests.support.waiting import eventually

pytestmark = pytest.mark.kubernetes

NAME = "ir-0000000a-prompt"


class Texts:
    """The store and archiver of a leader."""

    def __init__(self, store: KubernetesStore, archive: TextArchive, index: JobIndex, namespace: str) -> None:
        self.store, self.archive, self.index, self.clock = store, archive, index, FakeClock()
        self.namespace = namespace
        self.archiver = TextArchiver(store, archive, index, self.clock)

    async def ended_job(self) -> Job:
        """Create a failed job with its prompt in a ConfigMap, and wait until the index knows of its end."""
        prompt = ConfigMap(metadata=Metadata(name=NAME), data={PROMPT_KEY: "Fix it."})
        spec = a_spec(prompt=None, prompt_ref=KeyReference(name=NAME, key=PROMPT_KEY))
        created = await self.store.create(a_job(job_id="ir-0000000a", spec=spec), [prompt])
        status = replace(created.status, phase=Phase.FAILED, attempts=1, finished_at=self.clock.now())
        job = await self.store.update(replace(created, status=status))
        await eventually(lambda: job.id in [*self.index.finished_before(self.clock.now() + timedelta(days=1))])
        return job

    async def is_in_etcd(self) -> bool:
        with suppress(NotFound):
            return (await self.store.get_live(ConfigMap, NAME)).data == {PROMPT_KEY: "Fix it."}
        return False


@pytest.fixture
async def texts(api_client: ApiClient, namespace: str, tmp_path: Path) -> AsyncIterator[Texts]:
    archive, index = TextArchive(tmp_path), JobIndex()
    async with (
        KubernetesStore.open(api_client, namespace, texts=archive) as store,
        run_in_background(index.follow(store)),
    ):
        await index.synced.wait()
        yield Texts(store, archive, index, namespace)


async def test_texts_leave_etcd_an_hour_after_the_end_and_can_still_be_read(texts: Texts) -> None:
    await texts.ended_job()
    texts.clock.step(ARCHIVED_AFTER.total_seconds() - 60)
    await texts.archiver.make_pass()
    assert await texts.is_in_etcd()

    texts.clock.step(120)
    await texts.archiver.make_pass()
    assert not await texts.is_in_etcd()
    assert (await texts.store.get(ConfigMap, NAME)).data == {PROMPT_KEY: "Fix it."}


async def test_retry_moves_the_texts_back_with_their_owner_and_a_new_end_archives_them_again(texts: Texts) -> None:
    job = await texts.ended_job()
    texts.clock.step(ARCHIVED_AFTER.total_seconds() + 60)
    await texts.archiver.make_pass()

    retried = await texts.store.update(after_retry_request(job, texts.clock.now()))
    assert await texts.is_in_etcd()
    assert (await texts.store.get_live(ConfigMap, NAME)).metadata.owner == job.as_owner()

    await texts.archiver.make_pass()
    assert await texts.is_in_etcd()
    status = replace(retried.status, phase=Phase.FAILED, finished_at=texts.clock.now())
    await texts.store.update(replace(retried, status=status))
    texts.clock.step(ARCHIVED_AFTER.total_seconds() + 60)
    await eventually(lambda: [*texts.index.finished_before(texts.clock.now() - ARCHIVED_AFTER)] == [job.id])
    await texts.archiver.make_pass()
    assert not await texts.is_in_etcd()


async def test_bytes_of_all_jobs_are_estimated_from_a_sample(texts: Texts, api_client: ApiClient) -> None:
    assert await texts.store.history_bytes() == 0
    for number in range(30):
        await texts.store.create(a_job(job_id=f"ir-000000{number:02}", spec=a_spec(metadata={"n": "x" * 100 * number})))
    listed = await api_client.request(
        "GET", f"/apis/labrats.work/v1alpha1/namespaces/{texts.namespace}/inferencerequests"
    )
    assert 0.5 < await texts.store.history_bytes() / len(listed) < 2


async def test_archived_texts_of_a_deleted_job_are_removed(texts: Texts) -> None:
    job = await texts.ended_job()
    texts.clock.step(ARCHIVED_AFTER.total_seconds() + 60)
    await texts.archiver.make_pass()
    assert texts.archive.jobs() == [job.id]

    await texts.store.delete(Job, job.id)
    await eventually(lambda: not texts.index.contains(job.id))
    await texts.archiver.make_pass()
    assert texts.archive.jobs() == []
