"""The login of Codex: `auth.json`, which `codex login` writes.

Its access token is valid for days. Its refresh token is exchanged for a new pair, and may be used once. So the engine
renews the login, and a job gets a copy without the refresh token.
"""

import base64
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final, Self

import msgspec

from labrats.model.nesting import is_too_deep

LOGIN_KEY: Final = "auth.json"
JOB_LOGIN_KEY: Final = "auth-for-jobs.json"
"""Key, in the same Secret, of the copy that jobs get as `auth.json`. The engine writes it."""

RENEWAL_VARIABLE: Final = "CODEX_REFRESH_TOKEN_URL_OVERRIDE"
"""The variable by which Codex, and the engine, find another server for renewals than the provider's."""

RENEWED_BY_ENGINE: Final = "http://127.0.0.1:9/the-engine-renews-this-login"
"""The server for renewals that Codex finds in a job. There is none."""

CLIENT_ID: Final = "app_EMoamEEZ73f0CkXaXp7hrann"
"""The id of Codex at the provider's login server."""

_REFRESH_AFTER: Final = timedelta(days=8)
"""Age from which Codex renews a login whose tokens do not say when they expire."""

MARGIN: Final = timedelta(minutes=10)
"""Time that an access token must be valid beyond a job's timeout. Codex wants to renew it in the last 5 minutes."""


@dataclass(frozen=True)
class CodexLogin:
    """A login that can be renewed. document: the content of `auth.json`."""

    document: Mapping[str, Any]

    @classmethod
    def of(cls, text: str) -> Self | None:
        """Return the login; None if the text is another one, such as a login without a refresh token."""
        content = text.encode("utf-8", "replace")
        try:
            document: Any = None if is_too_deep(content) else msgspec.json.decode(content)
        except msgspec.DecodeError:
            return None
        match document:
            case {"tokens": {"access_token": str(), "refresh_token": str(refresh_token)}} if refresh_token:
                return cls(document)
        return None

    @property
    def text(self) -> str:
        return msgspec.json.encode(self.document).decode()

    @property
    def access_token(self) -> str:
        return str(self.document["tokens"]["access_token"])

    @property
    def refresh_token(self) -> str:
        return str(self.document["tokens"]["refresh_token"])

    @property
    def renewed_at(self) -> datetime | None:
        """The time of the last renewal; None if it is unknown."""
        try:
            at = datetime.fromisoformat(str(self.document.get("last_refresh")))
        except ValueError:
            return None
        return at if at.tzinfo else at.replace(tzinfo=UTC)

    def is_valid_at(self, time: datetime) -> bool:
        """Return whether the access token has not expired at this time, as far as it says."""
        expires_at = _time_in(self.access_token, "exp")
        return expires_at is None or time < expires_at

    def must_be_renewed(self, now: datetime, timeout: timedelta) -> bool:
        """Return whether the access token may expire during a job of this duration.

        A token that is valid for a shorter time is renewed after half of that time.
        """
        expires_at = _time_in(self.access_token, "exp")
        if expires_at is None:
            return self.renewed_at is None or now - self.renewed_at > _REFRESH_AFTER
        needed = timeout + MARGIN
        if issued_at := _time_in(self.access_token, "iat") or self.renewed_at:
            needed = min(needed, (expires_at - issued_at) / 2)
        return expires_at - now < needed

    def renewed(self, answer: Mapping[str, Any], now: datetime) -> "CodexLogin":
        """Return the login with the tokens of the server's answer, which leaves out those that stay the same."""
        names = ("id_token", "access_token", "refresh_token")
        new = {name: answer[name] for name in names if isinstance(answer.get(name), str) and answer[name]}
        tokens = {**self.document["tokens"], **new}
        return CodexLogin({**self.document, "tokens": tokens, "last_refresh": now.isoformat().replace("+00:00", "Z")})

    def for_jobs(self) -> str:
        """Return the content of `auth.json` for a job: Codex takes an empty refresh token."""
        return CodexLogin({**self.document, "tokens": {**self.document["tokens"], "refresh_token": ""}}).text


def _time_in(token: str, claim: str) -> datetime | None:
    """Return the time in a claim of a token, if that is a JWT that says so."""
    _, _, rest = token.partition(".")
    payload = rest.partition(".")[0]
    try:
        claims = msgspec.json.decode(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
        return datetime.fromtimestamp(float(claims[claim]), UTC)
    except (ValueError, TypeError, KeyError, OverflowError, OSError, msgspec.DecodeError):
        return None
