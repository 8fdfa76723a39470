"""Events that the engine has read itself, in the mode `poll` of a webhook source. They are taken like deliveries."""

from dataclasses import dataclass

import structlog

from labrats.intake.deliveries import Delivery, fingerprint_of, fingerprint_of_event
from labrats.intake.delivery_log import DeliveryLog
from labrats.intake.event_intake import EventIntake, Result, record_of
from labrats.intake.events import IncomingEvent
from labrats.metrics import Metrics
from labrats.model.errors import LabratsError, Overloaded, RetryLater
from labrats.model.record import encode
from labrats.model.webhook_source import REFUSED, WebhookSource

log = structlog.get_logger()


def fingerprint_of_polled(source: WebhookSource, event: IncomingEvent, event_id: int | None = None) -> str:
    """Return the fingerprint of an event that was read. event_id: of the forge, if the event itself has no ids."""
    if event_id is not None:
        return fingerprint_of(source, f"{event.find('repository', 'id')} {event_id}".encode())
    return fingerprint_of_event(source, event) or fingerprint_of(source, encode(dict(event.payload)))


@dataclass(frozen=True)
class PolledEvents:
    """Takes events that were read, and records them like deliveries."""

    intake: EventIntake
    deliveries: DeliveryLog
    metrics: Metrics

    async def take(self, source: WebhookSource, event: IncomingEvent, fingerprint: str) -> None:
        """Start the agents of an event, or store its requests. Raises Overloaded, RetryLater."""
        try:
            result = await self.intake.take(Delivery(source, event, fingerprint))
        except (Overloaded, RetryLater):
            raise
        except LabratsError as error:
            log.warning("event refused", source=source.name, name=event.name, reason=str(error))
            result = Result(REFUSED, ignored=str(error))
        payload = encode(dict(event.payload)) if self.deliveries.stores_payloads else b""
        self.deliveries.add(source.name, record_of(self.intake.clock.now(), event, result), payload)
        self.metrics.delivery_received(result.outcome)
