"""The commands that are about the engine itself: serve and config."""

import asyncio
import errno
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, contextmanager
from dataclasses import asdict, dataclass
from datetime import datetime
from functools import partial
from pathlib import Path
from textwrap import indent
from typing import TYPE_CHECKING, Annotated, Any, Literal, Protocol

from cyclopts import Parameter

from labrats.cli.exits import CommandError, ExitCode
from labrats.cli.options import ApiOptions, DataDir, Json
from labrats.cli.output import paint, print_text

if TYPE_CHECKING:
    from labrats.model.errors import Problem
    from labrats.ports import Store
    from labrats.settings import EngineSettings


ProblemsIn = Callable[[str, str, dict[str, Any]], "Sequence[Problem]"]


class EngineCommands(Protocol):
    """What the command line needs of the engine. main.py hands it in, the only module that names a backend.

    None for an option means: as the settings say. All raise pydantic's ValidationError when the environment holds
    settings that make no sense.
    """

    def serve(
        self,
        host: str | None,
        port: int | None,
        data_dir: Path | None,
        on_ready: Callable[[str, str | None], None],
        backend: str | None,
        role: str | None,
        sandbox: str | None,
    ) -> None:
        """Run the engine until SIGINT or SIGTERM.

        on_ready: called once in the event loop when requests will be answered, with the engine's base URL and, where
                  its owner signs in by one, a login link.
        Raises OSError when it cannot listen, LabratsError when it must not or when the data folder is in use.
        """
        ...

    def open_store(self, data_dir: Path | None) -> AbstractAsyncContextManager["Store"]:
        """The store of a data folder, also while an engine uses it."""
        ...

    def create_api_key(
        self, name: str, scopes: Sequence[str], expires_at: datetime | None, data_dir: Path | None
    ) -> str:
        """Make a key in the store itself, and return it. Raises LabratsError, Conflict when the name is taken."""
        ...

    async def login_link(self, data_dir: Path | None, url: str) -> str:
        """A new one-time login link to the engine at `url` on that data folder."""
        ...

    def manifests(self, namespace: str, image: str, executor_image: str, *, labelled_credentials: bool) -> str:
        """What an installation on a cluster is made of, as YAML."""
        ...

    def custom_resources(self) -> str:
        """The definitions of the custom resources alone, as YAML."""
        ...

    def problems_in(self, kind: str, name: str, spec: dict[str, Any]) -> "Sequence[Problem]":
        """What the API would not take in a resource of that kind and name; nothing where all is well."""
        ...

    def settings(self) -> "EngineSettings":
        """The engine's settings as the environment gives them."""
        ...


def serve_command(engine: EngineCommands) -> Callable[..., None]:
    """`labrats serve`."""

    def serve(
        *,
        host: Annotated[str | None, Parameter(env_var="LABRATS_HOST")] = None,
        port: Annotated[int | None, Parameter(env_var="PORT")] = None,
        data_dir: DataDir = None,
        backend: Annotated[Literal["embedded", "kubernetes"] | None, Parameter(env_var="LABRATS_BACKEND")] = None,
        role: Annotated[
            Literal["all", "api", "controller", "webhook-receiver"] | None, Parameter(env_var="LABRATS_ROLE")
        ] = None,
        sandbox: Annotated[bool, Parameter(negative=(), show_default=False)] = False,
        demo: Annotated[bool, Parameter(negative=(), show_default=False)] = False,
    ) -> None:
        """Run the engine in the foreground, until Ctrl-C.

        `labrats config` shows its other settings.

        Args:
            host: The address to listen on. [default: 127.0.0.1]
            port: The port to listen on; 0 takes a free one. [default: 3001]
            data_dir: Where everything is kept. Default: ~/.local/share/labrats.
            backend: Where jobs are kept and run: this machine, or the cluster that is configured. [default: embedded]
            role: What of it to run: on a cluster, several can answer requests, several stand by to drive jobs, and each
                webhook source has a receiver. [default: all]
            sandbox: Refuse to start where agents cannot run in a sandbox: LABRATS_SANDBOX=true.
            demo: Also submit a first job, show what it does, and say what to try next.
        """
        with startup_errors_explained(host or "127.0.0.1", 3001 if port is None else port):
            greet = partial(_greet, demo, data_dir)
            engine.serve(host, port, data_dir, greet, backend, role, "true" if sandbox else None)

    return serve


