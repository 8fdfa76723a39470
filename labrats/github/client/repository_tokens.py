"""Tokens for the repositories of jobs. A token lasts an hour and a job may wait longer: each attempt gets a new one."""

from typing import Final
from urllib.parse import urlsplit

from msgspec.structs import replace

from labrats.github.client.app import GitHub
from labrats.model.core_resources import JOB_CREDENTIALS, Secret, problem_of_credentials
from labrats.model.errors import Conflict, GiveUp, NotFound, RetryLater
from labrats.model.job import FailedCode, Job, WorkspaceSetup
from labrats.model.record import Metadata
from labrats.ports import Store

USERNAME: Final = "x-access-token"
"""The user name for git. GitHub checks the token only."""


class RepositoryTokens:
    """Creates tokens for the repositories of webhook sources with credentials."""

    def __init__(self, store: Store, github: GitHub, *, labelled_only: bool = False) -> None:
        """labelled_only: true if Secrets with credentials must be labelled for jobs."""
        self._store, self._github, self._labelled_only = store, github, labelled_only

    async def provide(self, job: Job) -> None:
        """Store a new token in the Secret with which the next attempt of `job` clones, if the job uses tokens.

        Raises GiveUp for a permanent problem, RetryLater for a temporary one.
        """
        setup = job.spec.workspace_setup
        if setup is None or setup.token_from is None or setup.credentials_ref is None:
            return
        if not self._github.is_host_of(setup.git_repo):
            raise GiveUp(FailedCode.GIT_CLONE, "the repository is not on the GitHub that the credentials are for")
        token = await self._github.token_for(_name_of(setup), await self._credentials(setup.token_from))
        await self._store_token(job, setup.credentials_ref, {"username": USERNAME, "password": token})

    async def _credentials(self, name: str) -> dict[str, str]:
        try:
            secret = await self._store.get(Secret, name)
        except NotFound as error:
            raise GiveUp(FailedCode.GIT_CLONE, f"the Secret {name!r} with the credentials is missing") from error
        if problem := problem_of_credentials(secret, None, labelled_only=self._labelled_only):
            raise GiveUp(FailedCode.GIT_CLONE, problem)
        return secret.data

    async def _store_token(self, job: Job, name: str, data: dict[str, str]) -> None:
        secret = Secret(metadata=Metadata(name=name, owner=job.as_owner(), labels=JOB_CREDENTIALS), data=data)
        try:
            await self._store.create(secret)
        except Conflict:
            await self._replace(job, secret)

    async def _replace(self, job: Job, secret: Secret) -> None:
        try:
            stored = await self._store.get(Secret, secret.name)
        except NotFound as error:
            raise RetryLater(f"the Secret {secret.name!r} was deleted just now") from error
        if stored.metadata.owner is None or stored.metadata.owner.uid != job.metadata.uid:
            raise GiveUp(FailedCode.GIT_CLONE, f"the Secret {secret.name!r} belongs to another object")
        await self._store.update(replace(stored, data=secret.data))


def _name_of(setup: WorkspaceSetup) -> str:
    """Return the `owner/name` of the repository."""
    return urlsplit(setup.git_repo).path.strip("/").removesuffix(".git")
