"""A client of GitHub's API that authenticates as a GitHub App: it creates tokens and requests redeliveries."""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import datetime, timedelta
from http import HTTPStatus
from typing import Any, Final, TypeVar
from urllib.parse import parse_qs, urlsplit

import httpx2
import msgspec

from labrats.github.client.pause import HostPause
from labrats.model.errors import GiveUp, RetryLater
from labrats.model.job import FailedCode
from labrats.model.webhook_source import APP_ID, PRIVATE_KEY, TOKEN
from labrats.net.retry_after import retry_after_seconds
from labrats.net.tls import system_tls
from labrats.ports import Clock

T = TypeVar("T")

ANSWER_SECONDS: Final = 10.0
_CLOCK_SKEW: Final = timedelta(seconds=60)
_JWT_LIFETIME: Final = timedelta(minutes=9)
"""GitHub accepts at most ten minutes, by its own clock."""

CLONE: Final[Mapping[str, str]] = {"contents": "read"}
"""Permissions of a token that is for a clone alone."""

MAX_DELIVERIES: Final = 10_000
MAX_REPOSITORIES: Final = 1000
"""The repositories of one installation that are listed."""

_PAGE: Final = 100

UNREACHABLE_SECONDS: Final = 5.0
"""Delay before the next request after one without an answer."""

_MIN_RETRY_SECONDS: Final = 10.0
LIMIT_SECONDS: Final = 60.0
_MAX_RETRY_SECONDS: Final = 3600.0

_HEADERS: Final = {"Accept": "application/vnd.github+json", "X-GitHub-Api-Version": "2022-11-28"}

PermanentErrors = Mapping[int, str]
"""Status codes that a retry does not change, with what they mean."""

_UNKNOWN_APP: Final = {HTTPStatus.UNAUTHORIZED.value: "GitHub rejects the App's id and key"}
_TOKEN_ERRORS: Final[PermanentErrors] = {
    **_UNKNOWN_APP,
    HTTPStatus.NOT_FOUND.value: "the GitHub App is not installed for the repository",
    HTTPStatus.UNPROCESSABLE_ENTITY.value: "GitHub refuses the App a token for the repository",
}
_APP_ERRORS: Final[PermanentErrors] = {**_UNKNOWN_APP, HTTPStatus.NOT_FOUND.value: "GitHub does not know the App"}
_CODE_ERRORS: Final[PermanentErrors] = {
    HTTPStatus.NOT_FOUND.value: "the code is misspelt or expired, or was used already: it works once, within an hour",
    HTTPStatus.UNPROCESSABLE_ENTITY.value: "GitHub refuses to create the App",
}
_HOOK_ERRORS: Final[PermanentErrors] = {
    **_UNKNOWN_APP,
    HTTPStatus.NOT_FOUND.value: "the GitHub App has no webhook, or no such delivery",
    HTTPStatus.UNPROCESSABLE_ENTITY.value: "GitHub refuses to redeliver it",
}


class _Account(msgspec.Struct, frozen=True):
    login: str = ""


class Installation(msgspec.Struct, frozen=True):
    """An installation of an App. account: on whose repositories it is. suspended_at: None if it works."""

    id: int
    account: _Account | None = None
    suspended_at: datetime | None = None


class _Repository(msgspec.Struct, frozen=True):
    full_name: str
    archived: bool = False


class _Repositories(msgspec.Struct, frozen=True):
    repositories: list[_Repository]


class Token(msgspec.Struct, frozen=True):
    """A token for one repository.

    permissions: the granted ones; None if they are not known, as for a personal token.
    expires_at:  None for a personal token. created_at: by the engine's clock; None for a personal token.
    """

    token: str
    permissions: dict[str, str] | None = None
    expires_at: datetime | None = None
    created_at: datetime | None = None


class RefusedToApp(GiveUp):
    """GitHub refuses a request of the App. status: of its answer; 0 if the credentials cannot be used at all."""

    def __init__(self, reason: str, status: int) -> None:
        super().__init__(FailedCode.GIT_CLONE, reason)
        self.status = status


