"""What is asked of GitHub with a GitHub App's key: a token for one repository, and to deliver again what was missed."""

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from http import HTTPStatus
from typing import Any, Final, TypeVar
from urllib.parse import parse_qs, urlsplit

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

MOST_DELIVERIES: Final = 10_000
_PAGE: Final = 100

_SHORTEST_PATIENCE_SECONDS: Final = 10.0
_LONGEST_PATIENCE_SECONDS: Final = 3600.0

Refusals = Mapping[int, str]
"""What answers of these statuses mean, which will not pass by themselves."""

_UNKNOWN_APP: Final = {HTTPStatus.UNAUTHORIZED.value: "GitHub does not know the App by its id and key"}
_TOKEN_REFUSALS: Final[Refusals] = {
    **_UNKNOWN_APP,
    HTTPStatus.NOT_FOUND.value: "the GitHub App is not installed for the repository",
    HTTPStatus.UNPROCESSABLE_ENTITY.value: "GitHub gives the App no token for the repository",
}
_HOOK_REFUSALS: Final[Refusals] = {
    **_UNKNOWN_APP,
    HTTPStatus.NOT_FOUND.value: "the GitHub App has no webhook, or no such delivery",
    HTTPStatus.UNPROCESSABLE_ENTITY.value: "GitHub does not deliver it again",
}


class _Installation(msgspec.Struct):
    id: int
    permissions: dict[str, str] = {}


class _Token(msgspec.Struct):
    token: str


class _HookConfig(msgspec.Struct):
    url: str = ""


class HookDelivery(msgspec.Struct, frozen=True):
    """One attempt to deliver an event. guid: the same for all attempts. status: `OK`, or what went wrong.

    redelivery: it is not the first one.
    """

    id: int
    guid: str
    delivered_at: datetime
    status: str = ""
    redelivery: bool = False

    @property
    def arrived(self) -> bool:
        return self.status == "OK"


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
        async with self._client(credentials) as client:
            path = f"/repos/{repository}/installation"
            installation = await self._ask(client, "GET", path, _Installation, _TOKEN_REFUSALS)
            permissions = {name: level for name, level in installation.permissions.items() if name in _WANTED}
            asked = {"repositories": [repository.rpartition("/")[2]], "permissions": permissions}
            path = f"/app/installations/{installation.id}/access_tokens"
            return (await self._ask(client, "POST", path, _Token, _TOKEN_REFUSALS, asked)).token

    async def hook_url(self, credentials: Mapping[str, str]) -> str:
        """Where the App's webhook delivers. Raises as `token_for` does."""
        async with self._client(credentials) as client:
            return (await self._ask(client, "GET", "/app/hook/config", _HookConfig, _HOOK_REFUSALS)).url

    async def deliveries(self, credentials: Mapping[str, str], since: datetime) -> Sequence[HookDelivery]:
        """Those of the App's webhook since then, each attempt by itself, the newest first. Raises as `token_for` does.

        At most MOST_DELIVERIES, the newest.
        """
        found: list[HookDelivery] = []
        async with self._client(credentials) as client:
            query: dict[str, str] = {"per_page": str(_PAGE)}
            while len(found) < MOST_DELIVERIES:
                answer = await self._send(client, "GET", "/app/hook/deliveries", _HOOK_REFUSALS, params=query)
                page = _read(answer, list[HookDelivery])
                found += (each for each in page if each.delivered_at >= since)
                cursor = _cursor(answer)
                if cursor is None or not page or page[-1].delivered_at < since:
                    break
                query["cursor"] = cursor
        return found

    async def deliver_again(self, credentials: Mapping[str, str], delivery_id: int) -> None:
        """Have it do so, soon. Raises as `token_for` does."""
        path = f"/app/hook/deliveries/{delivery_id}/attempts"
        async with self._client(credentials) as client:
            await self._send(client, "POST", path, _HOOK_REFUSALS)

    def _client(self, credentials: Mapping[str, str]) -> httpx2.AsyncClient:
        """Raises GiveUp where the credentials are no App's."""
        return httpx2.AsyncClient(base_url=self._api_url, headers=self._headers(credentials), timeout=ANSWER_SECONDS)

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

    async def _ask(
        self, client: httpx2.AsyncClient, method: str, path: str, kind: type[T], refusals: Refusals, body: Any = None
    ) -> T:
        return _read(await self._send(client, method, path, refusals, json=body), kind)

    async def _send(
        self, client: httpx2.AsyncClient, method: str, path: str, refusals: Refusals, **options: Any
    ) -> httpx2.Response:
        """The answer. Raises GiveUp for one that `refusals` has, RetryLater for any other that is no success."""
        try:
            answer = await client.request(method, path, **options)
        except httpx2.HTTPError as error:
            raise RetryLater(f"GitHub cannot be reached: {type(error).__name__}", delay_seconds=5) from error
        if answer.is_success:
            return answer
        if refusal := refusals.get(answer.status_code):
            raise _given_up(refusal)
        patience = _patience(answer, self._clock.now())
        raise RetryLater(f"GitHub does not do it now: it answers {answer.status_code}", delay_seconds=patience)


def _read(answer: httpx2.Response, kind: type[T]) -> T:
    try:
        return msgspec.json.decode(answer.content, type=kind)
    except msgspec.DecodeError as error:
        raise RetryLater("GitHub does not answer as its API does", delay_seconds=30) from error


def _patience(answer: httpx2.Response, now: datetime) -> float:
    """For how many seconds GitHub wants to be left alone, as far as it says so."""
    headers, seconds = answer.headers, _SHORTEST_PATIENCE_SECONDS
    if (asked := headers.get("Retry-After", "")).isdecimal():
        seconds = float(asked)
    elif headers.get("X-RateLimit-Remaining") == "0" and (reset := headers.get("X-RateLimit-Reset", "")).isdecimal():
        seconds = float(reset) - now.timestamp()
    return min(max(seconds, _SHORTEST_PATIENCE_SECONDS), _LONGEST_PATIENCE_SECONDS)


def _cursor(answer: httpx2.Response) -> str | None:
    """Where the next page of a list begins. Nothing else is taken from the address that GitHub names for it."""
    query = urlsplit(answer.links.get("next", {}).get("url", "")).query
    return parse_qs(query).get("cursor", [None])[0]


def _given_up(reason: str) -> GiveUp:
    return GiveUp(FailedCode.GIT_CLONE, reason)
