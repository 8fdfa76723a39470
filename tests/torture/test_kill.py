"""R1, R4, R8, R9, R11, R12, R16: the engine is killed at random under load, and all that was seen must be allowed.

LABRATS_TORTURE_MINUTES sets how long, LABRATS_SEED what is done; when it happens is up to the machine.
"""

import asyncio
import os
import random
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path

import httpx2

from labrats.backends.embedded.folders import Folders
from tests.support.random_seed import SEED
from tests.support.waiting import eventually
from tests.torture.engine import EngineProcess
from tests.torture.history import History, violations
from tests.torture.load import SLOTS, Clients, Statements
from tests.torture.witnesses import ProcessWatch, kill, read_runs, recorded_versions

MINUTES = float(os.environ.get("LABRATS_TORTURE_MINUTES", "0"))
ENGINE_KILLS = 6
"""Where no time is given, as many as this are enough."""

JOBS_PER_SECOND = 40
PEACE_SECONDS = 60
"""From the last kill until all jobs must have ended: far more than they take."""

SHOWN = 30


async def test_r1_kills_at_random_break_no_promise(tmp_path: Path, counters: Counter[str]) -> None:
    engine = EngineProcess(tmp_path)
    with ProcessWatch(engine.mark) as processes:
        engine.start()
        try:
            statements = await torture(engine, processes, counters)
        finally:
            exit_code = engine.stop()
        leftovers = await still_alive(processes)
    history = gather(engine, statements, processes, leftovers)
    found = violations(history)
    count(counters, history, statements, violations=len(found))
    assert found == [], f"seed {SEED}, {len(found)} violations, the first: {found[:SHOWN]}"
    assert engine.errors() == []
    assert exit_code == 0


async def torture(engine: EngineProcess, processes: ProcessWatch, counters: Counter[str]) -> Statements:
    """Load and kills side by side, then peace, until every job has ended."""
    await eventually((engine.data_dir / "admin.key").exists)
    headers = {"Authorization": f"Bearer {engine.admin_key()}"}
    limits = httpx2.Limits(max_connections=None, max_keepalive_connections=50)
    async with httpx2.AsyncClient(base_url=engine.url, headers=headers, limits=limits, timeout=30) as http:
        clients = Clients(http, random.Random(f"{SEED} clients"))
        await clients.configure_models()
        enough = asyncio.Event()
        async with asyncio.TaskGroup() as tasks:
            living = tasks.create_task(engine.live())
            loading = tasks.create_task(clients.load(JOBS_PER_SECOND, enough))
            await kill_at_random(engine, processes, random.Random(f"{SEED} kills"), counters)
            enough.set()
            with suppress(TimeoutError):  # what has not ended by then is found to be lost
                async with asyncio.timeout(PEACE_SECONDS):
                    await loading
                    await clients.all_ended()
            living.cancel()
        return clients.statements


async def kill_at_random(
    engine: EngineProcess, processes: ProcessWatch, chance: random.Random, counters: Counter[str]
) -> None:
    """Kill engine, launcher or an executor, at moments when the engine is starting, busy, or both."""
    deadline = time.monotonic() + MINUTES * 60
    while time.monotonic() < deadline or (not MINUTES and counters["engine kills"] < ENGINE_KILLS):
        await asyncio.sleep(chance.choice([chance.uniform(0, 1), chance.uniform(1, 4)]))
        match chance.choices(["engine", "launcher", "executor"], [6, 2, 4])[0]:
            case "engine":
                engine.kill()
                engine.start()
                counters["engine kills"] += 1
            case "launcher":
                counters["launcher kills"] += sum(kill(process) for process in processes.launchers())
            case _:
                executors = processes.executors()
                counters["executor kills"] += sum(kill(process) for process in executors[: chance.randrange(3)])


async def still_alive(processes: ProcessWatch) -> list[str]:
    """The commands of those that do not end although the engine has stopped, and every job had ended."""
    try:
        await eventually(lambda: not processes.look())
    except TimeoutError:
        return [sighting.command for sighting in processes.look()]
    return []


def gather(engine: EngineProcess, statements: Statements, processes: ProcessWatch, leftovers: list[str]) -> History:
    """What all witnesses say."""
    folders = Folders(engine.data_dir / "attempts", engine.data_dir / "workspaces")
    return History(
        accepted=statements.accepted,
        asked=statements.asked,
        told=statements.told,
        followed=statements.followed,
        refused=statements.refused,
        written=recorded_versions(engine.database),
        runs=read_runs(folders, processes.sightings),
        leftovers=leftovers,
        slots=SLOTS,
    )


def count(counters: Counter[str], history: History, statements: Statements, **more: int) -> None:
    counters["jobs"] += len(history.accepted)
    counters["runs"] += len(history.runs)
    counters["log streams"] += len(history.followed)
    counters["reconnects"] += statements.reconnects
    counters["cancels and retries"] += len(history.asked)
    counters.update(more)
    counters["seed"] = SEED
