"""Limits of programs that handle untrusted input."""

import subprocess
import sys
from pathlib import Path

import pytest

from labrats.sandbox.landlock import can_scope_sockets

LIMITED = """
import os
from pathlib import Path
from labrats.executor.limited_program import limit_this_process as limit
"""


def outcome_of(script: str) -> str:
    """Run a script as the executor runs such a program. Return its last line of output."""
    done = subprocess.run(
        [sys.executable, "-I", "-c", LIMITED + script], capture_output=True, text=True, timeout=60, check=False
    )
    return (done.stdout or done.stderr).strip().splitlines()[-1]


@pytest.fixture
def secret(tmp_path: Path) -> Path:
    path = tmp_path / "engine" / "admin.key"
    path.parent.mkdir()
    path.write_text("test-key-of-the-engine")
    return path


@pytest.mark.skipif(not can_scope_sockets(), reason="needs Landlock")
def test_program_ends_no_other_process() -> None:
    with subprocess.Popen(["sleep", "600"]) as other:
        assert "not permitted" in outcome_of(f"limit(); os.kill({other.pid}, 9)")
        assert other.poll() is None
        other.kill()


@pytest.mark.skipif(not can_scope_sockets(), reason="needs Landlock")
@pytest.mark.parametrize(
    "attempt",
    [
        "os.truncate('{secret}', 0)",
        "open('{secret}')",
        "os.listdir('{folder}')",
        "os.unlink('{secret}')",
        "open('{folder}/new', 'w')",
        "os.rename('{secret}', '{folder}/other')",
        "os.execv('/bin/cat', ['cat', '{secret}'])",
    ],
)
def test_program_reaches_no_other_file(secret: Path, attempt: str) -> None:
    script = attempt.format(secret=secret, folder=secret.parent)
    assert "Permission denied" in outcome_of(f"limit(); {script}")
    assert [path.name for path in secret.parent.iterdir()] == ["admin.key"]
    assert secret.stat().st_size > 0


def test_program_can_still_import_modules() -> None:
    assert outcome_of("limit(); import pypdfium2, xml.dom.minidom, jsonschema_rs; print('ok')") == "ok"


def test_crash_of_a_program_starts_no_program_of_the_machine(tmp_path: Path) -> None:
    """With a limit of 0, the kernel would start it all the same."""
    (tmp_path / "core_pattern").write_text("|/usr/lib/systemd/systemd-coredump %P\n")
    script = f"""
import resource
from labrats.sandbox import bubblewrap
bubblewrap._CORE_PATTERN = Path({str(tmp_path / "core_pattern")!r})
limit()
print(*resource.getrlimit(resource.RLIMIT_CORE), *resource.getrlimit(resource.RLIMIT_FSIZE))
"""
    assert outcome_of(script) == "1 1 0 0"
