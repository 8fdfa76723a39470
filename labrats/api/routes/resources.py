"""Reads, creates and changes resources for the routes of all kinds."""

from collections.abc import Callable, Sequence
from typing import Annotated, Final, TypeVar

from pydantic import Field

from labrats.api.http.idempotency import Intent
from labrats.api.schemas.base import optional
from labrats.api.services import Services
from labrats.model.errors import BecameUnreadable, Conflict, NotFound, Problem
from labrats.model.record import Resource
from labrats.ports import compare_and_set

R = TypeVar("R", bound=Resource)

ResourceVersion = Annotated[str, Field(description="The change is refused unless this version is current.")]
NO_VERSION: Final = optional()

_WORDS: Final = {
    "AiAgent": "an agent",
    "AiInstruction": "an instruction",
    "AiModel": "a model",
    "WebhookSource": "a webhook source",
}
"""The kinds that callers create, in the words of the dashboard."""


async def get_resource(services: Services, kind: type[R], name: str) -> R:
    """Read a resource from the store. Raises NotFound."""
    try:
        return await services.store.get(kind, name)
    except NotFound as error:
        raise NotFound(f"there is no {kind.kind()} {name!r}") from error


async def create_resource(services: Services, resource: R, intent: Intent | None, parts: Sequence[Resource] = ()) -> R:
    """Store the resource with its parts, or return what another replica has just stored for the same request.

    Raises the errors of `Store.create`.
    """
    try:
        return await services.store.create(resource, parts)
    except Conflict as error:
        existing = await _find(services, type(resource), resource.name)
        if existing is None:  # something else is taken: a claim, or the name of a part
            raise
        if intent and intent.matches(existing.metadata):
            return existing
        raise value_taken("name", f"there is already {_WORDS[resource.kind()]} {resource.name!r}") from error


def value_taken(field: str, message: str) -> Conflict:
    """Return the error for a value of `field` that another resource has. message: one sentence for people."""
    return Conflict(message, Problem(field, message))


async def update_resource(
    services: Services, kind: type[R], name: str, version: str | None, apply: Callable[[R], R]
) -> R:
    """Apply a change to the stored resource. Repeat it if others write the resource at the same time.

    version: the expected resource version, if any. Raises NotFound; Conflict if the resource has another version.
    """

    def checked(current: R) -> R:
        check_version(current, version)
        return apply(current)

    _, written = await compare_and_set(services.store, lambda: get_resource(services, kind, name), checked)
    return written


def check_version(resource: Resource, expected: str | None) -> None:
    """Raise Conflict if the resource has another version than the expected one, if any."""
    if expected is not None and expected != resource.metadata.resource_version:
        raise Conflict(f"the {resource.kind()} {resource.name!r} was changed since version {expected}; read it again")


async def _find(services: Services, kind: type[R], name: str) -> R | None:
    try:
        return await services.store.get(kind, name)
    except (NotFound, BecameUnreadable):
        return None
