"""The commands for secrets: the credentials of models and jobs.

They work on the engine's data folder instead of the API, so that a secret's value never travels over the network. A
running engine uses a changed secret from the next attempt on.
"""

import asyncio
import getpass
import json
import re
import sys
from collections.abc import Awaitable, Callable
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Final, TypeVar

from cyclopts import App

from labrats.cli.engine import EngineCommands, OnCreate, note_new_folder, require_linux, startup_errors_explained
from labrats.cli.errors import CommandError, ExitCode
from labrats.cli.options import DataDir, Json
from labrats.cli.output import print_stderr, print_table, print_text
from labrats.model.provider_spec import PROVIDER_SPECS

if TYPE_CHECKING:
    from labrats.model.core_resources import Secret
    from labrats.ports import Store

T = TypeVar("T")

_NAME: Final = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*")
_MAX_NAME_LENGTH: Final = 63
_MAX_VALUE_BYTES: Final = 512 * 1024
_MODEL_VENDORS: Final = ("anthropic", "claude", "openai", "codex")
_KEY: Final = re.compile(r"[-._a-zA-Z0-9]{1,253}")


def secrets_app(engine: EngineCommands) -> App:
    """Build `labrats secret`; `engine` opens the store."""
    app = App(name="secret", help="Set, list and delete credentials for models and jobs in the engine's data folder.")

    @app.command(name="set")
    def set_secret(name: str, key: str, /, *, data_dir: DataDir = None) -> None:
        """Set one key of a secret. The value is read from standard input.

        Jobs get the secret through an AiModel whose credentials name it.

        Args:
            name: The secret's name.
            key: The key in the secret, such as ANTHROPIC_API_KEY, CLAUDE_CODE_OAUTH_TOKEN, OPENAI_API_KEY or auth.json.
            data_dir: The engine's data folder. Default: ~/.local/share/labrats.
        """
        _check_names(name, key)
        value = _read_value(name, key)
        _with_store(engine, data_dir, lambda store: put_value(store, name, key, value), note_new_folder)
        print_stderr(f"secret {name}: {key} set")
        _warn_about_unread_key(name, key)

    @app.command(name="list")
    def list_secrets(*, data_dir: DataDir = None, json: Json = False) -> None:
        """List the secrets and their keys, never their values.

        Args:
            data_dir: The engine's data folder. Default: ~/.local/share/labrats.
            json: Print JSON.
        """
        _print_secrets(_with_store(engine, data_dir, user_secrets), as_json=json)

    @app.command(name="delete")
    def delete_secret(name: str, key: str | None = None, /, *, data_dir: DataDir = None) -> None:
        """Delete a secret, or one key of it.

        Args:
            name: The secret's name.
            key: The key to delete. Default: the whole secret.
            data_dir: The engine's data folder. Default: ~/.local/share/labrats.
        """
        _with_store(engine, data_dir, lambda store: remove_value(store, name, key))
        print_stderr(f"secret {name}: {key} deleted" if key else f"secret {name} deleted")

    return app


async def put_value(store: "Store", name: str, key: str, value: str) -> None:
    """Set a key of a secret, and create the secret if it does not exist.

    Raises CommandError when the secret belongs to the engine.
    """
    from msgspec.structs import replace

    from labrats.model.core_resources import JOB_CREDENTIALS, Secret
    from labrats.model.errors import NotFound
    from labrats.model.record import Metadata

    try:
        secret = await store.get(Secret, name)
    except NotFound:
        await store.create(Secret(metadata=Metadata(name=name, labels=JOB_CREDENTIALS), data={key: value}))
        return
    _refuse_engine_secret(secret)
    metadata = replace(secret.metadata, labels=secret.metadata.labels | JOB_CREDENTIALS)
    await store.update(replace(secret, metadata=metadata, data={**secret.data, key: value}))


async def remove_value(store: "Store", name: str, key: str | None) -> None:
    """Delete a secret, or only one key of it.

    Raises NotFound, or CommandError when the secret belongs to the engine.
    """
    from msgspec.structs import replace

    from labrats.model.core_resources import Secret
    from labrats.model.errors import NotFound

    secret = await store.get(Secret, name)
    _refuse_engine_secret(secret)
    if key is None:
        await store.delete(Secret, name, secret.metadata.resource_version)
        return
    if key not in secret.data:
        raise NotFound(f"secret {name} has no key {key}")
    await store.update(replace(secret, data={k: v for k, v in secret.data.items() if k != key}))


