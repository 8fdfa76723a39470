"""The address at which the client of local models looks for a server."""

import httpx2
import pytest

from labrats.executor.providers.chat_client import _on_loopback, open_chat_client
from labrats.model.errors import GiveUp
from labrats.model.job import FailedCode
from tests.support.loopback import QuietHandler, served_by

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("http://localhost:{port}/v1", "http://127.0.0.1:{port}/v1"),
        ("https://localhost:{port}/v1", "https://localhost:{port}/v1"),
        ("http://other.test:{port}/v1", "http://other.test:{port}/v1"),
    ],
)
async def test_server_on_this_machine_is_the_one_at_127_0_0_1(url: str, expected: str) -> None:
    """An agent could listen on the same port of ::1, which `localhost` may mean as well."""
    with served_by(QuietHandler) as port:
        found = await _on_loopback(httpx2.URL(url.format(port=port)))
    assert str(found) == expected.format(port=port)


async def test_server_that_does_not_answer_there_keeps_its_name() -> None:
    with served_by(QuietHandler) as port:
        pass
    url = httpx2.URL(f"http://localhost:{port}/v1")
    assert await _on_loopback(url) == url


async def test_endpoint_that_is_no_address_fails_the_job() -> None:
    with pytest.raises(GiveUp, match="'http://models:port/v1' is not the http or https address") as failure:
        async with open_chat_client("http://models:port/v1", None, None):
            pass
    assert failure.value.code == FailedCode.INVALID