def login_link_command(engine: EngineCommands) -> Callable[..., None]:
    """`labrats login-link`."""

    def login_link(
        *,
        url: Annotated[str | None, Parameter(env_var="LABRATS_URL", metavar="URL")] = None,
        data_dir: DataDir = None,
    ) -> None:
        """Print a link that signs in to the dashboard, once, within 15 minutes.

        For whoever owns the engine's data folder, also while the engine runs on it.

        Args:
            url: Where the browser finds the engine. Default: http://127.0.0.1:3001, or the port in PORT.
            data_dir: The engine's data folder. Default: ~/.local/share/labrats.
        """
        with startup_errors_explained():
            print_text(asyncio.run(engine.login_link(data_dir, ApiOptions(url=url).base_url)))

    return login_link


def config_command(engine: EngineCommands) -> Callable[..., None]:
    """`labrats config`."""

    def config(*, json: Json = False) -> None:
        """Show every setting of the engine.

        Each with the environment variable that sets it, its value here, its default and its meaning.

        Args:
            json: Print JSON.
        """
        with startup_errors_explained():
            settings = engine.settings()
        _print_settings(settings, as_json=json)

    return config


def _greet(demo: bool, data_dir: Path | None, url: str, login_link: str | None) -> None:
    """Say what to do with the engine that has just started."""
    if login_link:
        print_text(f"To sign in, once, within 15 minutes: {login_link}")
    if demo:
        from labrats.cli.demo import start_demo

        start_demo(ApiOptions(url=url, data_dir=data_dir))


@contextmanager
def startup_errors_explained(host: str = "", port: int = 0) -> Iterator[None]:
    """Turn what can be wrong with the environment, the address or the data folder into a CommandError."""
    from pydantic import ValidationError

    from labrats.model.errors import LabratsError

    try:
        yield
    except ValidationError as error:
        wrong = [f"  {_wrong_setting(problem)}" for problem in error.errors()]
        raise CommandError("\n".join(["these settings make no sense:", *wrong]), ExitCode.USAGE) from error
    except LabratsError as error:
        raise CommandError(str(error), ExitCode.USAGE) from error
    except OSError as error:
        raise CommandError(_why_not_started(error, host, port), ExitCode.USAGE) from error


def _wrong_setting(problem: Mapping[str, Any]) -> str:
    """What pydantic says of a setting, without its own words. What is wrong with several at once names them itself."""
    name = "".join(f"{part}: " for part in problem["loc"])
    if problem["type"] == "too_short":
        return f"{name}must have at least {problem['ctx']['min_length']} characters"
    words = str(problem["msg"]).removeprefix("Value error, ").partition(", unable to ")[0]
    return name + words.replace("Input should ", "must ")


def _why_not_started(error: OSError, host: str, port: int) -> str:
    if error.filename is not None:
        return f"{error.filename}: {error.strerror}"
    if error.errno == errno.EADDRINUSE:
        return f"port {port} is taken, perhaps by another engine; choose another one with --port or PORT"
    return f"cannot listen on port {port} of {host}: {error.strerror}"


@dataclass(frozen=True)
class Knob:
    """One setting as `labrats config` shows it. Secrets are masked."""

    name: str
    environment: str
    value: Any
    default: Any
    description: str


def knobs_of(settings: "EngineSettings") -> list[Knob]:
    """Every setting, in the order of its class."""
    return [
        Knob(
            name=name,
            environment=str(field.validation_alias),
            value=_masked(getattr(settings, name)),
            default=_masked(field.get_default(call_default_factory=True)),
            description=field.description or "",
        )
        for name, field in type(settings).model_fields.items()
    ]


def _masked(value: Any) -> Any:
    """`value` as JSON can hold it, secrets as asterisks."""
    if isinstance(value, tuple):
        return [_masked(item) for item in value]
    return value if isinstance(value, bool | int | float) or value is None else str(value)


def _print_settings(settings: "EngineSettings", *, as_json: bool) -> None:
    knobs = knobs_of(settings)
    if as_json:
        print(json.dumps({"settings": [asdict(knob) for knob in knobs]}, indent=2))
        return
    for knob in knobs:
        changed = "" if knob.value == knob.default else f"   (default: {_shown(knob.default)})"
        print(f"{paint(knob.environment, 'bold')}={_shown(knob.value)}{changed}")
        print(indent(knob.description, "    "))


def _shown(value: Any) -> str:
    if isinstance(value, list):
        return ",".join(map(str, value))
    if isinstance(value, bool):
        return str(value).lower()
    return "" if value is None else str(value)
