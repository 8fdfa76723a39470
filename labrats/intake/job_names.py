"""The names under which a job may be stored. With them, a repeated request finds its first job."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Final

from labrats.model.job import Job, new_job_ids

NAME_TRIES: Final = 5
"""Number of names per job. Names are random or derived from a hash, so that even a second one is rarely needed."""


def _is_never_same(_: Job) -> bool:
    return False


@dataclass(frozen=True)
class JobNames:
    """The names under which a job may be stored, best first.

    annotations: annotations of the job.
    is_same: returns whether a stored job that has one of the names was created by the same request.
    """

    candidates: Sequence[str]
    annotations: Mapping[str, str] = field(default_factory=dict)
    is_same: Callable[[Job], bool] = _is_never_same

    @property
    def are_reproducible(self) -> bool:
        """True if the same request, sent again, has the same names."""
        return self.is_same is not _is_never_same


NamesOfAgent = Callable[[str], JobNames]
"""A function from the name of an agent to the names for its job. One event may start several agents."""


def random_names() -> JobNames:
    """Return random names, for a job that cannot have been created before."""
    return JobNames(new_job_ids(NAME_TRIES))


def names_from(annotation: str, identity: str) -> JobNames:
    """Return the names for the job of `identity`: always the same, so that repeated attempts create one job.

    annotation: holds the identity, by which the job is recognized.
    """
    return JobNames(
        [f"ir-{sha256(f'{identity}/{number}'.encode()).hexdigest()[:8]}" for number in range(NAME_TRIES)],
        {annotation: identity},
        lambda job: job.metadata.annotations.get(annotation) == identity,
    )
