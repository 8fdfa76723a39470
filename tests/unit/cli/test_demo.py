"""`labrats serve --demo`."""

from pathlib import Path

import pytest

from labrats.cli.demo import JOB, run_demo
from labrats.cli.options import ApiOptions
from labrats.model.mock_script import parse_steps
from tests.unit.cli.engines import Labrats, OwnEngine, ScriptedEngine, a_job


@pytest.fixture
def engine(engine: ScriptedEngine) -> ScriptedEngine:
    """Script an engine that runs the demo job."""
    engine.answers("POST /api/jobs/submit", {"jobId": "ir-3ab1c2d4"}, status=201)
    engine.streams("ir-3ab1c2d4", "sniffing")
    engine.answers("GET /api/jobs/ir-3ab1c2d4", a_job(returnvalue="found it"))
    engine.answers("GET /api/jobs", {"jobs": [], "total": 0, "page": 1, "limit": 1})
    return engine


def test_demo_runs_a_job_and_prints_next_steps(
    engine: ScriptedEngine, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run_demo(ApiOptions(url=engine.url, data_dir=tmp_path / "my data"))
    out = capsys.readouterr().out
    assert "  sniffing\n\ncompleted after 42s: found it\n" in out
    assert f"export LABRATS_URL={engine.url} LABRATS_DATA_DIR='{tmp_path}/my data'" in out
    assert "job ir-3ab1c2d4\n" in out
    assert "already" not in out


def test_demo_reports_existing_jobs(engine: ScriptedEngine, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    engine.answers("GET /api/jobs", {"jobs": [], "total": 3, "page": 1, "limit": 1})
    run_demo(ApiOptions(url=engine.url, data_dir=tmp_path))
    assert "already contains jobs: 3" in capsys.readouterr().out


def test_serve_starts_the_demo_when_the_engine_is_ready(
    labrats: Labrats, own_engine: OwnEngine, engine: ScriptedEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown: list[ApiOptions] = []
    monkeypatch.setattr("labrats.cli.demo.start_demo", shown.append)
    labrats("serve", "--demo", "--data-dir", "/srv/labrats")
    assert own_engine.on_ready
    assert shown == []
    own_engine.on_ready(engine.url, None)
    assert shown == [ApiOptions(url=engine.url, data_dir=Path("/srv/labrats"))]


def test_demo_script_is_valid_for_the_mock_provider() -> None:
    parse_steps(JOB["metadata"]["mock"]["steps"])
