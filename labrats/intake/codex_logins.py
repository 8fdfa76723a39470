"""Renewals of Codex's logins, by the engine: one at a time, and stored before a job gets the new access token."""

import asyncio
from collections import defaultdict
from datetime import datetime, timedelta
from http import HTTPStatus
from typing import Any, Final

import httpx2
import msgspec
import structlog
from msgspec.structs import replace

from labrats.model.ai_model import AiModel
from labrats.model.codex_login import CLIENT_ID, JOB_LOGIN_KEY, LOGIN_KEY, CodexLogin
from labrats.model.core_resources import Secret, problem_of_credentials
from labrats.model.errors import Conflict, GiveUp, NotFound, RetryLater
from labrats.model.job import FailedCode, Job
from labrats.net.tls import system_tls
from labrats.ports import Clock, Store

log = structlog.get_logger()

CONNECT_SECONDS: Final = 20.0

ANSWER_SECONDS: Final = 300.0
"""A server that answers late may have spent the refresh token, so that nothing but its answer has the next one."""

NEW: Final = timedelta(minutes=1)
"""Age of a login up to which the model's server may not know it yet."""

_STOP_SECONDS: Final = 40.0
_REFUSALS: Final = frozenset({HTTPStatus.BAD_REQUEST, HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN})
_PROVIDER: Final = "codex"
_DETAIL_CHARACTERS: Final = 200


