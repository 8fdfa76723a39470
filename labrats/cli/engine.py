"""The commands for the engine itself: serve, login-link and config."""

import asyncio
import errno
import json
import platform
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, contextmanager
from dataclasses import asdict, dataclass
from datetime import datetime
from functools import partial
from itertools import pairwise
from pathlib import Path
from textwrap import indent
from typing import TYPE_CHECKING, Annotated, Any, Literal, Protocol, TypeVar

from cyclopts import Parameter

from labrats.cli.errors import CommandError, ExitCode
from labrats.cli.options import ApiOptions, DataDir, Json
from labrats.cli.output import paint, print_stderr, print_text

if TYPE_CHECKING:
    from labrats.model.backup import BackupSummary
    from labrats.model.errors import Problem
    from labrats.model.record import Resource
    from labrats.ports import Store
    from labrats.settings import EngineSettings, KubernetesSettings

R = TypeVar("R", bound="Resource")

OnCreate = Callable[[Path], None]

ProblemsIn = Callable[[str, str, dict[str, Any]], "Sequence[Problem]"]


class EngineCommands(Protocol):
    """The operations that the command line performs on the engine itself. main.py implements them.

    An option that is None takes its value from the settings. Every method raises pydantic's ValidationError when the
    environment has invalid settings.
    """

    def serve(
        self,
        on_ready: Callable[[str, str | None], None],
        *,
        host: str | None,
        port: int | None,
        data_dir: Path | None,
        backend: str | None,
        role: str | None,
        sandbox: Literal["true"] | None,
    ) -> None:
        """Run the engine until SIGINT or SIGTERM.

        on_ready: called once in the event loop when the engine answers requests, with its base URL and, if its owner
                  signs in with a login link, such a link.
        Raises OSError when the engine cannot listen on the address, and LabratsError when it must not listen there
        or the data folder is in use.
        """
        ...

    def back_up(self, data_dir: Path | None, target: Path) -> "BackupSummary":
        """Back up a data folder into a new file. Raises LabratsError, OSError."""
        ...

    def restore(self, source: Path, data_dir: Path | None) -> "BackupSummary":
        """Restore a backup into an empty data folder. Raises LabratsError, OSError."""
        ...

    def open_store(
        self, data_dir: Path | None, on_create: OnCreate | None = None
    ) -> AbstractAsyncContextManager["Store"]:
        """Open the store of a data folder, even while an engine uses it.

        on_create: called with a data folder that has no data yet, before the store is created there.
        Raises LabratsError for such a folder without `on_create`.
        """
        ...

    def create_api_key(
        self,
        name: str,
        scopes: Sequence[str],
        expires_at: datetime | None,
        data_dir: Path | None,
        on_create: OnCreate,
    ) -> str:
        """Create an API key in the store and return it. Raises LabratsError, or Conflict when the name is taken."""
        ...

    async def login_link(self, data_dir: Path | None, url: str) -> str:
        """Create a one-time login link for the engine at `url` that uses this data folder."""
        ...

    def manifests(self, namespace: str, image: str, executor_image: str, *, labelled_credentials: bool) -> str:
        """Return all manifests of an installation on a cluster, as YAML."""
        ...

    def custom_resources(self) -> str:
        """Return only the custom resource definitions, as YAML."""
        ...

    def problems_in(self, kind: str, name: str, spec: dict[str, Any]) -> "Sequence[Problem]":
        """Return the problems for which the API would refuse a resource with this kind, name and spec."""
        ...

    def settings(self) -> "EngineSettings":
        """Read the engine's settings from the environment."""
        ...

    def keeps_open_network(self) -> bool:
        """Return whether the data folder is older than the default `public` for the network of agents."""
        ...

    def stored(self, kind: "type[R]") -> "Sequence[R]":
        """Return the resources in the data folder; none if it has no data, or those of an earlier version."""
        ...

    def cluster_network(self) -> tuple[str | None, bool | None]:
        """Return what is known of the cluster's network, from the leader's checks.

        First why network rules cannot be enforced, as part of a sentence; None if nothing is known against it. Then
        whether the pods of jobs without a rule are kept from the cluster's network; None if it is unknown.
        """
        ...


