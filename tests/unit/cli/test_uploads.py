"""`labrats upload`, and `labrats submit --upload`."""

from pathlib import Path

import pytest

from tests.unit.cli.engines import Labrats, ScriptedEngine

UPLOADED = {"id": "up-0123456789abcdef", "name": "a.csv", "size": 5, "sha256": "00"}


@pytest.fixture
def engine(engine: ScriptedEngine) -> ScriptedEngine:
    engine.answers("POST /api/workspace-uploads", UPLOADED, status=201)
    engine.answers("POST /api/jobs/submit", {"jobId": "ir-3ab1c2d4", "source": "manual", "type": "task"}, status=201)
    return engine


def test_upload_sends_the_file_and_prints_id_and_name(labrats: Labrats, engine: ScriptedEngine, tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_bytes(b"1,2\r\n")

    assert labrats("upload", str(tmp_path / "a.csv")) == (0, "up-0123456789abcdef/a.csv\n", "")

    assert b'name="file"; filename="a.csv"' in engine.requests[0].body
    assert b"1,2\r\n" in engine.requests[0].body


def test_upload_sends_the_given_name(labrats: Labrats, engine: ScriptedEngine, tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_bytes(b"1,2")

    labrats("upload", str(tmp_path / "a.csv"), "--name", "b.csv")

    assert b'filename="b.csv"' in engine.requests[0].body


def test_upload_of_a_missing_file_names_it(labrats: Labrats, tmp_path: Path) -> None:
    code, out, err = labrats("upload", str(tmp_path / "none"))

    assert (code, out) == (2, "")
    assert err == f"labrats: {tmp_path}/none: No such file or directory\n"


def test_submit_sends_uploads_and_pipeline(labrats: Labrats, engine: ScriptedEngine) -> None:
    labrats("submit", "-p", "Go", "--upload", "up-1/a b.csv", "--upload", "up-2/c", "--pipeline", "pdf-sections")

    assert engine.requests[0].json["workspaceUploads"] == [
        {"id": "up-1", "name": "a b.csv"},
        {"id": "up-2", "name": "c"},
    ]
    assert engine.requests[0].json["pipeline"] == {"type": "pdf-sections"}


@pytest.mark.parametrize("upload", ["up-1", "/a", "up-1/"])
def test_submit_refuses_an_invalid_upload(labrats: Labrats, upload: str) -> None:
    code, _, err = labrats("submit", "-p", "Go", "--upload", upload)

    assert code == 2
    assert err == f"labrats: --upload {upload}: write ID/NAME, as `labrats upload` prints it\n"
