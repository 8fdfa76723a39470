"""The webhook of the App: it delivers events, and delivers them again on request."""

import uuid
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Final

import httpx2

from tests.support.deliveries import github_headers
from tests.support.github.calls import Json

GITHUBS_PATIENCE_SECONDS: Final = 10.0


@dataclass
class Hook:
    """A webhook. deliveries: each attempt, in order.   page: the number of deliveries on a page of their list."""

    url: str = ""
    page: int = 2
    deliveries: list[Json] = field(default_factory=list)
    _sent: dict[str, tuple[str, bytes]] = field(default_factory=dict)

    def deliver(self, event: str, body: bytes) -> None:
        """Send an event once, and record the delivery with its result."""
        guid = str(uuid.uuid4())
        self._sent[guid] = (event, body)
        self._attempt(guid, redelivery=False)

    def deliver_again(self, delivery_id: int) -> bool:
        """Deliver again what a delivery had. Return whether there is such a delivery."""
        if not 0 < delivery_id <= len(self.deliveries):
            return False
        self._attempt(self.deliveries[delivery_id - 1]["guid"], redelivery=True)
        return True

    def _attempt(self, guid: str, *, redelivery: bool) -> None:
        event, body = self._sent[guid]
        try:
            headers = github_headers(event, body, delivery=guid)
            answer = httpx2.post(self.url, content=body, headers=headers, timeout=GITHUBS_PATIENCE_SECONDS)
            status = "OK" if answer.is_success else f"Invalid HTTP Response: {answer.status_code}"
        except httpx2.HTTPError:
            status = "failed to connect to host"
        delivery = {"id": len(self.deliveries) + 1, "guid": guid, "event": event, "redelivery": redelivery}
        self.deliveries.append(delivery | {"delivered_at": datetime.now(UTC).isoformat(), "status": status})
