"""The limit on the outputs of all attempts: those of the oldest ended jobs are deleted, and their jobs say so."""

import asyncio

from labrats.files.attempt_output import OUTPUT_REMOVED
from tests.acceptance.conftest import EngineFactory
from tests.acceptance.engine import PATIENCE_SECONDS
from tests.support.impatient_labrats import constants

MIB = 2**20
LONG_LOG = {"log": "x" * 1000, "times": 1500}
PASSES = constants({"labrats.controller.retention.OUTPUTS_PASS_SECONDS": 0.2})


async def test_job_says_that_its_output_was_deleted(start_engine: EngineFactory) -> None:
    engine = start_engine(LABRATS_OUTPUTS_GIB=str(2.5 * MIB / 2**30), **PASSES)
    change = {"write": {"path": "a.txt", "text": "changed\n"}}
    async with engine.user() as user:
        first = await user.run(LONG_LOG, change, {"result": "first"})
        second = await user.run(LONG_LOG, change, {"result": "second"})

        async with asyncio.timeout(PATIENCE_SECONDS):
            while await user.log_lines(first["id"]) != [OUTPUT_REMOVED]:
                await asyncio.sleep(0.05)
        assert (await user.wait(first["id"])) == first
        assert (await user.get(f"/api/jobs/{first['id']}/result")).json() == {"result": "first"}
        answer = await user.get(f"/api/jobs/{first['id']}/patch")
        assert (answer.status_code, "its output was deleted" in answer.json()["error"]) == (404, True)
        assert len(await user.log_lines(second["id"])) == 1500
        assert (await user.get(f"/api/jobs/{second['id']}/patch")).status_code == 200
