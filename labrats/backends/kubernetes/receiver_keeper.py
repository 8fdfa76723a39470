"""Keeps a receiver for each WebhookSource, and says in the source's conditions how it stands."""

import asyncio
from collections.abc import Callable, Mapping
from typing import Any, Final

import msgspec
import structlog
from msgspec.structs import replace

from labrats.backends.kubernetes.client import APPLY, ApiClient
from labrats.backends.kubernetes.receivers import ReceiverSettings, deployment, ingress, receiver_url, service
from labrats.model.condition import Condition, with_condition
from labrats.model.errors import Conflict, LabratsError, NotFound, RetryLater
from labrats.model.parts import Secret
from labrats.model.record import encode
from labrats.model.webhook_source import WebhookSource
from labrats.ports import Changed, Clock, Store

log = structlog.get_logger()

PASS_SECONDS: Final = 10.0
"""How soon is noticed what no watch tells of: a Secret that came or changed, a receiver that has started."""

MANAGER: Final = "labrats-receivers"
"""Whom the objects' fields belong to. The same for every leader, so that each takes away what the last one set."""

_PATHS: Final[Mapping[str, str]] = {
    "Deployment": "/apis/apps/v1/namespaces/{namespace}/deployments/{name}",
    "Service": "/api/v1/namespaces/{namespace}/services/{name}",
    "Ingress": "/apis/networking.k8s.io/v1/namespaces/{namespace}/ingresses/{name}",
}

Told = Callable[[str, bool, str, str], Condition]
"""Makes a condition of its type, whether it holds, a reason and a sentence."""


class ReceiverKeeper:
    """For the engine that leads. It keeps nothing in memory: each pass asks for what there should be."""

    def __init__(self, client: ApiClient, store: Store, clock: Clock, settings: ReceiverSettings) -> None:
        self._client, self._store, self._clock, self._settings = client, store, clock, settings
        self._news = asyncio.Event()

    async def run(self) -> None:
        """Until cancelled."""
        async with asyncio.TaskGroup() as loops:
            loops.create_task(self._watch(), name="watch webhook sources")
            while True:
                self._news.clear()
                await self._keep_all()
                try:
                    async with asyncio.timeout(PASS_SECONDS):
                        await self._news.wait()
                except TimeoutError:
                    pass

    async def _watch(self) -> None:
        async for change in self._store.watch(WebhookSource):
            if isinstance(change, Changed):
                self._news.set()

    async def _keep_all(self) -> None:
        try:
            sources = await self._store.list(WebhookSource)
        except RetryLater as error:
            log.warning("webhook sources will be looked at later", reason=str(error))
            return
        for source in sources:
            try:
                await self._keep(source)
            except LabratsError as error:  # of one source: the others go on
                log.warning("a webhook source will be looked at later", source=source.name, reason=str(error))

    async def _keep(self, source: WebhookSource) -> None:
        """Bring what receives for one source closer to what it asks for, and say how far that has come."""
        told = self._teller(source)
        secret = await self._secret(source)
        if isinstance(secret, str):
            conditions = [
                told("SecretFound", False, "Missing", secret),
                told("Provisioned", False, "SecretMissing", f"nothing is made while {secret}"),
            ]
        else:
            version = f"{secret.metadata.uid}/{secret.metadata.resource_version}"
            found = told("SecretFound", True, "Found", f"the Secret {secret.name!r} has the key")
            conditions = [found, *await self._provide(source, version, told)]
        await self._tell(source, conditions)

    async def _secret(self, source: WebhookSource) -> Secret | str:
        """The Secret of the source, or what is missing of it."""
        if (reference := source.spec.secret_ref) is None:
            return "the source names no secret"
        try:
            secret = await self._store.get(Secret, reference.name)
        except NotFound:
            return f"there is no Secret {reference.name!r}"
        return secret if secret.data.get(reference.key) else f"{reference.name!r} has no key {reference.key!r}"

    async def _provide(self, source: WebhookSource, secret_version: str, told: Told) -> list[Condition]:
        try:
            made = await self._apply(deployment(source, secret_version, self._settings))
            await self._apply(service(source))
            door = await self._apply(ingress(source))
        except RetryLater:
            raise
        except LabratsError as error:  # the API server says what of the source it does not take
            return [told("Provisioned", False, "Refused", f"the cluster refuses what the source asks for: {error}")]
        provisioned = told("Provisioned", True, "Applied", "its Deployment, Service and Ingress are there")
        return [provisioned, _readiness(source, made, told), _exposure(source, door, told)]

    async def _apply(self, wanted: dict[str, Any]) -> dict[str, Any]:
        """What the API server makes of it. Never takes over what somebody else has made or changed: that is refused."""
        name = wanted["metadata"]["name"]
        path = _PATHS[wanted["kind"]].format(namespace=self._settings.namespace, name=name)
        answer = await self._client.request(
            "PATCH", path, encode(wanted), query={"fieldManager": MANAGER}, content_type=APPLY
        )
        applied: dict[str, Any] = msgspec.json.decode(answer)
        return applied

    async def _tell(self, source: WebhookSource, conditions: list[Condition]) -> None:
        kept = source.status.conditions
        for condition in conditions:
            kept = with_condition(kept, condition)
        status = replace(source.status, url=receiver_url(source, self._settings), conditions=_sorted(kept))
        if status == replace(source.status, conditions=_sorted(source.status.conditions)):
            return
        try:
            await self._store.update(replace(source, status=status))
        except (Conflict, NotFound):
            self._news.set()  # somebody wrote meanwhile: look again

    def _teller(self, source: WebhookSource) -> Told:
        now = self._clock.now().replace(microsecond=0)

        def told(kind: str, holds: bool, reason: str, message: str) -> Condition:
            status = "True" if holds else "False"
            return Condition(type=kind, status=status, reason=reason, message=message, last_transition_time=now)

        return told


def _readiness(source: WebhookSource, made: dict[str, Any], told: Told) -> Condition:
    status = made.get("status", {})
    if not source.spec.enabled:
        return told("Ready", False, "SwitchedOff", "the source is switched off: its receiver answers 404")
    is_new = status.get("observedGeneration") == made["metadata"].get("generation")
    if is_new and status.get("availableReplicas") and status.get("updatedReplicas") == status.get("replicas"):
        return told("Ready", True, "Serving", "its receiver takes deliveries")
    said = [each for each in status.get("conditions", ()) if each.get("status") == "False"]
    reasons = "".join(f": {each.get('message', '')}" for each in said[:1])
    return told("Ready", False, "Starting", f"its receiver is starting{reasons}")


def _exposure(source: WebhookSource, door: dict[str, Any], told: Told) -> Condition:
    if door.get("status", {}).get("loadBalancer", {}).get("ingress"):
        return told("Exposed", True, "Admitted", "an ingress controller serves its Ingress")
    named = source.spec.ingress_class_name
    which = f"of the class {named!r}" if named else "for Ingresses without a class"
    return told(
        "Exposed",
        False,
        "NoIngressController",
        f"no ingress controller {which} has taken its Ingress yet: it is reached within the cluster only",
    )


def _sorted(conditions: tuple[Condition, ...]) -> tuple[Condition, ...]:
    return tuple(sorted(conditions, key=lambda condition: condition.type))
