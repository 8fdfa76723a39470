"""Quick runs of the benchmarks. The tests check no times, because these depend on the machine."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.phases import PHASES

ROOT = Path(__file__).parents[2]
MEASURED = (
    "submit, one client, p50",
    "submit → started",
    "jobs/s",
    "raw loop",
    "to 5 readers",
    "list of 20 out of 200",
)
MEASURED_BESIDE_A_BARE_HANDLER = (
    "GET /api/jobs?limit=20, processor time",
    "POST /webhooks/NAME, p50",
    "from exec to ready",
)
MEASURED_BESIDE_THE_PEER = (
    "submit → agent's process started",
    "memory per running agent, 4 of them",
    "with 20 other processes",
)
MEASURED_WITH_MANY_AGENTS = (
    "start of 20 agents",
    "memory per running agent beyond its own",
    "engine, processor time, each with a reader",
    "line → reader, p99",
    "cancel of all, until nothing is left",
)
MEASURED_WITH_A_HISTORY = (
    "300 finished jobs",
    "from exec to ready",
    "KiB per job",
    "`/api/jobs?limit=20&cursor=&status=failed`",
    "`/api/jobs/facets?q=repository-49`",
)
MEASURED_ON_A_CLUSTER = (
    "Job creates from a queue of 32",
    "beside the raw rate",
    "from exec to the next Job, 50 finished jobs",
    "one scrape of /metrics",
)


def run(*module: str, **environment: str) -> str:
    """Run a benchmark with --quick, and return its output."""
    ran = subprocess.run(
        [sys.executable, "-m", *module, "--quick"],
        cwd=ROOT,
        env={"LANG": "C.UTF-8", **environment},
        capture_output=True,
        text=True,
    )
    assert ran.returncode == 0, ran.stderr
    return ran.stdout


def test_quick_run_of_readers_prints_its_row(tmp_path: Path) -> None:
    assert "/health, 5 readers never read" in run("benchmarks.readers", TMPDIR=str(tmp_path), PATH=os.environ["PATH"])


def test_quick_run_prints_its_rows_and_leaves_no_files(tmp_path: Path) -> None:
    table = run("benchmarks", PATH="/usr/bin:/bin", TMPDIR=str(tmp_path))
    for row in MEASURED:
        assert row in table
    assert list(tmp_path.iterdir()) == []


def test_quick_run_beside_a_bare_handler_prints_its_rows(tmp_path: Path) -> None:
    table = run("benchmarks.web", TMPDIR=str(tmp_path), PATH=os.environ["PATH"])
    for row in MEASURED_BESIDE_A_BARE_HANDLER:
        assert row in table
    assert list(tmp_path.iterdir()) == []


def test_quick_run_without_the_peer_prints_the_rows_of_the_engine(tmp_path: Path) -> None:
    table = run("benchmarks.peer", TMPDIR=str(tmp_path), PATH=os.environ["PATH"])
    for row in MEASURED_BESIDE_THE_PEER:
        assert row in table
    assert list(tmp_path.iterdir()) == []


def test_quick_run_with_many_agents_prints_its_rows_and_leaves_no_process(tmp_path: Path) -> None:
    table = run("benchmarks.many", TMPDIR=str(tmp_path), PATH=os.environ["PATH"])
    for row in MEASURED_WITH_MANY_AGENTS:
        assert row in table
    assert list(tmp_path.iterdir()) == []


def test_quick_run_of_phases_prints_a_row_for_each(tmp_path: Path) -> None:
    table = run("benchmarks.phases", TMPDIR=str(tmp_path), PATH=os.environ["PATH"])
    assert [line.split("|")[1].strip() for line in table.splitlines()[2:]] == [*PHASES, "in all"]
    assert list(tmp_path.iterdir()) == []


def test_quick_run_of_the_key_proxy_prints_its_rows() -> None:
    table = run("benchmarks.key_proxy", PATH=os.environ["PATH"])
    for row in ("first byte, median of 5", "request of 250 KB", "10 events", "full speed"):
        assert row in table


def test_quick_run_with_a_history_prints_its_rows(tmp_path: Path) -> None:
    table = run("benchmarks.history", TMPDIR=str(tmp_path), PATH=os.environ["PATH"])
    for row in MEASURED_WITH_A_HISTORY:
        assert row in table
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_hundreds_of_agents_run_at_once(tmp_path: Path) -> None:
    table = run("benchmarks.many", "--running=300", TMPDIR=str(tmp_path), PATH=os.environ["PATH"])
    assert "start of 300 agents" in table
    assert "cancel of all, until nothing is left" in table


@pytest.mark.kubernetes
@pytest.mark.usefixtures("cluster")
def test_quick_run_on_a_cluster_without_a_node_prints_its_rows() -> None:
    table = run("benchmarks.kubernetes", "--only", "api", **os.environ)
    for row in MEASURED_ON_A_CLUSTER:
        assert row in table


@pytest.mark.kubernetes
@pytest.mark.usefixtures("cluster")
def test_an_outage_of_the_api_server_is_measured() -> None:
    assert "1 s of outage: the first of 5 jobs started after" in run("benchmarks.failover", **os.environ)
