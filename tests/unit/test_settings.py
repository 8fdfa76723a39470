"""The settings of the engine: their limits, the words that they accept, and misspelled names."""

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import NamedTuple, get_args

import pytest
from annotated_types import Le
from pydantic import ValidationError
from pydantic.fields import FieldInfo

from labrats.settings import EngineSettings, KubernetesSettings, unknown_settings

FIELDS = {str(field.validation_alias): field for field in EngineSettings.model_fields.values()} | {
    str(field.validation_alias): field for field in KubernetesSettings.model_fields.values()
}
UNITS = {"SECONDS": "seconds", "HOURS": "hours", "DAYS": "days"}


@pytest.fixture(autouse=True)
def image(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LABRATS_EXECUTOR_IMAGE", "labrats/executor:test")


def read(variable: str, value: str, monkeypatch: pytest.MonkeyPatch) -> object:
    """Return the value of a setting whose variable has a value."""
    monkeypatch.setenv(variable, value)
    for settings in (EngineSettings(), KubernetesSettings()):
        for name, field in type(settings).model_fields.items():
            if field.validation_alias == variable:
                return getattr(settings, name)
    raise AssertionError(variable)


NUMBERS = [name for name, field in FIELDS.items() if float in (field.annotation, *get_args(field.annotation))]


@pytest.mark.parametrize("value", ["inf", "nan", "1e999"])
@pytest.mark.parametrize("variable", NUMBERS)
def test_number_must_be_finite(monkeypatch: pytest.MonkeyPatch, variable: str, value: str) -> None:
    with pytest.raises(ValidationError, match=variable):
        read(variable, value, monkeypatch)


def limit(field: FieldInfo) -> float:
    (most,) = [each.le for each in field.metadata if isinstance(each, Le)]
    assert isinstance(most, int)
    return most


@pytest.mark.parametrize("variable", [each for each in NUMBERS if each != "PRIORITY_AGING_SECONDS"])
def test_greatest_time_is_a_date_in_both_directions(monkeypatch: pytest.MonkeyPatch, variable: str) -> None:
    most = limit(FIELDS[variable])
    assert read(variable, str(most), monkeypatch) == most
    with pytest.raises(ValidationError, match="less than or equal to"):
        read(variable, str(most * 1.01), monkeypatch)
    if unit := UNITS.get(variable.rpartition("_")[2]):
        span, now = timedelta(**{unit: most}), datetime.now(UTC)
        assert now - span < now < now + span


@pytest.mark.parametrize(
    ("variable", "value", "meaning"),
    [
        ("LABRATS_LOG_LEVEL", "INFO", "info"),
        ("LABRATS_LOG_FORMAT", "Json", "json"),
        ("LABRATS_BACKEND", "Embedded", "embedded"),
        ("LABRATS_PUBLIC_URL", "https://labrats.example.com/", "https://labrats.example.com"),
        ("LABRATS_GITHUB_API_URL", "https://github.example.com/api/v3/", "https://github.example.com/api/v3"),
        ("OIDC_CLIENT_ID", "Labrats", "Labrats"),
    ],
)
def test_case_of_words_and_final_slash_do_not_matter(
    monkeypatch: pytest.MonkeyPatch, variable: str, value: str, meaning: str
) -> None:
    assert read(variable, value, monkeypatch) == meaning


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("LABRATS_LOG_LEVEL", "loud"),
        ("LABRATS_ROLE", "leader"),
        ("LABRATS_SANDBOX", "maybe"),
        ("LABRATS_PUBLIC_URL", "labrats.example.com"),
        ("LABRATS_PUBLIC_URL", "https://labrats.example.com/base"),
        ("LABRATS_PUBLIC_URL", "https://user:test-password@labrats.example.com"),
        ("OIDC_ISSUER", "https://auth.example.com?a=b"),
        ("LABRATS_GITHUB_API_URL", "ftp://github.example.com"),
        ("PROMETHEUS_URL", "http://127.0.0.1:9090/?a=b"),
    ],
)
def test_refusal_of_a_word_or_url_shows_no_pattern(monkeypatch: pytest.MonkeyPatch, variable: str, value: str) -> None:
    with pytest.raises(ValidationError) as refused:
        read(variable, value, monkeypatch)
    (problem,) = refused.value.errors()
    assert problem["loc"] == (variable,)
    assert "pattern" not in problem["msg"]
    assert "password" not in problem["msg"]


def test_repository_roots_are_absolute(monkeypatch: pytest.MonkeyPatch, tmp_path: object) -> None:
    monkeypatch.chdir(str(tmp_path))
    assert read("LOCAL_REPO_ROOTS", "repos, /srv/git", monkeypatch) == (f"{tmp_path}/repos", "/srv/git")


@pytest.mark.parametrize(
    ("variable", "meant"),
    [
        ("LABRATS_PORT", "PORT"),
        ("LABRATS_DATADIR", "LABRATS_DATA_DIR"),
        ("LABRATS_JOB_RETENTION_DAY", "LABRATS_JOB_RETENTION_DAYS"),
        ("LABRATS_CHEESE", None),
    ],
)
def test_misspelled_setting_is_found_with_the_one_that_was_meant(variable: str, meant: str | None) -> None:
    assert list(unknown_settings(["HOME", variable])) == [(variable, meant)]


def test_settings_and_variables_of_commands_are_known() -> None:
    assert list(unknown_settings([*FIELDS, "LABRATS_URL", "LABRATS_API_KEY", "LABRATS_JOB_ID", "PATH"])) == []


@pytest.mark.parametrize(("folder", "kept"), [("data/uploads", 50 * 2**30), ("/dev/shm", 2**30)])
def test_uploads_leave_more_free_than_outputs(
    folder: str, kept: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """LABRATS_FREE_GIB describes the volume with the data folder. On another one, the default counts."""
    (tmp_path / "data" / "uploads").mkdir(parents=True)
    settings = EngineSettings(data_dir=tmp_path / "data", free_gib=50)
    monkeypatch.setattr("shutil.disk_usage", lambda path: Volume(2**40, 0, kept + 2**30 + 1))
    assert settings.bytes_for_uploads(tmp_path / folder) == 1


class Volume(NamedTuple):
    """The result of `shutil.disk_usage`, in bytes."""

    total: int
    used: int
    free: int


def test_empty_path_is_not_the_current_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in ("WORKSPACE_DIR", "UPLOADS_DIR", "LABRATS_MODELS_DIR", "LABRATS_GIT_SSH_KEY"):
        monkeypatch.setenv(variable, "")
    settings = EngineSettings()
    assert (settings.workspace_dir, settings.uploads_dir, settings.models_dir, settings.git_ssh_key) == (None,) * 4
    monkeypatch.setenv("LABRATS_DATA_DIR", "")
    with pytest.raises(ValueError, match="must be the path of a folder"):
        EngineSettings()
