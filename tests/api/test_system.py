"""Facts about the engine: whether a controller is alive."""

from collections.abc import Awaitable, Callable
from dataclasses import replace
from datetime import timedelta

import pytest

from labrats.api.app import create_app
from labrats.model.errors import LabratsError
from labrats.ports import ControllerLease
from tests.api.conftest import Api
from tests.fakes.clock import NOON

LEASE = ControllerLease("controller-0", NOON, 10)


async def unreadable() -> ControllerLease:
    raise LabratsError("leases.coordination.k8s.io is forbidden")


def returning(lease: ControllerLease) -> Callable[[], Awaitable[ControllerLease]]:
    async def read() -> ControllerLease:
        return lease

    return read


@pytest.mark.parametrize(
    ("read", "expected"),
    [
        (returning(LEASE), (True, "controller-0")),
        (returning(replace(LEASE, renewed_at=NOON - timedelta(seconds=11))), (False, "controller-0")),
        (returning(replace(LEASE, holder=None)), (False, None)),
        (returning(ControllerLease()), (False, None)),
        (unreadable, (None, None)),
        (None, (True, None)),
    ],
)
async def test_system_shows_whether_a_controller_is_alive(
    api: Api, read: Callable[[], Awaitable[ControllerLease]] | None, expected: tuple[bool | None, str | None]
) -> None:
    app = create_app(replace(api.services, read_controller_lease=read))
    async with replace(api, app=app).client("admin") as admin:
        answer = await admin.get("/api/system")
    assert answer.status_code == 200, answer.text
    assert (answer.json()["controller"]["alive"], answer.json()["controller"]["name"]) == expected
