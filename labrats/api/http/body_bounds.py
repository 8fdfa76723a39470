"""How much a request may bring."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

UPLOAD_BYTES: Final = 100 * 2**20
_FORM_BYTES: Final = UPLOAD_BYTES + 64 * 1024
"""A file with the form around it."""


@dataclass(frozen=True)
class BodyBounds:
    """bytes: of the body. values: in all its lists and objects, where it is JSON."""

    bytes: int
    values: int


USUAL: Final = BodyBounds(bytes=16 * 2**20, values=50_000)

DELIVERY: Final = BodyBounds(bytes=25 * 2**20, values=500_000)
"""As large as GitHub's events."""

_OF_ROUTES: Final[Mapping[tuple[str, str], BodyBounds]] = {
    ("POST", "/api/events/ingest"): DELIVERY,
    ("POST", "/api/webhooks/github"): DELIVERY,
    ("POST", "/api/uploads"): BodyBounds(bytes=_FORM_BYTES, values=0),
    ("POST", "/api/workspace-uploads"): BodyBounds(bytes=_FORM_BYTES, values=0),
}


def bounds_of(method: str, path: str) -> BodyBounds:
    """The bounds of the bodies of such requests."""
    if method == "POST" and path.startswith("/webhooks/"):
        return DELIVERY
    return _OF_ROUTES.get((method, path), USUAL)
