"""Addresses for callbacks, as allowed by the operator's settings."""

import pytest

from labrats.intake.callback_urls import check_callback_url
from labrats.model.errors import Invalid
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
    await check_callback_url(url, EngineSettings())


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
        await check_callback_url(url, EngineSettings())
