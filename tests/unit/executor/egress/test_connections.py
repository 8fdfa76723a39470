"""Limits on the connections of a server."""

import asyncio
from typing import cast

from labrats.executor.egress.connections import Connections


def test_of_too_many_connections_the_oldest_one_of_the_owner_with_the_most_ends() -> None:
    connections: Connections[None] = Connections(most=3)
    ended: list[int] = []

    class Connection:
        def __init__(self, number: int) -> None:
            self.cancel = lambda: ended.append(number)

    for number, owner in enumerate(("quiet", "loud", "loud", "quiet", "quiet")):
        connections.add(owner, cast("asyncio.Task[None]", Connection(number)), None)
    assert ended == [1, 0]  # the oldest of `loud` with its two, and then of `quiet`
    assert (connections.count("quiet"), connections.count("loud")) == (2, 1)
