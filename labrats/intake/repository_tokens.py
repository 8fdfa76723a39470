"""Gives each attempt a token for its repository when it starts: tokens last an hour, and jobs may wait longer."""

from typing import Final
from urllib.parse import urlsplit

from msgspec.structs import replace

from labrats.model.core_resources import JOB_CREDENTIALS, Secret, problem_of_credentials
from labrats.model.errors import Conflict, GiveUp, NotFound, RetryLater
from labrats.model.job import FailedCode, Job, WorkspaceSetup
from labrats.model.record import Metadata
from labrats.net.github import GitHub
from labrats.ports import Store

USERNAME: Final = "x-access-token"
"""Whom git says it is: GitHub looks at the token only."""


class RepositoryTokens:
    """Of the repositories of webhook sources that have credentials."""

    def __init__(self, store: Store, github: GitHub, *, labelled_only: bool = False) -> None:
        """labelled_only: whether credentials must be labelled for jobs."""
        self._store, self._github, self._labelled_only = store, github, labelled_only

    async def provide(self, job: Job) -> None:
        """Keep a fresh token in the Secret that the next attempt of `job` clones with, where it is to have one.

        Raises GiveUp when there will never be one, RetryLater when there may be later.
        """
        setup = job.spec.workspace_setup
        if setup is None or setup.token_from is None or setup.credentials_ref is None:
            return
        if not self._github.is_host_of(setup.git_repo):
            raise GiveUp(FailedCode.GIT_CLONE, "the repository is not on the GitHub that the credentials are for")
        token = await self._github.token_for(_name_of(setup), await self._credentials(setup.token_from))
        await self._keep(job, setup.credentials_ref, {"username": USERNAME, "password": token})

    async def _credentials(self, name: str) -> dict[str, str]:
        try:
            secret = await self._store.get(Secret, name)
        except NotFound as error:
            raise GiveUp(FailedCode.GIT_CLONE, f"the Secret {name!r} with the credentials is missing") from error
        if problem := problem_of_credentials(secret, None, labelled_only=self._labelled_only):
            raise GiveUp(FailedCode.GIT_CLONE, problem)
        return secret.data

    async def _keep(self, job: Job, name: str, data: dict[str, str]) -> None:
        secret = Secret(metadata=Metadata(name=name, owner=job.as_owner(), labels=JOB_CREDENTIALS), data=data)
        try:
            await self._store.create(secret)
        except Conflict:
            await self._renew(job, secret)

    async def _renew(self, job: Job, secret: Secret) -> None:
        try:
            kept = await self._store.get(Secret, secret.name)
        except NotFound as error:
            raise RetryLater(f"the Secret {secret.name!r} was deleted just now") from error
        if kept.metadata.owner is None or kept.metadata.owner.uid != job.metadata.uid:
            raise GiveUp(FailedCode.GIT_CLONE, f"the Secret {secret.name!r} is another's")
        await self._store.update(replace(kept, data=secret.data))


def _name_of(setup: WorkspaceSetup) -> str:
    """The `owner/name` of its repository."""
    return urlsplit(setup.git_repo).path.strip("/").removesuffix(".git")
