"""The levels of isolation on this machine, from the settings and a test of bubblewrap."""

import os
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from labrats.backends.embedded.sandbox_choice import FIRST_WITH_PUBLIC, choose_isolation, default_network
from labrats.model.errors import LabratsError
from labrats.model.isolation import Isolation
from labrats.sandbox.etc_snapshots import EtcSnapshots
from labrats.settings import EngineSettings

NEW, EARLIER = 2, 1
MEMORY = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> EngineSettings:
    monkeypatch.delenv("LABRATS_SANDBOX", raising=False)
    return EngineSettings(data_dir=tmp_path / "data")


def a_bwrap(folder: Path, script: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Put a fake bwrap first on PATH."""
    program = folder / "bin" / "bwrap"
    program.parent.mkdir()
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(program.parent), prepend=":")


def test_a_new_data_folder_has_a_sandbox_that_hides_the_engines_folders(settings: EngineSettings) -> None:
    sandbox = choose_isolation(settings, NEW).sandbox
    assert sandbox
    assert choose_isolation(settings, NEW).levels.default is Isolation.SANDBOX
    assert str(settings.data_dir) in sandbox.hidden


@pytest.mark.parametrize(("limit", "size"), [("", MEMORY // 4), ("1Gi", 2**30)])
def test_files_in_memory_are_limited_also_without_a_setting(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limit: str, size: int
) -> None:
    """They belong to no process, so that no attempt would be ended because of them."""
    monkeypatch.setenv("LABRATS_AGENT_MEMORY", limit)
    sandbox = choose_isolation(EngineSettings(data_dir=tmp_path / "data"), NEW).sandbox
    assert sandbox
    assert sandbox.shm_bytes == size


def test_the_test_of_the_sandbox_creates_a_snapshot_of_etc(settings: EngineSettings) -> None:
    sandbox = choose_isolation(settings, NEW).sandbox
    assert sandbox
    assert sandbox.etc_snapshots == str(settings.data_dir / "etc-snapshots")
    with EtcSnapshots(Path(sandbox.etc_snapshots)).current() as current:
        assert (current / "passwd").read_text() == Path("/etc/passwd").read_text()
        assert not (current / "shadow").exists()


def test_a_sandbox_works_without_a_snapshot_and_the_reason_is_logged(settings: EngineSettings) -> None:
    settings.data_dir.mkdir()
    (settings.data_dir / "etc-snapshots").touch()
    with capture_logs() as logs:
        sandbox = choose_isolation(settings, NEW).sandbox
    assert sandbox
    assert sandbox.etc_snapshots is None
    assert [entry["reason"] for entry in logs if entry["event"] == "etc snapshot failed"] == [
        f"{settings.data_dir}/etc-snapshots: File exists"
    ]


def test_an_earlier_data_folder_has_no_sandbox_and_a_warning_is_logged(settings: EngineSettings) -> None:
    with capture_logs() as logs:
        assert choose_isolation(settings, EARLIER).levels.default is Isolation.PROCESS
    assert logs[0]["event"] == "sandbox disabled"
    assert "data folder of an earlier version" in logs[0]["advice"]
    assert "as good as an admin key" in logs[0]["risk"]


@pytest.mark.parametrize("wanted", ["auto", "true"])
def test_an_earlier_data_folder_has_a_sandbox_if_the_setting_requires_one(
    settings: EngineSettings, wanted: str
) -> None:
    choice = choose_isolation(settings.model_copy(update={"sandbox": wanted}), EARLIER)
    assert choice.levels.default is Isolation.SANDBOX


def test_false_disables_the_sandbox_for_jobs_that_do_not_ask_for_it(settings: EngineSettings) -> None:
    with capture_logs() as logs:
        choice = choose_isolation(settings.model_copy(update={"sandbox": "false"}), NEW)
    assert choice.levels.default is Isolation.PROCESS
    assert choice.levels.at_least(Isolation.SANDBOX) is Isolation.SANDBOX
    assert choice.sandbox
    assert logs[0]["advice"] == "set LABRATS_SANDBOX=auto"


@pytest.mark.parametrize(
    ("script", "reason"),
    [
        ("echo 'No permissions to create new namespace' >&2; exit 1", "No permissions to create new namespace"),
        ("echo 'CapEff:\t000001ffffffffff'", "keeps the capabilities 000001ffffffffff"),
    ],
)
def test_a_bubblewrap_that_does_not_confine_is_refused_or_logged(
    settings: EngineSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str, reason: str
) -> None:
    a_bwrap(tmp_path, script, monkeypatch)
    with pytest.raises(LabratsError, match=reason):
        choose_isolation(settings.model_copy(update={"sandbox": "true"}), NEW)
    with capture_logs() as logs:
        assert choose_isolation(settings, NEW).sandbox is None
    assert logs[0]["event"] == "sandbox disabled"
    assert reason in logs[0]["reason"]


def test_a_missing_bubblewrap_is_refused_or_logged(
    settings: EngineSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(LabratsError, match="bwrap is not on PATH"):
        choose_isolation(settings.model_copy(update={"sandbox": "true"}), NEW)
    assert choose_isolation(settings, NEW).levels.available == (Isolation.PROCESS,)


def test_read_paths_are_passed_on_and_a_missing_one_is_logged(settings: EngineSettings, tmp_path: Path) -> None:
    with capture_logs() as logs:
        wanted = settings.model_copy(update={"sandbox_read_paths": (tmp_path / "none",)})
        sandbox = choose_isolation(wanted, NEW).sandbox
    assert sandbox
    assert sandbox.readable == (str(tmp_path / "none"),)
    assert [entry["path"] for entry in logs if entry["event"] == "sandbox path unreadable"] == [str(tmp_path / "none")]


@pytest.mark.parametrize(
    ("word", "value"), [("1", "true"), ("True", "true"), ("no", "false"), ("false", "false"), ("auto", "auto")]
)
def test_the_setting_accepts_the_words_for_a_boolean(monkeypatch: pytest.MonkeyPatch, word: str, value: str) -> None:
    monkeypatch.setenv("LABRATS_SANDBOX", word)
    assert EngineSettings().sandbox == value


@pytest.mark.parametrize(
    ("variable", "value", "reason"),
    [
        ("LABRATS_SANDBOX", "perhaps", "must be auto, true or false"),
        ("LABRATS_SANDBOX_READ_PATHS", "/usr,tools", "'tools' is not"),
        ("LABRATS_SANDBOX_READ_PATHS", "/usr,/", "'/' is not"),
        ("LABRATS_SANDBOX_READ_PATHS", "/proc/self", "'/proc/self' is not"),
    ],
)
def test_an_invalid_setting_is_refused(monkeypatch: pytest.MonkeyPatch, variable: str, value: str, reason: str) -> None:
    monkeypatch.setenv(variable, value)
    with pytest.raises(ValueError, match=reason.replace("|", r"\|")):
        EngineSettings()


@pytest.mark.parametrize(
    ("named", "sandbox", "default"),
    [("sandbox", "false", "sandbox"), ("process", "auto", "process"), ("process", None, "process")],
)
def test_the_setting_of_the_isolation_decides_before_that_of_the_sandbox(
    settings: EngineSettings, named: str, sandbox: str | None, default: str
) -> None:
    chosen = settings.model_copy(update={"isolation": Isolation(named), "sandbox": sandbox})
    assert choose_isolation(chosen, NEW).levels.default == default


@pytest.mark.parametrize("level", [Isolation.CONTAINER, Isolation.VM])
def test_a_setting_that_this_machine_lacks_keeps_the_engine_from_starting(
    settings: EngineSettings, level: Isolation
) -> None:
    with pytest.raises(LabratsError) as refusal:
        choose_isolation(settings.model_copy(update={"isolation": level}), NEW)
    assert str(refusal.value) == (
        f"LABRATS_ISOLATION cannot be {level}: the levels here are process or sandbox. Other levels need Kubernetes."
    )


@pytest.mark.parametrize(
    ("variables", "minimum"),
    [
        ({}, "sandbox"),
        ({"LABRATS_ALLOW_UNTRUSTED": "true"}, "process"),
        ({"LABRATS_ALLOW_UNTRUSTED": "true", "LABRATS_UNTRUSTED_ISOLATION": "sandbox"}, "sandbox"),
        ({"LABRATS_UNTRUSTED_ISOLATION": "vm"}, "vm"),
    ],
)
def test_jobs_of_external_contributors_have_a_minimum(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], minimum: str
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert choose_isolation(EngineSettings(data_dir=tmp_path / "data"), NEW).levels.untrusted == minimum


def test_new_data_folder_has_the_public_network_and_an_older_one_keeps_the_open_one(settings: EngineSettings) -> None:
    levels = choose_isolation(settings, NEW).levels
    with capture_logs() as logs:
        assert default_network(settings, levels, FIRST_WITH_PUBLIC) == "public"
        assert logs == []
        assert default_network(settings, levels, FIRST_WITH_PUBLIC - 1) is None
    assert [each["event"] for each in logs] == ["network of agents is open"]


@pytest.mark.parametrize("variables", [{"LABRATS_NETWORK": "open"}, {"LABRATS_SANDBOX": "false"}])
def test_chosen_open_network_is_not_logged(
    settings: EngineSettings, monkeypatch: pytest.MonkeyPatch, variables: dict[str, str]
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    chosen = EngineSettings(data_dir=settings.data_dir)
    levels = choose_isolation(chosen, NEW).levels
    with capture_logs() as logs:
        assert default_network(chosen, levels, NEW) is None
    assert logs == []
