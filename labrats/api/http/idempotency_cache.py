"""Answers to requests with an Idempotency-Key, to be sent again."""

from collections import OrderedDict
from typing import Any, Final

from starlette.requests import Request
from starlette.responses import Response

from labrats.api.http.idempotency import REPLAYED, Intent
from labrats.api.http.json_body import json_response

MAX_BYTES: Final = 16 * 2**20
"""The bound on all answers together. The oldest are dropped first."""


class IdempotencyCache:
    """The answers to requests that created a resource, in memory.

    A resource records the request that created it, so that nothing is created twice even without the cache. If the
    first answer is not cached, the answer shows the current state of the resource.
    """

    def __init__(self) -> None:
        self._bodies: OrderedDict[tuple[str, str], bytes] = OrderedDict()
        self._bytes = 0

    def created(self, request: Request, intent: Intent | None, answer: dict[str, Any]) -> Response:
        """Return the first answer. Cache it if the request has a key."""
        response = json_response(answer, 201)
        if intent:
            self._put((request.url.path, intent.key), bytes(response.body))
        return response

    def again(self, request: Request, intent: Intent, now: dict[str, Any]) -> Response:
        """Return the first answer; if it is not cached, an answer with the current state `now`."""
        cached = self._bodies.get((request.url.path, intent.key))
        response = Response(cached, 201, media_type="application/json") if cached else json_response(now, 201)
        response.headers[REPLAYED] = "true"
        return response

    def _put(self, key: tuple[str, str], body: bytes) -> None:
        self._bytes += len(body) - len(self._bodies.pop(key, b""))
        self._bodies[key] = body
        while self._bytes > MAX_BYTES:
            _, oldest = self._bodies.popitem(last=False)
            self._bytes -= len(oldest)
