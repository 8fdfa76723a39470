"""The benchmark still works. What it measures is no matter of tests: times depend on the machine."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
MEASURED = (
    "submit, one client, p50",
    "submit → started",
    "jobs/s",
    "raw loop",
    "to 5 readers",
    "list of 20 out of 200",
)


def test_a_quick_run_measures_everything(tmp_path: Path) -> None:
    ran = subprocess.run(
        [sys.executable, "-m", "benchmarks", "--quick"],
        cwd=ROOT,
        env={"PATH": "/usr/bin:/bin", "TMPDIR": str(tmp_path), "LANG": "C.UTF-8"},
        capture_output=True,
        text=True,
    )
    assert ran.returncode == 0, ran.stderr
    for what in MEASURED:
        assert what in ran.stdout
    assert list(tmp_path.iterdir()) == []
