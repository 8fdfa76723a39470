"""What is asked of GitHub: a token for one repository, from a GitHub App's key."""

from collections.abc import Mapping
from datetime import timedelta
from http import HTTPStatus
from typing import Any, Final, TypeVar
from urllib.parse import urlsplit

import httpx2
import msgspec
from joserfc import jwt
from joserfc.errors import JoseError
from joserfc.jwk import RSAKey

from labrats.model.errors import GiveUp, RetryLater
from labrats.model.job import FailedCode
from labrats.model.webhook_source import APP_ID, PRIVATE_KEY, TOKEN
from labrats.ports import Clock

T = TypeVar("T")

ANSWER_SECONDS: Final = 10.0
_CLOCKS_DIFFER: Final = timedelta(seconds=60)
_PROOF_LASTS: Final = timedelta(minutes=9)
"""GitHub takes at most ten minutes, by its own clock."""

_WANTED: Final = ("contents", "issues", "pull_requests")
"""What a job may do in its repository, as far as the App itself may."""


class _Installation(msgspec.Struct):
    id: int
    permissions: dict[str, str] = {}


class _Token(msgspec.Struct):
    token: str


class GitHub:
    """GitHub, or GitHub Enterprise, whose API is at `api_url`."""

    def __init__(self, api_url: str, clock: Clock) -> None:
        self._api_url, self._clock = api_url.rstrip("/"), clock

    def is_host_of(self, clone_url: str) -> bool:
        """Whether a repository is on it: no other host is ever sent a token of it."""
        host = urlsplit(self._api_url).hostname or ""
        return urlsplit(clone_url).hostname == host.removeprefix("api.")

    async def token_for(self, repository: str, credentials: Mapping[str, str]) -> str:
        """A token for the one repository, `owner/name`, which lasts an hour; or the one that `credentials` hold.

        Raises GiveUp when there will never be one, RetryLater when GitHub cannot be asked now.
        """
        if token := credentials.get(TOKEN, "").strip():
            return token
        async with httpx2.AsyncClient(
            base_url=self._api_url, headers=self._headers(credentials), timeout=ANSWER_SECONDS
        ) as client:
            installation = await _ask(client, "GET", f"/repos/{repository}/installation", _Installation)
            permissions = {name: level for name, level in installation.permissions.items() if name in _WANTED}
            asked = {"repositories": [repository.rpartition("/")[2]], "permissions": permissions}
            path = f"/app/installations/{installation.id}/access_tokens"
            return (await _ask(client, "POST", path, _Token, asked)).token

    def _headers(self, credentials: Mapping[str, str]) -> dict[str, str]:
        """With the proof that it is the App who asks. Raises GiveUp where the credentials are no App's."""
        app_id, key = credentials.get(APP_ID, "").strip(), credentials.get(PRIVATE_KEY, "")
        if not (app_id and key):
            raise _given_up(f"the credentials have neither a `{TOKEN}` nor an `{APP_ID}` and a `{PRIVATE_KEY}`")
        now = self._clock.now()
        claims = {
            "iss": app_id,
            "iat": int((now - _CLOCKS_DIFFER).timestamp()),
            "exp": int((now + _PROOF_LASTS).timestamp()),
        }
        try:
            proof = jwt.encode({"alg": "RS256"}, claims, RSAKey.import_key(key))
        except (JoseError, ValueError):
            raise _given_up(f"the `{PRIVATE_KEY}` is no RSA key in PEM") from None  # the cause may quote it
        return {
            "Accept": "application/vnd.github+json",
            "Authorization": f"Bearer {proof}",
            "X-GitHub-Api-Version": "2022-11-28",
        }


async def _ask(client: httpx2.AsyncClient, method: str, path: str, kind: type[T], body: Any = None) -> T:
    try:
        answer = await client.request(method, path, json=body)
    except httpx2.HTTPError as error:
        raise RetryLater(f"GitHub cannot be reached: {type(error).__name__}", delay_seconds=5) from error
    if answer.is_success:
        try:
            return msgspec.json.decode(answer.content, type=kind)
        except msgspec.DecodeError as error:
            raise RetryLater("GitHub does not answer as its API does", delay_seconds=30) from error
    match answer.status_code:
        case HTTPStatus.UNAUTHORIZED:
            raise _given_up("GitHub does not know the App by its id and key")
        case HTTPStatus.NOT_FOUND:
            raise _given_up("the GitHub App is not installed for the repository")
        case HTTPStatus.UNPROCESSABLE_ENTITY:
            raise _given_up("GitHub gives the App no token for the repository")
    raise RetryLater(f"GitHub gives no token now: it answers {answer.status_code}", delay_seconds=10)


def _given_up(reason: str) -> GiveUp:
    return GiveUp(FailedCode.GIT_CLONE, reason)
