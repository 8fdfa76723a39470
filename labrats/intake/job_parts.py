"""Storing a job together with its prompt and its secrets, although the storage may break off in between."""

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


async def create_whole(store: Store, job: Job, parts: Sequence[Resource]) -> Job:
    """Create `job` with its `parts`: when it returns, all of them are there.

    Raises Conflict when a name is taken. After RetryLater some of them may be there: `complete` makes up for the rest,
    and a job whose parts never come fails.
    """
    try:
        return await store.create(job, parts)
    except RetryLater:
        stored = await _find(store, Job, job.name)
        if stored is None or stored.spec != job.spec:
            raise
        await complete(store, stored, parts)
        return stored


async def is_whole(store: Store, job: Job) -> bool:
    """Whether what `job` refers to is there: its prompt, its event, and the credentials of its repository."""
    setup = job.spec.workspace_setup
    for text in (job.spec.prompt_ref, job.spec.event_ref):
        if text and not await _has(store, job, ConfigMap, text.name):
            return False
    if setup is None or setup.credentials_ref is None or setup.token_from:  # a token is made for each attempt
        return True
    return await _has(store, job, Secret, setup.credentials_ref)


async def complete(store: Store, job: Job, parts: Sequence[Resource]) -> bool:
    """Create what is missing of the `parts` of a stored job; whether anything was. Raises RetryLater."""
    missing = [part for part in parts if not await _has(store, job, type(part), part.name)]
    for part in missing:
        with suppress(Conflict):  # whoever was to store it in the first place has done so by now
            await store.create(replace(part, metadata=replace(part.metadata, owner=job.as_owner())))
    return bool(missing)


async def _has(store: Store, job: Job, kind: type[Resource], name: str) -> bool:
    """Whether it is there for `job`: what an earlier job of its name has left is not, as it is about to go."""
    found = await _find(store, kind, name)
    return found is not None and not job.as_owner().succeeds(found.metadata.owner)


async def _find(store: Store, kind: type[R], name: str) -> R | None:
    try:
        return await store.get(kind, name)
    except NotFound:
        return None
