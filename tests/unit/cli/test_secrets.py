"""`labrats secret`, with a real store."""

import asyncio
import io
import json
import sys
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import TypeVar

import pytest

from labrats.cli.errors import ExitCode
from labrats.model.core_resources import API_KEY_LABEL, API_KEY_LABEL_VALUE, Secret
from labrats.model.record import Metadata, OwnerReference
from labrats.ports import Store
from tests.unit.cli.engines import Ended, Labrats, OwnEngine

T = TypeVar("T")
SetSecret = Callable[..., Ended]


@pytest.fixture
def set_secret(labrats: Labrats, monkeypatch: pytest.MonkeyPatch) -> SetSecret:
    """Return a function that runs `labrats secret set NAME KEY` with a value on standard input."""

    def run(name: str, key: str, value: str) -> Ended:
        monkeypatch.setattr(sys, "stdin", io.StringIO(value))
        return labrats("secret", "set", name, key)

    return run


def in_store(engine: OwnEngine, act: Callable[[Store], Awaitable[T]]) -> T:
    async def open_and_act() -> T:
        async with engine.open_store(None) as store:
            return await act(store)

    return asyncio.run(open_and_act())


def test_set_reads_the_value_from_standard_input_without_the_final_line_end(
    set_secret: SetSecret, own_engine: OwnEngine
) -> None:
    assert set_secret("anthropic", "ANTHROPIC_API_KEY", "sk-test-value\n").code == 0
    secret = in_store(own_engine, lambda store: store.get(Secret, "anthropic"))
    assert secret.data == {"ANTHROPIC_API_KEY": "sk-test-value"}
    assert secret.metadata.labels == {"labrats.work/type": "job-credentials"}


def test_set_preserves_lines_of_the_value(set_secret: SetSecret, own_engine: OwnEngine) -> None:
    set_secret("codex", "auth.json", '{\n  "test": 1\n}\n\n')
    secret = in_store(own_engine, lambda store: store.get(Secret, "codex"))
    assert secret.data == {"auth.json": '{\n  "test": 1\n}\n'}


def test_set_replaces_one_key_and_keeps_the_others(set_secret: SetSecret, own_engine: OwnEngine) -> None:
    set_secret("both", "ANTHROPIC_API_KEY", "sk-test-1")
    set_secret("both", "OPENAI_API_KEY", "sk-test-2")
    set_secret("both", "OPENAI_API_KEY", "sk-test-3")
    secret = in_store(own_engine, lambda store: store.get(Secret, "both"))
    assert secret.data == {"ANTHROPIC_API_KEY": "sk-test-1", "OPENAI_API_KEY": "sk-test-3"}


@pytest.mark.parametrize(("name", "key"), [("a b", "K"), ("Anthropic", "K"), ("x" * 64, "K"), ("a", "K=1"), ("a", "")])
def test_set_refuses_an_invalid_name_or_key(set_secret: SetSecret, name: str, key: str) -> None:
    ended = set_secret(name, key, "sk-test-value")
    assert ended.code == 2
    assert " must have " in ended.err


@pytest.mark.parametrize("value", ["", "\n"])
def test_set_refuses_an_empty_value(set_secret: SetSecret, value: str) -> None:
    assert set_secret("anthropic", "ANTHROPIC_API_KEY", value).code == 2


def test_secret_values_are_never_printed(set_secret: SetSecret, labrats: Labrats) -> None:
    printed = [*set_secret("anthropic", "ANTHROPIC_API_KEY", "sk-test-value")[1:]]
    printed += [labrats("secret", "list").out, labrats("secret", "list", "--json").out]
    assert "sk-test-value" not in "".join(printed)


def test_set_warns_about_a_misspelled_key(set_secret: SetSecret) -> None:
    assert "did you mean ANTHROPIC_API_KEY?" in set_secret("a", "ANTROPIC_API_KEY", "test").err


@pytest.mark.parametrize(("name", "key"), [("anthropic", "API_KEY"), ("mine", "api_key"), ("openai", "password")])
def test_set_names_the_keys_that_models_read(set_secret: SetSecret, name: str, key: str) -> None:
    assert f"no model reads {key}; the keys that models read are ANTHROPIC_API_KEY, " in set_secret(name, key, "t").err


