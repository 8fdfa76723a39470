"""What requests under an Idempotency-Key were answered, to be answered again."""

from collections import OrderedDict
from typing import Any, Final

from starlette.requests import Request
from starlette.responses import Response

from labrats.api.http.idempotency import REPLAYED, Intent
from labrats.api.http.json_body import json_response

MAX_BYTES: Final = 16 * 2**20
"""What all answers together may take; the oldest are forgotten first."""


class IdempotencyCache:
    """The answers of those that have made something, while this engine runs and there is room for them.

    What was made says of itself which request made it, so that none is ever made twice. But it may have been written
    to since: where its first answer is forgotten, it is shown as it is now.
    """

    def __init__(self) -> None:
        self._bodies: OrderedDict[tuple[str, str], bytes] = OrderedDict()
        self._bytes = 0

    def created(self, request: Request, intent: Intent | None, answer: dict[str, Any]) -> Response:
        """The first answer, kept if it was asked for under a key."""
        response = json_response(answer, 201)
        if intent:
            self._keep((request.url.path, intent.key), bytes(response.body))
        return response

    def again(self, request: Request, intent: Intent, now: dict[str, Any]) -> Response:
        """The first answer once more, or else `now`, which is how it stands."""
        kept = self._bodies.get((request.url.path, intent.key))
        response = Response(kept, 201, media_type="application/json") if kept else json_response(now, 201)
        response.headers[REPLAYED] = "true"
        return response

    def _keep(self, key: tuple[str, str], body: bytes) -> None:
        self._bytes += len(body) - len(self._bodies.pop(key, b""))
        self._bodies[key] = body
        while self._bytes > MAX_BYTES:
            _, oldest = self._bodies.popitem(last=False)
            self._bytes -= len(oldest)
