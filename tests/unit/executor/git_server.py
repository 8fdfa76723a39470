"""A real smart-HTTP git server on loopback: `git http-backend` behind Python's web server."""

import base64
import os
import socket
import struct
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http import HTTPStatus
from pathlib import Path
from urllib.parse import urlsplit

from tests.support.loopback import QuietHandler, served_by


@dataclass
class GitServer:
    """A server of the repositories in `root`, public or with a password.

    newest_protocol: True for protocol v2, which serves any commit; v0 serves only the tips of refs.
    redirect_to:     a URL to which every request is redirected.
    ref_faults, pack_faults: what each of the next requests for the refs, or for a pack, gets instead of its answer: a
                     status, `reset` (the connection ends), or `cut` (it ends in the middle of the answer).
    requests:        the paths of all requests so far.
    """

    root: Path
    password: str | None = None
    newest_protocol: bool = True
    redirect_to: str | None = None
    pack_faults: list[int | str] = field(default_factory=list)
    ref_faults: list[int | str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)
    port: int = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def admits(self, authorization: str | None) -> bool:
        if self.password is None:
            return True
        scheme, _, credentials = (authorization or "").partition(" ")
        return scheme == "Basic" and base64.b64decode(credentials).decode().partition(":")[2] == self.password


@contextmanager
def served(git_server: GitServer, listener: socket.socket | None = None) -> Iterator[GitServer]:
    """Serve until the context exits, on loopback or on `listener`."""

    class Handler(_Handler):
        served = git_server

    with served_by(Handler, listener) as git_server.port:
        yield git_server


class _Handler(QuietHandler):
    served: GitServer

    def do_GET(self) -> None:
        self.served.requests.append(self.path)
        body = self.body()
        fault = self._next_fault(body)
        if fault == "reset":
            self._reset()
        elif isinstance(fault, int):
            self.answer(fault)
        elif self.served.redirect_to:
            self.answer(HTTPStatus.MOVED_PERMANENTLY, headers={"Location": self.served.redirect_to + self.path})
        elif not self.served.admits(self.headers.get("Authorization")):
            self.answer(HTTPStatus.UNAUTHORIZED, headers={"WWW-Authenticate": 'Basic realm="git"'})
        else:
            self._answer_with(self._run_backend(body), is_cut=fault == "cut")

    do_POST = do_GET

    def _next_fault(self, body: bytes) -> int | str | None:
        is_for_pack = self.path.endswith("/git-upload-pack") and b"command=ls-refs" not in body
        faults = self.served.pack_faults if is_for_pack else self.served.ref_faults
        return faults.pop(0) if faults else None

    def _reset(self) -> None:
        self.close_connection = True
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.connection.close()

    def _run_backend(self, body: bytes) -> bytes:
        url = urlsplit(self.path)
        environment = {
            "PATH": os.environ["PATH"],
            "GIT_PROJECT_ROOT": str(self.served.root),
            "GIT_HTTP_EXPORT_ALL": "1",
            "REQUEST_METHOD": self.command,
            "PATH_INFO": url.path,
            "QUERY_STRING": url.query,
            "CONTENT_TYPE": self.headers.get("Content-Type", ""),
            "HTTP_CONTENT_ENCODING": self.headers.get("Content-Encoding", ""),
            "REMOTE_USER": "tester",
            "REMOTE_ADDR": "127.0.0.1",
        }
        if self.served.newest_protocol:
            environment["GIT_PROTOCOL"] = self.headers.get("Git-Protocol", "")
        return subprocess.run(["git", "http-backend"], input=body, env=environment, capture_output=True).stdout

    def _answer_with(self, cgi: bytes, *, is_cut: bool) -> None:
        head, _, body = cgi.partition(b"\r\n\r\n")
        headers = dict(line.split(": ", 1) for line in head.decode().split("\r\n"))
        status = int(headers.pop("Status", "200").split()[0])
        if not is_cut:
            self.answer(status, body, headers)
            return
        self.close_connection = True
        self.answer(status, headers=headers | {"Content-Length": str(len(body))}, body=body[: len(body) // 2])
