"""The supervision of attempts of different jobs with the same name."""

from pathlib import Path
from typing import Any

from labrats.backends.kubernetes.batch_client import BatchClient
from labrats.backends.kubernetes.batch_objects import JobObject
from labrats.backends.kubernetes.claims import Claims
from labrats.backends.kubernetes.files import AttemptFiles
from labrats.backends.kubernetes.supervisor import Supervisor
from tests.support.waiting import eventually
from tests.unit.backends.kubernetes.objects import NAME, a_job_object

NO_CLIENT: Any = None  # no request is sent while a Job is running


def a_job_of(uid: str) -> JobObject:
    owner = {"kind": "InferenceRequest", "name": "ir-0000000a", "uid": uid}
    return a_job_object(uid=f"job-of-{uid}", ownerReferences=[owner])


async def test_supervision_of_an_earlier_job_of_the_same_name_is_cancelled(tmp_path: Path) -> None:
    supervisor = Supervisor(
        BatchClient(NO_CLIENT, "default"), tmp_path, Claims(tmp_path), start_timeout_seconds=60, parts_seconds=60
    )
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
