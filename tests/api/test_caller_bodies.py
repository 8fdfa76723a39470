"""Large bodies of one caller wait for each other, and those of other callers do not."""

import asyncio
import json
from collections.abc import AsyncIterator

import httpx2
import pytest

from labrats.api.http.signed_body import FREE_BYTES
from tests.api.conftest import Api, a_submission
from tests.support.waiting import eventually

LARGE = 3 * FREE_BYTES


class Sender:
    """A submission whose body ends only when it is told to."""

    def __init__(self, client: httpx2.AsyncClient, size: int = LARGE, *, declared: bool = True) -> None:
        body = json.dumps(a_submission(prompt="x")).encode()
        self._body = body.replace(b'"x"', b'"' + b"x" * (size - len(body) + 1) + b'"')
        self._may_end, self.is_read = asyncio.Event(), False
        headers = {"Content-Type": "application/json"} | ({"Content-Length": str(size)} if declared else {})
        self.answer = asyncio.ensure_future(client.post("/api/jobs/submit", content=self._chunks(), headers=headers))

    async def _chunks(self) -> AsyncIterator[bytes]:
        self.is_read = True
        yield self._body[:1]
        await self._may_end.wait()
        yield self._body[1:]

    async def end(self) -> int:
        """Send the rest. Return the status of the answer."""
        self._may_end.set()
        return (await self.answer).status_code


@pytest.fixture(autouse=True)
def small_budget(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(api.services.caller_bodies, "_budget_bytes", LARGE + FREE_BYTES)


@pytest.mark.parametrize("declared", [True, False])
async def test_a_large_body_is_read_when_the_callers_earlier_one_is_done(
    api: Api, user: httpx2.AsyncClient, declared: bool
) -> None:
    first = Sender(user, declared=declared)
    await eventually(lambda: first.is_read)
    second, small = Sender(user), Sender(user, FREE_BYTES)
    await eventually(lambda: small.is_read)
    async with api.client("other") as other:
        of_other = Sender(other)
        await eventually(lambda: of_other.is_read)
        assert await of_other.end() == 201
    assert await small.end() == 201
    assert not second.is_read

    assert await first.end() == 201

    await eventually(lambda: second.is_read)
    assert await second.end() == 201
    assert not api.services.caller_bodies._used


async def test_a_body_that_is_larger_than_the_budget_is_read_alone(api: Api, user: httpx2.AsyncClient) -> None:
    assert await Sender(user, 2 * LARGE).end() == 201
