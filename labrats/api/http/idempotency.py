"""`Idempotency-Key`: the same key and body gives the first answer again.

Nothing else is stored: annotations of the created resource hold a hash of the key and a hash of the request.
"""

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Annotated, Final, TypeVar

from fastapi import Header
from pydantic import BaseModel, StringConstraints

from labrats.api.http.errors import ApiError
from labrats.api.schemas.patterns import PRINTABLE
from labrats.intake.job_names import NAME_TRIES, JobNames, random_names
from labrats.model.errors import Problem
from labrats.model.record import Metadata, Resource

R = TypeVar("R", bound=Resource)

KEY_ANNOTATION: Final = "labrats.work/idempotency-key"
REQUEST_ANNOTATION: Final = "labrats.work/idempotency-request"

KEY_HEADER: Final = "Idempotency-Key"
REPLAYED: Final = "Idempotent-Replayed"

IdempotencyKey = Annotated[
    Annotated[str, StringConstraints(min_length=1, max_length=255, pattern=PRINTABLE)] | None,
    Header(
        alias=KEY_HEADER,
        description="The same key and body gives the first answer again. The request is carried out once.",
        examples=["7b1f0c52-retry"],
    ),
]


@dataclass(frozen=True)
class Intent:
    """A request with a key, both as hashes. The key is hashed with the caller's id, so that callers cannot collide."""

    key: str
    request: str

    @classmethod
    def of(cls, key: str | None, caller_id: str, body: BaseModel) -> "Intent | None":
        """Return the intent; None without a key. White space and the order of fields make no difference."""
        if key is None:
            return None
        return cls(_hash(f"{caller_id}\0{key}".encode()), _hash(body.model_dump_json(exclude_unset=True).encode()))

    @property
    def annotations(self) -> dict[str, str]:
        return {KEY_ANNOTATION: self.key, REQUEST_ANNOTATION: self.request}

    def matches(self, metadata: Metadata) -> bool:
        """Return whether the resource was created under the same key. Raises 422 for the key with another request."""
        if metadata.annotations.get(KEY_ANNOTATION) != self.key:
            return False
        if metadata.annotations.get(REQUEST_ANNOTATION) != self.request:
            problem = Problem(KEY_HEADER, "was used before with another body")
            raise ApiError(422, "idempotency_key_reused", f"this {KEY_HEADER} {problem.message}", problems=[problem])
        return True

    def first_match(self, resources: Iterable[R]) -> R | None:
        """Return the resource that was created under the same key. Raises as `matches` does."""
        return next((resource for resource in resources if self.matches(resource.metadata)), None)

    def job_names(self, agent: str = "") -> JobNames:
        """Return the names for the job of this key: always the same, so that the store refuses a second job.

        agent: name of the job's agent, where the key creates a job for each of several agents.
        """
        names = [f"ir-{_hash(f'{self.key} {number} {agent}'.rstrip().encode())[:8]}" for number in range(NAME_TRIES)]
        return JobNames(names, self.annotations, lambda job: self.matches(job.metadata))


def job_names(key: str | None, caller_id: str, body: BaseModel) -> JobNames:
    """Return the names for the job of a request: reproducible ones under a key, random ones without."""
    intent = Intent.of(key, caller_id, body)
    return intent.job_names() if intent else random_names()


def _hash(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
