"""Faults of the stand-in: answers that are late, lost or errors."""

import random
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from tests.support.github.calls import Call

_ALWAYS: Final = 1_000_000


@dataclass(frozen=True)
class Fault:
    """A deviation from the usual answer to one request.

    status:       answered instead of acting; 0: act as usual.
    late_seconds: time between acting and answering.   release: an event that the answer waits for.
    lost:         act, then close the connection without an answer.   acts: act, then answer the status.
    """

    status: int = 0
    message: str = "scripted by the test"
    errors: Sequence[Any] | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    late_seconds: float = 0
    release: threading.Event | None = None
    lost: bool = False
    acts: bool = False

    @classmethod
    def forbidden(cls) -> "Fault":
        return cls(403, "Resource not accessible by integration")

    @classmethod
    def gone(cls) -> "Fault":
        return cls(410, "This issue was deleted")

    @classmethod
    def rejected(cls, *errors: Any) -> "Fault":
        return cls(422, "Unprocessable Entity", errors)

    @classmethod
    def secondary_limit(cls, retry_after_seconds: int = 60, status: int = 403) -> "Fault":
        message = "You have exceeded a secondary rate limit. Please wait a few minutes before you try again."
        return cls(status, message, headers={"Retry-After": str(retry_after_seconds)})

    @classmethod
    def primary_limit(cls, reset_at: float) -> "Fault":
        """reset_at: seconds since the epoch."""
        headers = {"X-RateLimit-Remaining": "0", "X-RateLimit-Reset": str(int(reset_at))}
        return cls(403, "API rate limit exceeded for installation ID 42.", headers=headers)

    @property
    def body(self) -> dict[str, Any]:
        errors = {} if self.errors is None else {"errors": list(self.errors)}
        return {"message": self.message, "status": str(self.status)} | errors


USUAL: Final = Fault()
LOST: Final = Fault(lost=True)
UNAVAILABLE: Final = Fault(502, "Server Error")
RANDOM: Final = (LOST, UNAVAILABLE, Fault(503, "Service Unavailable"), Fault.secondary_limit(0, 429))


@dataclass
class Faults:
    """The faults to come: those that a test plans, and then random ones."""

    _planned: list[tuple[str, Fault, int]] = field(default_factory=list)
    _random: random.Random | None = None
    _share: float = 0
    _choices: Sequence[Fault] = RANDOM

    def plan(self, fault: Fault, operation: str = "", *, times: int = 1, skip: int = 0) -> None:
        """Answer the next `times` requests of an operation (any, without one) with a fault, after `skip` usual answers.

        operation: such as `POST /repos/{owner}/{repo}/pulls`, or the name of a git service: `POST git-receive-pack`.
        """
        if skip:
            self._planned.append((operation, USUAL, skip))
        self._planned.append((operation, fault, times))

    def plan_always(self, fault: Fault, operation: str) -> None:
        self.plan(fault, operation, times=_ALWAYS)

    def randomly(self, seed: int, share: float, choices: Sequence[Fault] = RANDOM) -> None:
        """Give a share of all further requests one of `choices`. Equal seeds give equal faults."""
        self._random, self._share, self._choices = random.Random(seed), share, choices

    def clear(self) -> None:
        self._planned.clear()
        self._random = None

    def next_for(self, call: Call) -> Fault:
        """Return the fault of a request, and use it up."""
        for index, (operation, fault, times) in enumerate(self._planned):
            if operation in ("", call.operation):
                self._planned[index : index + 1] = [(operation, fault, times - 1)] if times > 1 else []
                return fault
        if self._random and self._random.random() < self._share:
            return self._random.choice(self._choices)
        return USUAL
