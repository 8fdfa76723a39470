"""The engine's log: a fixed message with fields, as text on a terminal and as JSON elsewhere.

A line that cannot be written is dropped and counted. A full disk or a closed standard error never stops the engine.
"""

import asyncio
import logging
import os
import select
import sys
import threading
from io import StringIO
from types import TracebackType
from typing import Any, Final, TextIO

import structlog
from structlog.tracebacks import ExceptionDictTransformer
from structlog.typing import EventDict, ExcInfo, Processor

_PIECE_BYTES: Final = select.PIPE_BUF
"""The bytes that a pipe accepts without blocking once it is writable."""

_TIMEOUT_MS: Final = 100

_ESCAPES: Final = {code: f"\\x{code:02x}" for code in (*range(32), *range(127, 160))}
"""Replacements of control characters, by their numbers."""


class LossyStream:
    """Standard error without buffering or errors. lost: the number of lines that could not be written."""

    def __init__(self, descriptor: int = 2) -> None:
        self._descriptor = descriptor
        self._is_stuck = False
        self.lost = 0

    def write(self, text: str) -> None:
        data = text.encode("utf-8", "backslashreplace")
        try:
            while data and self._is_writable():
                data = data[os.write(self._descriptor, data[:_PIECE_BYTES]) :]
        except OSError:  # a full disk, a broken pipe, a closed descriptor
            pass
        self._is_stuck = bool(data)
        if data:
            self.lost += max(1, text.count("\n"))

    def _is_writable(self) -> bool:
        """Return whether a piece can be written at once. Only the first line waits for a pipe that nobody reads."""
        poll = select.poll()
        poll.register(self._descriptor, select.POLLOUT)
        events = poll.poll(0 if self._is_stuck else _TIMEOUT_MS)
        return bool(events) and bool(events[0][1] & select.POLLOUT)

    def flush(self) -> None:
        """Do nothing, as nothing is buffered."""


LOG: Final = LossyStream()
"""The stream of all log lines."""


def configure_logs(level: str, style: str) -> None:
    """Configure structlog, and the standard library's logging, which libraries use, to log through it.

    level: debug, info, warning or error. style: console, json, or auto.
    """
    console = style == "console" or (style == "auto" and sys.stderr.isatty())
    # Tracebacks leave out local variables, whose values may be secrets or prompts.
    if console:
        renderers: list[Processor] = [escape_controls, structlog.dev.ConsoleRenderer(exception_formatter=_traceback)]
    else:
        tracebacks = structlog.processors.ExceptionRenderer(ExceptionDictTransformer(show_locals=False))
        renderers = [tracebacks, structlog.processors.JSONRenderer()]
    shared: list[Processor] = [
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    structlog.configure(
        processors=[*shared, *renderers],
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelNamesMapping()[level.upper()]),
        logger_factory=structlog.WriteLoggerFactory(LOG),  # type: ignore[arg-type]  # it only writes and flushes
        cache_logger_on_first_use=True,
    )
    _configure_standard_logging([*shared, structlog.stdlib.ExtraAdder()], renderers)
    _log_uncaught_errors()


def escape_controls(_: Any, __: str, event: EventDict) -> EventDict:
    """Escape control characters in texts: some come from requests, and must not forge lines or control a terminal."""
    return {name: value.translate(_ESCAPES) if isinstance(value, str) else value for name, value in event.items()}


def _traceback(stream: TextIO, error: ExcInfo) -> None:
    written = StringIO()
    structlog.dev.plain_traceback(written, error)
    stream.write("\n".join(line.translate(_ESCAPES) for line in written.getvalue().split("\n")))


def log_loop_error(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """Log an error that the event loop reports, as its exception handler.

    uvloop reports a TLS connection that the other side has closed as fatal (MagicStack/uvloop#506). The requests on it
    fail, and log their own reasons.
    """
    error = context.get("exception")
    if isinstance(error, RuntimeError) and str(error).endswith("the handler is closed"):
        structlog.get_logger().info("connection closed", reason=context.get("message"))
    else:
        loop.default_exception_handler(context)


def _configure_standard_logging(shared: list[Processor], renderers: list[Any]) -> None:
    handler = logging.StreamHandler(LOG)
    remove_meta = structlog.stdlib.ProcessorFormatter.remove_processors_meta
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(foreign_pre_chain=shared, processors=[remove_meta, *renderers])
    )
    logging.basicConfig(handlers=[handler], level=logging.WARNING, force=True)


def _log_uncaught_errors() -> None:
    """Log the tracebacks and warnings that Python itself would print between the lines of the log."""
    log = structlog.get_logger()

    def process_failed(kind: type[BaseException], error: BaseException, traceback: TracebackType | None) -> None:
        if issubclass(kind, KeyboardInterrupt):
            sys.__excepthook__(kind, error, traceback)
        else:
            log.critical("engine failed", exc_info=(kind, error, traceback))

    def thread_failed(failed: threading.ExceptHookArgs) -> None:
        name = failed.thread.name if failed.thread else None
        log.error("thread failed", thread=name, exc_info=(failed.exc_type, failed.exc_value, failed.exc_traceback))

    def exception_ignored(failed: "sys.UnraisableHookArgs") -> None:
        log.error("exception ignored", exc_info=(failed.exc_type, failed.exc_value, failed.exc_traceback))

    sys.excepthook, threading.excepthook, sys.unraisablehook = process_failed, thread_failed, exception_ignored
    logging.captureWarnings(capture=True)
