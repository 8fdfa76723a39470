"""The identity behind a request to the API."""

from dataclasses import dataclass
from datetime import datetime
from typing import Final

SUBMIT: Final = "submit"
ADMIN: Final = "admin"
SCOPES: Final = (SUBMIT, ADMIN)


@dataclass(frozen=True)
class Caller:
    """The identity behind a request.

    id: the owner of the jobs that the caller submits. secret: the Secret of a stored API key, or None.
    """

    id: str
    scopes: frozenset[str]
    expires_at: datetime | None = None
    secret: str | None = None

    @property
    def is_admin(self) -> bool:
        return ADMIN in self.scopes

    def may_see(self, owner: str) -> bool:
        return self.is_admin or owner == self.id
