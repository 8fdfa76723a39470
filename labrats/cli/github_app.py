"""The steps on GitHub that need a browser: create an App from its manifest, and install it on repositories."""

import base64
import html
import json
import os
import re
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from queue import Empty, Queue
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import parse_qs, urlsplit

from labrats.cli.errors import CommandError, EngineUnreachable, ExitCode
from labrats.cli.output import print_stderr

if TYPE_CHECKING:
    from labrats.cli.client import Client

AGAIN: Final = "labrats connect github"
TOKEN_COMMAND: Final = f"{AGAIN} --token-file FILE --repository OWNER/NAME"

_FORM_SECONDS: Final = 3600
"""The time for which GitHub accepts the code, and so the time for the form."""

_INSTALL_SECONDS: Final = 900
_POLL_SECONDS: Final = 3
_SEND_SECONDS: Final = 5
_READ_BYTES: Final = 4096


class Terminal:
    """The lines that a person enters. One thread reads them, so that a wait for a browser can be answered here too."""

    def __init__(self) -> None:
        self._lines: Queue[str] = Queue()
        self._has_ended = threading.Event()
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        rest = b""
        with suppress(OSError):  # the terminal was closed
            while chunk := os.read(0, _READ_BYTES):  # sys.stdin has a lock, which this thread would hold at the exit
                *lines, rest = (rest + chunk).split(b"\n")
                for line in lines:
                    self._lines.put(line.decode(errors="replace").strip())
        self._has_ended.set()

    def line_within(self, seconds: float) -> str | None:
        """Return the next line; None if nobody enters one in time, or at all."""
        try:
            return self._lines.get(timeout=seconds)
        except Empty:
            return None

    def ask(self, question: str) -> str:
        """Return the answer to a question. Raises CommandError if the input ends."""
        print_stderr(question)
        while (line := self.line_within(1)) is None:
            if self._has_ended.is_set():
                raise CommandError(f"nothing was entered; start again: {AGAIN}", ExitCode.USAGE)
        return line


def open_terminal() -> Terminal | None:
    """Return the person's terminal; None for a script."""
    return Terminal() if sys.stdin.isatty() else None


def open_browser(address: str) -> bool:
    """Open a page in the person's browser. Return false if there is none on this machine."""
    import webbrowser

    has_desktop = sys.platform in ("darwin", "win32") or any(map(os.environ.get, ("DISPLAY", "WAYLAND_DISPLAY")))
    if not os.environ.get("BROWSER") and (not has_desktop or "SSH_CONNECTION" in os.environ):
        return False  # without a desktop, `webbrowser` takes this terminal for a text browser
    return webbrowser.open(address)