class App(msgspec.Struct, frozen=True):
    """A GitHub App.

    slug:        its name in URLs, and in its login `slug[bot]`.
    permissions: such as `{"issues": "write"}`. events: to which it subscribes.
    html_url:    its page.
    """

    id: int
    slug: str
    permissions: dict[str, str] = {}
    events: tuple[str, ...] = ()
    html_url: str = ""

    @property
    def login(self) -> str:
        return f"{self.slug}[bot]"


class NewApp(App, frozen=True):
    """A GitHub App that was just created, with its credentials. webhook_secret: None without a webhook."""

    pem: str = ""
    webhook_secret: str | None = None


class _HookConfig(msgspec.Struct):
    url: str = ""


class HookDelivery(msgspec.Struct, frozen=True):
    """One attempt to deliver an event. guid: equal for all attempts. status: `OK` or the failure.

    redelivery: true for every attempt after the first.
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
    """A client of GitHub or GitHub Enterprise, whose API is at `api_url`."""

    def __init__(self, api_url: str, clock: Clock) -> None:
        self._api_url, self._clock = api_url.rstrip("/"), clock
        self.pause = HostPause(clock)
        self._installations: dict[tuple[str, str], int] = {}
        """Ids of installations by the App's id and the repository."""

    @property
    def web_url(self) -> str:
        """The address of its pages, such as https://github.com."""
        api = urlsplit(self._api_url)
        return f"{api.scheme}://{api.netloc.removeprefix('api.')}"

    def is_host_of(self, clone_url: str) -> bool:
        """Return whether a repository is on this GitHub. Its tokens are sent to no other host, and to no other port."""
        own, clone = urlsplit(self.web_url), urlsplit(clone_url)
        return (clone.scheme, clone.hostname, clone.port) == (own.scheme, own.hostname, own.port)

    async def token_for(
        self, repository: str, credentials: Mapping[str, str], permissions: Mapping[str, str] = CLONE
    ) -> str:
        """Return the text of a token for one repository. Its arguments and errors are those of `create_token`."""
        return (await self.create_token(repository, credentials, permissions)).token

    async def create_token(
        self,
        repository: str,
        credentials: Mapping[str, str],
        permissions: Mapping[str, str],
        repository_id: int | None = None,
    ) -> Token:
        """Return a token for one repository, `owner/name`: the one in `credentials`, or a new one for an hour.

        permissions:   of a new token, as GitHub names them.
        repository_id: if set, the token is for the repository with this id, whatever its name is now.

        Raises GiveUp when there can be none, RetryLater when GitHub cannot answer now.
        """
        if token := credentials.get(TOKEN, "").strip():
            return Token(token)
        async with self._client(credentials) as client:
            key = (credentials[APP_ID].strip(), repository)
            if installation := self._installations.get(key):
                with suppress(GiveUp):  # the App may have been installed again
                    return await self._create_token(client, installation, repository, permissions, repository_id)
            installation = await self._installation(client, repository, repository_id)
            created = await self._create_token(client, installation, repository, permissions, repository_id)
            self._installations[key] = installation
            return created

    async def _installation(self, client: httpx2.AsyncClient, repository: str, repository_id: int | None) -> int:
        """Return the id of the App's installation for a repository. Raises as `create_token` does."""
        try:
            path = f"/repos/{repository}/installation"
            return (await self._ask(client, "GET", path, Installation, _TOKEN_ERRORS)).id
        except GiveUp:
            if repository_id is None:
                raise
        path = f"/repositories/{repository_id}/installation"  # a renamed one
        return (await self._ask(client, "GET", path, Installation, _TOKEN_ERRORS)).id

    async def _create_token(
        self,
        client: httpx2.AsyncClient,
        installation: int,
        repository: str,
        permissions: Mapping[str, str],
        repository_id: int | None,
    ) -> Token:
        name = repository.rpartition("/")[2]
        of_repository = {"repositories": [name]} if repository_id is None else {"repository_ids": [repository_id]}
        body = {**of_repository, "permissions": dict(permissions)}
        path = f"/app/installations/{installation}/access_tokens"
        created = await self._ask(client, "POST", path, Token, _TOKEN_ERRORS, body)
        return msgspec.structs.replace(created, created_at=self._clock.now())

    async def app(self, credentials: Mapping[str, str]) -> App:
        """Return the App itself. Raises as `token_for` does."""
        async with self._client(credentials) as client:
            return await self._ask(client, "GET", "/app", App, _APP_ERRORS)

    async def new_app(self, code: str) -> NewApp:
        """Return the App that a person has just created, for the code that GitHub gave. Raises as `token_for` does."""
        async with self.client() as client:
            return await self._ask(client, "POST", f"/app-manifests/{code}/conversions", NewApp, _CODE_ERRORS)

    async def installations(self, credentials: Mapping[str, str]) -> Sequence[Installation]:
        """Return the App's installations, at most a hundred. Raises as `token_for` does."""
        async with self._client(credentials) as client:
            path = f"/app/installations?per_page={_PAGE}"
            return await self._ask(client, "GET", path, list[Installation], _APP_ERRORS)

    async def repositories_of(self, credentials: Mapping[str, str], installation: int) -> Sequence[str]:
        """Return the full names of an installation's repositories, at most MAX_REPOSITORIES, without archived ones.

        Raises as `token_for` does.
        """
        path, body = f"/app/installations/{installation}/access_tokens", {"permissions": {"metadata": "read"}}
        async with self._client(credentials) as client:
            token = await self._ask(client, "POST", path, Token, _TOKEN_ERRORS, body)
        found: list[_Repository] = []
        async with self.client(token.token) as client:
            for page in range(1, MAX_REPOSITORIES // _PAGE + 1):
                path = f"/installation/repositories?per_page={_PAGE}&page={page}"
                listed = (await self._ask(client, "GET", path, _Repositories, _TOKEN_ERRORS)).repositories
                found += listed
                if len(listed) < _PAGE:
                    break
        return [each.full_name for each in found if not each.archived]

    async def hook_url(self, credentials: Mapping[str, str]) -> str:
        """Return the URL of the App's webhook. Raises as `token_for` does."""
        async with self._client(credentials) as client:
            return (await self._ask(client, "GET", "/app/hook/config", _HookConfig, _HOOK_ERRORS)).url

    async def deliveries(self, credentials: Mapping[str, str], since: datetime) -> Sequence[HookDelivery]:
        """Return the attempts of the App's webhook since then, newest first, at most MAX_DELIVERIES.

        Raises as `token_for` does.
        """
        found: list[HookDelivery] = []
        async with self._client(credentials) as client:
            query: dict[str, str] = {"per_page": str(_PAGE)}
            while len(found) < MAX_DELIVERIES:
                response = await self._send(client, "GET", "/app/hook/deliveries", _HOOK_ERRORS, params=query)
                page = read_answer(response, list[HookDelivery])
                found += (each for each in page if each.delivered_at >= since)
                cursor = _cursor(response)
                if cursor is None or not page or page[-1].delivered_at < since:
                    break
                query["cursor"] = cursor
        return found

    async def deliver_again(self, credentials: Mapping[str, str], delivery_id: int) -> None:
        """Request another attempt to deliver, which GitHub makes soon after. Raises as `token_for` does."""
        path = f"/app/hook/deliveries/{delivery_id}/attempts"
        async with self._client(credentials) as client:
            await self._send(client, "POST", path, _HOOK_ERRORS)

    def _client(self, credentials: Mapping[str, str]) -> httpx2.AsyncClient:
        """Return a client that authenticates as the App. Raises GiveUp for credentials of another kind."""
        return self.client(self._jwt(credentials))

    def client(self, token: str = "") -> httpx2.AsyncClient:
        """Return a client that authenticates by a token, if there is one."""
        headers = _HEADERS | ({"Authorization": f"Bearer {token}"} if token else {})
        return httpx2.AsyncClient(base_url=self._api_url, headers=headers, timeout=ANSWER_SECONDS, verify=system_tls())

    def _jwt(self, credentials: Mapping[str, str]) -> str:
        """Return a JWT of the App. Raises GiveUp for credentials of another kind."""
        from cryptography.exceptions import UnsupportedAlgorithm  # on first use, as these are large
        from joserfc import jwt
        from joserfc.errors import JoseError
        from joserfc.jwk import RSAKey

        app_id, key = credentials.get(APP_ID, "").strip(), credentials.get(PRIVATE_KEY, "")
        if not (app_id and key):
            raise _give_up(f"the credentials must have a `{TOKEN}`, or an `{APP_ID}` and a `{PRIVATE_KEY}`")
        now = self._clock.now()
        claims = {
            "iss": app_id,
            "iat": int((now - _CLOCK_SKEW).timestamp()),
            "exp": int((now + _JWT_LIFETIME).timestamp()),
        }
        try:
            return jwt.encode({"alg": "RS256"}, claims, RSAKey.import_key(key))
        except (JoseError, ValueError, TypeError, UnsupportedAlgorithm):
            reason = f"the `{PRIVATE_KEY}` is not an RSA key in PEM without a passphrase"
            raise _give_up(reason) from None  # the cause may contain the key

    async def _ask(
        self,
        client: httpx2.AsyncClient,
        method: str,
        path: str,
        kind: type[T],
        permanent: PermanentErrors,
        body: Any = None,
    ) -> T:
        return read_answer(await self._send(client, method, path, permanent, json=body), kind)

    async def _send(
        self, client: httpx2.AsyncClient, method: str, path: str, permanent: PermanentErrors, **options: Any
    ) -> httpx2.Response:
        """Return the response. Raises GiveUp for a status in `permanent`, RetryLater for any other failure."""
        response = await self.request(client, method, path, **options)
        if response.is_success:
            return response
        if reason := permanent.get(response.status_code) or _lasting_problem(response):
            raise _give_up(reason, response.status_code)
        raise self.later(response)

    async def request(self, client: httpx2.AsyncClient, method: str, path: str, **options: Any) -> httpx2.Response:
        """Return the response with any status. Raises RetryLater if there is none."""
        self.pause.check()
        try:
            return await client.request(method, path, **options)
        except httpx2.HTTPError as error:
            problem = f"GitHub is unreachable: {type(error).__name__}"
            raise RetryLater(problem, delay_seconds=UNREACHABLE_SECONDS) from error

    def later(self, response: httpx2.Response) -> RetryLater:
        """Return the error for a request that is to be sent again, and keep a pause that GitHub asks for."""
        delay = retry_seconds(response, self._clock.now())
        if "Retry-After" in response.headers:
            self.pause.begin(delay)
        return RetryLater(f"GitHub answered {response.status_code}", delay_seconds=delay)


def _lasting_problem(response: httpx2.Response) -> str | None:
    """Return what is wrong if no later request can succeed; None if one may."""
    if response.has_redirect_location:
        return "the repository was renamed or transferred"
    if response.status_code == HTTPStatus.FORBIDDEN and "suspended" in response.text.lower():
        return "the installation of the GitHub App is suspended"
    if response.status_code == HTTPStatus.UNAVAILABLE_FOR_LEGAL_REASONS:
        return "GitHub has blocked the repository for legal reasons"
    return None


def read_answer(response: httpx2.Response, kind: type[T]) -> T:
    try:
        return msgspec.json.decode(response.content, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise RetryLater("GitHub's response does not match its API", delay_seconds=30) from error


def retry_seconds(response: httpx2.Response, now: datetime) -> float:
    """Return the delay until the next request, from GitHub's headers where it sends any.

    After a limit without them GitHub asks for a minute at least.
    """
    headers, seconds = response.headers, _MIN_RETRY_SECONDS if response.status_code >= 500 else LIMIT_SECONDS
    if (retry_after := retry_after_seconds(headers.get("Retry-After"), now)) is not None:
        seconds = retry_after
    elif headers.get("X-RateLimit-Remaining") == "0" and (reset := headers.get("X-RateLimit-Reset", "")).isdecimal():
        seconds = float(reset) - now.timestamp()
    return min(max(seconds, _MIN_RETRY_SECONDS), _MAX_RETRY_SECONDS)


def _cursor(response: httpx2.Response) -> str | None:
    """Return the cursor of the next page of a list. The rest of GitHub's URL for that page is ignored."""
    query = urlsplit(response.links.get("next", {}).get("url", "")).query
    return parse_qs(query).get("cursor", [None])[0]


def _give_up(reason: str, status: int = 0) -> GiveUp:
    return RefusedToApp(reason, status)
