"""Acknowledged writes survive when the process is killed while the machine keeps running."""

import os
import random
import subprocess
import sys
from collections import Counter
from pathlib import Path

from labrats.backends.embedded.store import EmbeddedStore
from tests.durability.ledger import Ledger
from tests.support.random_seed import SEED

KILLS = int(os.environ.get("LABRATS_STORE_KILLS", "5"))


async def test_a_kill_loses_no_acknowledged_write(tmp_path: Path, counters: Counter[str]) -> None:
    path, ledger = tmp_path / "labrats.db", Ledger()
    for seed in range(SEED, SEED + KILLS):
        write_until_killed(path, ledger, seed)
        async with EmbeddedStore.open(path) as store:
            assert await ledger.losses(store) == [], f"seed {seed}"
        counters["kills"] += 1


def write_until_killed(path: Path, ledger: Ledger, seed: int) -> None:
    """Start the writing process, kill it during its work, and record what it reported before that."""
    command = [sys.executable, "-m", "tests.durability.writing_process", str(path), str(seed)]
    lines_until_kill = random.Random(seed).randrange(1, 1000)
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[2]) as process:
        assert process.stdout is not None
        for count, line in enumerate(process.stdout, start=1):
            record(ledger, line)
            if count == lines_until_kill:
                process.kill()
    assert process.returncode < 0, "the process failed before it was killed"


def record(ledger: Ledger, line: str) -> None:
    verb, name, value = line.split()
    if verb == "ask":
        ledger.ask(name, None if value == "-" else int(value))
    else:
        ledger.acknowledge(name, None if value == "-" else value)
