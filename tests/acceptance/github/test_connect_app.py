"""`labrats connect github` without a token: from a GitHub App to the first comment, without a public address."""

import asyncio
import base64
import html
import os
import pty
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx2
import pytest

from labrats.cli.output import terminal_safe
from tests.acceptance.browser import a_browser
from tests.acceptance.conftest import EngineFactory
from tests.acceptance.engine import PATIENCE_SECONDS, LocalEngine
from tests.acceptance.github.reporting import start_connectable
from tests.acceptance.github.test_connect import comment_on_label
from tests.support.github import APP_LOGIN, GitHubStandIn


@pytest.fixture
def engine(start_engine: EngineFactory, github: GitHubStandIn) -> LocalEngine:
    return start_connectable(start_engine, github)


class Session:
    """`labrats connect github` on a terminal. shown: its output so far."""

    def __init__(self, process: subprocess.Popen[bytes], controller: int) -> None:
        self._process, self._controller, self.shown = process, controller, ""

    async def until(self, pattern: str) -> str:
        """Return the first group of the pattern once the output has it."""
        async with asyncio.timeout(PATIENCE_SECONDS):
            while not (found := re.search(pattern, self.shown)):
                read = await asyncio.to_thread(os.read, self._controller, 65536)
                self.shown += terminal_safe(read.decode(errors="replace")).replace("\r", "")
        return found[1] if found.groups() else found[0]

    def enter(self, line: str) -> None:
        os.write(self._controller, f"{line}\n".encode())

    async def ended(self) -> int:
        return await asyncio.to_thread(self._process.wait, PATIENCE_SECONDS)


@contextmanager
def connecting(engine: LocalEngine, *arguments: str, **environment: str) -> Iterator[Session]:
    controller, terminal = pty.openpty()
    program = Path(sys.executable).parent / "labrats"
    with subprocess.Popen(
        [program, "connect", "github", *arguments, "--data-dir", engine.data_dir],
        env={"PATH": os.environ["PATH"], **environment}, stdin=terminal, stdout=terminal, stderr=terminal,
    ) as process:  # fmt: skip
        os.close(terminal)
        try:
            yield Session(process, controller)
        finally:
            process.kill()
            os.close(controller)


async def test_app_is_created_and_installed_in_a_browser_and_comments_on_an_issue(
    engine: LocalEngine, github: GitHubStandIn
) -> None:
    async with a_browser() as browser:
        with connecting(engine) as session:
            page = await browser.new_page()
            await page.goto(await session.until(r"in a browser: (http://127\.0\.0\.1:\d+/\S+)"))
            await page.get_by_label("octo/demo").check()
            assert page.url == f"{github.url}/apps/labrats-test/installations/new"
            await page.get_by_role("button", name="Install").click()
            assert await session.ended() == 0, session.shown
            await session.until("next: labrats connect claude")
    assert f"secret github-app: the App {APP_LOGIN} stored" in session.shown
    assert "4 agents added" in session.shown
    assert f"source github: reads octo/demo once a minute, as {APP_LOGIN}" in session.shown
    await comment_on_label(engine, github)


async def test_later_run_goes_on_where_the_first_one_stopped(engine: LocalEngine, github: GitHubStandIn) -> None:
    for name in ("octo/second", "octo/third"):
        github.add_repository(name, git=github.demo.git)
    with connecting(engine) as session:
        data = await session.until(r"data:text/html;base64,(\S+)\n")
        page = base64.b64decode(data).decode()
        manifest, address = (html.unescape(re.findall(f'{name}="([^"]+)"', page)[-1]) for name in ("value", "action"))
        async with httpx2.AsyncClient() as away:
            back = (await away.post(address, data={"manifest": manifest})).headers["Location"]

        session.enter(re.sub("state=[^&]+", "state=of-another-attempt", back))
        await session.until("this address belongs to another attempt")
        session.enter("code")
        await session.until("paste the whole address")
        session.enter("a-code-that-is-misspelt")
        await session.until("the code is misspelt or expired")
        session.enter(back)
        await session.until(f"install the App .* on a repository: {github.url}/apps/labrats-test/installations/new")

    github.access.installed = None
    with connecting(engine, "--repository", "octo/second") as session:
        assert await session.ended() == 0
        await session.until("going on with the App")
        await session.until("reads octo/second once a minute")
    with connecting(engine) as session:
        await session.until("numbers, such as 1,3")
        session.enter("3")
        await session.until("something else than the numbers 1 to 2")
        session.enter("1, 2")
        assert await session.ended() == 0
        await session.until("reads octo/second, octo/demo, octo/third once a minute")
    assert len(github.calls_of("POST /app-manifests/{code}/conversions")) == 2


async def test_browser_of_this_machine_is_opened(engine: LocalEngine, github: GitHubStandIn, tmp_path: Path) -> None:
    opened, program = tmp_path / "opened", tmp_path / "browser"
    program.write_text(f'#!/bin/sh\necho "$1" >> {opened}\n')
    program.chmod(0o755)
    with connecting(engine, BROWSER=str(program)) as session:
        link = await session.until(r"if none has opened: (\S+)")
        assert "data:" not in session.shown
        async with httpx2.AsyncClient() as browser:
            assert (await browser.get(link.rpartition("/")[0])).status_code == 404
            foreign = await browser.get(f"{link.rpartition('/')[0]}/?code=a-code-of-another&state=guessed")
            assert (foreign.status_code, "another attempt" in foreign.text) == (400, True)
            assert "manifest" in (await browser.get(link)).text
    assert opened.read_text().split() == [link]
    assert github.calls_of("POST /app-manifests/{code}/conversions") == []
