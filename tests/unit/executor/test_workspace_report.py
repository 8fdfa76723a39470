"""Tests of the publication that an agent writes into its workspace."""

import json
from pathlib import Path
from typing import Any

import pytest

from labrats.model.publication import Rejected, stored_publication
from tests.unit.executor.attempts import AttemptFolder, an_attempt
from tests.unit.executor.test_workspace_diff import an_attempt_of

SECRET = "test-key-0123456789abcdef"


def write(text: str) -> dict[str, Any]:
    return {"write": {"path": ".labrats/publish.json", "text": text}}


def publication_of(attempt: AttemptFolder) -> Any:
    return json.loads((attempt.path / "publication.json").read_bytes())


@pytest.mark.parametrize("end", [{"result": 1}, {"fail": "no"}], ids=["success", "failure"])
def test_publication_is_stored_without_a_repository(tmp_path: Path, end: dict[str, Any]) -> None:
    publication = {"title": "Fix ü", "labels": ["ai"], "findings": [{"path": "a.py", "line": 3, "body": "no"}]}
    attempt = an_attempt(tmp_path, [write(json.dumps(publication)), end])
    attempt.run()
    assert publication_of(attempt) == publication
    assert not (attempt.path / "changes.patch").exists()
    assert attempt.outcome.outputs.files_changed in (None, 0)


def test_secrets_in_a_publication_are_redacted(tmp_path: Path) -> None:
    text = json.dumps({"title": f"uses {SECRET}", "findings": [{"path": "a", "body": f"see {SECRET}"}]})
    script = f"mkdir .labrats; echo '{text}' > .labrats/publish.json"
    attempt = an_attempt_of(tmp_path, script, secrets={"ANTHROPIC_API_KEY": SECRET})
    attempt.run()
    assert publication_of(attempt)["title"] == "uses [redacted]"
    assert SECRET not in (attempt.path / "publication.json").read_text()


REFUSED = {
    "invalid JSON": ("echo '{' > .labrats/publish.json", "publication: must be a JSON object in UTF-8"),
    "unknown field": (
        """echo '{"titel": ""}' > .labrats/publish.json""",
        "titel: there is no such field; the fields are title",
    ),
    "too large": (
        "head -c 300000 /dev/zero | tr '\\0' ' ' > .labrats/publish.json",
        "publication: must have at most 256 KiB",
    ),
    "link": ("""echo '{}' > ../other; ln -s ../../other .labrats/publish.json""", "cannot read"),
    "link to its folder": (
        "mkdir ../other; echo '{}' > ../other/publish.json; rmdir .labrats; ln -s ../other .labrats",
        "cannot read",
    ),
    "pipe": ("mkfifo .labrats/publish.json", "'publish.json' is not a regular file"),
    "folder": ("mkdir .labrats/publish.json", "'publish.json' is not a regular file"),
    "secret as a field": (
        f"""echo '{{"{SECRET}": 1}}' > .labrats/publish.json""",
        "[redacted]: there is no such field",
    ),
}


@pytest.mark.parametrize(("script", "reason"), REFUSED.values(), ids=REFUSED)
def test_the_reason_is_stored_in_place_of_a_refused_publication(tmp_path: Path, script: str, reason: str) -> None:
    attempt = an_attempt_of(tmp_path, f"mkdir .labrats; {script}", secrets={"ANTHROPIC_API_KEY": SECRET})
    attempt.run()
    [line] = [line for line in attempt.logs if "publish.json" in line]
    assert line.startswith(f"[.labrats/publish.json is ignored: {reason}")
    stored = (attempt.path / "publication.json").read_bytes()
    with pytest.raises(Rejected) as caught:
        stored_publication(stored)
    assert line == f"[.labrats/publish.json is ignored: {caught.value}]"
    assert SECRET.encode() not in attempt.output.read_bytes() + stored


def test_attempt_without_a_publication_logs_nothing_of_it(tmp_path: Path) -> None:
    attempt = an_attempt_of(tmp_path, "mkdir .labrats")
    attempt.run()
    assert not (attempt.path / "publication.json").exists()
    assert not [line for line in attempt.logs if "publish" in line]