class CodexLogins:
    """Provides jobs with logins that stay valid while they run."""

    def __init__(self, store: Store, token_url: str, clock: Clock, *, labelled_only: bool = False) -> None:
        """token_url: of the server that renews logins.

        labelled_only: true if Secrets with credentials must be labelled for jobs.
        """
        self._store, self._token_url, self._clock, self._labelled_only = store, token_url, clock, labelled_only
        self._locks: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)
        self._rejected: dict[str, datetime] = {}
        """By Secret, the start of the last attempt whose access token the model's server has rejected."""
        self._unstored: dict[str, tuple[str, CodexLogin]] = {}
        """By Secret, a renewed login that could not be stored yet, and the refresh token that it cost."""

    def note_rejected(self, job: Job, ai_model: AiModel | None) -> None:
        """Take note that the model's server has rejected the login of the job's attempt, if it has one."""
        if (name := _secret_of(job, ai_model)) and job.status.started_at:
            self._rejected[name] = job.status.started_at

    async def provide(self, job: Job, ai_model: AiModel | None) -> None:
        """Store a login that is valid for the next attempt of `job`, if its model has a login that can be renewed.

        Raises GiveUp if it cannot be renewed any more, RetryLater for a temporary problem.
        """
        if name := _secret_of(job, ai_model):
            async with self._locks[name]:
                # A spent refresh token must not get lost, also if the engine is being stopped.
                work = asyncio.ensure_future(self._provide(name, job))
                try:
                    await asyncio.shield(work)
                except asyncio.CancelledError:
                    await asyncio.wait([work], timeout=_STOP_SECONDS)
                    raise

    async def _provide(self, name: str, job: Job) -> None:
        try:
            secret = await self._store.get(Secret, name)
        except NotFound:
            return  # the runner reports it
        if problem_of_credentials(secret, job.metadata.uid, labelled_only=self._labelled_only):
            return
        login = CodexLogin.of(secret.data.get(LOGIN_KEY, ""))
        if name in self._unstored:
            spent, renewed = self._unstored[name]
            if login and login.refresh_token == spent:
                await self._store_login(secret, renewed)
                return
            del self._unstored[name]  # the user has signed in again
        if login and self._is_due(name, login, job):
            await self._renew(secret, login)
        elif secret.data.get(JOB_LOGIN_KEY) != (login and login.for_jobs()):
            await self._update(secret, login)

    def _is_due(self, name: str, login: CodexLogin, job: Job) -> bool:
        now, rejected_at, renewed_at = self._clock.now(), self._rejected.get(name), login.renewed_at
        if rejected_at and renewed_at and renewed_at <= rejected_at < renewed_at + NEW:
            if (age := now - renewed_at) < NEW:
                reason = f"the model's server does not know the renewed login in the Secret {name!r} yet"
                raise RetryLater(reason, delay_seconds=(NEW - age).total_seconds())
        elif rejected_at and not (renewed_at and rejected_at < renewed_at <= now):
            return True
        return login.must_be_renewed(now, timedelta(seconds=job.resolved.timeout_seconds))

    async def _renew(self, secret: Secret, login: CodexLogin) -> None:
        """Renew the login and store it. If that fails, a login that is still valid is used as it is."""
        try:
            answer = await self._ask(secret.name, login)
        except (GiveUp, RetryLater) as error:
            if secret.name in self._rejected or not login.is_valid_at(self._clock.now() + timedelta(minutes=1)):
                raise
            log.warning("login of Codex not renewed", secret=secret.name, reason=str(error))
            await self._update(secret, login)
            return
        self._unstored[secret.name] = login.refresh_token, login.renewed(answer, self._clock.now())
        await self._store_login(secret, self._unstored[secret.name][1])
        log.info("login of Codex renewed", secret=secret.name)

    async def _store_login(self, secret: Secret, login: CodexLogin) -> None:
        await self._update(secret, login)
        del self._unstored[secret.name]
        self._rejected.pop(secret.name, None)

    async def _update(self, secret: Secret, login: CodexLogin | None) -> None:
        """Store the login and its copy for jobs. Without one, remove the copy of an earlier login."""
        data = {key: value for key, value in secret.data.items() if key != JOB_LOGIN_KEY}
        if login:
            data |= {JOB_LOGIN_KEY: login.for_jobs()}
            if CodexLogin.of(data[LOGIN_KEY]) != login:
                data[LOGIN_KEY] = login.text
        if data == secret.data:
            return
        try:
            await self._store.update(replace(secret, data=data))
        except Conflict as error:
            raise RetryLater(f"the Secret {secret.name!r} was changed just now", delay_seconds=1) from error

    async def _ask(self, name: str, login: CodexLogin) -> dict[str, Any]:
        """Exchange the refresh token. Raises GiveUp if the server refuses it for good, RetryLater otherwise."""
        body = {"client_id": CLIENT_ID, "grant_type": "refresh_token", "refresh_token": login.refresh_token}
        timeout = httpx2.Timeout(ANSWER_SECONDS, connect=CONNECT_SECONDS)
        try:
            async with httpx2.AsyncClient(timeout=timeout, verify=system_tls()) as client:
                response = await client.post(self._token_url, json=body)
        except httpx2.HTTPError as error:
            reason = (
                f"the login in the Secret {name!r} cannot be renewed now: {type(error).__name__} at {self._token_url}"
            )
            raise RetryLater(reason, delay_seconds=10) from error
        if response.status_code in _REFUSALS:
            advice = (
                f"sign in again (`codex login`), then `labrats secret set {name} {LOGIN_KEY} < ~/.codex/{LOGIN_KEY}`"
            )
            reason = f"the login server refuses to renew the login in the Secret {name!r}"
            raise GiveUp(FailedCode.AUTH, f"{reason}{_detail_of(response)}: {advice}")
        try:
            answer = msgspec.json.decode(response.content, type=dict[str, Any]) if response.is_success else {}
        except msgspec.DecodeError:
            answer = {}
        if not isinstance(answer.get("access_token"), str):
            raise self._later(name, f"it answered {response.status_code}")
        return answer

    def _later(self, name: str, problem: str) -> RetryLater:
        reason = f"the login in the Secret {name!r} cannot be renewed now by {self._token_url}: {problem}"
        return RetryLater(reason, delay_seconds=10)


def _secret_of(job: Job, ai_model: AiModel | None) -> str | None:
    """Return the Secret that may have the login of the job's model."""
    return ai_model.spec.credentials_ref if ai_model and job.resolved.provider == _PROVIDER else None


def _detail_of(response: httpx2.Response) -> str:
    """Return the code of the refusal, such as ` (refresh_token_reused)`; empty if there is none."""
    try:
        error = msgspec.json.decode(response.content).get("error")
    except (msgspec.DecodeError, AttributeError):
        return ""
    code = error.get("code") if isinstance(error, dict) else error
    return f" ({code[:_DETAIL_CHARACTERS]})" if isinstance(code, str) and code.isprintable() else ""
