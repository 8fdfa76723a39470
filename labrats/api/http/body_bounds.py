"""Limits on request bodies."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

UPLOAD_BYTES: Final = 100 * 2**20
_FORM_BYTES: Final = UPLOAD_BYTES + 64 * 1024
"""A file of UPLOAD_BYTES, and the multipart form around it."""


@dataclass(frozen=True)
class BodyBounds:
    """bytes: the size of the body. values: the number of values in the lists and objects of a JSON body."""

    bytes: int
    values: int


USUAL: Final = BodyBounds(bytes=16 * 2**20, values=50_000)

DELIVERY: Final = BodyBounds(bytes=25 * 2**20, values=500_000)
"""For webhooks and events: GitHub sends up to 25 MiB."""

_BY_ROUTE: Final[Mapping[tuple[str, str], BodyBounds]] = {
    ("POST", "/api/events/ingest"): DELIVERY,
    ("POST", "/api/webhooks/github"): DELIVERY,
    ("POST", "/api/uploads"): BodyBounds(bytes=_FORM_BYTES, values=0),
    ("POST", "/api/workspace-uploads"): BodyBounds(bytes=_FORM_BYTES, values=0),
}


def bounds_of(method: str, path: str) -> BodyBounds:
    """Return the bounds of the body of a request."""
    if method == "POST" and path.startswith("/webhooks/"):
        return DELIVERY
    return _BY_ROUTE.get((method, path), USUAL)
