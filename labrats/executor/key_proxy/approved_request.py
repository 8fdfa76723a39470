"""A request that the key proxy forwards to the model's server."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from time import monotonic

import msgspec

from labrats.model.job import Usage
from labrats.model.protocol import is_for_an_answer

Headers = Sequence[tuple[bytes, bytes]]


@dataclass(frozen=True)
class ApprovedRequest:
    """A request to forward. target: its path with the query. body: a JSON object, or nothing.

    model: None for a request that names none. removed: the names of the fields of the body that it had.
    """

    method: bytes
    target: bytes
    headers: Headers
    body: bytes
    model: str | None = None
    removed: Sequence[str] = ()

    @property
    def path(self) -> str:
        return self.target.partition(b"?")[0].decode("latin-1")

    @property
    def is_answered_by_a_model(self) -> bool:
        """False for a request that consumes no tokens."""
        return is_for_an_answer(self.path, self.model)

    def fields(self) -> Mapping[str, msgspec.Raw]:
        """Return the fields of the body, each as JSON. Do not keep them: very many take much memory."""
        return msgspec.json.decode(self.body, type=dict[str, msgspec.Raw]) if self.body else {}


@dataclass
class SentRequest:
    """A request that is sent to the model's server. expected: see `Budget.expected`. at: when all of it was sent."""

    request: ApprovedRequest
    expected: Usage
    at: float | None = None

    def seconds(self) -> float:
        """Return the time since the whole request was sent."""
        return 0.0 if self.at is None else monotonic() - self.at
