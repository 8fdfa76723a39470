"""The commands about API keys."""

import json
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import quote

from cyclopts import App, Parameter

from labrats.cli.durations import describe_time
from labrats.cli.engine import EngineCommands, startup_errors_explained
from labrats.cli.exits import CommandError, ExitCode
from labrats.cli.options import DEFAULTS, ApiOptions
from labrats.cli.output import print_table, print_text, remark


def api_keys_app(engine: EngineCommands) -> App:
    """`labrats api-key …`; where keys are made without asking an engine, in the stores that `engine` can open."""
    app = App(name="api-key", help="API keys: who may call the engine.")

    @app.command
    def create(
        name: str,
        /,
        *,
        scope: Literal["submit", "admin"] = "submit",
        expires_at: str | None = None,
        direct: Annotated[bool, Parameter(negative=(), show_default=False)] = False,
        options: ApiOptions = DEFAULTS,
    ) -> None:
        """Make a key and print it. It is shown this once: the engine keeps only its hash.

        Args:
            name: What it is for.
            scope: submit: submit jobs and see its own. admin: everything.
            expires_at: When it stops working, such as 2030-01-31T00:00:00Z. Default: never.
            direct: Write it to where the engine keeps its keys, rather than ask the engine: so the first one is made.
                With LABRATS_BACKEND=kubernetes engines know it at once, on one machine from the next start.
        """
        if direct:
            key = _made_directly(engine, name, scope, expires_at, options.data_dir)
            print_text(json.dumps({"name": name, "scopes": [scope], "key": key}) if options.json else key)
        else:
            _ask_for_key(name, scope, expires_at, options)
        if not options.json:
            remark("this is the only time the key is shown")
            if scope == "submit":
                remark("where agents run without a sandbox, on one machine, it is as good as an admin key")

    app.command(list_keys, name="list")
    app.command(revoke)
    return app


def _made_directly(engine: EngineCommands, name: str, scope: str, expires_at: str | None, data_dir: Path | None) -> str:
    from labrats.model.errors import Conflict

    try:
        expiry = datetime.fromisoformat(expires_at) if expires_at else None
    except ValueError as error:
        raise CommandError(f"--expires-at: {error}", ExitCode.USAGE) from error
    if expiry and expiry.tzinfo is None:
        raise CommandError("--expires-at says nothing of the time zone; end it with Z for UTC", ExitCode.USAGE)
    with startup_errors_explained():
        try:
            return engine.create_api_key(name, [scope], expiry, data_dir)
        except Conflict as error:
            raise CommandError(f"there is a key named {name!r} already", ExitCode.REFUSED) from error


def _ask_for_key(name: str, scope: str, expires_at: str | None, options: ApiOptions) -> None:
    body: dict[str, Any] = {"name": name, "scopes": [scope]}
    if expires_at is not None:
        body["expiresAt"] = expires_at
    with options.connect() as client:
        answer = client.post("/api/api-keys", body)
    print_text(answer.text if options.json else answer.json()["key"])


def list_keys(*, options: ApiOptions = DEFAULTS) -> None:
    """List the keys; of each only its beginning."""
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
    """Make a key worthless at once.

    Args:
        key_id: The key's id, as `labrats api-key list` shows it.
    """
    with options.connect() as client:
        client.delete(f"/api/api-keys/{quote(key_id, safe='')}")
    remark(f"{key_id} is revoked")
