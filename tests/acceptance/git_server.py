"""A git server on loopback: git's own smart HTTP backend with password authentication."""

import base64
import os
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from tests.support.loopback import QuietHandler, served_by

_IDENTITY: Final = {
    "GIT_AUTHOR_NAME": "Octo Cat", "GIT_AUTHOR_EMAIL": "octocat@example.com",
    "GIT_COMMITTER_NAME": "Octo Cat", "GIT_COMMITTER_EMAIL": "octocat@example.com",
    "GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_NOSYSTEM": "1",
}  # fmt: skip


def git(folder: Path, *arguments: str) -> str:
    """Run git in `folder` and return its output."""
    done = subprocess.run(
        ["git", *arguments], cwd=folder, env={"PATH": os.environ["PATH"], **_IDENTITY}, check=True, capture_output=True
    )
    return done.stdout.decode().strip()


def make_repository(folder: Path) -> Path:
    """Create a repository with the branches `main` (README.md) and, based on it, `feature` (feature.txt)."""
    folder.mkdir()
    git(folder, "init", "--quiet", "--initial-branch=main")
    _commit(folder, "README.md", "# Hello\n")
    git(folder, "checkout", "--quiet", "-b", "feature")
    _commit(folder, "feature.txt", "new\n")
    git(folder, "checkout", "--quiet", "main")
    return folder


def _commit(folder: Path, name: str, text: str) -> None:
    (folder / name).write_text(text)
    git(folder, "add", name)
    git(folder, "commit", "--quiet", "-m", f"Add {name}")


@dataclass(frozen=True)
class GitServer:
    """A running server. authorizations: the Authorization header of each request, in order."""

    port: int
    authorizations: list[str] = field(default_factory=list)

    def url(self, credential: str = "", repository: str = "hello.git", address: str = "127.0.0.1") -> str:
        return f"http://{credential}{'@' if credential else ''}{address}:{self.port}/{repository}"


@contextmanager
def serve_git(root: Path, username: str, password: str, listener: socket.socket | None = None) -> Iterator[GitServer]:
    """Serve the repositories below `root` to callers with the password, on loopback or with `listener`."""
    expected = f"Basic {base64.b64encode(f'{username}:{password}'.encode()).decode()}"

    class Handler(QuietHandler):
        def _answer(self) -> None:
            authorization = self.headers.get("Authorization", "")
            server.authorizations.append(authorization)
            body = self.body()
            if authorization == expected:
                self._run_backend(body)
            else:
                self.answer(401, headers={"WWW-Authenticate": 'Basic realm="git"'})

        def _run_backend(self, body: bytes) -> None:
            path, _, query = self.path.partition("?")
            environment = {
                "PATH": os.environ["PATH"], "GIT_PROJECT_ROOT": str(root), "GIT_HTTP_EXPORT_ALL": "1",
                "REQUEST_METHOD": self.command, "PATH_INFO": path, "QUERY_STRING": query,
                "CONTENT_TYPE": self.headers.get("Content-Type", ""), "REMOTE_USER": username,
                "HTTP_CONTENT_ENCODING": self.headers.get("Content-Encoding", ""),
                "GIT_PROTOCOL": self.headers.get("Git-Protocol", ""),
            }  # fmt: skip
            done = subprocess.run(["git", "http-backend"], input=body, env=environment, capture_output=True, check=True)
            head, _, content = done.stdout.partition(b"\r\n\r\n")
            headers = dict(line.split(": ", 1) for line in head.decode().split("\r\n"))
            self.answer(int(headers.pop("Status", "200").split()[0]), content, headers)

        do_GET = do_POST = _answer

    with served_by(Handler, listener) as port:
        server = GitServer(port)
        yield server