def require_linux(command: str) -> None:
    """Raise CommandError on another system, where the engine cannot run, and the commands of a client can."""
    if sys.platform != "linux":
        advice = (
            "run the engine on Linux, in a container or on a virtual machine. The other commands work here: see --url"
        )
        raise CommandError(f"{command} needs Linux, and this is {platform.system()}: {advice}", ExitCode.USAGE)


def serve_command(engine: EngineCommands) -> Callable[..., None]:
    """Build `labrats serve`."""

    def serve(
        *,
        host: Annotated[str | None, Parameter(env_var="LABRATS_HOST")] = None,
        port: Annotated[int | None, Parameter(env_var="PORT")] = None,
        data_dir: DataDir = None,
        backend: Annotated[Literal["embedded", "kubernetes"] | None, Parameter(env_var="LABRATS_BACKEND")] = None,
        role: Annotated[
            Literal["all", "api", "controller", "publisher", "webhook-receiver"] | None,
            Parameter(env_var="LABRATS_ROLE"),
        ] = None,
        sandbox: Annotated[bool, Parameter(negative=(), show_default=False)] = False,
        demo: Annotated[bool, Parameter(negative=(), show_default=False)] = False,
    ) -> None:
        """Run the engine in the foreground until Ctrl-C.

        `labrats config` shows all other settings.

        Args:
            host: The address to listen on. [default: 127.0.0.1]
            port: The port to listen on; 0 selects a free port. [default: 3001]
            data_dir: The folder for all data of the engine. Default: ~/.local/share/labrats.
            backend: Where jobs are stored and run: on this machine, or on the configured cluster. [default: embedded]
            role: The part of the engine to run. On a cluster, each part can have several replicas, and each
                webhook source has a webhook-receiver. [default: all]
            sandbox: Refuse to start unless agents can run in a sandbox. Same as LABRATS_SANDBOX=true.
            demo: Also submit a first job, show its log, and print commands to try next.
        """
        require_linux("labrats serve")
        with startup_errors_explained(host or "127.0.0.1", 3001 if port is None else port):
            greet = partial(_greet, demo, role in (None, "all", "api"), data_dir)
            engine.serve(
                greet,
                host=host,
                port=port,
                data_dir=data_dir,
                backend=backend,
                role=role,
                sandbox="true" if sandbox else None,
            )

    return serve


def login_link_command(engine: EngineCommands) -> Callable[..., None]:
    """Build `labrats login-link`."""

    def login_link(
        *,
        url: Annotated[str | None, Parameter(env_var="LABRATS_URL", metavar="URL")] = None,
        data_dir: DataDir = None,
    ) -> None:
        """Print a link that signs in to the dashboard. It works once, within 15 minutes.

        The command needs access to the engine's data folder. The engine may be running.

        Args:
            url: The engine's URL for the browser. Default: that of the engine on the data folder.
            data_dir: The engine's data folder. Default: ~/.local/share/labrats.
        """
        with startup_errors_explained():
            require_linux("labrats login-link")
            print_text(asyncio.run(engine.login_link(data_dir, ApiOptions(url=url, data_dir=data_dir).base_url)))

    return login_link


def config_command(engine: EngineCommands) -> Callable[..., None]:
    """Build `labrats config`."""

    def config(*, json: Json = False) -> None:
        """Show all settings of the engine; with LABRATS_BACKEND=kubernetes, also those of a cluster.

        For each setting: its environment variable, its current value, its default and a description.

        Args:
            json: Print JSON.
        """
        with startup_errors_explained():
            settings = engine.settings()
            rows = list_settings(settings)
            if settings.backend == "kubernetes":
                from labrats.settings import KubernetesSettings

                rows += list_settings(KubernetesSettings())
        _print_settings(rows, as_json=json)

    return config


def _greet(demo: bool, has_dashboard: bool, data_dir: Path | None, url: str, login_link: str | None) -> None:
    """Print the address and the login link of the engine that has just started, and start the demo."""
    print_text(f"The engine is running at {url}" + (", which is also its dashboard" if has_dashboard else ""))
    if login_link:
        print_text(f"To sign in, open this link once within 15 minutes: {login_link}")
    if demo:
        from labrats.cli.demo import start_demo

        start_demo(ApiOptions(url=url, data_dir=data_dir))


