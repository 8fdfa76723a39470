"""The HTTP server of the stand-in."""

import gzip
import hashlib
import json
import re
import socket
import tempfile
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final
from urllib.parse import parse_qsl, urlencode

from tests.support.github import graphql
from tests.support.github.access import Access
from tests.support.github.calls import Actor, Call, Json
from tests.support.github.contract import find_operation
from tests.support.github.errors import ApiError
from tests.support.github.faults import Fault, Faults
from tests.support.github.git import BareRepository, advertise, run_service
from tests.support.github.hook import Hook
from tests.support.github.manifests import INSTALL_PAGE, PAGE, install, submit_form
from tests.support.github.routes import apps, checks, issues, pulls, repositories
from tests.support.github.routes.checks import STORE, stored_log
from tests.support.github.routing import ROUTES, World
from tests.support.github.state import Issue, Repository
from tests.support.loopback import QuietHandler, served_by

_MODULES: Final = (apps, checks, issues, pulls, repositories)
"""The modules whose import fills ROUTES."""

FIRST_ID: Final = 100
"""The id of the first repository."""

_SERVICES: Final = {"git-upload-pack": "contents:read", "git-receive-pack": "contents:write"}


class AnswerLost(Exception):
    """The connection is to be closed without an answer."""


@dataclass
class GitHubStandIn:
    """GitHub, as far as the engine uses it. The App is installed for all repositories, unless `access` says otherwise.

    calls:       all requests in order.
    violations:  requests that GitHub's description of its API does not allow. They fail the test at its end.
    remaining:   requests that its hourly limit leaves; an answer 304 costs none.
    before_call: called with a request's number before it acts.   after_call: called before its answer is sent.
    """

    folder: Path
    world: World = field(default_factory=World)
    faults: Faults = field(default_factory=Faults)
    calls: list[Call] = field(default_factory=list)
    violations: list[str] = field(default_factory=list)
    remaining: int = 5000
    before_call: Callable[[int], None] | None = None
    after_call: Callable[[int], None] | None = None
    _lock: threading.RLock = field(default_factory=threading.RLock)
    _limit: tuple[int, float] | None = None
    _writes: deque[float] = field(default_factory=deque)

    @property
    def url(self) -> str:
        return self.world.url

    @property
    def access(self) -> Access:
        return self.world.access

    @property
    def hook(self) -> Hook:
        return self.world.hook

    @property
    def demo(self) -> Repository:
        repository = self.world.with_id(FIRST_ID)
        assert repository
        return repository

    def add_repository(
        self, name: str, *, private: bool = True, fork_of: Repository | None = None, git: BareRepository | None = None
    ) -> Repository:
        """Add a repository with one commit, or a fork with the branches of the original."""
        number = len(self.world.repositories) + FIRST_ID
        if git is None:
            git = BareRepository.create(self.folder / f"{number}.git")
            if fork_of:
                git.git("fetch", "-q", str(fork_of.git.folder), "+refs/heads/*:refs/heads/*")
            else:
                git.commit({"README.md": "# Demo\n"}, message="Start")
        url = f"{self.url}/{name}"
        repository = Repository(number, name, url, git, self.world.new_id, private=private, fork_of=fork_of)
        self.world.repositories[name] = repository
        return repository

    def rename(self, repository: Repository, name: str) -> None:
        """Rename a repository. Requests with its former name are redirected until another one gets that name."""
        with self._lock:
            del self.world.repositories[repository.name]
            self.world.moved[repository.name] = repository.id
            self.access.rename(repository.name, name)
            repository.name, repository.url = name, f"{self.url}/{name}"
            self.world.repositories[name] = repository

    def limit_writes(self, count: int, seconds: float) -> None:
        """Answer further writes with a secondary rate limit when there are more than `count` in `seconds`."""
        self._limit = count, seconds

    def comments_of(self, issue: Issue) -> list[Json]:
        return issue.comments

    def check_runs_of(self, repository: Repository, sha: str) -> list[Json]:
        return [run for run in repository.check_runs.values() if run["head_sha"] == sha]

    def pulls_of(self, repository: Repository, head: str) -> list[Issue]:
        """Return all pull requests, also closed ones, of a branch."""
        return [issue for issue in repository.issues.values() if issue.pull and issue.pull.head == head]

    def calls_of(self, operation: str) -> list[Call]:
        """Return the requests of an operation, such as `POST /repos/{owner}/{repo}/pulls`."""
        return [call for call in self.calls if call.operation == operation]

    def writes(self) -> list[Call]:
        """Return the requests that may change something, without those for tokens."""
        return [call for call in self.calls if _is_write(call)]

    def answer(self, method: str, target: str, headers: Any, body: bytes) -> tuple[int, bytes, dict[str, str]]:
        """Answer one request with a status, a body and headers. Raises AnswerLost."""
        path, _, query = target.partition("?")
        values = dict(parse_qsl(query, keep_blank_values=True))
        with self._lock:
            call = Call(len(self.calls) + 1, method, path, path, {}, values, None, Actor(), base_url=self.url)
            self.calls.append(call)
        if self.before_call:
            self.before_call(call.number)
        try:
            if PAGE.fullmatch(path):
                call.status, text = submit_form(self.access, values.get("state", ""), body)
                return call.status, text.encode(), {"Location": text} if call.status == 302 else {}
            if path == "/favicon.ico":  # a browser asks for it
                call.status = 404
                return 404, b"", {}
            if INSTALL_PAGE.fullmatch(path):
                call.status, text = 200, install(self.access, self.world.repositories, method, body)
                return 200, text.encode(), {"Content-Type": "text/html"}
            if path.startswith(STORE):
                call.status, content = stored_log(self.world, path, headers.get("Authorization", ""))
                return call.status, content, {"Content-Type": "text/plain"}
            if (service := _git_service(path)) is None:
                return self._answer_api(call, headers, body)
            call.template = service
            return self._answer_git(call, service, headers, body)
        finally:
            if self.after_call:
                self.after_call(call.number)

    def _answer_api(self, call: Call, headers: Any, body: bytes) -> tuple[int, bytes, dict[str, str]]:
        if location := self._new_place(call):
            call.status = 301 if call.method == "GET" else 307
            return call.status, b'{"message": "Moved Permanently"}', {"Location": location}
        problems = self._recognise(call, body)
        fault = self.faults.next_for(call)
        if problems:
            self.violations += [f"{call.method} {call.path}: {problem}" for problem in problems]
            status, shown = 400, {"message": "; ".join(problems)}
        elif fault.status:
            if fault.acts:
                self._act(call, headers)
            call.headers.update(fault.headers)
            status, shown = fault.status, fault.body
        else:
            status, shown = self._act(call, headers)
        self._delay(fault)
        if call.method == "GET" and status == 200:
            etag = f'W/"{hashlib.sha256(json.dumps(shown).encode()).hexdigest()}"'
            call.headers.update({"ETag": etag, "X-RateLimit-Remaining": str(self.remaining)})
            if headers.get("If-None-Match") == etag:
                call.status = 304
                return 304, b"", call.headers
            self.remaining -= 1
        call.status = status
        call.headers["Content-Type"] = "application/json; charset=utf-8"
        return status, b"" if shown is None else json.dumps(shown).encode(), call.headers

    def _new_place(self, call: Call) -> str | None:
        """Return the address of a renamed repository for a request with its former name; None for other requests."""
        if found := re.fullmatch(r"/repos/([^/]+/[^/]+)(/.*)?", call.path):
            repository, rest = self.world.now_at(found[1]), found[2] or ""
            return f"{self.url}/repositories/{repository.id}{rest}{_query(call)}" if repository else None
        if found := re.fullmatch(r"/repositories/(\d+)(/.*)?", call.path):
            repository = self.world.with_id(int(found[1]))
            call.path = f"/repos/{repository.name if repository else 'nobody/nothing'}{found[2] or ''}"
        return None

    def _recognise(self, call: Call, body: bytes) -> list[str]:
        """Find a request's operation and read its body. Return its violations of GitHub's description."""
        try:
            call.body = json.loads(body) if body else None
        except ValueError:
            return ["the body is not JSON"]
        if call.operation == "POST /graphql":
            return graphql.violations(call.body)
        if (found := find_operation(call.method, call.path)) is None:
            return ["this operation is not in the excerpt of GitHub's API; see scripts/excerpt_github_openapi.py"]
        operation, call.values = found
        call.template = operation.template
        return list(operation.violations(call.values, call.query, call.body))

    def _act(self, call: Call, headers: Any) -> tuple[int, Any]:
        """Act on a request while no other does, except for deliveries: their receiver may send requests itself."""
        with nullcontext() if call.template.startswith("/app/hook/") else self._lock:
            try:
                call.actor = self.access.identify(headers.get("Authorization", ""))
                if limited := self._write_limit(call):
                    call.headers.update(limited.headers)
                    return limited.status, limited.body
                if call.template == "/graphql":
                    return graphql.answer(self.world, call)
                return ROUTES[call.operation].answer(self.world, call)
            except ApiError as error:
                return error.status, error.body

    def _write_limit(self, call: Call) -> Fault | None:
        if self._limit is None or not _is_write(call):
            return None
        count, seconds = self._limit
        while self._writes and self._writes[0] <= call.at - seconds:
            self._writes.popleft()
        if len(self._writes) >= count:
            return Fault.secondary_limit(max(1, round(self._writes[0] + seconds - call.at)))
        self._writes.append(call.at)
        return None

    def _delay(self, fault: Fault) -> None:
        """Wait as a fault says, after the request has acted. Raises AnswerLost."""
        if fault.late_seconds:
            time.sleep(fault.late_seconds)
        if fault.release:
            fault.release.wait()
        if fault.lost:
            raise AnswerLost

    def _answer_git(self, call: Call, rest: str, headers: Any, body: bytes) -> tuple[int, bytes, dict[str, str]]:
        name, _, place = call.path.strip("/").partition(".git/")
        if moved := self.world.now_at(name):
            call.status = 301
            return 301, b"", {"Location": f"{moved.clone_url}/{place}{_query(call)}"}
        repository = self.world.repositories.get(name)
        service = call.query.get("service", "") if rest == "info/refs" else rest
        fault, challenge = self.faults.next_for(call), {"WWW-Authenticate": 'Basic realm="GitHub"'}
        call.status = fault.status or self._git_status(call, repository, service, headers)
        if call.status != 200 or repository is None:
            return call.status, b"", challenge if call.status == 401 else {}
        short, protocol = service.removeprefix("git-"), headers.get("Git-Protocol", "")
        if rest == "info/refs":
            content, kind = advertise(repository.git, short, protocol), "advertisement"
        else:
            content, kind = (
                run_service(repository.git, short, body, protocol, workflows=call.actor.may("workflows:write")),
                "result",
            )
        self._delay(fault)
        return 200, content, {"Content-Type": f"application/x-{service}-{kind}", "Cache-Control": "no-cache"}

    def _git_status(self, call: Call, repository: Repository | None, service: str, headers: Any) -> int:
        try:
            call.actor = self.access.identify(headers.get("Authorization", ""))
        except ApiError:
            return 401
        if repository is None or service not in _SERVICES:
            return 404
        if call.actor.kind == "nobody":
            return 200 if service == "git-upload-pack" and not repository.private else 401
        if not call.actor.reaches(repository.name):
            return 404
        return 200 if call.actor.may(_SERVICES[service]) else 403


