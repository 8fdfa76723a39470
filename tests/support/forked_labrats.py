"""Engines as forks of a process that has imported their modules: the imports take most of the time of a start.

A fork runs the same code as `labrats serve`, but /proc shows the command line and environment of the process that
forked it. Tests of these run the program itself.
"""

import gc
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from threading import Lock
from typing import Any, Final

from labrats.main import hidden, main
from tests.support.impatient_labrats import VARIABLE, replace_constants

MODULES: Final = (
    "uvloop",
    "labrats.cli.app",
    "labrats.compose",
    "labrats.api.http.server",
    "labrats.backends.embedded.model_files",
    "labrats.backends.embedded.runner",
    "labrats.backends.embedded.settings",
    "labrats.backends.embedded.store",
    "labrats.controller.agent_status",
    "labrats.controller.applied_jobs",
    "labrats.controller.callbacks",
    "labrats.controller.chains",
    "labrats.controller.model_status",
    "labrats.github.publisher.publisher",
    "labrats.controller.reconcile",
    "labrats.github.redelivery",
    "labrats.github.report_rights",
    "labrats.controller.retention",
    "labrats.controller.source_status",
    "labrats.github.requests.loop",
)
"""Modules that import, together, nearly all that an engine on one machine imports."""

_POLL_SECONDS: Final = 0.01


class Fork:
    """A forked engine, with the part of the interface of Popen that the tests use."""

    def __init__(self, forks: "Forks", pid: int) -> None:
        self._forks, self.pid = forks, pid
        self._code: int | None = None

    def poll(self) -> int | None:
        if self._code is None:
            self._code = self._forks.ask({"poll": self.pid})
        return self._code

    def wait(self, timeout: float | None = None) -> int:
        deadline = None if timeout is None else time.monotonic() + timeout
        while (code := self.poll()) is None:
            if deadline is not None and time.monotonic() > deadline:
                raise subprocess.TimeoutExpired("labrats", timeout or 0)
            time.sleep(_POLL_SECONDS)
        return code

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


class Forks:
    """A client of the process that forks engines. The process starts with the first engine."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        self._lock = Lock()

    def start(self, arguments: Sequence[str], environment: dict[str, str], log: Path) -> Fork:
        """Run `labrats` with these arguments. Its output is added to `log`."""
        request = {"arguments": list(arguments), "environment": environment, "log": str(log)}
        return Fork(self, self.ask(request))

    def ask(self, request: dict[str, Any]) -> Any:
        with self._lock:
            if self._process is None:
                self._process = subprocess.Popen(
                    [sys.executable, "-m", "tests.support.forked_labrats"],
                    cwd=Path(__file__).parents[2],
                    env={"PATH": os.environ["PATH"]},
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                )
            assert self._process.stdin
            assert self._process.stdout
            self._process.stdin.write(json.dumps(request).encode() + b"\n")
            self._process.stdin.flush()
            return json.loads(self._process.stdout.readline())

    def close(self) -> None:
        """End the process. Engines that still run continue."""
        if self._process:
            self._process.communicate()


def answer_requests() -> dict[str, Any] | None:
    """Fork engines and report their exit codes until the end of stdin. In a fork, return the request at once."""
    for line in sys.stdin.buffer:
        request: dict[str, Any] = json.loads(line)
        if pid := request.get("poll"):
            ended, status = os.waitpid(pid, os.WNOHANG)
            answer = os.waitstatus_to_exitcode(status) if ended else None
        else:
            answer = os.fork()
            if answer == 0:
                return request
        sys.stdout.write(json.dumps(answer) + "\n")
        sys.stdout.flush()
    return None


def become_an_engine(request: dict[str, Any]) -> None:
    """Run `labrats` in this process as a request describes it."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    log, nothing = os.open(request["log"], os.O_WRONLY | os.O_APPEND), os.open(os.devnull, os.O_RDONLY)
    for source, target in ((nothing, 0), (log, 1), (log, 2)):
        os.dup2(source, target)
    os.close(log)
    os.close(nothing)
    environment = request["environment"]
    os.environ.clear()
    os.environ.update(environment)
    replace_constants(json.loads(os.environ.pop(VARIABLE, "{}")))
    sys.argv = ["labrats", *request["arguments"]]
    main()


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C in a terminal is for pytest, which then ends this process
    gc.disable()
    with hidden("rich"), hidden("pydantic.v1"):  # as the engine imports its modules
        for module in MODULES:
            import_module(module)
    gc.freeze()
    if request := answer_requests():
        become_an_engine(request)
