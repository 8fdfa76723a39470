"""Tests of the cache keeper, over real connections."""

import asyncio
import dataclasses
import shutil
import socket
from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager, suppress
from itertools import count
from pathlib import Path
from types import SimpleNamespace

import pytest
from msgspec.structs import replace

from labrats.executor import cache_keeper, workspace_caches
from labrats.executor.cache_keeper import KeptCaches, caches_of, serve_caches
from labrats.executor.workspace_caches import FolderCaches
from labrats.model.job import WorkspaceSetup
from labrats.model.protocol import Task
from labrats.model.workspace_setup import CachedFolder
from tests.unit.executor.attempts import a_task, some_work

TOKEN = "token-0123456789abcdef"
CACHE = (CachedFolder(key="lock.txt", path="libraries"),)


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


def a_job(tmp_path: Path, name: str) -> Task:
    """Return the task of a job whose workspace has the key file."""
    workspace = tmp_path / name
    workspace.mkdir()
    (workspace / "lock.txt").write_text("1")
    setup = WorkspaceSetup(git_repo="/nowhere", setup=(("true",),), cache=CACHE)
    caches = str(tmp_path / "caches" / "scope")
    return a_task(tmp_path, workspace=str(workspace), workspace_setup=setup, caches=caches, caches_bytes=2**30)


@asynccontextmanager
async def kept(task: Task, log: list[str], token: str = TOKEN) -> AsyncIterator[KeptCaches]:
    """Serve the caches of a job, and yield them as its executor sees them."""
    listener = socket.create_server(("127.0.0.1", 0))
    async with await serve_caches(task, TOKEN.encode(), listener):
        yield KeptCaches(token, log.append, listener.getsockname()[1])


async def set_up(tmp_path: Path, name: str) -> list[str]:
    """Set up a job whose command fills the folder if it is missing. Return its log."""
    task, log = a_job(tmp_path, name), list[str]()
    async with kept(task, log) as caches:
        await caches.restore()
        libraries = Path(task.workspace, "libraries")
        if not libraries.exists():
            libraries.mkdir()
            (libraries / "one").write_text(f"of {name}")
        await caches.store()
        (libraries / "one").write_text("by the agent")
        await caches.store()
    return log


async def test_later_jobs_get_the_folder_as_it_was_before_the_agent(tmp_path: Path) -> None:
    first, second, third = [await set_up(tmp_path, name) for name in ("first", "second", "third")]
    assert first == ["[cache: libraries stored for later jobs]"]
    assert second == third == ["[cache: libraries restored]"]
    [stored] = (tmp_path / "caches").glob("scope/*/content/one")
    assert stored.read_text() == "of first"


async def test_a_link_that_takes_the_place_of_a_folder_is_not_followed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process that cannot be killed, or a caller's own image, may do that after the folder was checked."""
    task, log, outside = a_job(tmp_path, "first"), list[str](), tmp_path / "outside"
    libraries = Path(task.workspace, "libraries")
    libraries.mkdir()
    (libraries / "one").write_text("of the workspace")
    outside.mkdir()
    (outside / "secret").write_text("of the machine")
    checked_size = FolderCaches._checked_size

    async def exchange(self: FolderCaches, folder: Path) -> int:
        if not libraries.is_symlink():
            libraries.rename(libraries.with_name("moved"))
            libraries.symlink_to(outside)
        return await checked_size(self, folder)

    monkeypatch.setattr(FolderCaches, "_checked_size", exchange)
    libraries.rename(hidden := Path(task.workspace, "hidden"))
    async with kept(task, log) as caches:
        await caches.restore()
        hidden.rename(libraries)
        await caches.store()
    [stored] = (tmp_path / "caches").glob("scope/*/content")
    assert [each.name for each in stored.iterdir()] == ["one"]


