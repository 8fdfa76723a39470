"""Copies of a pod's log, from an API server whose answers about the log are not what they seem."""

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from msgspec.structs import replace

from labrats.backends.kubernetes import collector
from labrats.backends.kubernetes.client import ApiClient
from labrats.backends.kubernetes.collector import collect
from labrats.backends.kubernetes.files import AttemptFiles, OutputCopy
from labrats.backends.kubernetes.observed_attempt import ObservedAttempt
from labrats.model.protocol import AnyEvent
from labrats.model.record import encode
from tests.support.builders import a_log, a_result
from tests.unit.backends.kubernetes.objects import NAME, a_pod_object
from tests.unit.backends.kubernetes.test_client import a_status, serving

RUNNING: dict[str, Any] = {"running": {}}
ENDED: dict[str, Any] = {"terminated": {"exitCode": 0}}
WORKING, DONE = a_log(seq=1), a_result(seq=2)
NOT_FOUND = a_status(404, name=f"{NAME}-x7k2p", kind="pods/log")


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(collector, "REOPEN_SECONDS", 0.001)
    monkeypatch.setattr(collector, "MAX_PAUSE_SECONDS", 0.001)


@pytest.fixture
def copy(tmp_path: Path) -> OutputCopy:
    files = AttemptFiles.of(tmp_path / "attempts", NAME)
    files.create("uid-1")
    return OutputCopy(files)


@asynccontextmanager
async def api_server(folder: Path, *answers: web.Response) -> AsyncIterator[ApiClient]:
    """Yield a client of an API server that gives these answers, one after the other."""
    remaining: Iterator[web.Response] = iter(answers)

    async def answer(_: web.BaseRequest) -> web.Response:
        return next(remaining)

    async with serving(answer, folder, {}) as client:
        yield client


def a_pod_log(*events: AnyEvent) -> web.Response:
    return web.Response(body=b"".join(encode(event) + b"\n" for event in events))


def observed(state: dict[str, Any]) -> ObservedAttempt:
    attempt = ObservedAttempt(NAME)
    attempt.update_pod(a_pod_object(state))
    return attempt


@pytest.mark.parametrize("state", [RUNNING, ENDED])
async def test_a_log_that_is_not_found_although_its_pod_exists_is_read_again(
    copy: OutputCopy, tmp_path: Path, state: dict[str, Any]
) -> None:
    """A kubelet that has just started answers 404 for its pods."""
    answers = web.Response(status=404, body=NOT_FOUND), a_pod_log(WORKING, DONE)
    async with api_server(tmp_path, *answers) as client:
        await collect(client, "/log", "executor", copy, observed(state))
    assert copy.is_complete


@pytest.mark.parametrize("status", [404, 400])
async def test_the_log_of_a_deleted_pod_is_lost(copy: OutputCopy, tmp_path: Path, status: int) -> None:
    attempt = observed(RUNNING)
    attempt.remove_pod(a_pod_object(RUNNING))
    refusal = web.Response(status=status, body=a_status(status, name=f"{NAME}-x7k2p", kind="pods/log"))
    async with api_server(tmp_path, a_pod_log(WORKING), refusal, a_pod_log(DONE)) as client:
        await collect(client, "/log", "executor", copy, attempt)
    assert (copy.last, copy.is_complete) == (WORKING, False)  # it was not read again


@pytest.mark.parametrize("at", ["0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-12:00"])
async def test_a_log_is_read_again_from_any_time_that_an_executor_reports(
    copy: OutputCopy, tmp_path: Path, at: str
) -> None:
    """The API server refuses a year with fewer than four digits."""
    asked: list[str | None] = []
    working = replace(WORKING, at=datetime.fromisoformat(at))

    async def answer(request: web.BaseRequest) -> web.Response:
        asked.append(request.query.get("sinceTime"))
        return a_pod_log(working) if len(asked) == 1 else a_pod_log(DONE)

    async with serving(answer, tmp_path, {}) as client:
        await collect(client, "/log", "executor", copy, observed(RUNNING))
    assert (asked, copy.is_complete) == ([None, at], True)


async def test_the_log_of_a_container_that_its_node_no_longer_has_is_lost(copy: OutputCopy, tmp_path: Path) -> None:
    """A node that evicts a pod may report so. It then refuses to read the log."""
    attempt = ObservedAttempt(NAME)
    state = {"terminated": {"exitCode": 137, "reason": "ContainerStatusUnknown"}}
    attempt.update_pod(a_pod_object(state, phase="Failed", reason="Evicted"))
    refusal = web.Response(status=400, body=a_status(400, name=f"{NAME}-x7k2p", kind="pods/log"))
    async with api_server(tmp_path, refusal, a_pod_log(WORKING, DONE)) as client:
        await collect(client, "/log", "executor", copy, attempt)
    assert (copy.last, copy.is_complete) == (None, False)  # it was read once


async def test_a_log_that_was_cut_off_is_read_again(copy: OutputCopy, tmp_path: Path) -> None:
    """The API server ends its answer in good order when it loses the connection to the node."""
    async with api_server(tmp_path, a_pod_log(WORKING), a_pod_log(), a_pod_log(WORKING, DONE)) as client:
        await collect(client, "/log", "executor", copy, observed(ENDED))
    assert copy.is_complete


async def test_a_log_without_an_outcome_is_complete_after_two_reads_without_news(
    copy: OutputCopy, tmp_path: Path
) -> None:
    async with api_server(tmp_path, *(a_pod_log(WORKING) for _ in range(3))) as client:
        await collect(client, "/log", "executor", copy, observed(ENDED))
    assert (copy.last, copy.is_complete) == (WORKING, False)
