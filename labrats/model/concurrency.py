"""Concurrency keys: jobs of one key and owner never run at the same time."""

from enum import StrEnum
from typing import Final

from labrats.model.record import Record

KEY_LENGTH: Final = 200
"""Characters of a key."""

MAX_DEBOUNCE_SECONDS: Final = 3600


class OnNew(StrEnum):
    """The effect of a new job on the older jobs of its key.

    queue: none, they run first. supersede: all are cancelled. replaceWaiting: the waiting ones are cancelled.
    """

    QUEUE = "queue"
    SUPERSEDE = "supersede"
    REPLACE_WAITING = "replaceWaiting"


class Concurrency(Record):
    """The concurrency key of a job, and the effect of the job on older jobs of the key.

    key:              of a trigger, a template; of a job, plain text.
    debounce_seconds: time from the creation of the job for which it waits for newer ones.
    """

    key: str
    on_new: OnNew = OnNew.QUEUE
    debounce_seconds: int | float = 0
