"""Storage of a job together with its parts, such as its prompt and its credential, which may fail halfway."""

from collections.abc import Sequence
from contextlib import suppress
from typing import TypeVar

from msgspec.structs import replace

from labrats.model.core_resources import ConfigMap, Secret
from labrats.model.errors import Conflict, NotFound, RetryLater
from labrats.model.job import Job
from labrats.model.record import Resource
from labrats.ports import Store

R = TypeVar("R", bound=Resource)


async def create_with_parts(store: Store, job: Job, parts: Sequence[Resource]) -> Job:
    """Create `job` and all its `parts`.

    Raises Conflict when a name is taken. Raises RetryLater when some of them may be missing: `create_missing_parts`
    adds the rest. A job whose parts stay missing fails.
    """
    try:
        return await store.create(job, parts)
    except RetryLater:
        stored = await _find(store, Job, job.name)
        if stored is None or stored.spec != job.spec:
            raise
        await create_missing_parts(store, stored, parts)
        return stored


async def has_all_parts(store: Store, job: Job) -> bool:
    """Return whether the prompt, conversation, event and repository credential to which `job` refers exist."""
    setup = job.spec.workspace_setup
    for text in (job.spec.prompt_ref, job.spec.conversation_ref, job.spec.event_ref):
        if text and not await _has(store, job, ConfigMap, text.name):
            return False
    if setup is None or setup.credentials_ref is None or setup.token_from:  # each attempt gets a token of its own
        return True
    return await _has(store, job, Secret, setup.credentials_ref)


async def create_missing_parts(store: Store, job: Job, parts: Sequence[Resource]) -> bool:
    """Create the missing `parts` of a stored job. Return whether any was missing. Raises RetryLater."""
    missing = [part for part in parts if not await _has(store, job, type(part), part.name)]
    for part in missing:
        with suppress(Conflict):  # another engine has just created it
            await store.create(replace(part, metadata=replace(part.metadata, owner=job.as_owner())))
    return bool(missing)


async def _has(store: Store, job: Job, kind: type[Resource], name: str) -> bool:
    """Return whether `job` has the part. One of an earlier job with that name does not count: it is deleted soon."""
    found = await _find(store, kind, name)
    return found is not None and not job.as_owner().succeeds(found.metadata.owner)


async def _find(store: Store, kind: type[R], name: str) -> R | None:
    try:
        return await store.get(kind, name)
    except NotFound:
        return None
