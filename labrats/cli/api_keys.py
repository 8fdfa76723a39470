"""The commands for API keys."""

import getpass
import json
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import quote

from cyclopts import App, Parameter

from labrats.cli.durations import describe_time
from labrats.cli.engine import EngineCommands, note_new_folder, startup_errors_explained
from labrats.cli.errors import CommandError, ExitCode
from labrats.cli.options import DEFAULTS, ApiOptions
from labrats.cli.output import print_stderr, print_table, print_text


def api_keys_app(engine: EngineCommands) -> App:
    """Build `labrats api-key`. With --direct, `engine` creates a key in its store without the API."""
    app = App(name="api-key", help="Create, list and revoke API keys.")

    @app.command
    def create(
        name: str,
        /,
        *,
        scope: Literal["submit", "viewer", "admin"] = "submit",
        expires_at: str | None = None,
        direct: Annotated[bool, Parameter(negative=(), show_default=False)] = False,
        options: ApiOptions = DEFAULTS,
    ) -> None:
        """Create a key and print it. The key is shown only once: the engine stores its hash.

        Args:
            name: A name that says what the key is for.
            scope: submit: submit jobs and see the jobs submitted with the key. viewer: see everything, and change
                nothing. admin: everything.
            expires_at: The time at which the key expires, such as 2030-01-31T00:00:00Z. Default: never.
            direct: Write the key to the engine's store instead of calling the API, to create the first key. With
                LABRATS_BACKEND=kubernetes it is valid at once; on one machine, from the engine's next start.
        """
        if direct:
            key = _create_in_store(engine, name, scope, expires_at, options.data_dir)
            print_text(json.dumps({"name": name, "scopes": [scope], "key": key}) if options.json else key)
        else:
            _create_by_api(name, scope, expires_at, options)
        if not options.json:
            print_stderr("this is the only time the key is shown")
            if direct:
                print_stderr("an engine on one machine knows it from its next start on")
            if scope == "submit":
                print_stderr("on one machine without a sandbox, a submit key is as powerful as an admin key")

    app.command(hash_key_from_stdin, name="hash")
    app.command(list_keys, name="list")
    app.command(revoke)
    return app


def _create_in_store(
    engine: EngineCommands, name: str, scope: str, expires_at: str | None, data_dir: Path | None
) -> str:
    from labrats.model.errors import Conflict

    try:
        expiry = datetime.fromisoformat(expires_at) if expires_at else None
    except ValueError as error:
        raise CommandError(f"--expires-at: {error}", ExitCode.USAGE) from error
    if expiry and expiry.tzinfo is None:
        raise CommandError("--expires-at has no time zone; end it with Z for UTC", ExitCode.USAGE)
    if expiry and expiry <= datetime.now(UTC):
        raise CommandError("--expires-at must be in the future", ExitCode.USAGE)
    with startup_errors_explained():
        try:
            return engine.create_api_key(name, [scope], expiry, data_dir, note_new_folder)
        except Conflict as error:
            raise CommandError(f"an API key named {name!r} already exists", ExitCode.REFUSED) from error


def _create_by_api(name: str, scope: str, expires_at: str | None, options: ApiOptions) -> None:
    body: dict[str, Any] = {"name": name, "scopes": [scope]}
    if expires_at is not None:
        body["expiresAt"] = expires_at
    with options.connect() as client:
        answer = client.post("/api/api-keys", body)
    print_text(answer.text if options.json else answer.json()["key"])


def hash_key_from_stdin() -> None:
    """Print the hash of a key from standard input, for a Secret in GitOps that has no plain key.

    For example: `labrats api-key hash < key.txt`. The Secret has it as `hash` instead of `key`.
    """
    from labrats.model.api_key import SHORTEST_KEY, hash_key  # other commands do not need it

    key = (getpass.getpass("API key: ") if sys.stdin.isatty() else sys.stdin.read(1024)).strip()
    if len(key) < SHORTEST_KEY:
        raise CommandError(
            f"the key has {len(key)} characters, and needs at least {SHORTEST_KEY}; `echo lr_$(openssl rand -hex 24)` "
            "makes one",
            ExitCode.USAGE,
        )
    print_text(hash_key(key))


def list_keys(*, options: ApiOptions = DEFAULTS) -> None:
    """List the keys. Only the first characters of each key are shown."""
    with options.connect() as client:
        answer = client.get("/api/api-keys")
    if options.json:
        print_text(answer.text)
        return
    print_table(
        ["ID", "NAME", "PREFIX", "SCOPES", "CREATED", "EXPIRES"],
        [
            [
                key["id"],
                key["name"],
                key["prefix"],
                ", ".join(key["scopes"]),
                describe_time(key.get("createdAt")),
                describe_time(key.get("expiresAt")),
            ]
            for key in answer.json()["apiKeys"]
        ],
    )


def revoke(key_id: str, /, *, options: ApiOptions = DEFAULTS) -> None:
    """Revoke a key at once.

    Args:
        key_id: The key's id from `labrats api-key list`.
    """
    with options.connect() as client:
        client.delete(f"/api/api-keys/{quote(key_id, safe='')}")
    print_stderr(f"{key_id} revoked")
