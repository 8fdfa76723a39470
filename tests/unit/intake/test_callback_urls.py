"""Addresses for callbacks, as allowed by the operator's settings."""

import asyncio
import socket
import threading
from typing import Any

import pytest

from labrats.intake.callback_urls import check_callback_url
from labrats.model.errors import Invalid
from labrats.net.address_policy import LOOKUPS_OF_OWNER, Unresolvable, share_of
from labrats.net.client import OutboundClient
from labrats.settings import EngineSettings


@pytest.mark.parametrize(
    ("allowed", "url"),
    [
        ("hooks.internal", "http://hooks.internal:8080/"),
        ("Hooks.Internal", "http://HOOKS.internal/"),
        ("127.0.0.1:8080", "http://127.0.0.1:8080/"),
        ("hooks.internal:443, ::1", "https://hooks.internal/"),
        ("::1", "http://[::1]:8080/"),
        ("[::1]:8080", "http://[::1]:8080/"),
    ],
)
async def test_a_callback_to_a_listed_host_is_allowed(monkeypatch: pytest.MonkeyPatch, allowed: str, url: str) -> None:
    monkeypatch.setenv("CALLBACK_ALLOWED_HOSTS", allowed)
    await check_callback_url(url, "somebody", EngineSettings())


@pytest.mark.parametrize(
    ("allowed", "url"),
    [
        ("", "http://127.0.0.1/"),
        ("localhost", "http://127.0.0.1/"),
        ("127.0.0.1:8080", "http://127.0.0.1:8081/"),
        ("127.0.0.1:8080", "http://127.0.0.1/"),
        ("[::1]:8080", "http://[::1]/"),
    ],
)
async def test_a_callback_to_an_unlisted_private_host_is_refused(
    monkeypatch: pytest.MonkeyPatch, allowed: str, url: str
) -> None:
    monkeypatch.setenv("CALLBACK_ALLOWED_HOSTS", allowed)
    with pytest.raises(Invalid, match="not allowed"):
        await check_callback_url(url, "somebody", EngineSettings())


async def sent(url: str, owner: str) -> None:
    """Send a callback of a job of `owner`."""
    async with OutboundClient().send("POST", url, share=share_of(owner)):
        pytest.fail("nobody answers")


async def test_names_of_one_owner_that_no_server_answers_leave_lookups_to_others(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    release, running = threading.Event(), list[str]()

    def look_up(host: str, *_: Any, **__: Any) -> list[Any]:
        running.append(host)
        release.wait(30)
        raise OSError("no answer")

    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    settings, hosts = EngineSettings(), [f"hook-{number}.example" for number in range(2 * LOOKUPS_OF_OWNER)]
    checks = [asyncio.create_task(check_callback_url(f"https://{host}/", "hostile", settings)) for host in hosts]
    await asyncio.sleep(0.5)
    assert running == hosts[:LOOKUPS_OF_OWNER]
    checks.append(asyncio.create_task(sent("https://sent.example/", "hostile")))  # callbacks have the same share
    checks.append(asyncio.create_task(check_callback_url("https://other.example/", "honest", settings)))
    checks.append(asyncio.create_task(sent("https://last.example/", "honest")))
    await asyncio.sleep(0.3)
    assert running[LOOKUPS_OF_OWNER:] == ["other.example", "last.example"]
    release.set()
    assert all(
        isinstance(each, Invalid | Unresolvable) for each in await asyncio.gather(*checks, return_exceptions=True)
    )
