"""`labrats upload`, and `labrats submit` of what was uploaded."""

from pathlib import Path

import pytest

from tests.unit.cli.engines import Labrats, ScriptedEngine

UPLOADED = {"id": "up-0123456789abcdef", "name": "a.csv", "size": 5, "sha256": "00"}


@pytest.fixture
def engine(engine: ScriptedEngine) -> ScriptedEngine:
    engine.answers("POST /api/workspace-uploads", UPLOADED, status=201)
    engine.answers("POST /api/jobs/submit", {"jobId": "ir-3ab1c2d4", "source": "manual", "type": "task"}, status=201)
    return engine


def test_a_file_is_sent_and_what_submit_takes_is_printed(
    labrats: Labrats, engine: ScriptedEngine, tmp_path: Path
) -> None:
    (tmp_path / "a.csv").write_bytes(b"1,2\r\n")

    assert labrats("upload", str(tmp_path / "a.csv")) == (0, "up-0123456789abcdef/a.csv\n", "")

    assert b'name="file"; filename="a.csv"' in engine.requests[0].body
    assert b"1,2\r\n" in engine.requests[0].body


def test_it_may_have_another_name_in_workspaces(labrats: Labrats, engine: ScriptedEngine, tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_bytes(b"1,2")

    labrats("upload", str(tmp_path / "a.csv"), "--name", "b.csv")

    assert b'filename="b.csv"' in engine.requests[0].body


def test_a_file_that_is_not_there_is_named(labrats: Labrats, tmp_path: Path) -> None:
    code, out, said = labrats("upload", str(tmp_path / "none"))

    assert (code, out) == (2, "")
    assert said == f"labrats: {tmp_path}/none: No such file or directory\n"


def test_a_job_names_uploads_and_a_pipeline(labrats: Labrats, engine: ScriptedEngine) -> None:
    labrats("submit", "-p", "Go", "--upload", "up-1/a b.csv", "--upload", "up-2/c", "--pipeline", "pdf-sections")

    assert engine.requests[0].json["workspaceUploads"] == [
        {"id": "up-1", "name": "a b.csv"},
        {"id": "up-2", "name": "c"},
    ]
    assert engine.requests[0].json["pipeline"] == {"type": "pdf-sections"}


@pytest.mark.parametrize("upload", ["up-1", "/a", "up-1/"])
def test_what_names_no_upload_is_refused(labrats: Labrats, upload: str) -> None:
    code, _, said = labrats("submit", "-p", "Go", "--upload", upload)

    assert code == 2
    assert said == f"labrats: --upload {upload}: write ID/NAME, as `labrats upload` prints it\n"
