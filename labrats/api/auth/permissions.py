"""The permissions of every route, in one table. Routes, the OpenAPI document and tests are derived from it."""

import re
from collections.abc import Mapping
from enum import Enum, auto
from typing import Final


class Access(Enum):
    """Permission to call a route. Admin keys and signed-in users may do what other keys may.

    Keys with the scope `viewer` may call the routes of `is_open_to_viewers` as admins may, and no others.
    """

    OPEN = auto()
    """Anybody, without a credential."""
    SIGNED = auto()
    """Senders of signed bodies. The operation verifies the signature before it parses the body."""
    CALLER = auto()
    """Any API key, or a session."""
    OWNER = auto()
    """Any API key, for objects that it owns, or a session. The operation refuses others by `Caller.may_see`."""
    ADMIN = auto()
    """API keys with the scope `admin`, or a session."""


_ROUTES: Final[Mapping[Access, str]] = {
    Access.OPEN: """
        GET    /health
        GET    /ready
        GET    /metrics
        GET    /api/openapi.json
        GET    /api/docs
        GET    /api/auth/oidc
        GET    /api/auth/oidc/callback
        POST   /api/auth/oidc/callback
        GET    /api/auth/link
        POST   /api/auth/link
        GET    /api/auth/me
        POST   /api/auth/logout
    """,
    Access.SIGNED: """
        POST   /api/webhooks/github
        POST   /webhooks/{}
    """,
    Access.CALLER: """
        POST   /api/jobs/submit
        GET    /api/jobs
        GET    /api/jobs/facets
        GET    /api/queue/jobs
        GET    /api/changes
        POST   /api/jobs/bulk
        POST   /api/events/ingest
        POST   /api/workspace-uploads
        GET    /api/workspace-uploads/{}/{}/raw
    """,
    Access.OWNER: """
        GET    /api/jobs/bulk/{}
        GET    /api/jobs/{}
        GET    /api/jobs/{}/logs
        GET    /api/jobs/{}/events
        GET    /api/jobs/{}/patch
        GET    /api/jobs/{}/bundle
        GET    /api/jobs/{}/prompt
        GET    /api/jobs/{}/report
        GET    /api/jobs/{}/result
        GET    /api/jobs/{}/attempts
        POST   /api/jobs/{}/retry
        POST   /api/jobs/{}/publish
        POST   /api/jobs/{}/rerun
        POST   /api/jobs/{}/messages
        POST   /api/jobs/{}/cancel
    """,
    Access.ADMIN: """
        GET    /api/agents
        POST   /api/agents
        GET    /api/agents/triggers
        GET    /api/agents/by-trigger/{}
        POST   /api/agents/seed
        GET    /api/agents/{}
        PATCH  /api/agents/{}
        DELETE /api/agents/{}
        GET    /api/agents/{}/instructions
        GET    /api/instructions
        POST   /api/instructions
        GET    /api/instructions/{}
        PATCH  /api/instructions/{}
        DELETE /api/instructions/{}
        GET    /api/api-keys
        POST   /api/api-keys
        DELETE /api/api-keys/{}
        GET    /api/webhook-sources
        POST   /api/webhook-sources
        GET    /api/webhook-sources/{}
        GET    /api/webhook-sources/{}/deliveries
        GET    /api/webhook-sources/{}/deliveries/{}
        PATCH  /api/webhook-sources/{}
        DELETE /api/webhook-sources/{}
        GET    /api/config/defaults
        PUT    /api/config/defaults
        GET    /api/pause
        PUT    /api/pause
        GET    /api/config/sources
        GET    /api/config/sources/{}
        PUT    /api/config/sources/{}
        DELETE /api/config/sources/{}
        GET    /api/stats
        GET    /api/stats/timeseries
        GET    /api/stats/breakdown
        GET    /api/secrets
        PUT    /api/secrets/{}
        DELETE /api/secrets/{}
        GET    /api/github/app
        POST   /api/github/app
        POST   /api/github/app/form
        POST   /api/github/connection
        GET    /api/system
        GET    /api/uploads
        POST   /api/uploads
        DELETE /api/uploads/{}
        POST   /api/uploads/{}/extract
        GET    /api/workspace-uploads
        DELETE /api/workspace-uploads/{}
        GET    /api/models
        POST   /api/models/scan
        POST   /api/models/download
        GET    /api/models/jobs
        GET    /api/models/jobs/{}/logs
        DELETE /api/models/{}/{}
        POST   /api/events/test
        GET    /api/queue
        GET    /api/ai-models
        POST   /api/ai-models
        GET    /api/ai-models/{}
        PATCH  /api/ai-models/{}
        DELETE /api/ai-models/{}
    """,
}
"""Methods and paths by access. `{}` represents a path parameter."""

TABLE: Final[Mapping[tuple[str, str], Access]] = {
    (method, path): access
    for access, lines in _ROUTES.items()
    for method, path in map(str.split, lines.strip().split("\n"))
}
"""The access of each route, by method and path."""


_NOT_FOR_VIEWERS: Final = frozenset(
    {
        ("GET", "/api/webhook-sources/{}/deliveries/{}"),
        ("GET", "/api/secrets"),
        ("GET", "/api/api-keys"),
    }
)
"""Routes that read, but not for viewers: a payload may contain anything, and the others are about credentials."""

_READING_POSTS: Final = frozenset({("POST", "/api/events/test")})
"""Routes that change nothing although they are no GET."""


def is_open_to_viewers(method: str, path: str) -> bool:
    """Return whether callers with the scope `viewer` may call a route: those that read, with few exceptions."""
    route = method, _row(path)
    return route in _READING_POSTS or (method == "GET" and route not in _NOT_FOR_VIEWERS)


def access_to(method: str, path: str) -> Access:
    """Return the access of a route. Raises LookupError if the table has no entry for it."""
    try:
        return TABLE[method, _row(path)]
    except KeyError:
        raise LookupError(f"{method} {path} has no entry in labrats/api/auth/permissions.py; add one") from None


def _row(path: str) -> str:
    """Return the path as in the table, without the names of its parameters."""
    return re.sub(r"\{[^}]*\}", "{}", path)
