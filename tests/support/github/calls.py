"""Requests to the stand-in, as recorded."""

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

Json = dict[str, Any]

_LEVELS: Final = {"read": 1, "write": 2, "admin": 3}


@dataclass(frozen=True)
class Actor:
    """The identity behind a request.

    kind:         `nobody`, `app` (with a JWT), `installation` (a token of the App) or `person` (a personal token).
    permissions:  of an installation's token: {"issues": "write"}.   None: all, as a classic personal token has.
    repositories: full names that the token reaches; None: all.
    """

    kind: str = "nobody"
    login: str = ""
    user_id: int = 0
    permissions: Mapping[str, str] | None = None
    repositories: frozenset[str] | None = None

    @property
    def user(self) -> Json:
        return {"login": self.login, "id": self.user_id, "type": "Bot" if self.kind == "installation" else "User"}

    def may(self, permission: str) -> bool:
        """Return whether a permission such as `issues:read` is granted. `metadata:read` always is."""
        name, _, level = permission.partition(":")
        if self.permissions is None:
            return self.kind == "person"
        granted = self.permissions.get(name, "read" if name == "metadata" else "none")
        return _LEVELS.get(granted, 0) >= _LEVELS[level]

    def reaches(self, repository: str) -> bool:
        return self.kind in ("installation", "person") and (
            self.repositories is None or repository in self.repositories
        )


@dataclass
class Call:
    """One request and its answer.

    number:   from 1, in the order of arrival.
    template: the path as GitHub's description writes it, such as /repos/{owner}/{repo}/pulls; for git, `info/refs`
              or the name of the service.
    values:   of the path's parameters.
    status:   of the answer; 0 when none was sent.
    at:       time of arrival, monotonic, in seconds.
    """

    number: int
    method: str
    path: str
    template: str
    values: Mapping[str, str]
    query: Mapping[str, str]
    body: Any
    actor: Actor
    status: int = 0
    headers: dict[str, str] = field(default_factory=dict)
    base_url: str = ""
    at: float = field(default_factory=time.monotonic)

    @property
    def operation(self) -> str:
        return f"{self.method} {self.template}"

    @property
    def repository(self) -> str:
        """The full name in the path, or nothing."""
        return f"{self.values['owner']}/{self.values['repo']}" if "owner" in self.values else ""
