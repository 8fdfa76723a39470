"""Limits of programs that handle untrusted input."""

import subprocess
import sys
from pathlib import Path

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
