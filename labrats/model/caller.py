"""The identity behind a request to the API."""

from dataclasses import dataclass
from datetime import datetime
from typing import Final

SUBMIT: Final = "submit"
VIEWER: Final = "viewer"
ADMIN: Final = "admin"
SCOPES: Final = (SUBMIT, VIEWER, ADMIN)


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

    @property
    def is_viewer(self) -> bool:
        """True for a caller that may read what admins read, with few exceptions, and change nothing."""
        return self.scopes == {VIEWER}

    @property
    def sees_all(self) -> bool:
        """True for a caller that sees the jobs of all owners."""
        return self.is_admin or self.is_viewer

    def may_see(self, owner: str) -> bool:
        return self.sees_all or owner == self.id
