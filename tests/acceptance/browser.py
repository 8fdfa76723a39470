"""A real browser, and a real OpenID provider to sign in at."""

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
"""Options that let Chromium run as root (without a sandbox) and without connections to other machines."""


@asynccontextmanager
async def a_browser() -> AsyncIterator[BrowserContext]:
    """Run Chromium with a new profile."""
    program = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    assert program, "Chromium is not installed; run `make setup`"
    async with async_playwright() as playwright:
        chromium = await playwright.chromium.launch(executable_path=program, args=_QUIET)
        context = await chromium.new_context()
        context.set_default_timeout(PATIENCE_SECONDS * 1000)
        yield context
        await chromium.close()


async def ask(page: Page, method: str, path: str, **options: Any) -> tuple[int, Any]:
    """Send a request from a script of the page, with the secret of the session. Return the answer's status and JSON."""
    script = """async ([method, path, {headers, ...options}]) => {
        const secret = localStorage.getItem('labrats.session');
        const own = secret ? {'Labrats-Session-Secret': secret} : {};
        const answer = await fetch(path, {method, headers: {...headers, ...own}, ...options});
        return [answer.status, answer.headers.get('content-type') ? await answer.json() : null];
    }"""
    status, body = await page.evaluate(script, [method, path, options])
    return status, body


@contextmanager
def openid_provider() -> Iterator[str]:
    """Run a provider with the engine registered as a client. Yields the issuer."""
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
        start_new_session=True,  # the program is a Python script that starts Node, which would outlive it
    ) as provider:
        assert provider.stdout
        issuer = provider.stdout.readline().strip()
        assert issuer, "the OpenID provider did not start; run `make setup` to install it"
        try:
            yield issuer
        finally:
            os.killpg(provider.pid, signal.SIGKILL)