async def user_secrets(store: "Store") -> "list[Secret]":
    """List the secrets that users created, without API keys and the secrets of jobs."""
    from labrats.model.core_resources import Secret

    return [secret for secret in await store.list(Secret) if not _belongs_to_engine(secret)]


def _belongs_to_engine(secret: "Secret") -> bool:
    from labrats.model.core_resources import is_of_engine

    return is_of_engine(secret) or secret.metadata.owner is not None


def _refuse_engine_secret(secret: "Secret") -> None:
    if _belongs_to_engine(secret):
        raise CommandError(f"secret {secret.name} belongs to the engine; choose another name", ExitCode.USAGE)


def _with_store(
    engine: EngineCommands,
    data_dir: Path | None,
    act: "Callable[[Store], Awaitable[T]]",
    on_create: OnCreate | None = None,
) -> T:
    from labrats.model.errors import NotFound

    require_linux("labrats secret")

    async def open_and_act() -> T:
        async with engine.open_store(data_dir, on_create) as store:
            return await act(store)

    with startup_errors_explained():
        try:
            return asyncio.run(open_and_act())
        except NotFound as error:
            raise CommandError(str(error), ExitCode.REFUSED) from error


def _check_names(name: str, key: str) -> None:
    """Raise CommandError for a name or key that Kubernetes would not accept."""
    if len(name) > _MAX_NAME_LENGTH or not _NAME.fullmatch(name):
        rule = (
            f"at most {_MAX_NAME_LENGTH} lower-case letters and digits, with dashes and single dots only between them"
        )
        raise CommandError(f"the secret's name must have {rule}, not {name!r}", ExitCode.USAGE)
    if not _KEY.fullmatch(key):
        letters = "only letters, digits, dashes, dots and underscores"
        raise CommandError(f"the key must have {letters}, not {key!r}", ExitCode.USAGE)


def _read_value(name: str, key: str) -> str:
    """Read the value from standard input without its final line end. On a terminal, prompt for it without echo."""
    value = getpass.getpass(f"{key} of {name}: ") if sys.stdin.isatty() else sys.stdin.read(_MAX_VALUE_BYTES + 2)
    value = value.removesuffix("\n")
    if len(value.encode("utf-8", "surrogateescape")) > _MAX_VALUE_BYTES:
        raise CommandError(f"the value is too long; it may have at most {_MAX_VALUE_BYTES // 1024} KiB", ExitCode.USAGE)
    if not value:
        raise CommandError("the value on standard input is empty", ExitCode.USAGE)
    return value


def _warn_about_unread_key(name: str, key: str) -> None:
    """Print a note if the key seems to be meant for a model, and no model reads it.

    MCP servers and webhook sources may read any other key.
    """
    from labrats.model.webhook_source import APP_ID, COMMITTER, PRIVATE_KEY, SIGNING_KEY, TOKEN

    known = sorted({name for names in (spec.keys for spec in PROVIDER_SPECS.values()) for name in names})
    others = (APP_ID, PRIVATE_KEY, TOKEN, SIGNING_KEY, COMMITTER)
    if key in known or key in others:
        return
    if similar := get_close_matches(key, [*known, *others], n=1, cutoff=0.8):
        print_stderr(f"note: {key} is not a known key; did you mean {similar[0]}?")
    elif name in _MODEL_VENDORS or any(each.endswith(f"_{key.upper()}") for each in known):
        print_stderr(f"note: no model reads {key}; the keys that models read are {', '.join(known)}")


def _print_secrets(secrets: "list[Secret]", *, as_json: bool) -> None:
    if as_json:
        shown = [{"name": secret.name, "keys": sorted(secret.data)} for secret in secrets]
        print_text(json.dumps({"secrets": shown}))
    else:
        print_table(["NAME", "KEYS"], [[secret.name, ", ".join(sorted(secret.data))] for secret in secrets])
