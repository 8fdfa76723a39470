"""Group commit, where an operation fails in a way that nobody foresaw."""

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


class Unforeseen(Exception):
    """A mistake in an operation."""


def create(name: str, transaction: Transaction) -> ConfigMap:
    return transaction.create(ConfigMap(metadata=Metadata(name=name)), ())


@pytest.mark.parametrize(("mistake", "answer"), [(Unforeseen, Unforeseen), (apsw.SQLError, RetryLater)])
async def test_an_unforeseen_error_reaches_its_batch_and_the_next_one_is_committed(
    tmp_path: Path, mistake: type[Exception], answer: type[Exception]
) -> None:
    def make_a_mistake(transaction: Transaction) -> ConfigMap:
        create("half-done", transaction)
        raise mistake

    with closing(open_for_writing(tmp_path / "labrats.db")) as connection:
        commits = GroupCommit(connection, SystemClock(), lambda changes: None)
        beside = commits.run(lambda transaction: create("beside", transaction))
        outcomes = await asyncio.gather(beside, commits.run(make_a_mistake), return_exceptions=True)
        assert [type(outcome) for outcome in outcomes] == [answer, answer]
        await commits.run(lambda transaction: create("next", transaction))
        assert connection.execute("SELECT name FROM resources").get == "next"
        await commits.close()
