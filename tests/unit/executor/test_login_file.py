"""Tests of the tokens of logins: they are found in their files, and redacted once they are renewed."""

import json
import os
from pathlib import Path

from labrats.executor.event_lines import EventLines
from labrats.executor.event_writer import EventWriter
from labrats.executor.login_file import LoginFile
from labrats.executor.secret_files import values_to_redact
from labrats.model.login_tokens import MOST_TOKENS, tokens_in
from tests.unit.executor.attempts import events_in, logs_of

CODEX_LOGIN = {
    "OPENAI_API_KEY": None,
    "tokens": {"id_token": "id-1", "access_token": "access-1", "refresh_token": "refresh-1", "account_id": "account-1"},
    "last_refresh": "2030-01-01T00:00:00Z",
}


def test_tokens_are_found_by_the_names_of_their_fields() -> None:
    assert tokens_in(json.dumps(CODEX_LOGIN).encode()) == ["access-1", "refresh-1"]
    claude = {"claudeAiOauth": {"accessToken": "access-1", "scopes": ["user:inference"], "expiresAt": 1}}
    assert tokens_in(json.dumps(claude).encode()) == ["access-1"]


def test_other_content_has_no_tokens() -> None:
    for content in (b"", b"sk-0123456789", b'{"token":', b'"token"', b"\xff", b'{"token":' * 5000, b"[" * 100_000):
        assert tokens_in(content) == []
    assert len(tokens_in(json.dumps([{"token": f"token-{n}"} for n in range(1000)]).encode())) == MOST_TOKENS


def test_short_tokens_of_a_login_among_the_secrets_are_redacted() -> None:
    assert {"access-1", "refresh-1"} < set(values_to_redact({"auth.json": json.dumps(CODEX_LOGIN)}))


def test_file_is_read_again_once_it_has_changed(tmp_path: Path) -> None:
    file = tmp_path / "login.json"
    login = LoginFile(file)
    assert login.new_tokens() == []

    file.write_text('{"token": "token-1"}')
    assert login.new_tokens() == ["token-1"]
    assert login.new_tokens() == []

    file.write_text('{"token": "token-1", "other_token": "token-22"}')
    assert login.new_tokens() == ["token-22"]


def test_nothing_but_a_regular_file_is_read(tmp_path: Path) -> None:
    (tmp_path / "private").write_text('{"token": "token-1"}')
    (tmp_path / "link").symlink_to(tmp_path / "private")
    os.mkfifo(tmp_path / "pipe")

    assert LoginFile(tmp_path / "link").new_tokens() == LoginFile(tmp_path / "pipe").new_tokens() == []


def test_renewed_token_is_redacted_in_the_next_event_and_after_the_file_is_gone(tmp_path: Path) -> None:
    file, output = tmp_path / "login.json", tmp_path / "output.jsonl"
    file.write_text('{"token": "token-1"}')
    with output.open("wb") as stream:
        events = EventWriter(EventLines(stream.fileno(), tmp_path))
        events.redact_login(file)
        events.log("token-1", "agent")
        file.write_text('{"token": "token-number-2"}')
        events.log("token-number-2", "agent")
        file.unlink()
        events.log("token-1 token-number-2", "agent")

    assert logs_of(events_in(output)) == ["[redacted]", "[redacted]", "[redacted] [redacted]"]
