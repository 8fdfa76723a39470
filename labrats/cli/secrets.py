"""The commands about secrets: the credentials that models and jobs use.

They work on the engine's data folder, not through the API: a secret's value never travels over the network, and no
API key can read or replace one. A running engine uses a changed secret from the next attempt on.
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

from labrats.cli.engine import EngineCommands
from labrats.cli.exits import CommandError, ExitCode
from labrats.cli.options import DataDir, Json
from labrats.cli.output import print_table, print_text, remark

if TYPE_CHECKING:
    from labrats.model.core_resources import Secret
    from labrats.ports import Store

T = TypeVar("T")

_NAME: Final = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*")
_LONGEST_NAME: Final = 63
_LONGEST_VALUE: Final = 512 * 1024
_KEY: Final = re.compile(r"[-._a-zA-Z0-9]{1,253}")


def secrets_app(engine: EngineCommands) -> App:
    """`labrats secret …` for the data folders that `engine` can open."""
    app = App(name="secret", help="Credentials for models and jobs, kept in the engine's data folder.")

    @app.command(name="set")
    def set_secret(name: str, key: str, /, *, data_dir: DataDir = None) -> None:
        """Set one key of a secret; the value is read from standard input.

        An AiModel whose credentials name the secret hands it to its jobs.

        Args:
            name: The secret's name.
            key: The key in it, such as ANTHROPIC_API_KEY, CLAUDE_CODE_OAUTH_TOKEN, OPENAI_API_KEY or auth.json.
            data_dir: The engine's data folder. Default: ~/.local/share/labrats.
        """
        _check_names(name, key)
        value = _read_value(name, key)
        _with_store(engine, data_dir, lambda store: put_value(store, name, key, value))
        remark(f"{key} of the secret {name} is set")
        _doubt_misspelled(key)

    @app.command(name="list")
    def list_secrets(*, data_dir: DataDir = None, json: Json = False) -> None:
        """List the secrets and their keys, never their values.

        Args:
            data_dir: The engine's data folder. Default: ~/.local/share/labrats.
            json: Print JSON.
        """
        _print_secrets(_with_store(engine, data_dir, own_secrets), as_json=json)

    @app.command(name="delete")
    def delete_secret(name: str, key: str | None = None, /, *, data_dir: DataDir = None) -> None:
        """Delete a secret, or one key of it.

        Args:
            name: The secret's name.
            key: Only this key.
            data_dir: The engine's data folder. Default: ~/.local/share/labrats.
        """
        _with_store(engine, data_dir, lambda store: remove_value(store, name, key))
        remark(f"{key} of the secret {name} is deleted" if key else f"the secret {name} is deleted")

    return app


async def put_value(store: "Store", name: str, key: str, value: str) -> None:
    """Set `key` of the secret `name`, which is made if need be. CommandError when it is the engine's."""
    from msgspec.structs import replace

    from labrats.model.core_resources import JOB_CREDENTIALS, Secret
    from labrats.model.errors import NotFound
    from labrats.model.record import Metadata

    try:
        secret = await store.get(Secret, name)
    except NotFound:
        await store.create(Secret(metadata=Metadata(name=name, labels=JOB_CREDENTIALS), data={key: value}))
        return
    _refuse_foreign(secret)
    metadata = replace(secret.metadata, labels=secret.metadata.labels | JOB_CREDENTIALS)
    await store.update(replace(secret, metadata=metadata, data={**secret.data, key: value}))


async def remove_value(store: "Store", name: str, key: str | None) -> None:
    """Delete the secret `name`, or only `key` of it. Raises NotFound; CommandError when it is not one of the user's."""
    from msgspec.structs import replace

    from labrats.model.core_resources import Secret
    from labrats.model.errors import NotFound

    secret = await store.get(Secret, name)
    _refuse_foreign(secret)
    if key is None:
        await store.delete(Secret, name, secret.metadata.resource_version)
        return
    if key not in secret.data:
        raise NotFound(f"the secret {name} has no key {key}")
    await store.update(replace(secret, data={k: v for k, v in secret.data.items() if k != key}))


async def own_secrets(store: "Store") -> "list[Secret]":
    """The secrets that people set: neither API keys nor what the engine split off a job."""
    from labrats.model.core_resources import Secret

    return [secret for secret in await store.list(Secret) if not _is_foreign(secret)]


def _is_foreign(secret: "Secret") -> bool:
    from labrats.model.core_resources import is_of_engine

    return is_of_engine(secret) or secret.metadata.owner is not None


def _refuse_foreign(secret: "Secret") -> None:
    if _is_foreign(secret):
        raise CommandError(f"{secret.name} belongs to the engine; choose another name", ExitCode.USAGE)


def _with_store(engine: EngineCommands, data_dir: Path | None, act: "Callable[[Store], Awaitable[T]]") -> T:
    from labrats.model.errors import LabratsError, NotFound

    async def open_and_act() -> T:
        async with engine.open_store(data_dir) as store:
            return await act(store)

    try:
        return asyncio.run(open_and_act())
    except NotFound as error:
        raise CommandError(str(error), ExitCode.REFUSED) from error
    except LabratsError as error:
        raise CommandError(str(error), ExitCode.USAGE) from error


def _check_names(name: str, key: str) -> None:
    """Refuse what no model could name, and no cluster would keep."""
    if len(name) > _LONGEST_NAME or not _NAME.fullmatch(name):
        words = "lower-case letters and digits, with dashes and single dots only between them"
        raise CommandError(f"a secret's name is of {words}, not {name!r}", ExitCode.USAGE)
    if not _KEY.fullmatch(key):
        raise CommandError(f"a key is of letters, digits, dashes, dots and underscores, not {key!r}", ExitCode.USAGE)


def _read_value(name: str, key: str) -> str:
    """The value, without the line end that `echo` adds; asked for without echo on a terminal."""
    value = getpass.getpass(f"{key} of {name}: ") if sys.stdin.isatty() else sys.stdin.read(_LONGEST_VALUE + 2)
    value = value.removesuffix("\n")
    if len(value.encode("utf-8", "surrogateescape")) > _LONGEST_VALUE:
        raise CommandError(f"a value may have at most {_LONGEST_VALUE // 1024} KiB", ExitCode.USAGE)
    if not value:
        raise CommandError("no value came on standard input", ExitCode.USAGE)
    return value


def _doubt_misspelled(key: str) -> None:
    """Remark on a key that looks like one of a provider. MCP servers and webhook sources read keys of any name."""
    from labrats.model.config import CREDENTIAL_NAMES
    from labrats.model.webhook_source import APP_ID, PRIVATE_KEY, TOKEN

    known = sorted({name for names in CREDENTIAL_NAMES.values() for name in names})
    alike = get_close_matches(key, [*known, APP_ID, PRIVATE_KEY, TOKEN], n=1, cutoff=0.8)
    if alike and key != alike[0]:
        remark(f"note: providers read {alike[0]}; {key} is another key")


def _print_secrets(secrets: "list[Secret]", *, as_json: bool) -> None:
    if as_json:
        shown = [{"name": secret.name, "keys": sorted(secret.data)} for secret in secrets]
        print_text(json.dumps({"secrets": shown}))
    else:
        print_table(["NAME", "KEYS"], [[secret.name, ", ".join(sorted(secret.data))] for secret in secrets])
