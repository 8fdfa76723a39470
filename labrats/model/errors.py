"""The errors of the engine, named by what the catcher can do about them."""

from dataclasses import dataclass


class LabratsError(Exception):
    """The root: whatever Labrats itself raises. Its text is one sentence a person understands."""


class NotFound(LabratsError):
    """There is no such thing (404)."""


class Conflict(LabratsError):
    """The name is taken, or somebody else wrote first (409): read again and decide again."""


class Taken(Conflict):
    """Another has what no two may have in common: asking again changes nothing while it has."""


class IllegalMove(LabratsError):
    """The job's phase does not allow this (400)."""


class RetryLater(LabratsError):
    """It may pass: try the same thing again after `delay_seconds` (503)."""

    def __init__(self, message: str, delay_seconds: float = 1.0) -> None:
        super().__init__(message)
        self.delay_seconds = delay_seconds


class GiveUp(LabratsError):
    """It will not pass by itself: fail the job with this `code` and sentence.

    retry_after_seconds: how long a model's provider asks to be left alone, where it says so.
    """

    def __init__(self, code: str, message: str, retry_after_seconds: float | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.retry_after_seconds = retry_after_seconds


@dataclass(frozen=True)
class Problem:
    """One thing wrong with one field: `field` is its dotted path in the request, `message` says what would be right."""

    field: str
    message: str


class Invalid(LabratsError):
    """The request is well-formed but not acceptable (422); `problems` names each offending field."""

    def __init__(self, *problems: Problem) -> None:
        super().__init__("; ".join(f"{problem.field}: {problem.message}" for problem in problems))
        self.problems = problems
