"""The engine's log: a fixed message and fields, as lines for people on a terminal and as JSON elsewhere.

A line that cannot be written is lost and counted: a full disk, or a closed standard error, ends no engine.
"""

import logging
import os
import select
import sys
import threading
from types import TracebackType
from typing import Any, Final

import structlog
from structlog.tracebacks import ExceptionDictTransformer
from structlog.typing import Processor

_PIECE_BYTES: Final = select.PIPE_BUF
"""So much a pipe takes without a wait, once it is ready."""

_PATIENCE_MS: Final = 100


class LossyStream:
    """Standard error, which raises nothing when written to, and buffers nothing. lost: lines that never got there."""

    def __init__(self, descriptor: int = 2) -> None:
        self._descriptor = descriptor
        self._is_stuck = False
        self.lost = 0

    def write(self, text: str) -> None:
        data = text.encode("utf-8", "backslashreplace")
        try:
            while data and self._takes_more():
                data = data[os.write(self._descriptor, data[:_PIECE_BYTES]) :]
        except OSError:  # a full disk, a broken pipe, a closed descriptor
            pass
        self._is_stuck = bool(data)
        if data:
            self.lost += max(1, text.count("\n"))

    def _takes_more(self) -> bool:
        """Return whether a piece can be written at once. A pipe that nobody reads is waited for only once."""
        poll = select.poll()
        poll.register(self._descriptor, select.POLLOUT)
        events = poll.poll(0 if self._is_stuck else _PATIENCE_MS)
        return bool(events) and bool(events[0][1] & select.POLLOUT)

    def flush(self) -> None:
        """There is no buffer."""


LOG: Final = LossyStream()
"""The stream of all log lines."""


def configure_logs(level: str, style: str) -> None:
    """Set up structlog, and the standard library's logging by it, which libraries use.

    level: debug, info, warning or error. style: console, json, or auto.
    """
    console = style == "console" or (style == "auto" and sys.stderr.isatty())
    # Tracebacks without the values of local variables, which may be secrets, or prompts.
    if console:
        renderers: list[Processor] = [structlog.dev.ConsoleRenderer(exception_formatter=structlog.dev.plain_traceback)]
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
        logger_factory=structlog.WriteLoggerFactory(LOG),  # type: ignore[arg-type]  # it needs no more of a stream
        cache_logger_on_first_use=True,
    )
    _configure_standard_logging([*shared, structlog.stdlib.ExtraAdder()], renderers)
    _log_what_nobody_catches()


def _configure_standard_logging(shared: list[Processor], renderers: list[Any]) -> None:
    handler = logging.StreamHandler(LOG)
    remove_meta = structlog.stdlib.ProcessorFormatter.remove_processors_meta
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(foreign_pre_chain=shared, processors=[remove_meta, *renderers])
    )
    logging.basicConfig(handlers=[handler], level=logging.WARNING, force=True)


def _log_what_nobody_catches() -> None:
    """Have what Python itself would print between the lines, as tracebacks and warnings, be lines of the log too."""
    log = structlog.get_logger()

    def ended(kind: type[BaseException], error: BaseException, traceback: TracebackType | None) -> None:
        if issubclass(kind, KeyboardInterrupt):
            sys.__excepthook__(kind, error, traceback)
        else:
            log.critical("engine failed", exc_info=(kind, error, traceback))

    def thread_ended(failed: threading.ExceptHookArgs) -> None:
        name = failed.thread.name if failed.thread else None
        log.error("thread failed", thread=name, exc_info=(failed.exc_type, failed.exc_value, failed.exc_traceback))

    def ignored(failed: "sys.UnraisableHookArgs") -> None:
        log.error("exception ignored", exc_info=(failed.exc_type, failed.exc_value, failed.exc_traceback))

    sys.excepthook, threading.excepthook, sys.unraisablehook = ended, thread_ended, ignored
    logging.captureWarnings(capture=True)
