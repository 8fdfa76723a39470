"""The smoke test of a cluster, in the first lane of tests: an installation by Helm runs jobs on a real node."""

import asyncio
import secrets
from collections.abc import AsyncIterator
from typing import Final

import pytest

from labrats.backends.kubernetes.leader import LEASE
from tests.acceptance.engine import PATIENCE_SECONDS, POLL_SECONDS, User
from tests.chart.installation import Installation
from tests.chart.test_installation import a_user_of, an_applied_job

pytestmark = [
    pytest.mark.kubernetes(node=True, helm=True, engine_image=True),
    pytest.mark.core,
    pytest.mark.timeout(400),
]

LEADER: Final = f"lease/{LEASE}"


@pytest.fixture
async def user(installation: Installation) -> AsyncIterator[User]:
    async with a_user_of(installation) as user:
        yield user


async def test_submitted_job_runs_in_a_pod_and_is_followed(installation: Installation, user: User) -> None:
    job_id = await user.submit({"log": "tick {n}", "times": 5, "everyMs": 100}, {"result": "done"})
    lines = await user.log_lines(job_id)
    detail = await user.wait(job_id)
    assert (lines, detail["returnvalue"]) == ([f"tick {n}" for n in range(1, 6)], "done")
    assert installation.get("job", detail["k8sJobName"])


async def test_job_applied_with_kubectl_runs_and_can_be_deleted(installation: Installation, user: User) -> None:
    name = f"applied-{secrets.token_hex(4)}"
    installation.kubectl("apply", "-f", "-", stdin=an_applied_job({"name": name}))
    assert (await user.wait(name))["status"] == "completed"
    installation.kubectl("delete", "ir", name, "--cascade=foreground", "--timeout=30s")


async def test_killed_leader_is_replaced_and_its_running_job_goes_on(installation: Installation, user: User) -> None:
    job_id = await user.submit({"log": "tick {n}", "times": 20, "everyMs": 200}, {"result": "done"})
    await user.wait(job_id, "active")
    killed = holder_of_the_lease(installation)
    installation.kubectl("delete", "pod", killed.rpartition("-")[0], "--grace-period=0", "--force")

    async with asyncio.timeout(PATIENCE_SECONDS):
        while holder_of_the_lease(installation) in ("", killed):
            await asyncio.sleep(POLL_SECONDS)
    assert (await user.wait(job_id))["returnvalue"] == "done"
    assert await user.log_lines(job_id) == [f"tick {n}" for n in range(1, 21)]
    assert (await user.run({"result": "next"}))["returnvalue"] == "next"


def holder_of_the_lease(installation: Installation) -> str:
    """Return the leader: its pod's name, and a suffix for its process; empty while there is none."""
    [lease] = installation.get(LEADER)
    return str(lease["spec"].get("holderIdentity") or "")