@contextmanager
def startup_errors_explained(host: str = "", port: int = 0) -> Iterator[None]:
    """Convert errors of the environment, the address or the data folder into a CommandError."""
    from pydantic import ValidationError

    from labrats.model.errors import LabratsError

    try:
        yield
    except ValidationError as error:
        messages = [f"  {_setting_error(problem)}" for problem in error.errors()]
        raise CommandError("\n".join(["invalid settings:", *messages]), ExitCode.USAGE) from error
    except LabratsError as error:
        raise CommandError(str(error), ExitCode.USAGE) from error
    except OSError as error:
        raise CommandError(_startup_error(error, host, port), ExitCode.USAGE) from error


def _setting_error(problem: Mapping[str, Any]) -> str:
    """Return pydantic's message about a setting in plain words. An error about several settings names them itself."""
    name = "".join(f"{part}: " for part in problem["loc"])
    if problem["type"] in ("too_short", "string_too_short"):
        return f"{name}must have at least {problem['ctx']['min_length']} characters"
    if problem["type"] == "missing":
        return f"{name}is required"
    words = str(problem["msg"]).removeprefix("Value error, ").partition(", unable to ")[0]
    return name + words.replace("Input should ", "must ")


def note_new_folder(data_dir: Path) -> None:
    """Say that a command stores the first data in a folder: the engine may use another one."""
    print_stderr(f"note: {data_dir} had no data of an engine yet; start the engine with --data-dir {data_dir}")


def _startup_error(error: OSError, host: str, port: int) -> str:
    if error.filename is not None:
        return f"{error.filename}: {error.strerror}"
    if error.errno == errno.EADDRINUSE:
        return f"port {port} is in use, perhaps by another engine; choose another port with --port or PORT"
    return f"cannot listen on port {port} of {host}: {error.strerror}"


@dataclass(frozen=True)
class Setting:
    """A setting as `labrats config` shows it. Secrets are masked."""

    name: str
    environment: str
    value: Any
    default: Any
    description: str


def list_settings(settings: "EngineSettings | KubernetesSettings") -> list[Setting]:
    """List all settings in the order of their class."""
    descriptions = _docstrings_of_fields(type(settings))
    return [
        Setting(
            name=name,
            environment=str(field.validation_alias),
            value=_masked(getattr(settings, name)),
            default=_masked(None if field.is_required() else field.get_default(call_default_factory=True)),
            description=descriptions.get(name, ""),
        )
        for name, field in type(settings).model_fields.items()
    ]


def _docstrings_of_fields(model: type) -> dict[str, str]:
    """Return the docstring below each field of a class. Pydantic would read them at each start of the engine."""
    import ast
    import inspect

    (definition,) = ast.parse(inspect.getsource(model)).body
    assert isinstance(definition, ast.ClassDef)
    return {
        field.target.id: inspect.cleandoc(str(text.value.value))
        for field, text in pairwise(definition.body)
        if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name)
        if isinstance(text, ast.Expr) and isinstance(text.value, ast.Constant)
    }


def _masked(value: Any) -> Any:
    """Convert `value` for JSON. Secrets become asterisks."""
    from pydantic import BaseModel

    if isinstance(value, tuple):
        return [_masked(item) for item in value]
    if isinstance(value, BaseModel):
        return value.model_dump(by_alias=True)
    return value if isinstance(value, bool | int | float | dict) or value is None else str(value)


def _print_settings(rows: Sequence[Setting], *, as_json: bool) -> None:
    if as_json:
        print(json.dumps({"settings": [asdict(setting) for setting in rows]}, indent=2))
        return
    for setting in rows:
        changed = "" if setting.value == setting.default else f"   (default: {_as_text(setting.default)})"
        print(f"{paint(setting.environment, 'bold')}={_as_text(setting.value)}{changed}")
        print(indent(setting.description, "    "))


def _as_text(value: Any) -> str:
    if isinstance(value, list):
        return ",".join(map(str, value))
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, dict):
        return json.dumps(value)
    return "" if value is None else str(value)
