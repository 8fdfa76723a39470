"""`labrats serve`, `labrats login-link` and `labrats config`."""

import errno
import json
import re
from pathlib import Path
from types import SimpleNamespace
from typing import cast
from unittest.mock import AsyncMock

import pytest
from pydantic import ValidationError
from structlog.testing import capture_logs

from labrats.api.services import Services
from labrats.main import Commands, browser_url, create_first_login_link
from labrats.model.errors import LabratsError, RetryLater
from labrats.settings import EngineSettings, KubernetesSettings
from tests.fakes.clock import FakeClock
from tests.fakes.store import MemoryStore
from tests.unit.cli.engines import Labrats, OwnEngine


def test_serve_passes_its_options_to_the_engine(labrats: Labrats, own_engine: OwnEngine) -> None:
    options = ("--host", "::1", "--port", "0", "--data-dir", "/srv/labrats", "--backend", "kubernetes",
            "--role", "api", "--sandbox")  # fmt: skip
    assert labrats("serve", *options).code == 0
    assert own_engine.served == [
        {
            "host": "::1",
            "port": 0,
            "data_dir": Path("/srv/labrats"),
            "backend": "kubernetes",
            "role": "api",
            "sandbox": "true",
        }
    ]


def test_serve_without_options_uses_the_settings(labrats: Labrats, own_engine: OwnEngine) -> None:
    labrats("serve")
    assert own_engine.served == [{}]


