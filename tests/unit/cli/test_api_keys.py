"""`labrats api-key …`."""

from tests.unit.cli.engines import Labrats, ScriptedEngine

KEY = {
    "id": "key-1b158839f8",
    "name": "ci",
    "prefix": "lr_test1",
    "scopes": ["submit"],
    "createdAt": "2030-01-31T12:00:59.123456Z",
    "expiresAt": None,
}


def test_a_new_key_is_printed_alone_so_that_a_script_can_take_it(labrats: Labrats, engine: ScriptedEngine) -> None:
    engine.answers("POST /api/api-keys", KEY | {"key": "lr_test1-of-a-key"}, status=201)
    ended = labrats("api-key", "create", "ci")
    assert (ended.code, ended.out) == (0, "lr_test1-of-a-key\n")
    assert engine.requests[0].json == {"name": "ci", "scopes": ["submit"]}


def test_a_key_may_be_an_admins_and_expire(labrats: Labrats, engine: ScriptedEngine) -> None:
    engine.answers("POST /api/api-keys", KEY | {"key": "lr_test1-of-a-key"}, status=201)
    labrats("api-key", "create", "ops", "--scope", "admin", "--expires-at", "2030-01-31T00:00:00Z")
    assert engine.requests[0].json == {"name": "ops", "scopes": ["admin"], "expiresAt": "2030-01-31T00:00:00Z"}


def test_keys_are_listed_by_their_beginning(labrats: Labrats, engine: ScriptedEngine) -> None:
    engine.answers("GET /api/api-keys", {"apiKeys": [KEY]})
    assert labrats("api-key", "list").out.splitlines()[1] == (
        "key-1b158839f8  ci    lr_test1  submit  2030-01-31 12:00:59 UTC"
    )


def test_a_key_is_revoked_by_its_id(labrats: Labrats, engine: ScriptedEngine) -> None:
    engine.answers("DELETE /api/api-keys/key-1b158839f8", {})
    assert labrats("api-key", "revoke", "key-1b158839f8") == (0, "", "key-1b158839f8 is revoked\n")
