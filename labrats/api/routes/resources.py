"""What the operations on resources that people write have in common."""

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

ResourceVersion = Annotated[str, Field(description="Refuses the change when it is no longer current.")]
NO_VERSION: Final = optional()


async def stored(services: Services, kind: type[R], name: str) -> R:
    """The resource as it is now. Raises NotFound."""
    try:
        return await services.store.get(kind, name)
    except NotFound as error:
        raise NotFound(f"there is no {kind.kind()} {name!r}") from error


async def _find(services: Services, kind: type[R], name: str) -> R | None:
    try:
        return await services.store.get(kind, name)
    except NotFound:
        return None


async def create(services: Services, resource: R, intent: Intent | None, parts: Sequence[Resource] = ()) -> R:
    """Store the resource with its parts; or return what another replica has just stored for the same request.

    Raises as the store does.
    """
    try:
        return await services.store.create(resource, parts)
    except Conflict:
        found = await _find(services, type(resource), resource.name) if intent else None
        if intent and found and intent.matches(found.metadata):
            return found
        raise


async def change(services: Services, kind: type[R], name: str, version: str | None, changed: Callable[[R], R]) -> R:
    """Store what `changed` makes of the resource, also where others write it meanwhile.

    version: the one it must still have, if any. Raises NotFound; Conflict where it has another.
    """

    def checked(found: R) -> R:
        if version is not None and version != found.metadata.resource_version:
            raise Conflict(f"the {kind.kind()} {name!r} was changed since version {version}; read it again")
        return changed(found)

    _, written = await compare_and_set(services.store, lambda: stored(services, kind, name), checked)
    return written