async def test_a_folder_that_grows_while_it_is_stored_is_not_stored(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A caller's own image may run beside the keeper."""

    async def copy(_: Path, target: Path, inherited: Collection[int]) -> None:
        for number in count():
            (target / str(number)).write_bytes(bytes(100_000))
            await asyncio.sleep(0.001)

    monkeypatch.setattr(workspace_caches, "_copy", copy)
    monkeypatch.setattr(workspace_caches, "_MEASURE_SECONDS", 0.01)
    task, log = replace(a_job(tmp_path, "first"), caches_bytes=2_000_000), list[str]()
    async with asyncio.timeout(30), kept(task, log) as caches:
        await caches.restore()
        Path(task.workspace, "libraries").mkdir()
        await caches.store()
    assert log[0].endswith("MiB are more than the limit for all caches]")
    assert not list((tmp_path / "caches").glob("scope/*"))


@pytest.mark.parametrize("kept_free", [None, 3 * 2**30])
async def test_no_folder_is_stored_on_a_volume_that_is_nearly_full(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kept_free: int | None
) -> None:
    """The engine would delete the outputs of other jobs for space."""
    task = replace(a_job(tmp_path, "first"), kept_free_bytes=kept_free)
    least = 2**30 + (kept_free or 2**30)
    Path(task.workspace, "libraries").mkdir()
    Path(task.workspace, "libraries", "one").write_bytes(bytes(100_000))
    log = list[str]()
    for free in (least + 50_000, least + 500_000):
        monkeypatch.setattr(shutil, "disk_usage", lambda _, free=free: SimpleNamespace(total=2**40, free=free))
        Path(task.workspace, "libraries").rename(hidden := Path(task.workspace, "hidden"))
        async with kept(task, log) as caches:
            await caches.restore()
            hidden.rename(Path(task.workspace, "libraries"))
            await caches.store()
    assert log == [
        "[cache: libraries not stored: the volume of all caches is nearly full]",
        "[cache: libraries stored for later jobs]",
    ]


async def test_a_copy_ends_once_other_jobs_have_filled_the_volume(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    free = iter([2**40])

    async def copy(_: Path, target: Path, inherited: Collection[int]) -> None:
        await asyncio.sleep(3600)

    monkeypatch.setattr(workspace_caches, "_copy", copy)
    monkeypatch.setattr(workspace_caches, "_MEASURE_SECONDS", 0.01)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(total=2**40, free=next(free, 2**30)))
    task, log = a_job(tmp_path, "first"), list[str]()
    async with asyncio.timeout(30), kept(task, log) as caches:
        await caches.restore()
        Path(task.workspace, "libraries").mkdir()
        await caches.store()
    assert log == ["[cache: libraries not stored: the volume of all caches is nearly full]"]
    assert not list((tmp_path / "caches").glob("scope/*"))


async def test_keeper_serves_one_caller(tmp_path: Path) -> None:
    task, log = a_job(tmp_path, "first"), list[str]()
    async with kept(task, log) as first:
        second = KeptCaches(TOKEN, log.append, first._port)
        await first.restore()
        await second.restore()
        await first.store()
    assert log == [
        "[cache: not used: the cache keeper does not answer: it closed the connection]",
        "[cache: libraries not stored: the setup commands have not made it]",
    ]


@pytest.mark.parametrize("token", ["", "wrong", f"{TOKEN}x"])
async def test_caller_without_the_token_gets_and_stores_nothing(tmp_path: Path, token: str) -> None:
    task, log = a_job(tmp_path, "first"), list[str]()
    Path(task.workspace, "libraries").mkdir()
    async with kept(task, log, token) as caches:
        await caches.restore()
        await caches.store()
    assert log == ["[cache: not used: the cache keeper does not answer: it closed the connection]"]
    assert not (tmp_path / "caches").exists()


async def test_very_long_request_is_refused(tmp_path: Path) -> None:
    listener = socket.create_server(("127.0.0.1", 0))
    async with await serve_caches(a_job(tmp_path, "first"), TOKEN.encode(), listener):
        reader, writer = await asyncio.open_connection(*listener.getsockname())
        writer.write(b"x" * 2**20)
        with suppress(ConnectionResetError):
            assert await reader.read() == b""
        writer.close()


async def test_missing_keeper_is_logged_and_the_job_continues(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cache_keeper, "CONNECT_SECONDS", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    log: list[str] = []
    caches = KeptCaches(TOKEN, log.append, port)
    await caches.restore()
    await caches.store()
    [line] = log
    assert line.startswith("[cache: not used: the cache keeper does not answer")


def test_keeper_is_used_only_in_its_pod(tmp_path: Path) -> None:
    setup = WorkspaceSetup(git_repo="/nowhere", setup=(("true",),), cache=CACHE)
    with some_work(tmp_path, a_task(tmp_path), {"cache-keeper": TOKEN}) as work:
        assert isinstance(caches_of(work.context, setup), KeptCaches)
        assert isinstance(caches_of(work.context, WorkspaceSetup(git_repo="/nowhere")), FolderCaches)
        assert isinstance(caches_of(dataclasses.replace(work.context, secrets={}), setup), FolderCaches)
