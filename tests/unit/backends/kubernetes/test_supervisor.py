"""Who sees an attempt through, when another has its name."""

from pathlib import Path
from typing import Any

from labrats.backends.kubernetes.batch_client import BatchClient
from labrats.backends.kubernetes.batch_objects import JobObject
from labrats.backends.kubernetes.claims import Claims
from labrats.backends.kubernetes.files import AttemptFiles
from labrats.backends.kubernetes.supervisor import Supervisor
from tests.support.waiting import eventually
from tests.unit.backends.kubernetes.objects import NAME, a_job_object

NO_CLIENT: Any = None  # nothing is asked of the cluster while a Job is under way


def a_job_of(uid: str) -> JobObject:
    owner = {"kind": "InferenceRequest", "name": "ir-0000000a", "uid": uid}
    return a_job_object(uid=f"job-of-{uid}", ownerReferences=[owner])


async def test_an_earlier_job_of_the_name_is_seen_through_no_further(tmp_path: Path) -> None:
    attendance = Supervisor(
        BatchClient(NO_CLIENT, "default"), tmp_path, Claims(tmp_path), start_timeout_seconds=60, parts_seconds=60
    )
    files = AttemptFiles.of(tmp_path, NAME)
    async with attendance._tasks:
        attendance._see(a_job_of("first"))
        earlier = attendance._attended[NAME]
        await eventually(lambda: files.owner == "first")
        files.remove()

        attendance._see(a_job_of("second"))
        later = attendance._attended[NAME]
        await eventually(lambda: files.owner == "second")
        assert earlier.cancelled()
        assert attendance._attended == {NAME: later}

        await attendance.leave(NAME)
        assert later.cancelled()
        assert attendance._attended == {}
