"""The client of the engine's HTTP API. Every failure is a CommandError with a message for people."""

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, BinaryIO, Final, Self

import httpx2

from labrats.cli.credentials import ClientCredential, is_this_machine
from labrats.cli.errors import CommandError, EngineUnreachable, ExitCode
from labrats.net.tls import system_tls

API_KEY_HELP: Final = (
    "On the engine's own machine, commands find its admin key in the data folder: name that with --data-dir or "
    "LABRATS_DATA_DIR. Elsewhere, ask an admin for a key (`labrats api-key create NAME`), and pass it with --api-key "
    "or LABRATS_API_KEY."
)

JSON: Final = "application/json"
_CONNECT_SECONDS: Final = 5
_ANSWER_SECONDS: Final = 60
_SILENCE_SECONDS: Final = 45
"""The longest silence of a live stream. The engine sends a comment every 15 s."""

_TEMPORARY: Final = frozenset({429, 500, 502, 503, 504})
_REFUSALS: Final = frozenset({401, 403, 404})


class Client:
    """A client of one engine with one API key. Every method raises CommandError when a request fails."""

    def __init__(self, base_url: str, credential: ClientCredential) -> None:
        self.base_url = base_url
        self._credential = credential
        if not re.fullmatch(r"[!-~]*", credential.key or ""):
            sentence = f"the API key from {credential.origin} is invalid: it may hold only printable ASCII, no spaces"
            raise CommandError(sentence, ExitCode.USAGE)
        try:
            self._http = httpx2.Client(
                base_url=base_url,
                headers={"Authorization": f"Bearer {credential.key}"} if credential.key else {},
                timeout=httpx2.Timeout(_ANSWER_SECONDS, connect=_CONNECT_SECONDS),
                verify=base_url.startswith("https:") and system_tls(),  # plain HTTP needs none
                trust_env=not is_this_machine(base_url),  # a proxy cannot reach this machine's loopback
            )
        except httpx2.InvalidURL as error:
            raise CommandError(f"{base_url} is not a valid URL: {error}", ExitCode.USAGE) from error

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._http.close()

    def get(self, path: str, params: Mapping[str, Any] | None = None, *, content_type: str = JSON) -> httpx2.Response:
        return self._send("GET", path, content_type, params=params)

    def post(self, path: str, body: Any = None, headers: Mapping[str, str] | None = None) -> httpx2.Response:
        return self._send("POST", path, json=body, headers=headers)

    def post_file(self, path: str, name: str, file: BinaryIO) -> httpx2.Response:
        """Upload a file as the field `file` of a form, in a stream."""
        return self._send("POST", path, files={"file": (name, file)})

    def put(self, path: str, body: Any) -> httpx2.Response:
        return self._send("PUT", path, json=body)

    def patch(self, path: str, body: Any) -> httpx2.Response:
        return self._send("PATCH", path, json=body)

    def delete(self, path: str) -> httpx2.Response:
        return self._send("DELETE", path)

    @contextmanager
    def stream(self, path: str, last_event_id: str = "") -> Iterator[Iterator[httpx2.ServerSentEvent]]:
        """Yield the server-sent events of one connection.

        A connection that breaks either raises EngineUnreachable or ends the events early.
        """
        headers = {"Accept": "text/event-stream"} | ({"Last-Event-ID": last_event_id} if last_event_id else {})
        timeout = httpx2.Timeout(_SILENCE_SECONDS, connect=_CONNECT_SECONDS)
        with self._translated_errors(), self._http.stream("GET", path, headers=headers, timeout=timeout) as response:
            if not response.is_success:
                response.read()
            self._raise_for_status(response)
            _expect_content_type(response, "text/event-stream")
            yield (event for event in httpx2.EventSource(response) if event.data)

    def _send(self, method: str, path: str, content_type: str = JSON, **request: Any) -> httpx2.Response:
        try:
            with self._translated_errors():
                response = self._http.request(method, path, **request)
        except UnicodeEncodeError as error:
            if error.encoding == "idna":
                raise CommandError(f"the request cannot be sent: {error}", ExitCode.USAGE) from error
            if error.encoding != "ascii":
                raise
            raise CommandError(f"{error.object!r} must contain ASCII characters only", ExitCode.USAGE) from error
        except ValueError as error:  # such as a number that JSON cannot express, or an invalid host name
            raise CommandError(f"the request cannot be sent: {error}", ExitCode.USAGE) from error
        self._raise_for_status(response)
        if response.status_code != httpx2.codes.NO_CONTENT:
            _expect_content_type(response, content_type)
        return response

    @contextmanager
    def _translated_errors(self) -> Iterator[None]:
        if reason := self._credential.reason_not_to_send(self.base_url):
            raise EngineUnreachable(
                f"{reason}; start it with `labrats serve`, name another --url or --data-dir, or a key with --api-key"
            )
        try:
            yield
        except (httpx2.ConnectError, httpx2.ConnectTimeout) as error:
            if "WRONG_VERSION_NUMBER" in str(error) or "RECORD_LAYER_FAILURE" in str(error):
                plain = self.base_url.replace("https:", "http:", 1)
                sentence = f"the server at {self.base_url} does not speak TLS; if it is your engine, use --url {plain}"
                raise CommandError(sentence, ExitCode.USAGE) from error
            raise EngineUnreachable(f"no engine answers at {self.base_url}{self._hint(error)}") from error
        except httpx2.UnsupportedProtocol as error:
            raise CommandError(f"{self.base_url} is not an http or https URL", ExitCode.USAGE) from error
        except httpx2.TimeoutException as error:
            raise EngineUnreachable(f"the engine at {self.base_url} did not answer in time") from error
        except httpx2.TransportError as error:
            raise EngineUnreachable(f"the connection to {self.base_url} broke") from error

    def _hint(self, error: Exception) -> str:
        if is_this_machine(self.base_url):
            return "; start one with `labrats serve`, or set --url or LABRATS_URL"
        return f": {error}; check --url or LABRATS_URL"

    def _raise_for_status(self, response: httpx2.Response) -> None:
        if response.is_success:
            return
        sentence = error_text(response)
        if response.status_code == httpx2.codes.UNAUTHORIZED:
            sentence += f"\nKey used: {self._credential.origin}.\n{API_KEY_HELP}"
        if response.status_code == httpx2.codes.FORBIDDEN:
            sentence += (
                f"\nKey used: {self._credential.origin}. Another can be passed with --api-key or LABRATS_API_KEY."
            )
        if response.status_code in _TEMPORARY:
            raise EngineUnreachable(sentence)
        raise CommandError(sentence, ExitCode.REFUSED if response.status_code in _REFUSALS else ExitCode.USAGE)


def error_text(response: httpx2.Response) -> str:
    """Return the error in an answer of the API as text: its sentence, then one line for each invalid field."""
    body = _json_object(response)
    if not isinstance(body.get("error"), str):
        return _not_labrats(response)
    problems = [problem for problem in body.get("details") or () if problem.get("message") != body["error"]]
    details = [f"{problem.get('field', '?')}: {problem.get('message', '')}" for problem in problems]
    return "\n  ".join([body["error"], *(detail for detail in details if detail not in body["error"])])


def _expect_content_type(response: httpx2.Response, content_type: str) -> None:
    """Raise CommandError for another content type: the answer comes from a server that is not Labrats."""
    if response.headers.get("Content-Type", "").partition(";")[0] != content_type:
        raise CommandError(_not_labrats(response), ExitCode.USAGE)


def _not_labrats(response: httpx2.Response) -> str:
    return f"{response.url} answered {response.status_code}, but is not a Labrats engine; check --url"


def _json_object(response: httpx2.Response) -> dict[str, Any]:
    try:
        body = response.json()
    except ValueError:
        return {}
    return body if isinstance(body, dict) else {}
