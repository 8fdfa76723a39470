"""Hostile callers: the engine keeps serving other callers, with bounded memory."""

import socket
from collections.abc import Iterator
from contextlib import ExitStack
from http.client import HTTPConnection
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from labrats.processes import MAX_DESCRIPTORS
from tests.acceptance.conftest import EngineFactory
from tests.acceptance.engine import LocalEngine, User, lines_of

MEBIBYTE = 1024 * 1024


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalEngine]:
    with LocalEngine(tmp_path_factory.mktemp("engine")) as engine:
        yield engine


def resident_bytes(pid: int) -> int:
    status = Path(f"/proc/{pid}/status").read_text()
    return int(next(line.split()[1] for line in status.splitlines() if line.startswith("VmRSS:"))) * 1024


async def test_engine_raises_its_limit_of_open_files_as_far_as_permitted(engine: LocalEngine) -> None:
    limits = Path(f"/proc/{engine.pid}/limits").read_text().splitlines()
    soft, hard = next(line for line in limits if line.startswith("Max open files")).split()[3:5]
    assert int(soft) == min(int(hard), MAX_DESCRIPTORS)


@pytest.mark.parametrize("chunked", [False, True], ids=["declared", "chunked"])
@pytest.mark.parametrize(("is_admin", "codes"), [(True, {400, 413}), (False, {401, 413})])
def test_client_that_sends_all_of_a_refused_upload_receives_the_refusal(
    engine: LocalEngine, is_admin: bool, codes: set[int], chunked: bool
) -> None:
    """Python's http.client and libraries based on it read no answer before they have sent everything."""
    pieces = (b"x" * MEBIBYTE for _ in range(150))
    headers = {
        "Authorization": f"Bearer {engine.admin_key if is_admin else 'wrong'}",
        "Content-Type": "multipart/form-data; boundary=xyz",
    }
    if not chunked:
        headers["Content-Length"] = str(150 * MEBIBYTE)
    address = urlsplit(engine.url)
    assert address.hostname
    connection = HTTPConnection(address.hostname, address.port, timeout=60)
    connection.request("POST", "/api/workspace-uploads", body=pieces, headers=headers, encode_chunked=chunked)
    answer = connection.getresponse()
    assert answer.status in codes, answer.read()
    connection.close()


@pytest.mark.slow
async def test_readers_that_never_read_use_bounded_memory_and_delay_no_other_reader(
    engine: LocalEngine, user: User
) -> None:
    lines = 100_000
    job_id = await user.submit({"log": "x" * 100, "times": lines})
    await user.wait(job_id, "completed")
    before = resident_bytes(engine.pid)
    address = urlsplit(engine.url)
    headers = f"Host: localhost\r\nAuthorization: Bearer {engine.admin_key}\r\n\r\n"
    with ExitStack() as readers:
        for _ in range(300):
            reader = readers.enter_context(socket.create_connection((address.hostname, address.port)))
            reader.sendall(f"GET /api/jobs/{job_id}/logs HTTP/1.1\r\n{headers}".encode())
        *read, _ = await user.full_log(job_id)
        grown = resident_bytes(engine.pid) - before

    assert len(lines_of(read)) == lines
    assert grown < 150 * MEBIBYTE


async def test_attempt_with_endless_output_fails_at_the_limit_and_keeps_its_log(
    start_engine: EngineFactory,
) -> None:
    engine = start_engine(LABRATS_MAX_OUTPUT_MIB="1")
    async with engine.user() as user:
        job = await user.run({"log": "{n}", "times": 1_000_000})
        lines = await user.log_lines(job["id"])

    assert (job["status"], job["failedCode"]) == ("failed", "output_limit")
    assert "LABRATS_MAX_OUTPUT_MIB" in job["failedReason"]
    assert lines == [str(number) for number in range(1, len(lines) + 1)]
    assert job["logs"][-1] == lines[-1]
    [output] = engine.data_dir.glob("attempts/*/*/output.jsonl")
    assert 0.9 * MEBIBYTE < output.stat().st_size < 1.1 * MEBIBYTE
