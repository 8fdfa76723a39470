"""The server of a job's model, with the credential that the proxy adds, and the requests that it gets."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from time import monotonic
from typing import Final, Literal
from urllib.parse import urlsplit

import msgspec

from labrats.executor.failure_advice import invalid_endpoint_message, invalid_key_message
from labrats.model.errors import GiveUp
from labrats.model.job import FailedCode, Usage
from labrats.model.protocol import is_for_an_answer
from labrats.model.provider_spec import provider_spec

Api = Literal["anthropic", "openai"]

_API_KEY_HEADER: Final = "ANTHROPIC_API_KEY"
"""The key that is sent as `X-Api-Key`. All others are bearer tokens."""

_BEARER: Final = b"Bearer "
_PORTS: Final[Mapping[str, int]] = {"http": 80, "https": 443}


@dataclass(frozen=True)
class ModelServer:
    """The server of a model.

    prefix:     the path of the endpoint, without a slash at its end.
    credential: headers with the model's key.
    """

    api: Api
    is_secure: bool
    host: str
    port: int
    authority: str
    prefix: str
    credential: tuple[tuple[bytes, bytes], ...] = field(repr=False)

    @classmethod
    def of(cls, provider: str, endpoint: str | None, key_name: str | None, key: str) -> "ModelServer":
        """Return the server at `endpoint`, or the provider's own. Raises GiveUp if the endpoint or key is invalid.

        key_name: the name of `key`; None for a server that needs none.
        """
        spec = provider_spec(provider)
        endpoint = endpoint or spec.endpoint or ""
        credential = _credential(key_name, key)
        try:
            url = urlsplit(endpoint)
            host, port = (url.hostname or "").encode("idna").decode(), url.port or _PORTS[url.scheme]
        except (ValueError, KeyError):
            raise GiveUp(FailedCode.INVALID, invalid_endpoint_message(endpoint)) from None
        if not host:
            raise GiveUp(FailedCode.INVALID, invalid_endpoint_message(endpoint))
        authority = url.netloc.rpartition("@")[2]
        return cls(spec.api, url.scheme == "https", host, port, authority, url.path.rstrip("/"), credential)

    @property
    def key(self) -> bytes:
        """The model's key; empty without one."""
        return self.credential[0][1].removeprefix(_BEARER) if self.credential else b""

    @property
    def address(self) -> str:
        """The server's address, for messages."""
        return f"{'https' if self.is_secure else 'http'}://{self.authority}{self.prefix}"


def _credential(name: str | None, key: str) -> tuple[tuple[bytes, bytes], ...]:
    if name is None:
        return ()
    key = key.strip()
    if not (key and key.isascii() and key.isprintable()):
        raise GiveUp(FailedCode.AUTH, invalid_key_message(name))
    value = key.encode()
    return ((b"x-api-key", value),) if name == _API_KEY_HEADER else ((b"authorization", _BEARER + value),)


Headers = Sequence[tuple[bytes, bytes]]


@dataclass(frozen=True)
class ApprovedRequest:
    """A request to forward. target: its path with the query. body: a JSON object, or nothing.

    model: None for a request that names none. removed: the names of the fields of the body that it had.
    """

    method: bytes
    target: bytes
    headers: Headers
    body: bytes
    model: str | None = None
    removed: Sequence[str] = ()

    @property
    def path(self) -> str:
        return self.target.partition(b"?")[0].decode("latin-1")

    @property
    def is_answered_by_a_model(self) -> bool:
        """False for a request that consumes no tokens."""
        return is_for_an_answer(self.path, self.model)

    def fields(self) -> Mapping[str, msgspec.Raw]:
        """Return the fields of the body, each as JSON. Do not keep them: very many take much memory."""
        return msgspec.json.decode(self.body, type=dict[str, msgspec.Raw]) if self.body else {}


@dataclass(eq=False)
class RunningRequest:
    """A request that waits or is sent to the model's server.

    at: when all of it was sent. expected: see `Budget.expected`; None until it is needed.
    """

    request: ApprovedRequest
    at: float | None = None
    expected: Usage | None = None

    def seconds(self) -> float:
        """Return the time since the whole request was sent."""
        return 0.0 if self.at is None else monotonic() - self.at
