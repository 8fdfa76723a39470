"""Reads, creates and changes resources for the routes of all kinds."""

from collections.abc import Callable, Sequence
from typing import Annotated, Final, TypeVar

from pydantic import Field

from labrats.api.http.idempotency import Intent
from labrats.api.schemas.base import optional
from labrats.api.services import Services
from labrats.model.errors import Conflict, NotFound
from labrats.model.record import Resource
from labrats.ports import compare_and_set

R = TypeVar("R", bound=Resource)

ResourceVersion = Annotated[str, Field(description="The change is refused unless this version is current.")]
NO_VERSION: Final = optional()


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
    except Conflict:
        existing = await _find(services, type(resource), resource.name) if intent else None
        if intent and existing and intent.matches(existing.metadata):
            return existing
        raise


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
    except NotFound:
        return None