@pytest.mark.parametrize("key", ["CLAUDE_CODE_OAUTH_TOKEN", "token", "webhook-secret", "Authorization", "WIKI_TOKEN"])
def test_set_does_not_warn_about_valid_keys(set_secret: SetSecret, key: str) -> None:
    assert "note:" not in set_secret("a", key, "test").err


def test_set_refuses_a_value_that_is_too_long(set_secret: SetSecret) -> None:
    refused = set_secret("a", "token", "x" * (512 * 1024 + 1))
    assert (refused.code, "at most 512 KiB" in refused.err) == (ExitCode.USAGE, True)


def test_list_shows_secrets_with_their_keys(set_secret: SetSecret, labrats: Labrats) -> None:
    set_secret("both", "OPENAI_API_KEY", "test")
    set_secret("both", "ANTHROPIC_API_KEY", "test")
    assert labrats("secret", "list").out == "NAME  KEYS\nboth  ANTHROPIC_API_KEY, OPENAI_API_KEY\n"
    listed = json.loads(labrats("secret", "list", "--json").out)
    assert listed == {"secrets": [{"name": "both", "keys": ["ANTHROPIC_API_KEY", "OPENAI_API_KEY"]}]}


def test_delete_removes_a_secret_or_one_key(set_secret: SetSecret, labrats: Labrats, own_engine: OwnEngine) -> None:
    set_secret("both", "OPENAI_API_KEY", "test")
    set_secret("both", "ANTHROPIC_API_KEY", "test")
    assert labrats("secret", "delete", "both", "OPENAI_API_KEY").code == 0
    assert in_store(own_engine, lambda store: store.get(Secret, "both")).data == {"ANTHROPIC_API_KEY": "test"}
    assert labrats("secret", "delete", "both").code == 0
    assert in_store(own_engine, lambda store: store.list(Secret)) == []


@pytest.mark.parametrize("arguments", [["nothing"], ["anthropic", "NOTHING"]])
def test_delete_of_a_missing_secret_or_key_is_refused(
    set_secret: SetSecret, labrats: Labrats, arguments: list[str]
) -> None:
    set_secret("anthropic", "ANTHROPIC_API_KEY", "test")
    assert labrats("secret", "delete", *arguments).code == 4


def test_secrets_of_the_engine_are_neither_listed_nor_changed(
    set_secret: SetSecret, labrats: Labrats, own_engine: OwnEngine
) -> None:
    api_key = Secret(metadata=Metadata(name="key-1", labels={API_KEY_LABEL: API_KEY_LABEL_VALUE}), data={"hash": "x"})
    job = OwnerReference(kind="InferenceRequest", name="ir-1")
    git_token = Secret(metadata=Metadata(name="ir-1-git", owner=job), data={"password": "test"})
    for secret in (api_key, git_token):
        in_store(own_engine, lambda store, secret=secret: store.create(secret))  # type: ignore[misc]
    assert labrats("secret", "list").out == "NAME  KEYS\n"
    for name in ("key-1", "ir-1-git"):
        assert set_secret(name, "hash", "test").code == 2
        assert labrats("secret", "delete", name).code == 2
    assert len(in_store(own_engine, lambda store: store.list(Secret))) == 2


@pytest.mark.parametrize("arguments", [("secret", "list"), ("secret", "delete", "a")])
def test_folder_without_data_is_refused_and_left_alone(
    labrats: Labrats, tmp_path: Path, arguments: Sequence[str]
) -> None:
    ended = labrats(*arguments, "--data-dir", str(tmp_path / "typo"))
    assert (ended.code, ended.out) == (2, "")
    assert f"{tmp_path / 'typo'} has no data of an engine; name the engine's folder with --data-dir" in ended.err
    assert not (tmp_path / "typo").exists()


def test_set_notes_that_its_folder_is_new(labrats: Labrats, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO("value"))
    ended = labrats("secret", "set", "a", "b", "--data-dir", str(tmp_path / "new"))
    assert ended.code == 0
    assert f"note: {tmp_path / 'new'} had no data of an engine yet" in ended.err


def test_data_dir_selects_the_data_folder(set_secret: SetSecret, labrats: Labrats, own_engine: OwnEngine) -> None:
    set_secret("anthropic", "ANTHROPIC_API_KEY", "test")
    elsewhere = own_engine.data_dir.parent / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "labrats.db").touch()
    assert labrats("secret", "list", "--data-dir", str(elsewhere)).out == "NAME  KEYS\n"
