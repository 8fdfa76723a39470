"""The commands about API keys."""

from typing import Any, Final, Literal
from urllib.parse import quote

from cyclopts import App

from labrats.cli.durations import describe_time
from labrats.cli.options import DEFAULTS, ApiOptions
from labrats.cli.output import print_table, print_text, remark

api_keys_app: Final = App(name="api-key", help="API keys: who may call the engine.")


@api_keys_app.command
def create(
    name: str,
    /,
    *,
    scope: Literal["submit", "admin"] = "submit",
    expires_at: str | None = None,
    options: ApiOptions = DEFAULTS,
) -> None:
    """Make a key and print it. It is shown this once: the engine keeps only its hash.

    Args:
        name: What it is for.
        scope: submit: submit jobs and see its own. admin: everything.
        expires_at: When it stops working, such as 2030-01-31T00:00:00Z. Default: never.
    """
    body: dict[str, Any] = {"name": name, "scopes": [scope]}
    if expires_at is not None:
        body["expiresAt"] = expires_at
    with options.connect() as client:
        answer = client.post("/api/api-keys", body)
    if options.json:
        print_text(answer.text)
    else:
        print_text(answer.json()["key"])
        remark("this is the only time the key is shown")


@api_keys_app.command(name="list")
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


@api_keys_app.command
def revoke(key_id: str, /, *, options: ApiOptions = DEFAULTS) -> None:
    """Make a key worthless at once.

    Args:
        key_id: The key's id, as `labrats api-key list` shows it.
    """
    with options.connect() as client:
        client.delete(f"/api/api-keys/{quote(key_id, safe='')}")
    remark(f"{key_id} is revoked")
