"""Attempts with limits, and programs that exceed them. They end by themselves soon, should a limit not work."""

import shutil
from pathlib import Path
from typing import Any

from labrats.model.config import JobConfig
from labrats.model.mcp_server import McpServer
from labrats.model.protocol import ResourceLimits, Sandbox
from tests.unit.executor.attempts import AttemptFolder, an_attempt

MEBIBYTE = 2**20
MEMORY = ResourceLimits(memory_bytes=200 * MEBIBYTE)
FILL_MEMORY = "import time; held = bytearray(b'x') * (400 << 20); time.sleep(20)"
FILL_MEMORY_TOGETHER = """
import os, time
for _ in range(4):
    if os.fork() == 0:
        held = bytearray(b'x') * (100 << 20)
        time.sleep(20)
        os._exit(0)
time.sleep(20)
"""
MANY_WITHOUT_MAIN_THREAD = """
import ctypes, os, threading, time
for _ in range(30):
    if os.fork() == 0:
        threading.Thread(target=time.sleep, args=(20,)).start()
        ctypes.CDLL(None).pthread_exit(None)
time.sleep(20)
"""
MANY_ENDED = """
import os, time
for _ in range(30):
    if os.fork() == 0:
        os._exit(0)
time.sleep(20)  # without waiting for them
"""
MANY_THREADS = """
import threading, time
threading.stack_size(64 * 1024)
for _ in range(700):
    threading.Thread(target=time.sleep, args=(20,), daemon=True).start()
time.sleep(20)
"""


BUSY = """
import asyncio, subprocess, sys
from labrats.executor.resource_limits.watcher import run_within_limits
from labrats.model.errors import GiveUp
from labrats.model.protocol import ResourceLimits

async def work():
    done = subprocess.run([sys.executable, "-c", sys.argv[1]])  # the event loop stands still meanwhile
    return "ended by itself" if done.returncode == 0 else f"failed with {done.returncode}"

async def main():
    try:
        print(await run_within_limits(work, ResourceLimits(memory_bytes=200 << 20)))
    except GiveUp as failure:
        print(failure.code)

asyncio.run(main())
"""


def in_sandbox() -> dict[str, Any]:
    """Return the inputs of an attempt in the sandbox."""
    program = shutil.which("bwrap")
    assert program, "bubblewrap is missing: run `make setup`"
    return {"sandbox": Sandbox(program=program, shm_bytes=MEMORY.memory_bytes)}


def an_attempt_of(tmp_path: Path, script: str, limits: ResourceLimits, **inputs: Any) -> AttemptFolder:
    """Build an attempt whose agent runs a Python script."""
    program = tmp_path / "programs" / "agent"
    program.parent.mkdir()
    (program.parent / "script.py").write_text(script)
    program.write_text(f"#!/bin/sh\nexec /usr/bin/python3 {program.parent}/script.py\n")
    program.chmod(0o755)
    config = JobConfig(provider="claude", mcp_servers={"docs": McpServer(command="docs")})  # in a file of credentials
    inputs |= {"config": config, "programs": {"claude": str(program)}, "limits": limits}
    return an_attempt(tmp_path, **inputs)
