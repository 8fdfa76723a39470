"""The name of an attempt."""

import re
from dataclasses import dataclass
from typing import Final

_PATTERN: Final = re.compile(r"(.+)-(0|[1-9][0-9]*)")


@dataclass(frozen=True, slots=True, order=True)
class AttemptName:
    """The job and the number of an attempt, written `{job}-{number}`: the runner's key, and the Job on Kubernetes."""

    job_id: str
    number: int

    @classmethod
    def parse(cls, text: str) -> "AttemptName | None":
        """Return the name that `text` is; None for any other text, such as the name of a foreign folder."""
        match = _PATTERN.fullmatch(text)
        return cls(match[1], int(match[2])) if match else None

    def __str__(self) -> str:
        return f"{self.job_id}-{self.number}"
