"""The errors of the engine, named by what the caller can do about them."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

REFUSED_SECONDS: Final = 60.0
"""Delay before a write is tried again that was refused for good, as a person may remove the cause."""


class LabratsError(Exception):
    """The base of all errors that Labrats raises. Its text is one sentence for people."""


@dataclass(frozen=True)
class Problem:
    """A problem with one field. field: its dotted path in the request. message: what would be valid."""

    field: str
    message: str


class NotFound(LabratsError):
    """The resource does not exist (404)."""


class Unreadable(NotFound):
    """The resource exists, but this version cannot read it: it is invalid, or a newer version wrote it (404)."""


class Conflict(LabratsError):
    """The name is taken, or the resource has changed (409): read it again, and decide again.

    problem: the field whose value is taken, if it is known.
    """

    def __init__(self, message: str, problem: Problem | None = None) -> None:
        super().__init__(message)
        self.problem = problem


class Taken(Conflict):
    """Another resource has the same claim, or the names. A retry fails as long as it does."""


class IllegalMove(LabratsError):
    """The job's phase does not allow the move (400)."""


class NotEnded(IllegalMove):
    """The job must have ended first (400)."""


class RetryLater(LabratsError):
    """A transient failure: retry after `delay_seconds` (503)."""

    def __init__(self, message: str, delay_seconds: float = 1.0) -> None:
        super().__init__(message)
        self.delay_seconds = delay_seconds


def delay_after(error: LabratsError) -> float:
    """Return the seconds after which to try again. Only a person may be able to remove the cause of the error."""
    return error.delay_seconds if isinstance(error, RetryLater) else REFUSED_SECONDS


class BecameUnreadable(RetryLater):
    """The resource was valid before and exists, but it cannot be read until somebody fixes it (503)."""


class Overloaded(RetryLater):
    """Too many jobs are waiting (429)."""


class AccessDenied(LabratsError):
    """The object belongs to another caller (403)."""


class GiveUp(LabratsError):
    """A permanent failure: fail the job with this code and message.

    retry_after_seconds: the delay that a model's provider asks for, if any.
    """

    def __init__(self, code: str, message: str, retry_after_seconds: float | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.retry_after_seconds = retry_after_seconds


class Invalid(LabratsError):
    """The request is well-formed but invalid (422). problems: one for each invalid field."""

    def __init__(self, *problems: Problem) -> None:
        super().__init__("; ".join(f"{problem.field}: {problem.message}" for problem in problems))
        self.problems = problems


class NoSandbox(Invalid):
    """The job's agent must not run, because no sandbox works here and no administrator started it (422)."""


class TooLarge(Invalid):
    """A part of the request is larger than its bound (413)."""


class Problems:
    """The problems of independent checks, in the order of the checks, raised together."""

    def __init__(self) -> None:
        self._found: list[Problem] = []

    def add(self, field: str, message: str | None) -> None:
        """Add a problem with `field`, if there is a message."""
        if message is not None:
            self._found.append(Problem(field, message))

    @contextmanager
    def collected(self) -> Iterator[None]:
        """Collect the problems of an Invalid error in the block. Any other error is raised unless one was collected."""
        try:
            yield
        except TooLarge:
            self.check()
            raise
        except Invalid as error:
            self._found += error.problems
        except LabratsError:
            self.check()
            raise

    def and_those_of(self, error: Invalid) -> Invalid:
        """Return an error with the problems so far, and those of `error`."""
        return Invalid(*self._found, *error.problems)

    def check(self) -> None:
        """Raise Invalid if there is a problem."""
        if self._found:
            raise Invalid(*self._found)
