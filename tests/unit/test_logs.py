"""The engine's own log."""

import json
import logging
import os
import re
import select
import subprocess
import sys
from collections.abc import Iterator

import pytest
import structlog
import uvloop

from labrats.logs import LossyStream, configure_logs, log_loop_error


@pytest.fixture(autouse=True)
def restored_structlog() -> Iterator[None]:
    handlers = list(logging.getLogger().handlers)
    yield
    structlog.reset_defaults()
    logging.basicConfig(handlers=handlers, force=True)


@pytest.mark.parametrize("style", ["console", "json"])
def test_a_traceback_shows_functions_but_no_values(style: str, capfd: pytest.CaptureFixture[str]) -> None:
    configure_logs("info", style)
    try:
        fail_with_a_local("test-" + "secret-value")
    except ZeroDivisionError:
        structlog.get_logger().exception("reconcile failed", job="ir-0000000a")
    logged = capfd.readouterr().err
    assert "ZeroDivisionError" in logged
    assert "fail_with_a_local" in logged
    assert "test-secret-value" not in logged


def test_a_text_controls_no_terminal_and_forges_no_line(capfd: pytest.CaptureFixture[str]) -> None:
    configure_logs("info", "console")
    structlog.get_logger().warning("request failed", path="/a\x1b[2J\n2030-01-01 [info] forged", reason="\x9b2J\rb")
    logging.getLogger("library").warning("failed: %s", "a\nb\x1b]0;title\x07")
    try:
        raise ValueError("\x1b[2J")
    except ValueError:
        structlog.get_logger().exception("reconcile failed")
    logged = capfd.readouterr().err
    texts = re.sub(r"\x1b\[[0-9;]*m", "", logged)  # without the colours of the log itself
    assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f-\x9f]", texts)
    first, second, third, *_ = texts.splitlines()
    assert "[2J" in first
    assert "forged" in first
    assert "title" in second
    assert "reconcile failed" in third


def fail_with_a_local(secret: str) -> float:
    return len(secret) / 0


def test_a_closed_connection_is_no_error_of_the_event_loop(capfd: pytest.CaptureFixture[str]) -> None:
    configure_logs("info", "json")
    loop = uvloop.new_event_loop()
    loop.set_exception_handler(log_loop_error)
    closed = RuntimeError("unable to perform operation on <TCPTransport closed=True>; the handler is closed")
    loop.call_exception_handler({"message": "Fatal error on SSL protocol", "exception": closed})
    loop.call_exception_handler({"message": "Task failed", "exception": RuntimeError("a bug")})
    loop.close()
    first, second = map(json.loads, capfd.readouterr().err.splitlines())
    assert (first["level"], first["event"]) == ("info", "connection closed")
    assert (second["level"], second["event"]) == ("error", "Task failed")
    assert second["exception"][0]["exc_value"] == "a bug"


def test_an_unwritable_line_is_dropped_and_counted() -> None:
    with open("/dev/full", "wb") as full:
        stream = LossyStream(full.fileno())
        stream.write("one\n")
        stream.write("two\nthree\n")
    stream.write("four\n")  # the file is closed
    assert stream.lost == 4


def test_a_reader_that_never_reads_blocks_nobody() -> None:
    readable, writable = os.pipe()
    stream = LossyStream(writable)
    for _ in range(100):
        stream.write("x" * 10_000 + "\n")
    assert 90 < stream.lost < 100
    while os.read(readable, 65536) and select.select([readable], [], [], 0)[0]:
        pass
    lost = stream.lost
    stream.write("after the pause\n")
    assert stream.lost == lost
    os.close(writable)
    os.close(readable)


def test_a_writable_line_is_not_dropped() -> None:
    readable, writable = os.pipe()
    stream = LossyStream(writable)
    stream.write("Grüße\udcff\n")
    assert os.read(readable, 100) == b"Gr\xc3\xbc\xc3\x9fe\\udcff\n"
    assert stream.lost == 0
    os.close(writable)
    os.close(readable)


def test_logs_of_libraries_are_json_too(capfd: pytest.CaptureFixture[str]) -> None:
    configure_logs("info", "json")
    try:
        fail_with_a_local("test-secret-value")
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


def test_uncaught_errors_are_logged_as_json_too() -> None:
    done = subprocess.run([sys.executable, "-c", UNCAUGHT], capture_output=True, text=True, check=False)

    lines = [json.loads(line) for line in done.stderr.splitlines()]
    assert done.returncode == 1
    assert [line["level"] for line in lines] == ["error", "error", "warning", "error", "critical"]
    dumped = [json.dumps(line) for line in lines]
    for line, words in zip(dumped, ("in a thread", "in a finalizer", "a warning", "in a task", "of all"), strict=True):
        assert words in line
