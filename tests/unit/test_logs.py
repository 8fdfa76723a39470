"""What the engine's own log says, and what it never says."""

import json
import logging
import os
import select
import subprocess
import sys
from collections.abc import Iterator

import pytest
import structlog

from labrats.logs import LossyStream, configure_logs


@pytest.fixture(autouse=True)
def structlog_as_it_was() -> Iterator[None]:
    handlers = list(logging.getLogger().handlers)
    yield
    structlog.reset_defaults()
    logging.basicConfig(handlers=handlers, force=True)


@pytest.mark.parametrize("style", ["console", "json"])
def test_a_traceback_shows_where_and_no_values(style: str, capfd: pytest.CaptureFixture[str]) -> None:
    configure_logs("info", style)
    try:
        fail_beside("test-" + "secret-value")
    except ZeroDivisionError:
        structlog.get_logger().exception("reconciling failed", job="ir-0000000a")
    logged = capfd.readouterr().err
    assert "ZeroDivisionError" in logged
    assert "fail_beside" in logged
    assert "test-secret-value" not in logged


def fail_beside(secret: str) -> float:
    return len(secret) / 0


def test_a_line_that_cannot_be_written_is_lost_and_counted() -> None:
    with open("/dev/full", "wb") as full:
        stream = LossyStream(full.fileno())
        stream.write("one\n")
        stream.write("two\nthree\n")
    stream.write("four\n")  # closed by now
    assert stream.lost == 4


def test_a_reader_that_never_reads_holds_up_nobody() -> None:
    readable, writable = os.pipe()
    stream = LossyStream(writable)
    for _ in range(100):
        stream.write("x" * 10_000 + "\n")
    assert 90 < stream.lost < 100
    while os.read(readable, 65536) and select.select([readable], [], [], 0)[0]:
        pass
    lost = stream.lost
    stream.write("and on it goes\n")
    assert stream.lost == lost
    os.close(writable)
    os.close(readable)


def test_a_line_that_can_be_written_is_not_lost() -> None:
    readable, writable = os.pipe()
    stream = LossyStream(writable)
    stream.write("Grüße\udcff\n")
    assert os.read(readable, 100) == b"Gr\xc3\xbc\xc3\x9fe\\udcff\n"
    assert stream.lost == 0
    os.close(writable)
    os.close(readable)


def test_what_libraries_log_is_json_too(capfd: pytest.CaptureFixture[str]) -> None:
    configure_logs("info", "json")
    try:
        fail_beside("test-secret-value")
    except ZeroDivisionError:
        logging.getLogger("asyncio").exception("Task exception was never retrieved", extra={"task": "x"})
    [line] = capfd.readouterr().err.splitlines()
    logged = json.loads(line)
    assert (logged["event"], logged["level"], logged["task"]) == ("Task exception was never retrieved", "error", "x")
    assert logged["exception"][0]["exc_type"] == "ZeroDivisionError"


UNCAUGHT = """
import asyncio, threading, warnings
from labrats.logs import configure_logs

configure_logs("info", "json")

class Odd:
    def __del__(self):
        raise ValueError("in a finalizer")

async def forget_a_task():
    async def fail():
        raise ValueError("in a task")
    task = asyncio.create_task(fail())
    await asyncio.sleep(0)
    del task

def fail():
    raise ValueError("in a thread")

thread = threading.Thread(target=fail)
thread.start()
thread.join()
Odd()
warnings.warn("a warning", stacklevel=1)
asyncio.run(forget_a_task())
raise ExceptionGroup("in the end", [ValueError("of all")])
"""


def test_what_nobody_catches_is_logged_as_json_too() -> None:
    done = subprocess.run([sys.executable, "-c", UNCAUGHT], capture_output=True, text=True, check=False)

    lines = [json.loads(line) for line in done.stderr.splitlines()]
    assert done.returncode == 1
    assert [line["level"] for line in lines] == ["error", "error", "warning", "error", "critical"]
    told = [json.dumps(line) for line in lines]
    for line, words in zip(told, ("in a thread", "in a finalizer", "a warning", "in a task", "of all"), strict=True):
        assert words in line