def test_serve_reads_port_and_data_folder_from_the_environment(
    labrats: Labrats, own_engine: OwnEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PORT", "4000")
    monkeypatch.setenv("LABRATS_DATA_DIR", "/srv/labrats")
    labrats("serve")
    assert own_engine.served == [{"port": 4000, "data_dir": Path("/srv/labrats")}]


def test_serve_prints_the_login_link(
    labrats: Labrats, own_engine: OwnEngine, capsys: pytest.CaptureFixture[str]
) -> None:
    labrats("serve")
    assert own_engine.on_ready
    own_engine.on_ready("http://127.0.0.1:3001", "http://127.0.0.1:3001/api/auth/link?token=test")
    assert capsys.readouterr().out.endswith("15 minutes: http://127.0.0.1:3001/api/auth/link?token=test\n")


async def test_engine_starts_without_a_login_link_if_it_cannot_be_stored(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its disk may be full. Jobs can be looked at with a key, and `labrats login-link` prints a link later."""
    store = MemoryStore()
    monkeypatch.setattr(store, "create", AsyncMock(side_effect=RetryLater("the database cannot be written to")))
    settings = EngineSettings(data_dir=tmp_path)
    services = cast(Services, SimpleNamespace(store=store, settings=settings, clock=FakeClock()))
    with capture_logs() as logs:
        assert await create_first_login_link(services, "http://127.0.0.1:3001") is None
    assert [log["event"] for log in logs] == ["login link not created"]


def test_login_link_uses_url_and_data_folder(labrats: Labrats, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LABRATS_URL")
    assert labrats("login-link").out == "http://127.0.0.1:3001/login-of/own\n"
    options = ("--url", "https://labrats.test", "--data-dir", "/srv/other")
    assert labrats("login-link", *options).out == "https://labrats.test/login-of/other\n"


@pytest.mark.parametrize(
    ("refusal", "complaint"),
    [
        (OSError(errno.EADDRINUSE, "Address already in use"), "port 4000 is in use, perhaps by another engine"),
        (OSError(errno.EACCES, "Permission denied"), "cannot listen on port 4000 of 127.0.0.1: Permission denied"),
        (PermissionError(errno.EACCES, "Permission denied", "/srv/x"), "/srv/x: Permission denied"),
        (LabratsError("another engine is running on /srv/x"), "another engine is running on /srv/x"),
    ],
)
def test_serve_reports_why_the_engine_cannot_start(
    labrats: Labrats, own_engine: OwnEngine, refusal: Exception, complaint: str
) -> None:
    own_engine.refusal = refusal
    ended = labrats("serve", "--port", "4000")
    assert ended.code == 2
    assert ended.err.startswith(f"labrats: {complaint}")


def test_invalid_setting_is_reported_with_its_variable(labrats: Labrats, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DEFAULT_MODEL_SLOTS", "many")
    ended = labrats("config")
    assert ended.code == 2
    assert "DEFAULT_MODEL_SLOTS: must be a valid integer\n" in ended.err


@pytest.mark.parametrize(
    ("variable", "value", "words"),
    [
        ("AUTH_JWT_SECRET", "short", "\n  AUTH_JWT_SECRET: must have at least 32 characters\n"),
        ("OIDC_ISSUER", "https://auth.example.com", "\n  OIDC_ISSUER needs OIDC_CLIENT_ID, "),
        ("LABRATS_LOG_LEVEL", "loud", "\n  LABRATS_LOG_LEVEL: must be 'debug', 'info', 'warning' or 'error'\n"),
        ("LABRATS_PUBLIC_URL", "labrats.example.com", "\n  LABRATS_PUBLIC_URL: must be a URL without a path, such as "),
        (
            "LABRATS_JOB_RETENTION_DAYS",
            "1000000",
            "\n  LABRATS_JOB_RETENTION_DAYS: must be less than or equal to 36500\n",
        ),
        ("LABRATS_ALLOW_PUBLIC", "maybe", "\n  LABRATS_ALLOW_PUBLIC: must be a valid boolean"),
        ("OUTBOUND_ALLOWED_CIDRS", "10.0.0.0/99", "\n  OUTBOUND_ALLOWED_CIDRS: '10.0.0.0/99' does not appear"),
    ],
)
def test_setting_errors_are_in_plain_words(
    labrats: Labrats, monkeypatch: pytest.MonkeyPatch, variable: str, value: str, words: str
) -> None:
    monkeypatch.setenv(variable, value)
    assert words in labrats("config").err


@pytest.mark.parametrize("command", ["config", "doctor", "login-link", "secret list", "api-key create a --direct"])
def test_command_that_reads_settings_explains_an_invalid_one(
    labrats: Labrats, own_engine: OwnEngine, monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    monkeypatch.setattr(own_engine, "login_link", Commands().login_link)
    monkeypatch.setattr(own_engine, "create_api_key", Commands().create_api_key)
    monkeypatch.setenv("LABRATS_AGENT_MEMORY", "4X")
    ended = labrats(*command.split())
    assert ended.code == 2
    assert "\n  LABRATS_AGENT_MEMORY: " in ended.err


def test_config_on_a_cluster_also_has_its_settings(labrats: Labrats, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LABRATS_BACKEND", "kubernetes")
    monkeypatch.setenv("LABRATS_EXECUTOR_IMAGE", "labrats/executor:test")
    settings = json.loads(labrats("config", "--json").out)["settings"]
    names = [*EngineSettings.model_fields, *KubernetesSettings.model_fields]
    assert [setting["name"] for setting in settings] == names
    assert all(setting["description"] for setting in settings)
    assert "LABRATS_EXECUTOR_RESOURCES={" in labrats("config").out


def test_config_shows_values_descriptions_and_changed_defaults(
    labrats: Labrats, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DEFAULT_MODEL_SLOTS", "9")
    out = labrats("config").out
    assert "DEFAULT_MODEL_SLOTS=9   (default: 4)\n    The slots of" in out
    assert "\nPORT=3001\n    The port to listen on" in out
    assert "LABRATS_ALLOW_PUBLIC=false\n" in out


def test_config_never_shows_a_secret(labrats: Labrats, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SUBMIT_API_KEYS", "lr_test_one,lr_test_two")
    shown = labrats("config").out + labrats("config", "--json").out
    assert "lr_test" not in shown
    assert "SUBMIT_API_KEYS=**********,**********   (default: )" in shown


def test_config_indents_descriptions(labrats: Labrats) -> None:
    lines = labrats("config").out.splitlines()
    assert all(re.match(r"    \S|[A-Z0-9_]+=", line) for line in lines)


def test_config_json_has_every_setting(labrats: Labrats) -> None:
    settings = json.loads(labrats("config", "--json").out)["settings"]
    assert [setting["name"] for setting in settings] == list(EngineSettings.model_fields)
    assert all(setting["description"] and setting["environment"] for setting in settings)
    port = next(setting for setting in settings if setting["name"] == "port")
    assert (port["environment"], port["value"], port["default"]) == ("PORT", 3001, 3001)


@pytest.mark.parametrize("role", ["all", "api"])
def test_login_without_a_client_id_is_refused(monkeypatch: pytest.MonkeyPatch, role: str) -> None:
    monkeypatch.setenv("OIDC_ISSUER", "https://auth.example.com")
    with pytest.raises(ValidationError, match="OIDC_ISSUER needs OIDC_CLIENT_ID"):
        EngineSettings(role=role)


@pytest.mark.parametrize("role", ["controller", "publisher"])
def test_engine_at_which_nobody_signs_in_needs_no_client_id(monkeypatch: pytest.MonkeyPatch, role: str) -> None:
    monkeypatch.setenv("OIDC_ISSUER", "https://auth.example.com")
    assert EngineSettings(role=role).oidc_issuer == "https://auth.example.com"


@pytest.mark.parametrize(
    ("host", "url"),
    [
        ("0.0.0.0", "http://127.0.0.1:3001"),
        ("::", "http://[::1]:3001"),
        ("192.168.0.2", "http://192.168.0.2:3001"),
        ("::1", "http://[::1]:3001"),
    ],
)
def test_printed_url_names_an_address_that_a_browser_opens(host: str, url: str) -> None:
    assert browser_url(host, 3001) == url
