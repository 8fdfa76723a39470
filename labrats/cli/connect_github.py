"""`labrats connect github`: store the credentials, read the events of repositories, and add the first agents."""

import json
import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal
from urllib.parse import urlsplit

from cyclopts import Parameter

from labrats.cli.connect import read_key_file
from labrats.cli.errors import CommandError, ExitCode
from labrats.cli.github_app import (
    AGAIN,
    TOKEN_COMMAND,
    choose_repositories,
    create_app,
    open_terminal,
    wait_for_installation,
)
from labrats.cli.options import DEFAULTS, ApiOptions
from labrats.cli.output import print_stderr, print_text

if TYPE_CHECKING:
    from labrats.cli.client import Client

_TOKEN: Final = "GITHUB_TOKEN"  # noqa: S105, the name of a variable


def github(
    *,
    repository: Annotated[list[str] | None, Parameter(negative=())] = None,
    token_file: str | None = None,
    organization: str | None = None,
    mode: Literal["webhook", "poll"] | None = None,
    host: str | None = None,
    options: ApiOptions = DEFAULTS,
) -> None:
    """Connect repositories on GitHub, and let labels and comments there start agents.

    Without a token, a GitHub App is created in the browser, with the rights that the agents need. The command waits
    until the App is installed; a later run goes on where an earlier one stopped, and adds repositories. A personal
    token from --token-file, else from GITHUB_TOKEN, is used instead.

    Args:
        repository: A repository, OWNER/NAME. Repeatable. Default with an App: a question.
        token_file: A file with a token; - for standard input. A fine-grained token needs the repository permissions
            Contents, Issues, Pull requests and Commit statuses (read and write).
        organization: The organization that will own the new App. Default: you.
        mode: webhook: GitHub delivers events to the engine. poll: the engine reads them once a minute, and needs no
            public address. Default: webhook for an engine with a public address and an App, else poll.
        host: The GitHub Enterprise Server, such as github.example.com, for which the engine is set up.
    """
    origin = token_file or f"{_TOKEN} in the environment"
    token = read_key_file(token_file) if token_file else os.environ.get(_TOKEN, "").strip()
    with options.connect() as client:
        state = client.get("/api/system").json()["github"]
        if host:
            _check_host(host, state["url"])
        if token:
            if organization:
                advice = "leave it out, or the token" if token_file else f"leave it out, or unset {_TOKEN}"
                raise CommandError(f"--organization is for a GitHub App: {advice}", ExitCode.USAGE)
            if not repository:
                raise CommandError(f"name the repository of the token: {TOKEN_COMMAND}", ExitCode.USAGE)
            print_stderr(f"using the token from {origin}" + ("" if token_file else f"; for an App: unset {_TOKEN}"))
            body: dict[str, Any] = {"token": token, "repositories": repository}
        else:
            body = {"repositories": _of_app(client, state, repository or [], organization, mode)}
        connection = client.post("/api/github/connection", body | ({"mode": mode} if mode else {})).json()
        if options.json:
            print_text(json.dumps(connection))
            return
        print_stderr("\n".join([*_summary(connection), _next_step(client, connection)]))


def _of_app(
    client: "Client", state: Mapping[str, Any], wanted: Sequence[str], organization: str | None, mode: str | None
) -> Sequence[str]:
    """Return the repositories to connect with the App, which is created if there is none."""
    terminal = open_terminal()
    if state["hasApp"]:
        app = client.get("/api/github/app").json()
        print_stderr(f"going on with the App {app['login']}")
    else:
        app = create_app(client, terminal, organization, mode)
        print_stderr(f"secret {app['secret']}: the App {app['login']} stored")
    for account in app["suspended"]:
        print_stderr(f"the installation of {account} is suspended: unsuspend it in the settings of {account} on GitHub")
    installed = wait_for_installation(client, app, wanted, terminal)
    connected = [name for each in state["sources"] for name in each["repositories"]]
    return wanted or choose_repositories(installed, connected, terminal, app["installUrl"])


def _check_host(host: str, url: str) -> None:
    """Raise CommandError for another GitHub than the engine's. url: of the pages of that."""
    wanted, known = urlsplit(host if "://" in host else f"https://{host}").netloc.lower(), urlsplit(url).netloc.lower()
    if wanted != known:
        has_subdomain = wanted == "github.com" or wanted.endswith(".ghe.com")
        api = f"https://api.{wanted}" if has_subdomain else f"https://{wanted}/api/v3"
        advice = f"start it with LABRATS_GITHUB_API_URL={api}, then {AGAIN} --host {wanted}"
        raise CommandError(f"the engine works with {known}, not with {wanted}: {advice}", ExitCode.USAGE)


def _summary(connection: Mapping[str, Any]) -> list[str]:
    names = ", ".join(connection["repositories"])
    lines = [f"secret {connection['secret']}: token set"] if connection["drawback"] else []
    if connection["seeded"]:
        lines.append(f"{connection['seeded']} agents added (labrats agent list)")
    how = f"reads {names} once a minute" if connection["mode"] == "poll" else f"gets the events of {names}"
    lines.append(f"source {connection['source']}: {how}, as {connection['login']}")
    return [*lines, connection["drawback"]] if connection["drawback"] else lines


def _next_step(client: "Client", connection: Mapping[str, Any]) -> str:
    """Return the next step: a provider for the agents, or the first label."""
    providers = client.get("/api/system").json()["providers"]
    if not any(each["canRun"] for each in providers if each["name"] != "mock"):
        return "next: labrats connect claude"
    agents = client.get("/api/agents").json()["agents"]
    if not any(each["name"] == "ai-developer" for each in agents):
        return "next: labrats agent list, and cause an event to which one of them listens"
    return f"next: label an issue of {connection['repositories'][-1]} with ai-implement; an agent comments on it"
