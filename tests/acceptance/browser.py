"""A real browser, and a real OpenID provider for it to sign in at."""

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

from playwright.async_api import BrowserContext, Page, async_playwright

from tests.acceptance.engine import PATIENCE_SECONDS

CLIENT_ID = "labrats"
CLIENT_SECRET = "test:secret%with+all/of it"

_PROVIDER = Path(__file__).parent.parent / "oidc" / "provider.js"
_QUIET = ("--no-sandbox", "--disable-gpu", "--disable-quic", "--disable-background-networking", "--disable-sync")
"""Root may not have a sandbox, and nothing is to leave this machine."""


@asynccontextmanager
async def a_browser() -> AsyncIterator[BrowserContext]:
    """Chromium, with a profile of its own."""
    program = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    assert program, "there is no Chromium; `make setup` installs it"
    async with async_playwright() as playwright:
        chromium = await playwright.chromium.launch(executable_path=program, args=_QUIET)
        context = await chromium.new_context()
        context.set_default_timeout(PATIENCE_SECONDS * 1000)
        yield context
        await chromium.close()


async def ask(page: Page, method: str, path: str, **options: Any) -> tuple[int, Any]:
    """What a script of the page is answered: status and JSON."""
    script = """async ([method, path, options]) => {
        const answer = await fetch(path, {method, ...options});
        return [answer.status, answer.headers.get('content-type') ? await answer.json() : null];
    }"""
    status, body = await page.evaluate(script, [method, path, options])
    return status, body


@contextmanager
def openid_provider() -> Iterator[str]:
    """A provider that knows the engine as a client. Yields its issuer."""
    environment = {
        "PATH": os.environ["PATH"],
        "CLIENT_ID": CLIENT_ID,
        "CLIENT_SECRET": CLIENT_SECRET,
        "CALLBACK": "/api/auth/oidc/callback",
    }
    command = [Path(sys.executable).with_name("node"), _PROVIDER]
    with subprocess.Popen(
        command,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        start_new_session=True,  # the program is Python that starts Node, and would leave it behind
    ) as provider:
        assert provider.stdout
        issuer = provider.stdout.readline().strip()
        assert issuer, "the provider did not start; `make setup` installs what it needs"
        try:
            yield issuer
        finally:
            os.killpg(provider.pid, signal.SIGKILL)
