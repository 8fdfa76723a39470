"""`labrats api-key …`."""

import io
import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest

from labrats.api.auth.keys import key_secret, new_key
from labrats.model.errors import Conflict, LabratsError
from tests.unit.cli.engines import Labrats, OwnEngine, ScriptedEngine

KEY = {
    "id": "key-1b158839f8",
    "name": "ci",
    "prefix": "lr_test1",
    "scopes": ["submit"],
    "createdAt": "2030-01-31T12:00:59.123456Z",
    "expiresAt": None,
}


def test_create_prints_only_the_key_on_stdout(labrats: Labrats, engine: ScriptedEngine) -> None:
    engine.answers("POST /api/api-keys", KEY | {"key": "lr_test1-of-a-key"}, status=201)
    ended = labrats("api-key", "create", "ci")
    assert (ended.code, ended.out) == (0, "lr_test1-of-a-key\n")
    assert engine.requests[0].json == {"name": "ci", "scopes": ["submit"]}


def test_create_sends_scope_and_expiry(labrats: Labrats, engine: ScriptedEngine) -> None:
    engine.answers("POST /api/api-keys", KEY | {"key": "lr_test1-of-a-key"}, status=201)
    labrats("api-key", "create", "ops", "--scope", "admin", "--expires-at", "2030-01-31T00:00:00Z")
    assert engine.requests[0].json == {"name": "ops", "scopes": ["admin"], "expiresAt": "2030-01-31T00:00:00Z"}


def test_list_shows_key_prefixes(labrats: Labrats, engine: ScriptedEngine) -> None:
    engine.answers("GET /api/api-keys", {"apiKeys": [KEY]})
    assert labrats("api-key", "list").out.splitlines()[1] == (
        "key-1b158839f8  ci    lr_test1  submit  2030-01-31 12:00:59 UTC"
    )


def test_revoke_deletes_a_key_by_id(labrats: Labrats, engine: ScriptedEngine) -> None:
    engine.answers("DELETE /api/api-keys/key-1b158839f8", {})
    assert labrats("api-key", "revoke", "key-1b158839f8") == (0, "", "key-1b158839f8 revoked\n")


def test_hash_of_a_key_is_that_of_its_secret(labrats: Labrats, monkeypatch: pytest.MonkeyPatch) -> None:
    key = new_key()
    monkeypatch.setattr(sys, "stdin", io.StringIO(f"{key}\n"))
    assert labrats("api-key", "hash") == (0, f"{key_secret('ci', key, ['submit']).data['hash']}\n", "")


def test_hash_of_a_short_key_is_refused_with_a_way_to_make_one(
    labrats: Labrats, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO("abc"))
    ended = labrats("api-key", "hash")
    assert (ended.code, ended.out) == (2, "")
    assert "the key has 3 characters, and needs at least 32; `echo lr_$(openssl rand -hex 24)`" in ended.err


def test_create_direct_writes_to_the_store_without_an_engine(
    labrats: Labrats, engine: ScriptedEngine, own_engine: OwnEngine, tmp_path: Path
) -> None:
    options = ("--direct", "--scope", "admin", "--expires-at", "2030-01-31T00:00:00Z", "--data-dir", str(tmp_path))
    ended = labrats("api-key", "create", "ops", *options)
    assert (ended.code, ended.out) == (0, "lr_test-of-a-key\n")
    assert own_engine.created_keys == [("ops", ["admin"], datetime(2030, 1, 31, tzinfo=UTC), tmp_path)]
    assert engine.requests == []


@pytest.mark.parametrize(
    ("refusal", "code", "complaint"),
    [
        (Conflict("taken"), 4, "an API key named 'ops' already exists"),
        (LabratsError("no Kubernetes cluster is configured"), 2, "no Kubernetes cluster is configured"),
    ],
)
def test_create_direct_reports_why_it_failed(
    labrats: Labrats, own_engine: OwnEngine, refusal: Exception, code: int, complaint: str
) -> None:
    own_engine.refusal = refusal
    ended = labrats("api-key", "create", "ops", "--direct")
    assert (ended.code, ended.err) == (code, f"labrats: {complaint}\n")


@pytest.mark.parametrize(
    ("time", "complaint"),
    [
        ("soon", "isoformat"),
        ("2030-01-31T00:00:00", "time zone"),
        ("2001-01-01T00:00:00Z", "must be in the future"),
        ("0001-01-01T00:00:00+14:00", "must be in the future"),
    ],
)
def test_create_direct_refuses_an_invalid_expiry(labrats: Labrats, time: str, complaint: str) -> None:
    ended = labrats("api-key", "create", "ops", "--direct", "--expires-at", time)
    assert ended.code == 2
    assert complaint in ended.err
