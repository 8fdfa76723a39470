"""`labrats connect github`: store the credentials, read the events of repositories, and add the first agents."""

import json
import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any, Final

from cyclopts import Parameter

from labrats.cli.connect import read_key_file
from labrats.cli.errors import CommandError, ExitCode
from labrats.cli.options import DEFAULTS, ApiOptions
from labrats.cli.output import print_stderr, print_text

if TYPE_CHECKING:
    from labrats.cli.client import Client

_TOKEN: Final = "GITHUB_TOKEN"  # noqa: S105, the name of a variable
_TOKEN_COMMAND: Final = "labrats connect github --token-file FILE --repository OWNER/NAME"  # noqa: S105


def github(
    *,
    token_file: str | None = None,
    repository: Annotated[list[str] | None, Parameter(negative=())] = None,
    options: ApiOptions = DEFAULTS,
) -> None:
    """Connect repositories on GitHub with a personal token, and let labels and comments there start agents.

    The engine reads the events of the repositories once a minute, so that it needs no public address. The token comes
    from --token-file, else from GITHUB_TOKEN.

    Args:
        token_file: A file with the token; - for standard input. A fine-grained token needs the repository permissions
            Contents, Issues, Pull requests and Commit statuses (read and write).
        repository: A repository, OWNER/NAME. Repeatable.
    """
    origin = token_file or f"{_TOKEN} in the environment"
    token = read_key_file(token_file) if token_file else os.environ.get(_TOKEN, "").strip()
    if not token:
        raise CommandError(f"no token was found: set {_TOKEN}, or {_TOKEN_COMMAND}", ExitCode.USAGE)
    if not repository:
        raise CommandError(f"name the repository of the token: {_TOKEN_COMMAND}", ExitCode.USAGE)
    with options.connect() as client:
        print_stderr(f"using the token from {origin}")
        body = {"token": token, "repositories": repository}
        connection = client.post("/api/github/connection", body).json()
        if options.json:
            print_text(json.dumps(connection))
            return
        print_stderr("\n".join([*_summary(connection), _next_step(client, connection)]))


def _summary(connection: Mapping[str, Any]) -> list[str]:
    names = ", ".join(connection["repositories"])
    lines = [f"secret {connection['secret']}: token set"]
    if connection["seeded"]:
        lines.append(f"{connection['seeded']} agents added (labrats agent list)")
    lines.append(f"source {connection['source']}: reads {names} once a minute, as {connection['login']}")
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
