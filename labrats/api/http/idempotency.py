"""`Idempotency-Key`: the same key and body gives the first answer again.

Nothing is stored beside the resources: one that was created under a key carries a hash of the key and of the request.
"""

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Annotated, Final, TypeVar

from fastapi import Header
from pydantic import BaseModel, StringConstraints

from labrats.api.http.errors import ApiError
from labrats.api.schemas.patterns import IDEMPOTENCY_KEY
from labrats.intake.job_names import NAME_TRIES, JobNames, random_names
from labrats.model.errors import Problem
from labrats.model.record import Metadata, Resource

R = TypeVar("R", bound=Resource)

KEY_ANNOTATION: Final = "labrats.work/idempotency-key"
REQUEST_ANNOTATION: Final = "labrats.work/idempotency-request"

KEY_HEADER: Final = "Idempotency-Key"
REPLAYED: Final = "Idempotent-Replayed"

IdempotencyKey = Annotated[
    Annotated[str, StringConstraints(min_length=1, max_length=255, pattern=IDEMPOTENCY_KEY)] | None,
    Header(
        alias=KEY_HEADER,
        description="The same key and body gives the first answer again, without doing it twice.",
        examples=["7b1f0c52-retry"],
    ),
]


@dataclass(frozen=True)
class Intent:
    """A request made under a key, both as hashes. The key's is mixed with its caller's id: callers cannot collide."""

    key: str
    request: str

    @classmethod
    def of(cls, key: str | None, caller_id: str, asked: BaseModel) -> "Intent | None":
        """None without a key. Bodies that differ only in white space and the order of fields are the same request."""
        if key is None:
            return None
        return cls(_hash(f"{caller_id}\0{key}".encode()), _hash(asked.model_dump_json(exclude_unset=True).encode()))

    @property
    def annotations(self) -> dict[str, str]:
        return {KEY_ANNOTATION: self.key, REQUEST_ANNOTATION: self.request}

    def made(self, metadata: Metadata) -> bool:
        """Whether the resource with this metadata came of the same key. Raises 422 when the request was another one."""
        if metadata.annotations.get(KEY_ANNOTATION) != self.key:
            return False
        if metadata.annotations.get(REQUEST_ANNOTATION) != self.request:
            problem = Problem(KEY_HEADER, "was used before with another body")
            raise ApiError(422, "idempotency_key_reused", f"this {KEY_HEADER} {problem.message}", problems=[problem])
        return True

    def first_made(self, resources: Iterable[R]) -> R | None:
        """The one of `resources` that came of the same key. Raises as `made` does."""
        return next((resource for resource in resources if self.made(resource.metadata)), None)

    def job_names(self, agent: str = "") -> JobNames:
        """The names of the job that this key creates: the same each time, so that the store refuses a second one.

        agent: the one it is for, where the key creates a job for each of several.
        """
        names = [f"ir-{_hash(f'{self.key} {number} {agent}'.rstrip().encode())[:8]}" for number in range(NAME_TRIES)]
        return JobNames(names, self.annotations, lambda job: self.made(job.metadata))


def job_names(key: str | None, caller_id: str, asked: BaseModel) -> JobNames:
    """Return the names for the job of a request: reproducible ones under a key, random ones without."""
    intent = Intent.of(key, caller_id, asked)
    return intent.job_names() if intent else random_names()


def _hash(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
