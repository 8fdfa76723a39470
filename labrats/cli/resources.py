"""The commands for resources of any kind: get, describe, delete."""

import json
from typing import TYPE_CHECKING, Annotated, Any, Literal
from urllib.parse import quote

from cyclopts import Parameter

from labrats.cli.errors import CommandError, ExitCode
from labrats.cli.job_list import print_jobs
from labrats.cli.job_view import network_text, print_job
from labrats.cli.options import DEFAULTS, ApiOptions
from labrats.cli.output import print_stderr, print_table, print_text

if TYPE_CHECKING:
    from labrats.cli.client import Client
    from labrats.cli.resource_kinds import ResourceKind, View

Output = Annotated[Literal["table", "yaml", "json"], Parameter(alias="-o")]


def get(kind: str, name: str | None = None, /, *, output: Output = "table", options: ApiOptions = DEFAULTS) -> None:
    """List the resources of a kind, or show one of them.

    Args:
        kind: jobs, instructions, models, configs, agents or webhook-sources; or a name that kubectl uses: AiAgent, aia.
        name: The resource's name. Default: all resources, or the newest jobs.
        output: table; yaml for `labrats apply` (a job: as the API returns it); or json as the API returns it.
    """
    from labrats.cli.resource_kinds import find_kind

    with options.connect() as client:
        if (found := find_kind(kind)) is None:
            _get_jobs(client, name, "json" if options.json else output)
        else:
            views = found.all(client) if name is None else found.get(client, name)
            _print(found, views, "json" if options.json else output)


def describe(kind: str, name: str, /, *, options: ApiOptions = DEFAULTS) -> None:
    """Show all fields of a resource: its spec and the status that the engine reports.

    Args:
        kind: A kind as for `get`.
        name: The resource's name.
    """
    from labrats.cli.resource_kinds import find_kind
    from labrats.cli.yaml_files import as_yaml

    with options.connect() as client:
        found = find_kind(kind)
        view = found.get(client, name) if found else _job(client, name)
        if options.json:
            print_text(_as_json(view))
            return
        if found is None:
            print_job(view)
            return
        described = found.manifest(view) | {"status": found.status_of(view)}
        if found.name == "AiAgent":
            instructions = client.get(f"{found.path_of(name)}/instructions").json()["instructions"]
            described["status"]["worksBy"] = [each["name"] for each in instructions]
    print_text(as_yaml(described).rstrip("\n"))


def delete(kind: str, name: str, /, *, options: ApiOptions = DEFAULTS) -> None:
    """Delete a resource.

    Args:
        kind: A kind as for `get`, except jobs: the engine deletes those after their retention time.
        name: The resource's name.
    """
    from labrats.cli.resource_kinds import find_kind

    if (found := find_kind(kind)) is None:
        raise CommandError(
            f"the engine deletes jobs after their retention time; to end this one: `labrats cancel {name}`",
            ExitCode.USAGE,
        )
    with options.connect() as client:
        found.delete(client, name)
    print_stderr(f"{found.name} {name} deleted")


def _get_jobs(client: "Client", name: str | None, output: str) -> None:
    from labrats.cli.yaml_files import as_yaml

    answer: dict[str, Any] = client.get("/api/jobs").json() if name is None else _job(client, name)
    if output == "table":
        print_jobs(answer if name is None else {"jobs": [answer], "total": 1, "page": 1, "limit": 1})
    else:
        print_text(as_yaml(answer).rstrip("\n") if output == "yaml" else _as_json(answer))


def _print(kind: "ResourceKind", found: "View | list[View]", output: str) -> None:
    from labrats.cli.yaml_files import as_yaml

    views = found if isinstance(found, list) else [found]
    if output == "json":
        print_text(_as_json(found))
    elif output == "yaml":
        print_text("---\n".join(as_yaml(kind.manifest(each)) for each in views).rstrip("\n"))
    else:
        rows = [[_cell(view.get(field)) for field in kind.columns.values()] for view in views]
        print_table(list(kind.columns), rows)


def _job(client: "Client", job_id: str) -> dict[str, Any]:
    detail: dict[str, Any] = client.get(f"/api/jobs/{quote(job_id, safe='')}").json()
    return detail


def _as_json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


def _cell(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, dict) and "allow" in value:
        return network_text(value)
    return "" if value is None else str(value)
