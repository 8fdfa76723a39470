"""The server of a job's model: endpoints and keys that cannot be used."""

import pytest

from labrats.executor.key_proxy.model_server import ModelServer
from labrats.model.errors import GiveUp
from labrats.model.job import FailedCode

KEY_NAME = "ANTHROPIC_API_KEY"


@pytest.mark.parametrize(
    "endpoint",
    [
        "http://[models/v1",
        "http://models:99999/v1",
        "ftp://models/v1",
        "models:8000",
        "http:///v1",
        "http://m..test/v1",
    ],
)
def test_endpoint_that_is_no_address_is_named(endpoint: str) -> None:
    with pytest.raises(GiveUp, match="is not the http or https address of a server: run `labrats model set") as failure:
        ModelServer.of("claude", endpoint, KEY_NAME, "test-key")
    assert failure.value.code == FailedCode.INVALID
    assert repr(endpoint) in str(failure.value)


def test_password_in_such_an_endpoint_is_masked() -> None:
    with pytest.raises(GiveUp) as failure:
        ModelServer.of("claude", "http://user:test-p@ss@models:port/v1", KEY_NAME, "test-key")
    assert "'http://***@models:port/v1'" in str(failure.value)


@pytest.mark.parametrize("key", ["", " ", "test-kéy", "test\nkey"])
def test_key_that_no_header_can_have_is_named_and_not_shown(key: str) -> None:
    with pytest.raises(GiveUp, match="the key ANTHROPIC_API_KEY is empty, or has other characters") as failure:
        ModelServer.of("claude", None, KEY_NAME, key)
    assert failure.value.code == FailedCode.AUTH
    assert "test" not in str(failure.value)