class _Arrival:
    """A request to the page. path: with the query."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.answers: Queue[tuple[int, str, str | None]] = Queue()
        self.is_sent = threading.Event()

    def answer(self, status: int, text: str, location: str | None = None) -> None:
        """Answer with a page, or send the browser on to a location. Return when the answer is sent."""
        self.answers.put((status, text, location))
        self.is_sent.wait(_SEND_SECONDS)


def create_app(
    client: "Client", terminal: Terminal | None, organization: str | None, mode: str | None
) -> Mapping[str, Any]:
    """Let a person create an App in a browser. Return it, as the API shows it. Raises CommandError."""
    with _served_page() as (base, arrivals):
        body = {"redirectUrl": base, "organization": organization, "mode": mode}
        form = client.post("/api/github/app/form", {name: value for name, value in body.items() if value}).json()
        page = _form_page(form)
        has_browser = open_browser(f"{base}{form['state']}")
        if not (has_browser or terminal):
            advice = f"run it in a terminal, or use a personal token: {TOKEN_COMMAND}"
            raise CommandError(f"creating a GitHub App needs a browser: {advice}", ExitCode.USAGE)
        _explain(f"{base}{form['state']}", page, has_browser=has_browser)
        end = time.monotonic() + _FORM_SECONDS
        while time.monotonic() < end:
            if app := _next_step(client, form["state"], page, arrivals, terminal):
                return app
    raise CommandError(f"nobody has created the App within an hour; start again: {AGAIN}", ExitCode.USAGE)


def _next_step(
    client: "Client", state: str, page: str, arrivals: "Queue[_Arrival]", terminal: Terminal | None
) -> Mapping[str, Any] | None:
    """Answer the browser or a pasted line. Return the App once it is stored."""
    try:
        arrival: _Arrival | None = arrivals.get(timeout=0.2)
    except Empty:
        arrival = None
    text = arrival.path if arrival else terminal.line_within(0) if terminal else None
    if not text:
        return None
    if arrival and text == f"/{state}":
        arrival.answer(200, page)
        return None
    if arrival and not urlsplit(text).query:  # such as the page's icon
        arrival.answer(404, "There is nothing here.")
        return None
    try:
        app = client.post("/api/github/app", {"code": code_in(text, state)}).json()
    except CommandError as error:
        if arrival:
            arrival.answer(400, f"<p>{html.escape(str(error))}</p>")
        if terminal is None:
            raise
        print_stderr(str(error))
        return None
    if arrival:
        arrival.answer(303, "", app["installUrl"])
    return {**app, "isOpened": arrival is not None}


def code_in(text: str, state: str) -> str:
    """Return the code in the address to which GitHub has sent the browser, or in a pasted code. Raises CommandError."""
    query = parse_qs(urlsplit(text).query)
    if "code" in query:
        if query.get("state") != [state]:
            raise CommandError("this address belongs to another attempt: use the link above", ExitCode.USAGE)
        return query["code"][0]
    if re.fullmatch(r"[0-9A-Za-z_-]{10,200}", text):
        return text
    raise CommandError("paste the whole address of the page at which the browser ended: it has code=", ExitCode.USAGE)


def _explain(link: str, page: str, *, has_browser: bool) -> None:
    """Say where the person creates the App."""
    if has_browser:
        print_stderr(f"create the GitHub App in the browser; if none has opened: {link}")
        return
    data = f"data:text/html;base64,{base64.b64encode(page.encode()).decode()}"
    print_stderr(
        f"create the GitHub App in a browser: {link}\n"
        "with a browser on another machine: enter the following line as its address. It ends at a page that does not "
        f"load. Paste the address of that page here.\n{data}"
    )


def _form_page(form: Mapping[str, Any]) -> str:
    """Return a page that sends the form to GitHub."""
    address, manifest = html.escape(form["address"]), html.escape(json.dumps(form["manifest"], separators=(",", ":")))
    return (
        f'<form method="post" action="{address}"><input type="hidden" name="manifest" value="{manifest}">'
        "<button>Create the GitHub App</button></form><script>document.forms[0].submit()</script>"
    )


@contextmanager
def _served_page() -> "Iterator[tuple[str, Queue[_Arrival]]]":
    """Serve a page on loopback. Yield its address, which ends with a slash, and the requests for it."""
    from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer  # takes 0.02 s to import

    arrivals: Queue[_Arrival] = Queue()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            arrival = _Arrival(self.path)
            arrivals.put(arrival)
            status, text, location = arrival.answers.get()
            content = f"<!doctype html><title>Labrats</title>{text}".encode()
            self.send_response(status)
            if location:
                self.send_header("Location", location)
            self.send_header("Content-Type", "text/html; charset=utf-8")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)
            arrival.is_sent.set()

        def log_message(self, *_: object) -> None:
            pass

    class Server(ThreadingHTTPServer):
        daemon_threads = True
        block_on_close = False  # a browser may hold a connection open

    with Server(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/", arrivals
        finally:
            server.shutdown()
            thread.join()


def wait_for_installation(
    client: "Client", app: Mapping[str, Any], wanted: Sequence[str], terminal: Terminal | None
) -> list[str]:
    """Return the repositories on which the App is installed, once there are some, with the wanted ones among them.

    app: as the API shows it. Raises CommandError.
    """
    if not (lacking := _lacking(app, wanted)):
        return list(app["repositories"])
    is_opened = app.get("isOpened") or open_browser(app["installUrl"])
    step = f"install the App {app['login']} on {', '.join(lacking)}: {app['installUrl']}"
    if not (is_opened or terminal):
        raise CommandError(f"{step} and then: {AGAIN}", ExitCode.USAGE)
    print_stderr(step)
    end = time.monotonic() + _INSTALL_SECONDS
    while time.monotonic() < end:
        time.sleep(_POLL_SECONDS)
        try:
            known = client.get("/api/github/app").json()
        except EngineUnreachable:  # or GitHub is
            continue
        if not _lacking(known, wanted):
            return list(known["repositories"])
    raise CommandError(f"{step} and then: {AGAIN}, which goes on here", ExitCode.USAGE)


def _lacking(app: Mapping[str, Any], wanted: Sequence[str]) -> list[str]:
    """Return the wanted repositories on which the App is not installed; without any, it needs one."""
    installed = {each.lower() for each in app["repositories"]}
    return [each for each in wanted if each.lower() not in installed] if wanted or installed else ["a repository"]


def choose_repositories(
    names: Sequence[str], connected: Sequence[str], terminal: Terminal | None, install_url: str
) -> list[str]:
    """Return the repositories of the App that the person chooses. Raises CommandError.

    connected: those that are connected already.
    """
    others = [each for each in names if each.lower() not in {name.lower() for name in connected}]
    if len(others) <= 1:
        if not others:
            print_stderr(f"all repositories of the App are connected; it gets others at {install_url}")
        return others or list(names)
    listed = "\n".join(f"  {number}. {name}" for number, name in enumerate(others, start=1))
    if terminal is None:
        command = f"{AGAIN} --repository {others[0]}"
        raise CommandError(f"the App has several repositories; choose: {command}\n{listed}", ExitCode.USAGE)
    print_stderr(listed)
    while True:
        answer = terminal.ask("repositories (their numbers, such as 1,3, or all):")
        if answer.lower() == "all":
            return others
        numbers = re.split(r"[\s,]+", answer)
        if all(each.isdecimal() and 1 <= int(each) <= len(others) for each in numbers):
            return [others[int(each) - 1] for each in dict.fromkeys(numbers)]
        print_stderr(f"{answer!r} has something else than the numbers 1 to {len(others)}")
