"""Limits on the memory of an attempt, with real programs that exceed them."""

from pathlib import Path
from typing import Any

import pytest

from labrats.model.job import FailedCode
from labrats.processes import with_environment
from tests.unit.executor.resource_limits.limited_attempts import (
    FILL_MEMORY,
    FILL_MEMORY_TOGETHER,
    MEMORY,
    an_attempt_of,
)

FILL_SHARED_MEMORY = """
import mmap, time
held = mmap.mmap(-1, 400 << 20)
for place in range(0, 400 << 20, 1 << 20):
    held[place : place + (1 << 20)] = b'x' * (1 << 20)
time.sleep(20)
"""
SHARE_FILE_IN_MEMORY = """
import mmap, os, time
file = os.memfd_create('file')
os.truncate(file, 120 << 20)
memory = mmap.mmap(file, 120 << 20)
for _ in range(120):
    memory.write(b'x' * (1 << 20))
os.fork()
time.sleep(2)
"""
SHARE_MEMORY = """
import os, time
held = bytearray(b'x') * (120 << 20)
for _ in range(4):
    os.fork()
time.sleep(1)
os._exit(0)
"""
RESERVE_MEMORY = "import mmap, time; held = mmap.mmap(-1, 20 << 30); held[0] = 1; time.sleep(1)"


@pytest.mark.parametrize(
    "script",
    [FILL_MEMORY, FILL_MEMORY_TOGETHER, FILL_SHARED_MEMORY],
    ids=["one process", "four processes", "shared memory"],
)
def test_an_attempt_that_needs_too_much_memory_is_ended(
    tmp_path: Path, unique_name: str, isolation: dict[str, Any], script: str
) -> None:
    attempt = an_attempt_of(tmp_path, script, MEMORY, attempt=unique_name, **isolation)
    attempt.run()
    code, message = attempt.failure
    assert code is FailedCode.OUT_OF_MEMORY
    assert "of memory, over LABRATS_AGENT_MEMORY (200 MiB): raise the limit" in message
    assert with_environment("LABRATS_ATTEMPT", unique_name) == []


def test_process_may_have_any_name(tmp_path: Path, isolation: dict[str, Any]) -> None:
    script = "import ctypes, time; ctypes.CDLL(None).prctl(15, bytes([255, 254])); time.sleep(0.5)"
    attempt = an_attempt_of(tmp_path, script, MEMORY, **isolation)
    attempt.run()
    assert attempt.failure[0] is FailedCode.AGENT_ERROR  # the script prints no result


@pytest.mark.parametrize(
    "script", [SHARE_MEMORY, SHARE_FILE_IN_MEMORY, RESERVE_MEMORY], ids=["shared", "shared file", "reserved"]
)
def test_shared_and_unused_memory_does_not_count(tmp_path: Path, isolation: dict[str, Any], script: str) -> None:
    attempt = an_attempt_of(tmp_path, script, MEMORY, **isolation)
    attempt.run()
    assert attempt.failure[0] is FailedCode.AGENT_ERROR  # the script prints no result
