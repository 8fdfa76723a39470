"""An executor on this machine: a fork of the launcher that runs attempts, one after the other.

A fork copies each memory page that it writes to. For a short attempt, that costs more than all the rest. An executor
therefore serves further attempts, but only after a success that has left nothing behind.

The launcher sends a request for each attempt through a socket. The executor answers when the attempt has ended and it
can serve another. It exits if the launcher closes the socket, or does not confirm the end at once: the engine then
notices the exit instead.
"""

import asyncio
import os
import signal
import socket
import sys
import threading
from pathlib import Path
from time import monotonic
from typing import Final, NoReturn

import msgspec

from labrats.executor.attempt import prepare_process, run_attempt
from labrats.executor.stop_signals import STOP_SIGNALS
from labrats.files.safe_paths import read_regular_file
from labrats.model.protocol import CLAIM_FILE, OUTPUT_FILE, STDERR_FILE
from labrats.processes import ProcessId, executor_process_name, has_child, set_process_name

ENDED: Final = b"ended"
"""Message to the launcher: the attempt has ended, and the executor can serve another."""

CONFIRMED: Final = b"confirmed"
"""Message from the launcher: the engine knows of the end, and the executor may wait for another attempt."""

CONFIRM_SECONDS: Final = 1.0
"""Time for the launcher to confirm an end. It may be stopped."""

WORK_SECONDS: Final = 60.0
"""Time after its first attempt in which an executor may begin further ones."""

_MOST_REQUEST_BYTES: Final = 256 * 1024
_IDLE_NAME: Final = "lr-idle"
_OUTPUT_FLAGS: Final = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC


class Request(msgspec.Struct):
    """A request to run the attempt in a folder.

    sandboxed: whether the attempt has a sandbox. redacted: values to redact besides the attempt's secrets.
    """

    folder: str
    sandboxed: bool = False
    redacted: tuple[str, ...] = ()


_REQUEST_DECODER: Final = msgspec.json.Decoder(Request)


def serve(launcher: socket.socket) -> NoReturn:
    """Run attempts until the launcher closes the socket or an attempt leaves something behind, and exit.

    An unexpected error prints a traceback to the attempt's stderr.
    """
    _open_as(0, Path(os.devnull), os.O_RDONLY | os.O_CLOEXEC)
    prepare_process()
    loop = asyncio.new_event_loop()
    files = _open_files()
    retire_at: float | None = None
    while request := _next_request(launcher):
        folder = Path(request.folder)
        retire_at = retire_at or monotonic() + WORK_SECONDS
        _redirect_output(folder)
        set_process_name(executor_process_name(folder))
        if not claim(folder):
            _exit(0)
        status = loop.run_until_complete(run_attempt(folder, redacted=request.redacted))
        if status != 0 or monotonic() > retire_at or not _is_clean(loop, files, folder) or not _end_claim(folder):
            _exit(status)
        set_process_name(_IDLE_NAME)
        _close_output()
        for number in STOP_SIGNALS:
            signal.signal(number, signal.SIG_DFL)
        if not _report_end(launcher):
            break
    _exit(0)


def _next_request(launcher: socket.socket) -> Request | None:
    """Return the next request, or None if the launcher wants this executor to exit."""
    try:
        message = launcher.recv(_MOST_REQUEST_BYTES)
    except ConnectionError:
        return None
    return _REQUEST_DECODER.decode(message) if message else None


def _report_end(launcher: socket.socket) -> bool:
    """Report the end of an attempt. Return whether the launcher has confirmed it."""
    launcher.settimeout(CONFIRM_SECONDS)
    try:
        launcher.send(ENDED)
        return launcher.recv(len(CONFIRMED)) == CONFIRMED
    except OSError:  # the launcher is dead or stopped
        return False
    finally:
        launcher.settimeout(None)


def _exit(status: int) -> NoReturn:
    sys.stderr.flush()
    os._exit(status)  # shutting down the interpreter takes longer than a short attempt


def claim(folder: Path) -> bool:
    """Make this process the only executor of the attempt in `folder`. Return False if the attempt has one already."""
    draft = folder / f"{CLAIM_FILE}.{os.getpid()}"
    draft.write_text(str(ProcessId.of(os.getpid())))
    try:
        os.link(draft, folder / CLAIM_FILE)  # unlike a rename, a link fails if the name is taken
    except FileExistsError:
        return False
    finally:
        draft.unlink()
    return True


def _is_clean(loop: asyncio.AbstractEventLoop, files: set[str], folder: Path) -> bool:
    """Return whether the attempt has left no process and no other trace in this process.

    Its output must still be in the folder. Otherwise the engine would have no proof of its end except the exit.
    """
    try:
        has_output = os.path.samestat(os.stat(folder / OUTPUT_FILE, follow_symlinks=False), os.fstat(1))
    except OSError:
        has_output = False
    is_alone = threading.active_count() == 1 and not has_child()  # a process of another user cannot be killed
    return has_output and is_alone and not asyncio.all_tasks(loop) and _open_files() == files


def _open_files() -> set[str]:
    return set(os.listdir("/proc/self/fd"))


def _end_claim(folder: Path) -> bool:
    """Set the start time in the claim to zero: it then names no living process, although this one lives on.

    Return False if the agent has changed the claim.
    """
    claimed = str(ProcessId.of(os.getpid())).encode()
    pid, start, boot = claimed.split()
    try:
        if read_regular_file(folder / CLAIM_FILE, len(claimed) + 1) != claimed:
            return False
        with open(folder / CLAIM_FILE, "r+b", buffering=0) as file:
            # A single write of the same length: the engine may be reading the claim.
            file.write(b" ".join((pid, b"0" * len(start), boot)))
    except OSError:
        return False
    return True


def _redirect_output(folder: Path) -> None:
    for target, path in ((1, folder / OUTPUT_FILE), (2, folder / STDERR_FILE)):
        _open_as(target, path, _OUTPUT_FLAGS)


def _close_output() -> None:
    for target in (1, 2):
        _open_as(target, Path(os.devnull), os.O_WRONLY | os.O_CLOEXEC)


def _open_as(descriptor: int, path: Path, flags: int) -> None:
    opened = os.open(path, flags, 0o600)
    os.dup2(opened, descriptor)
    os.close(opened)
