"""Admission where several engines share a store."""

from collections.abc import Sequence
from pathlib import Path
from typing import TypeVar

from labrats.files.attachments import Attachments
from labrats.files.uploads import Uploads
from labrats.index.catalog import Catalog
from labrats.index.jobs import JobIndex
from labrats.intake.admission import Admission
from labrats.intake.job_names import JobNames
from labrats.intake.request import JobRequest
from labrats.metrics import Metrics
from labrats.model.config import JobConfig
from labrats.model.job import Job
from labrats.model.record import Resource
from labrats.settings import EngineSettings
from tests.fakes.store import MemoryStore

R = TypeVar("R", bound=Resource)


class UnsyncedStore(MemoryStore):
    """A store whose watch has yet to report what another engine has just written."""

    async def get_many(self, kind: type[R], names: Sequence[str]) -> list[R]:
        return []


async def test_a_repeated_request_returns_the_job_that_another_engine_has_just_stored(tmp_path: Path) -> None:
    store, annotations = UnsyncedStore(), {"made-by": "this request"}
    attachments, uploads = Attachments(tmp_path), Uploads(tmp_path)
    admission = Admission(store, Catalog(), JobIndex(), attachments, uploads, Metrics(), EngineSettings())
    request = JobRequest(source="manual", type="t", owner="key-1", prompt="Hello.", config=JobConfig(provider="mock"))
    names = JobNames(["ir-00000001", "ir-00000002"], annotations, lambda job: job.metadata.annotations == annotations)

    first, again = await admission.admit(request, names), await admission.admit(request, names)

    assert again.job == first.job
    assert [job.id for job in await store.list(Job)] == ["ir-00000001"]
