"""The engine's HTTP API as the command line sees it: answers, or a CommandError that says what is wrong."""

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, BinaryIO, Final, Self

import httpx2

from labrats.cli.credentials import ClientCredential, is_this_machine
from labrats.cli.exits import CommandError, EngineUnreachable, ExitCode

WHERE_KEYS_COME_FROM: Final = (
    "Make one with `labrats api-key create NAME` and give it with --api-key or LABRATS_API_KEY. On the engine's own "
    "machine its admin key is found by itself in the data folder (--data-dir or LABRATS_DATA_DIR)."
)

JSON: Final = "application/json"
_CONNECT_SECONDS: Final = 5
_ANSWER_SECONDS: Final = 60
_SILENCE_SECONDS: Final = 45
"""The longest pause of a live stream: the engine says something every 15 s."""

_MAY_PASS: Final = frozenset({429, 500, 502, 503, 504})
_NOT_ALLOWED: Final = frozenset({401, 403, 404})


class Client:
    """One engine, asked with one key. Every method raises CommandError when the engine does not answer or refuses."""

    def __init__(self, base_url: str, credential: ClientCredential) -> None:
        self.base_url = base_url
        self._credential = credential
        if not re.fullmatch(r"[!-~]*", credential.key or ""):
            sentence = f"the API key holds characters that no key has (it came from {credential.origin})"
            raise CommandError(sentence, ExitCode.USAGE)
        try:
            self._http = httpx2.Client(
                base_url=base_url,
                headers={"Authorization": f"Bearer {credential.key}"} if credential.key else {},
                timeout=httpx2.Timeout(_ANSWER_SECONDS, connect=_CONNECT_SECONDS),
                verify=base_url.startswith("https:"),  # a TLS context takes 80 ms to make, and plain HTTP needs none
                trust_env=not is_this_machine(base_url),  # a company's proxy cannot reach this machine's loopback
            )
        except httpx2.InvalidURL as error:
            raise CommandError(f"{base_url} is not an address: {error}", ExitCode.USAGE) from error

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._http.close()

    def get(self, path: str, params: Mapping[str, Any] | None = None, *, content_type: str = JSON) -> httpx2.Response:
        return self._ask("GET", path, content_type, params=params)

    def post(self, path: str, body: Any = None, headers: Mapping[str, str] | None = None) -> httpx2.Response:
        return self._ask("POST", path, json=body, headers=headers)

    def post_file(self, path: str, name: str, file: BinaryIO) -> httpx2.Response:
        """Upload a file as a form's `file`. It is read while it is sent."""
        return self._ask("POST", path, files={"file": (name, file)})

    def put(self, path: str, body: Any) -> httpx2.Response:
        return self._ask("PUT", path, json=body)

    def patch(self, path: str, body: Any) -> httpx2.Response:
        return self._ask("PATCH", path, json=body)

    def delete(self, path: str) -> httpx2.Response:
        return self._ask("DELETE", path)

    @contextmanager
    def stream(self, path: str, last_event_id: str = "") -> Iterator[Iterator[httpx2.ServerSentEvent]]:
        """The events of one connection. It may be cut anywhere: EngineUnreachable is then raised, or it just ends."""
        headers = {"Accept": "text/event-stream"} | ({"Last-Event-ID": last_event_id} if last_event_id else {})
        timeout = httpx2.Timeout(_SILENCE_SECONDS, connect=_CONNECT_SECONDS)
        with self._translated_errors(), self._http.stream("GET", path, headers=headers, timeout=timeout) as response:
            if not response.is_success:
                response.read()
            self._refuse_errors(response)
            _expect(response, "text/event-stream")
            yield (event for event in httpx2.EventSource(response) if event.data)

    def _ask(self, method: str, path: str, content_type: str = JSON, **request: Any) -> httpx2.Response:
        with self._translated_errors():
            response = self._http.request(method, path, **request)
        self._refuse_errors(response)
        if response.status_code != httpx2.codes.NO_CONTENT:
            _expect(response, content_type)
        return response

    @contextmanager
    def _translated_errors(self) -> Iterator[None]:
        try:
            yield
        except (httpx2.ConnectError, httpx2.ConnectTimeout) as error:
            raise EngineUnreachable(f"no engine answers at {self.base_url}{self._what_to_do(error)}") from error
        except httpx2.UnsupportedProtocol as error:
            raise CommandError(f"{self.base_url} is not an http or https address", ExitCode.USAGE) from error
        except httpx2.TimeoutException as error:
            raise EngineUnreachable(f"the engine at {self.base_url} did not answer in time") from error
        except httpx2.TransportError as error:
            raise EngineUnreachable(f"the connection to {self.base_url} broke") from error

    def _what_to_do(self, error: Exception) -> str:
        if is_this_machine(self.base_url):
            return "; start one with `labrats serve`, or say where it is with --url or LABRATS_URL"
        return f": {error}; is --url (or LABRATS_URL) right?"

    def _refuse_errors(self, response: httpx2.Response) -> None:
        if response.is_success:
            return
        sentence = refusal_text(response)
        if response.status_code == httpx2.codes.UNAUTHORIZED:
            sentence += f"\nKey used: {self._credential.origin}.\n{WHERE_KEYS_COME_FROM}"
        if response.status_code in _MAY_PASS:
            raise EngineUnreachable(sentence)
        raise CommandError(sentence, ExitCode.REFUSED if response.status_code in _NOT_ALLOWED else ExitCode.USAGE)


def refusal_text(response: httpx2.Response) -> str:
    """The API's error as text: its sentence, then a line for each field that is wrong."""
    body = _json_object(response)
    if not isinstance(body.get("error"), str):
        return _foreign(response)
    details = [f"{detail.get('field', '?')}: {detail.get('message', '')}" for detail in body.get("details") or ()]
    return "\n  ".join([body["error"], *(detail for detail in details if detail not in body["error"])])


def _expect(response: httpx2.Response, content_type: str) -> None:
    """Raises CommandError for an answer of another type: some other server's, though it says that all is well."""
    if response.headers.get("Content-Type", "").partition(";")[0] != content_type:
        raise CommandError(_foreign(response), ExitCode.USAGE)


def _foreign(response: httpx2.Response) -> str:
    return f"{response.url} answered {response.status_code}, but not as Labrats does; is --url right?"


def _json_object(response: httpx2.Response) -> dict[str, Any]:
    try:
        body = response.json()
    except ValueError:
        return {}
    return body if isinstance(body, dict) else {}