def _query(call: Call) -> str:
    return f"?{urlencode(call.query)}" if call.query else ""


def _git_service(path: str) -> str | None:
    """Return what a request of git asks for: `info/refs` or a service. None: it is no request of git."""
    asked = path.partition(".git/")[2]
    return asked if asked in ("info/refs", *_SERVICES) else None


def _is_write(call: Call) -> bool:
    return call.method != "GET" and call.template.startswith(("/repos/", "/graphql"))


class _Handler(QuietHandler):
    """The HTTP side: bodies in chunks or compressed, as git sends them, and answers that are lost."""

    github: GitHubStandIn

    def do_GET(self) -> None:
        try:
            status, body, headers = self.github.answer(self.command, self.path, self.headers, self.body())
            self.answer(status, body, headers)
        except (AnswerLost, ConnectionError):  # or the client has gone
            self.close_connection = True

    do_POST = do_PATCH = do_PUT = do_DELETE = do_GET

    def body(self) -> bytes:
        if self.headers.get("Transfer-Encoding", "").lower() == "chunked":
            content = b"".join(self._chunks())
        else:
            content = super().body()
            if len(content) < int(self.headers.get("Content-Length", 0)):
                raise AnswerLost  # the client was killed while it sent the request
        return gzip.decompress(content) if self.headers.get("Content-Encoding") == "gzip" else content

    def _chunks(self) -> Iterator[bytes]:
        while size := int(self.rfile.readline().split(b";")[0], 16):
            yield self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()


@contextmanager
def a_github(listener: socket.socket | None = None) -> Iterator[GitHubStandIn]:
    """Serve a stand-in with the repository `octo/demo`. listener: a listening socket to use instead of one on loopback.

    At the end, raises AssertionError for requests that GitHub does not document.
    """
    with tempfile.TemporaryDirectory() as folder:
        github = GitHubStandIn(Path(folder))
        host = listener.getsockname()[0] if listener else "127.0.0.1"
        with served_by(type("Handler", (_Handler,), {"github": github}), listener) as port:
            github.world.url = f"http://{host}:{port}"
            github.add_repository("octo/demo")
            yield github
        assert not github.violations, f"requests that GitHub does not document: {github.violations}"
