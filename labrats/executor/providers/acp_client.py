"""The engine's end of an Agent Client Protocol connection: it asks the program, and allows what the program asks."""

from collections.abc import Callable
from typing import Any, Final, TypeVar

import msgspec

from labrats.executor.providers.acp_messages import (
    METHOD_NOT_FOUND,
    Message,
    PermissionRequest,
    RpcError,
    SessionUpdate,
    Update,
    read_message,
)

T = TypeVar("T")

_INVALID_ANSWER: Final = RpcError(message="the answer is not as the protocol says")


class AcpClient:
    """Sends requests to a program, and takes its messages.

    is_silent: True to ignore updates, such as the history of a session that is loaded.
    """

    def __init__(self, send: Callable[[bytes], None], on_update: Callable[[Update], None]) -> None:
        self.is_silent = False
        self._send = send
        self._on_update = on_update
        self._waiting = dict[int | str | None, Callable[[Message], None]]()
        self._requests = 0

    def request(
        self,
        method: str,
        params: dict[str, Any],
        kind: type[T],
        on_answer: Callable[[T], None],
        on_error: Callable[[RpcError], None],
    ) -> None:
        """Send a request. Call `on_answer` with its answer, which is of `kind`, or `on_error`."""

        def take(message: Message) -> None:
            try:
                answer = msgspec.json.decode(message.result, type=kind) if message.error is None else None
            except msgspec.DecodeError:
                answer = None
            if answer is None:
                on_error(message.error or _INVALID_ANSWER)
            else:
                on_answer(answer)

        self._requests += 1
        self._waiting[self._requests] = take
        self._write({"id": self._requests, "method": method, "params": params})

    def notify(self, method: str, params: dict[str, Any]) -> None:
        """Send a notification, which has no answer."""
        self._write({"method": method, "params": params})

    def receive(self, line: bytes) -> None:
        """Take a line of the program's output. Lines that are no messages are skipped."""
        if (message := read_message(line)) is None:
            return
        if message.method is None:
            if take := self._waiting.pop(message.id, None):
                take(message)
        elif message.method == "session/update":
            self._handle_update(message)
        elif message.id is not None:
            self._answer(message)

    def _handle_update(self, message: Message) -> None:
        if self.is_silent:
            return
        try:
            update = msgspec.json.decode(message.params, type=SessionUpdate).update
        except msgspec.DecodeError:
            return
        self._on_update(update)

    def _answer(self, message: Message) -> None:
        """Allow what the program wants to do, since the sandbox is the limit. Other requests were not offered to it."""
        if message.method != "session/request_permission":
            error = {"code": METHOD_NOT_FOUND, "message": f"{message.method} is not supported"}
            self._write({"id": message.id, "error": error})
            return
        try:
            choice = msgspec.json.decode(message.params, type=PermissionRequest).allowing
        except msgspec.DecodeError:
            choice = None
        outcome = {"outcome": "selected", "optionId": choice} if choice else {"outcome": "cancelled"}
        self._write({"id": message.id, "result": {"outcome": outcome}})

    def _write(self, message: dict[str, Any]) -> None:
        self._send(msgspec.json.encode({"jsonrpc": "2.0", **message}) + b"\n")
