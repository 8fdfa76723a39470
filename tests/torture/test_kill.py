"""R1, R4, R8, R9, R11, R12, R16: an engine under load is killed at random, and keeps every promise.

LABRATS_TORTURE_MINUTES sets the duration, and LABRATS_SEED the actions. Their timing depends on the machine.
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
from tests.torture.load import SLOTS, Answers, Clients
from tests.torture.witnesses import ProcessWatch, kill, read_runs, recorded_versions

MINUTES = float(os.environ.get("LABRATS_TORTURE_MINUTES", "0"))
ENGINE_KILLS = 6
"""Kills of the engine if no duration is set."""

JOBS_PER_SECOND = 40
PEACE_SECONDS = 60
"""Time after the last kill in which all jobs must end: far more than they need."""

SHOWN = 30


async def test_random_kills_break_no_promise(tmp_path: Path, counters: Counter[str]) -> None:
    engine = EngineProcess(tmp_path)
    with ProcessWatch(engine.mark) as processes:
        engine.start()
        try:
            answers = await torture(engine, processes, counters)
        finally:
            exit_code = engine.stop()
        leftovers = await still_alive(processes)
    history = gather(engine, answers, processes, leftovers)
    found = violations(history)
    count(counters, history, answers, violations=len(found))
    assert found == [], f"seed {SEED}, {len(found)} violations, the first: {found[:SHOWN]}"
    assert engine.errors() == []
    assert exit_code == 0


async def torture(engine: EngineProcess, processes: ProcessWatch, counters: Counter[str]) -> Answers:
    """Run load and kills concurrently, and then wait until every job has ended."""
    await eventually((engine.data_dir / "admin.key").exists)
    headers = {"Authorization": f"Bearer {engine.admin_key()}"}
    limits = httpx2.Limits(max_connections=None, max_keepalive_connections=50)
    async with httpx2.AsyncClient(base_url=engine.url, headers=headers, limits=limits, timeout=30) as http:
        clients = Clients(http, random.Random(f"{SEED} clients"))
        await clients.configure_models()
        enough = asyncio.Event()
        async with asyncio.TaskGroup() as tasks:
            watching = tasks.create_task(engine.watch())
            loading = tasks.create_task(clients.load(JOBS_PER_SECOND, enough))
            await kill_at_random(engine, processes, random.Random(f"{SEED} kills"), counters)
            enough.set()
            with suppress(TimeoutError):  # the checker reports the jobs that have not ended
                async with asyncio.timeout(PEACE_SECONDS):
                    await loading
                    await clients.all_ended()
            watching.cancel()
        return clients.answers


async def kill_at_random(
    engine: EngineProcess, processes: ProcessWatch, chance: random.Random, counters: Counter[str]
) -> None:
    """Kill the engine, the launcher or executors at random times, also while the engine starts."""
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
    """Return the commands of processes that still live although the engine and all jobs have ended."""
    try:
        await eventually(lambda: not processes.scan())
    except TimeoutError:
        return [sighting.command for sighting in processes.scan()]
    return []


def gather(engine: EngineProcess, answers: Answers, processes: ProcessWatch, leftovers: list[str]) -> History:
    """Combine all observations into one history."""
    folders = Folders(engine.data_dir / "attempts", engine.data_dir / "workspaces")
    return History(
        accepted=answers.accepted,
        commands=answers.commands,
        reported=answers.reported,
        followed=answers.followed,
        unexpected_answers=answers.unexpected_answers,
        written=recorded_versions(engine.database),
        runs=read_runs(folders, processes.sightings),
        leftovers=leftovers,
        slots=SLOTS,
    )


def count(counters: Counter[str], history: History, answers: Answers, **more: int) -> None:
    counters["jobs"] += len(history.accepted)
    counters["runs"] += len(history.runs)
    counters["log streams"] += len(history.followed)
    counters["reconnects"] += answers.reconnects
    counters["cancels and retries"] += len(history.commands)
    counters.update(more)
    counters["seed"] = SEED
