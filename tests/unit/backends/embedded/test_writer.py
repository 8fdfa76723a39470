"""Group commit after an unexpected error of an operation."""

import asyncio
from contextlib import closing
from pathlib import Path

import apsw
import pytest

from labrats.backends.embedded.database import open_for_writing
from labrats.backends.embedded.writer import GroupCommit, Transaction
from labrats.model.core_resources import ConfigMap
from labrats.model.errors import RetryLater
from labrats.model.record import Metadata
from labrats.ports import SystemClock


class Unexpected(Exception):
    """An unexpected error of an operation."""


def create(name: str, transaction: Transaction) -> ConfigMap:
    return transaction.create(ConfigMap(metadata=Metadata(name=name)), ())


@pytest.mark.parametrize(("error", "outcome"), [(Unexpected, Unexpected), (apsw.SQLError, RetryLater)])
async def test_an_unexpected_error_fails_its_batch_and_the_next_batch_commits(
    tmp_path: Path, error: type[Exception], outcome: type[Exception]
) -> None:
    def fail(transaction: Transaction) -> ConfigMap:
        create("half-done", transaction)
        raise error

    with closing(open_for_writing(tmp_path / "labrats.db")) as connection:
        commits = GroupCommit(connection, SystemClock(), lambda changes: None)
        beside = commits.run(lambda transaction: create("beside", transaction))
        outcomes = await asyncio.gather(beside, commits.run(fail), return_exceptions=True)
        assert [type(each) for each in outcomes] == [outcome, outcome]
        await commits.run(lambda transaction: create("next", transaction))
        assert connection.execute("SELECT name FROM resources").get == "next"
        await commits.close()
