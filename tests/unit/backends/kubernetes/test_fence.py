"""Conclusions of the leader from the answers of the API server. tests/kubernetes/test_leader.py asks a real one."""

import pytest

from labrats.backends.kubernetes import fence
from labrats.backends.kubernetes.client import ApiClient

CLIENT: ApiClient = object()  # type: ignore[assignment]


@pytest.mark.parametrize("calls", range(8))
async def test_a_policy_that_sees_the_new_leader_late_is_not_missing(
    monkeypatch: pytest.MonkeyPatch, calls: int
) -> None:
    """calls: the number of requests after which the policy is up to date."""
    asked = 0

    async def refuses(client: ApiClient, namespace: str, epoch: int) -> bool:
        nonlocal asked
        asked += 1
        return epoch != (1 if asked <= calls else 2)

    monkeypatch.setattr(fence, "_refuses", refuses)
    monkeypatch.setattr(fence, "MISSING_SECONDS", -1.0)
    assert await fence.former_leaders_are_fenced(CLIENT, "default", 2)


async def test_a_missing_policy_is_recognized(monkeypatch: pytest.MonkeyPatch) -> None:
    async def refuses(client: ApiClient, namespace: str, epoch: int) -> bool:
        return False

    monkeypatch.setattr(fence, "_refuses", refuses)
    monkeypatch.setattr(fence, "MISSING_SECONDS", -1.0)
    assert not await fence.former_leaders_are_fenced(CLIENT, "default", 2)
