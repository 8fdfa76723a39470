"""`python -m benchmarks.compare [BASE]`: measure two revisions in turn, and print the ratio of each figure.

BASE is by default the last release, or the parent of HEAD where the clone has no release. A BASE that does not run with
the installed dependencies is reported, and not measured.
Processor time includes every process that did the work: the measuring process adopts the orphans of the engine, and
ends and reaps them. The minimum of several rounds counts. Both revisions use the installed dependencies.
"""

import argparse
import asyncio
import os
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path

from benchmarks.engine import Engine, running_engine, succeed
from benchmarks.http import connected
from benchmarks.measures import MODEL, POLL_SECONDS
from benchmarks.processes import adopt_orphans, cpu_seconds_below, end_orphans
from benchmarks.stand_in import short_run

REQUESTS, MOCK_JOBS, CLAUDE_JOBS, WAITING_JOBS = 500, 100, 50, 20
ROUNDS = 3
SLOTS = 4
RELEASES = "v[0-9]*"
"""The tags of releases."""

Load = Callable[[Engine], Awaitable[None]]


@dataclass(frozen=True)
class Tree:
    """A revision of the project, and a Python that runs it. name: of the revision, shown in the table."""

    name: str
    folder: Path
    python: Path


@dataclass(frozen=True)
class Figure:
    """A measured number, of which less is better."""

    label: str
    unit: str
    measure: Callable[[Tree], float]


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.compare", description=__doc__)
    parser.add_argument("base", nargs="?", help="the revision to compare with; default: the last release")
    parser.add_argument("--rounds", type=int, default=ROUNDS, help="rounds of each figure, of which the minimum counts")
    options = parser.parse_args()
    revision = options.base or default_base()
    if revision is None:
        print("no revision to compare with: the clone has neither a release nor a parent of HEAD")
        return
    adopt_orphans()
    with (
        tempfile.TemporaryDirectory(prefix="labrats-compare-") as folder,
        base_tree(revision, Path(folder)) as base,
    ):
        here = tree(Path.cwd(), "now", Path(folder))
        print(f"| figure | {base.name} | now | ratio |\n|---|---:|---:|---:|")
        for figure in FIGURES:
            print(row(figure, *in_turn(figure, base, here, options.rounds)), flush=True)


def default_base() -> str | None:
    """Return the last release before HEAD, or else the parent of HEAD; None in a clone that has neither."""
    release = _git("describe", "--tags", "--abbrev=0", "--match", RELEASES, "HEAD^")
    return release or _git("rev-parse", "--verify", "--quiet", "HEAD^")


def _git(*arguments: str) -> str | None:
    """Return what git printed; None when it failed."""
    ran = subprocess.run(["git", *arguments], capture_output=True, text=True)
    return ran.stdout.strip() if ran.returncode == 0 else None


def row(figure: Figure, before: float | None, after: float) -> str:
    if before is None:
        return f"| {figure.label}, {figure.unit} | does not run | {after:.2f} | – |"
    ratio = f"{after / before:.2f}" if before > 0 else "–"
    return f"| {figure.label}, {figure.unit} | {before:.2f} | {after:.2f} | {ratio} |"


def in_turn(figure: Figure, base: Tree, here: Tree, rounds: int) -> tuple[float | None, float]:
    """Measure both trees alternately. Return the minimum of each; None for a base that does not run."""
    before, after = [], []
    for _ in range(rounds):
        before.append(measured_base(figure, base))
        after.append(figure.measure(here))
    return min((each for each in before if each is not None), default=None), min(after)


def measured_base(figure: Figure, base: Tree) -> float | None:
    """Measure the base; None if it does not run, since an old revision may not support the dependencies of today."""
    try:
        return figure.measure(base)
    except (RuntimeError, subprocess.CalledProcessError):
        return None


@contextmanager
def base_tree(revision: str, folder: Path) -> Iterator[Tree]:
    """Check the revision out into a temporary folder during the block."""
    checkout = folder / "base"
    subprocess.run(["git", "worktree", "add", "--detach", "--quiet", str(checkout), revision], check=True)
    try:
        describe = ["git", "-C", str(checkout), "describe", "--always", "--tags"]
        name = subprocess.run(describe, capture_output=True, text=True, check=True).stdout.strip()
        yield tree(checkout, name, folder)
    finally:
        subprocess.run(["git", "worktree", "remove", "--force", str(checkout)], check=True)


def tree(checkout: Path, name: str, folder: Path) -> Tree:
    """Create a virtual environment that imports from the checkout first, and then from the installed dependencies."""
    environment = folder / f"environment-{name}"
    packages = environment / "lib" / f"python{sysconfig.get_python_version()}" / "site-packages"
    packages.mkdir(parents=True)
    installed = sysconfig.get_path("purelib")
    (packages / "trees.pth").write_text(f"{checkout}\n{installed}\n")
    config = (Path(sys.prefix) / "pyvenv.cfg").read_text()
    (environment / "pyvenv.cfg").write_text(config)
    (environment / "bin").mkdir()
    python = environment / "bin" / "python"
    python.symlink_to(Path(sys.executable).resolve())
    program = environment / "bin" / "labrats"
    program.write_text(f"#!{python}\nfrom labrats.main import main\nmain()\n")
    program.chmod(0o755)
    return Tree(name, checkout, python)


