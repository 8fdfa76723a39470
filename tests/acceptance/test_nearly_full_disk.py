"""An engine whose disk is nearly full: outputs of ended jobs are deleted, the jobs say so, and uploads are refused."""

import asyncio

from labrats.files.attempt_output import OUTPUT_REMOVED
from tests.acceptance.conftest import EngineFactory
from tests.acceptance.engine import PATIENCE_SECONDS
from tests.support.impatient_labrats import constants

PASSES = constants({f"labrats.controller.disk_limits.{name}_SECONDS": 0.2 for name in ("DISK_PASS", "FULL_DISK")})


async def test_job_says_that_its_output_was_deleted(start_engine: EngineFactory) -> None:
    engine = start_engine(LABRATS_FREE_GIB="1000000", **PASSES)
    change = {"write": {"path": "a.txt", "text": "changed\n"}}
    async with engine.user() as user:
        running = await user.submit({"log": "still here"}, {"hang": True})
        ended = await user.run({"log": "ended"}, change, {"result": "first"})

        async with asyncio.timeout(PATIENCE_SECONDS):
            while await user.log_lines(ended["id"]) != [OUTPUT_REMOVED]:
                await asyncio.sleep(0.05)
        assert (await user.wait(ended["id"])) == ended
        assert (await user.get(f"/api/jobs/{ended['id']}/result")).json() == {"result": "first"}
        answer = await user.get(f"/api/jobs/{ended['id']}/patch")
        assert (answer.status_code, "its output was deleted" in answer.json()["error"]) == (404, True)
        await user.cancel(running)
        assert (await user.wait(running))["logs"] == ["still here"]
    assert "disk nearly full" in engine.log


async def test_upload_is_refused(start_engine: EngineFactory) -> None:
    engine = start_engine(LABRATS_FREE_GIB="1000000")
    async with engine.admin() as admin:
        for path in ("/api/workspace-uploads", "/api/uploads"):
            refused = await admin.http.post(path, files={"file": ("a.pdf", b"%PDF-1.4 nothing", "application/pdf")})
            assert refused.status_code == 503
            error = refused.json()["error"]
            assert error.startswith(f"the disk with {engine.data_dir}")
            assert "free): delete uploads, or ask an administrator for space" in error
            assert refused.headers["Retry-After"] == "60"
            assert not any((await admin.get(path)).json().values())
