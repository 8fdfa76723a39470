"""The client: its URL and API key, and the messages for errors of the API."""

import socket
from pathlib import Path
from typing import Literal

import pytest

from labrats.cli.credentials import default_data_dir, is_this_machine
from labrats.cli.options import ApiOptions
from labrats.main import lock_data_folder, record_port
from labrats.settings import EngineSettings
from tests.unit.cli.engines import Answer, Labrats, ScriptedEngine


@pytest.fixture
def unused_url() -> str:
    """Return the URL of a port on which nothing listens."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    return f"http://127.0.0.1:{port}"


def put_admin_key(data_dir: Path, key: str) -> Path:
    data_dir.mkdir(parents=True)
    path = data_dir / "admin.key"
    path.write_text(f"{key}\n")
    return path


def test_unreachable_local_engine_error_says_how_to_start_one(labrats: Labrats, unused_url: str) -> None:
    ended = labrats("jobs", "--url", unused_url)
    assert ended.code == 3
    assert f"no engine answers at {unused_url}" in ended.err
    assert "labrats serve" in ended.err


def test_unreachable_remote_engine_error_does_not_suggest_serve(labrats: Labrats) -> None:
    ended = labrats("jobs", "--url", "http://labrats.invalid")
    assert ended.code == 3
    assert "check --url or LABRATS_URL" in ended.err
    assert "labrats serve" not in ended.err


@pytest.mark.parametrize("url", ["ftp://127.0.0.1", "http://127.0.0.1:port", "http://[::1"])
def test_invalid_url_is_a_usage_error(labrats: Labrats, url: str) -> None:
    ended = labrats("jobs", "--url", url)
    assert ended.code == 2
    assert url in ended.err


@pytest.mark.parametrize(
    ("status", "code"),
    [(400, 2), (401, 4), (403, 4), (404, 4), (409, 2), (413, 2), (422, 2), (429, 3), (500, 3), (501, 2), (503, 3)],
)
def test_api_error_is_shown_with_the_exit_code_of_its_status(
    labrats: Labrats, engine: ScriptedEngine, status: int, code: int
) -> None:
    engine.answers("GET /api/jobs", {"error": "that is not possible", "code": "x"}, status=status)
    ended = labrats("jobs")
    assert ended.code == code
    assert ended.err.startswith("labrats: that is not possible\n")
    assert ended.out == ""


def test_api_error_lists_invalid_fields(labrats: Labrats, engine: ScriptedEngine) -> None:
    details = [{"field": "config.effort", "message": "is too much"}, {"field": "type", "message": "is empty"}]
    refusal = {"error": "these fields are not valid", "code": "validation_failed", "details": details}
    engine.answers("POST /api/jobs/submit", refusal, status=422)
    assert labrats("submit", "-p", "x").err == (
        "labrats: these fields are not valid\n  config.effort: is too much\n  type: is empty\n"
    )


def test_api_error_does_not_repeat_a_field_from_the_message(labrats: Labrats, engine: ScriptedEngine) -> None:
    refusal = {"error": "type: is empty", "code": "x", "details": [{"field": "type", "message": "is empty"}]}
    engine.answers("POST /api/jobs/submit", refusal, status=422)
    assert labrats("submit", "-p", "x").err == "labrats: type: is empty\n"


def test_api_error_does_not_repeat_its_message_for_a_field(labrats: Labrats, engine: ScriptedEngine) -> None:
    message = "there is already an agent 'a'"
    refusal = {"error": message, "code": "conflict", "details": [{"field": "name", "message": message}]}
    engine.answers("POST /api/jobs/submit", refusal, status=409)
    assert labrats("submit", "-p", "x").err == f"labrats: {message}\n"


@pytest.mark.parametrize("body", [b"<html>404</html>", b"[]", b'{"error": {"message": "other"}}'])
def test_error_of_another_server_is_recognised(labrats: Labrats, engine: ScriptedEngine, body: bytes) -> None:
    engine.script("GET /api/jobs", Answer(body, status=404, content_type="text/html"))
    ended = labrats("jobs")
    assert ended.code == 4
    assert "answered 404, but is not a Labrats engine" in ended.err


@pytest.mark.parametrize("command", [["jobs"], ["logs", "-f", "ir-1"]])
def test_html_page_of_another_server_is_recognised(
    labrats: Labrats, engine: ScriptedEngine, command: list[str]
) -> None:
    page = Answer(b"<html>welcome</html>", content_type="text/html")
    engine.script("GET /api/jobs", page)
    engine.script("GET /api/jobs/ir-1/logs", page)
    ended = labrats(*command)
    assert ended.code == 2
    assert "answered 200, but is not a Labrats engine" in ended.err


def test_refused_key_error_names_the_origin_but_not_the_key(labrats: Labrats, engine: ScriptedEngine) -> None:
    engine.answers("GET /api/jobs", {"error": "send a valid API key", "code": "unauthorized"}, status=401)
    ended = labrats("jobs", "--api-key", "lr_test_only")
    assert "Key used: --api-key or LABRATS_API_KEY." in ended.err
    assert "labrats api-key create" in ended.err
    assert "lr_test_only" not in ended.err


def test_missing_key_error_names_the_expected_file(labrats: Labrats, engine: ScriptedEngine, tmp_path: Path) -> None:
    engine.answers("GET /api/jobs", {"error": "send a valid API key", "code": "unauthorized"}, status=401)
    ended = labrats("jobs", "--data-dir", f"{tmp_path}/nowhere")
    assert f"no key, because there is no {tmp_path}/nowhere/admin.key" in ended.err


def test_api_key_option_overrides_the_environment(
    labrats: Labrats, engine: ScriptedEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LABRATS_API_KEY", "lr_test_environment")
    labrats("jobs")
    labrats("jobs", "--api-key", "lr_test_option")
    sent = [request.headers["Authorization"] for request in engine.requests]
    assert sent == ["Bearer lr_test_environment", "Bearer lr_test_option"]


@pytest.mark.parametrize("key", ["lr_schlüssel", "lr_two\nlines", "lr_two words"])
def test_invalid_api_key_is_not_sent(labrats: Labrats, engine: ScriptedEngine, key: str) -> None:
    ended = labrats("jobs", "--api-key", key)
    assert ended.code == 2
    assert "the API key from --api-key or LABRATS_API_KEY is invalid" in ended.err
    assert engine.requests == []


def test_requests_to_this_machine_bypass_the_proxy(
    labrats: Labrats, monkeypatch: pytest.MonkeyPatch, unused_url: str
) -> None:
    monkeypatch.setenv("HTTP_PROXY", unused_url)
    assert labrats("jobs").code == 4  # the scripted engine's answer


def test_admin_key_is_read_from_the_data_folder(labrats: Labrats, engine: ScriptedEngine) -> None:
    put_admin_key(default_data_dir(), "lr_test_admin")
    labrats("jobs")
    assert engine.requests[0].headers["Authorization"] == "Bearer lr_test_admin"


@pytest.mark.parametrize("backend", ["embedded", "kubernetes"])
def test_admin_key_is_sent_only_while_its_engine_runs(
    labrats: Labrats, engine: ScriptedEngine, backend: Literal["embedded", "kubernetes"]
) -> None:
    """An agent of a job that outlives the engine could listen on its port, and would get the key."""
    put_admin_key(default_data_dir(), "lr_test_admin")
    for _ in range(2):  # the lock of an engine that has stopped stays
        with lock_data_folder(EngineSettings(data_dir=default_data_dir(), backend=backend)):
            labrats("jobs")
        ended = labrats("jobs")
        assert ended.code == 3
        assert f"no engine runs on {default_data_dir()}, so its admin key is not sent" in ended.err
    assert labrats("jobs", "--api-key", "lr_test_other").code == 4
    sent = [request.headers["Authorization"] for request in engine.requests]
    assert sent == ["Bearer lr_test_admin", "Bearer lr_test_admin", "Bearer lr_test_other"]


def test_admin_key_is_sent_to_no_other_port_than_that_of_its_engine(labrats: Labrats, engine: ScriptedEngine) -> None:
    """An agent could listen on the usual port while the engine has another one."""
    put_admin_key(default_data_dir(), "lr_test_admin")
    settings = EngineSettings(data_dir=default_data_dir())
    with lock_data_folder(settings), socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
        record_port(settings, listener)
        ended = labrats("jobs")
        assert ended.code == 3
        assert f"listens on port {port}, so its admin key is not sent" in ended.err
        assert ApiOptions().base_url == f"http://127.0.0.1:{port}"
    assert engine.requests == []


def test_admin_key_is_not_sent_to_another_machine(tmp_path: Path) -> None:
    put_admin_key(tmp_path / "data", "lr_test_admin")
    options = ApiOptions(url="https://labrats.example.org", data_dir=tmp_path / "data")
    assert options.credential().key is None


def test_unreadable_admin_key_error_names_the_file(
    tmp_path: Path, labrats: Labrats, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> str:
        raise PermissionError  # tests may run as root, which may read every file

    path = put_admin_key(tmp_path / "data", "lr_test_admin")
    monkeypatch.setattr(Path, "read_text", refuse)
    ended = labrats("jobs", "--data-dir", f"{tmp_path}/data")
    assert ended.code == 4
    assert f"only the owner of {path} may use the admin key" in ended.err


def test_default_data_folder_equals_that_of_the_engine() -> None:
    from labrats import settings

    assert default_data_dir() == settings.default_data_dir()


@pytest.mark.parametrize(
    ("url", "this_machine"),
    [
        ("http://127.0.0.1:3001", True),
        ("http://127.9.9.9", True),
        ("http://[::1]:3001", True),
        ("http://localhost:3001", True),
        ("http://0.0.0.0:3001", True),
        ("http://10.0.0.1", False),
        ("https://localhost.example.org", False),
        ("nonsense", False),
    ],
)
def test_is_this_machine_recognises_loopback_addresses(url: str, this_machine: bool) -> None:
    assert is_this_machine(url) is this_machine


def test_default_url_uses_the_port_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    assert ApiOptions().base_url == "http://127.0.0.1:3001"
    monkeypatch.setenv("PORT", "4000")
    assert ApiOptions().base_url == "http://127.0.0.1:4000"


def test_url_without_a_scheme_is_http() -> None:
    assert ApiOptions(url="localhost:4000").base_url == "http://localhost:4000"


def test_https_to_an_engine_without_tls_says_to_use_http(labrats: Labrats, engine: ScriptedEngine) -> None:
    ended = labrats("jobs", "--url", engine.url.replace("http:", "https:"))
    assert ended.code == 2
    assert f"does not speak TLS; if it is your engine, use --url {engine.url}\n" in ended.err


def test_a_refusal_names_the_key_that_was_used(labrats: Labrats, engine: ScriptedEngine) -> None:
    engine.answers("GET /api/jobs", {"error": "this needs the scope `admin`", "code": "forbidden"}, status=403)
    assert "Key used: " in labrats("jobs", "--api-key", "viewer-key").err