def import_ms(program: str) -> Callable[[Tree], float]:
    """Measure the processor time of a Python program, in milliseconds."""

    def measure(tree: Tree) -> float:
        began = os.times()
        subprocess.run([tree.python, "-c", program], check=True, env={"PATH": os.environ["PATH"]}, cwd="/")
        ended = os.times()
        return 1000 * (ended.children_user + ended.children_system - began.children_user - began.children_system)

    return measure


def cpu_ms(load: Load, per: int) -> Callable[[Tree], float]:
    """Measure the processor time of all processes under a load, in milliseconds per unit of the load."""

    async def measure(tree: Tree) -> float:
        async with engine_of(tree) as engine:
            await prepare(engine)
            began = cpu_seconds_below()
            await load(engine)
            return 1000 * (cpu_seconds_below() - began) / per

    return lambda tree: asyncio.run(measure(tree))


@asynccontextmanager
async def engine_of(tree: Tree) -> AsyncIterator[Engine]:
    """Run an engine of the tree on an empty data folder, and end all its processes afterwards."""
    with tempfile.TemporaryDirectory(prefix="labrats-compare-data-") as folder:
        program = tree.python.with_name("labrats")
        async with running_engine(Path(folder), program=program, **settings(Path(folder))) as engine:
            yield engine
        end_orphans()


def settings(data: Path) -> Mapping[str, str]:
    return {"LABRATS_CLAUDE_PATH": str(short_run(data / "bin")), "LABRATS_SANDBOX": "false"}


async def prepare(engine: Engine) -> None:
    """Configure the models, run a job on each to load all programs, and leave some jobs waiting."""
    for provider in ("mock", "claude"):
        body = {"name": f"{MODEL}-{provider}", "provider": provider, "model": MODEL, "slots": 1}
        await engine.call("POST", "/api/ai-models", body)
        await jobs(provider, 1)(engine)
        await engine.call("PATCH", f"/api/ai-models/{MODEL}-{provider}", {"slots": 0})
    waiting = {**submission_of("mock"), "config": {"provider": "mock", "model": "none"}}
    await engine.call("POST", "/api/ai-models", {"name": "none", "provider": "mock", "model": "none", "slots": 0})
    for _ in range(WAITING_JOBS):
        await engine.call("POST", "/api/jobs/submit", waiting)


def requests(method: str, path: str, body: object = None) -> Load:
    """Return a load of requests, one after the other."""

    async def load(engine: Engine) -> None:
        prepared = engine.request(method, path, body)
        async with connected(engine.port) as connection:
            for _ in range(REQUESTS):
                await succeed(connection, prepared)

    return load


def jobs(provider: str, number: int) -> Load:
    """Return a load of jobs that are all submitted before the first one starts."""

    async def load(engine: Engine) -> None:
        body = submission_of(provider)
        prepared = engine.request("POST", "/api/jobs/submit", body)
        async with connected(engine.port) as connection:
            for _ in range(number):
                await succeed(connection, prepared)
        await engine.call("PATCH", f"/api/ai-models/{MODEL}-{provider}", {"slots": SLOTS})
        await until_ended(engine, provider)

    return load


async def until_ended(engine: Engine, provider: str) -> None:
    """Wait until no job of the provider waits or runs."""
    model = engine.request("GET", f"/api/ai-models/{MODEL}-{provider}")
    async with connected(engine.port) as connection:
        while (found := (await succeed(connection, model)).json)["queued"] or found["active"]:
            await asyncio.sleep(POLL_SECONDS)


def submission_of(provider: str) -> Mapping[str, object]:
    return {
        "source": "benchmark",
        "type": "no-op",
        "prompt": "a prompt",
        "config": {"provider": provider, "model": MODEL},
        "metadata": {"mock": {"steps": [{"result": 1}]}} if provider == "mock" else {},
    }


def idle_mib(tree: Tree) -> float:
    """Measure the resident memory of an idle engine, in MiB."""

    async def measure() -> float:
        async with engine_of(tree) as engine:
            return engine.resident_mib()

    return asyncio.run(measure())


SUBMISSION = submission_of("mock")
FIGURES: Sequence[Figure] = (
    Figure("import of the command line, CPU", "ms", import_ms("import labrats.cli.app")),
    Figure("import of the API, CPU", "ms", import_ms("import labrats.api.app")),
    Figure("import of the executor, CPU", "ms", import_ms("import labrats.executor.attempt")),
    Figure("GET /health, CPU", "ms", cpu_ms(requests("GET", "/health"), REQUESTS)),
    Figure("GET /api/jobs?limit=20, CPU", "ms", cpu_ms(requests("GET", "/api/jobs?limit=20"), REQUESTS)),
    Figure("POST /api/jobs/submit, CPU", "ms", cpu_ms(requests("POST", "/api/jobs/submit", SUBMISSION), REQUESTS)),
    Figure("mock job, CPU of all processes", "ms", cpu_ms(jobs("mock", MOCK_JOBS), MOCK_JOBS)),
    Figure("stand-in for Claude Code, CPU of all processes", "ms", cpu_ms(jobs("claude", CLAUDE_JOBS), CLAUDE_JOBS)),
    Figure("memory, idle", "MiB", idle_mib),
)


if __name__ == "__main__":
    main()
