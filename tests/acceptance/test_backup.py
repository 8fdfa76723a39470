"""Backup and restore of an engine on one machine."""

from pathlib import Path

from tests.acceptance.conftest import EngineFactory


async def test_engine_continues_on_a_backup_that_was_made_while_it_ran(
    start_engine: EngineFactory, tmp_path: Path
) -> None:
    engine, file = start_engine(), tmp_path / "backup.tar.gz"
    async with engine.admin() as admin:
        done = await admin.run({"log": "hello"}, {"result": "done"})
        waiting = await admin.submit(notBefore="2099-01-01T00:00:00Z")
        assert "checked" in engine.run_labrats("backup", str(file))
        later = await admin.run()
    engine.stop()
    engine.data_dir.rename(tmp_path / "old")
    assert "restored the database" in engine.run_labrats("restore", str(file))
    engine.start()

    async with engine.admin() as admin:
        assert (await admin.job(done["id"]))["result"] == "done"
        assert "hello" in engine.run_labrats("logs", done["id"], "--url", engine.url)
        assert (await admin.job(waiting))["waiting"]["reason"] == "notBefore"
        assert (await admin.get(f"/api/jobs/{later['id']}")).status_code == 404
        assert (await admin.run())["status"] == "completed"
