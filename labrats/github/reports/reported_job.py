"""A job as its report shows it: the inputs of the texts, the check and the review."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Final
from urllib.parse import urlsplit

import msgspec

from labrats.model.errors import Invalid, NotFound
from labrats.model.found_secrets import FoundSecret, digests_of
from labrats.model.job import Job, without_secrets
from labrats.model.publication import Publication, Rejected, stored_publication
from labrats.model.redaction import Redactor
from labrats.ports import Runner
from labrats.settings import EngineSettings

_GITHUB_HOSTS: Final = frozenset({"github.com", "docs.github.com", "user-images.githubusercontent.com"})


class LostRace(StrEnum):
    """The consequence of commits that do not fit the branch, since others have moved it, as the end of a headline."""

    RUNS_AGAIN = ", but the branch has moved meanwhile; it runs once more"
    NOT_PUSHED = ", but nothing was pushed"


@dataclass(frozen=True)
class ReportedJob:
    """A job with what is known about the parts of its report.

    written:          the agent's `publish.json`; None if there is no valid one.
    ignored:          what is wrong with an invalid `publish.json`.
    head_sha:         the commit of the pull request that the report is about.
    url:              address of the job's page; None if the engine does not know its own address.
    known_hosts:      hosts to which texts of the agent may link.
    activity:         what the agent of a running job does now.
    pull_request_url: of the pull request with the agent's commits.
    review_url:       of the review that the job has posted.
    refused:          reasons why parts of the report were not published.
    waiting:          names of the parts that are tried again later.
    patch:            the agent's changes, where no pull request has them.
    lost:             what follows if the commits do not fit the branch, which others have moved.
    """

    job: Job
    written: Publication | None = None
    ignored: str | None = None
    head_sha: str | None = None
    url: str | None = None
    known_hosts: frozenset[str] = frozenset()
    activity: str | None = None
    pull_request_url: str | None = None
    refused: tuple[str, ...] = ()
    waiting: tuple[str, ...] = ()
    patch: str | None = None
    lost: LostRace | None = None
    review_url: str | None = None

    def without(self, secrets: Sequence[FoundSecret]) -> "ReportedJob":
        """Return the job with these secrets redacted in the agent's texts.

        It has none of these texts if one of the secrets cannot be recognised.
        """
        if not secrets:
            return self
        if not all(secret.digests for secret in secrets):
            status = msgspec.structs.replace(self.job.status, result=None, result_data=None, failed_reason=None)
            job = msgspec.structs.replace(self.job, status=status)
            return replace(self, job=job, written=None, ignored=None, activity=None, patch=None)
        redactor = Redactor(digests=digests_of(secrets))
        written = self.written and msgspec.convert(
            redactor.redact_value(msgspec.to_builtins(self.written)), Publication
        )
        return replace(
            self,
            job=without_secrets(self.job, redactor),
            written=written,
            ignored=self.ignored and redactor.redact(self.ignored),
            activity=self.activity and redactor.redact(self.activity),
            patch=self.patch and redactor.redact(self.patch),
        )

    @property
    def publication(self) -> Publication:
        """The proposed texts, which are all absent without a `publish.json`."""
        return self.written or Publication()

    @property
    def agent(self) -> str:
        """The name of the agent, or the type of a job without one."""
        return self.job.spec.agent_role or self.job.spec.type


async def reported_job(
    runner: Runner,
    job: Job,
    settings: EngineSettings,
    *,
    activity: str | None = None,
    pull_request_url: str | None = None,
    homepage: str | None = None,
) -> ReportedJob:
    """Return the job with its publication, which is read from the output of its latest attempt. Raises RetryLater.

    homepage: of the repository, to which texts may link.
    """
    written, ignored = await _publication(runner, job) if job.ended else (None, None)
    return ReportedJob(
        job=job,
        written=written,
        ignored=ignored,
        url=f"{settings.public_url}/jobs/{job.id}" if settings.public_url else None,
        known_hosts=known_hosts(settings, homepage),
        activity=activity,
        pull_request_url=pull_request_url,
    )


async def _publication(runner: Runner, job: Job) -> tuple[Publication | None, str | None]:
    """Return the publication of the latest attempt, and what is wrong with it if it is invalid."""
    try:
        return stored_publication(await runner.publication(job.attempt_name)), None
    except NotFound:
        return None, None
    except (Rejected, Invalid) as error:
        return None, str(error)


def known_hosts(settings: EngineSettings, homepage: str | None = None) -> frozenset[str]:
    """Return the hosts to which texts of agents may link: GitHub, the engine, the repository's, and those of a setting.

    homepage: of the repository, which only its administrators can change.
    """
    api = _host_of(settings.github_api_url)
    github = _GITHUB_HOSTS if api == "api.github.com" else {api}
    return frozenset({*github, *settings.link_hosts, _host_of(settings.public_url), _host_of(homepage)} - {""})


def _host_of(address: str | None) -> str:
    """Return the host of an address, which may lack its scheme; empty without one."""
    address = (address or "").strip()
    try:
        return urlsplit(address if "//" in address else f"//{address}").hostname or ""
    except ValueError:  # an invalid one, which GitHub stores
        return ""
