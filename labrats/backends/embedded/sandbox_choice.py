"""The isolation that agents on this machine can have and have by default, from the settings and a test."""

import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import structlog

from labrats.model.errors import LabratsError
from labrats.model.isolation import Isolation, IsolationLevels
from labrats.model.network import PUBLIC
from labrats.model.protocol import Sandbox
from labrats.processes import denied_program
from labrats.sandbox.bubblewrap import bubblewrap_problem, private_software
from labrats.sandbox.etc_snapshots import EtcSnapshots, SnapshotFailed
from labrats.sandbox.landlock import can_scope_sockets
from labrats.sandbox.network_namespace import namespace_problem
from labrats.sandbox.seccomp import can_refuse_calls
from labrats.settings import EngineSettings

log = structlog.get_logger()

FIRST_SCHEMA_WITH_AUTO: Final = 2
"""Data folders created before this schema retain the default of that time: no sandbox."""

FIRST_WITH_PUBLIC: Final = 4
"""Data folders created before this version retain the default of that time: an open network."""

_RISK: Final = "an agent can read and change all that the engine's user can, so a submit key is as good as an admin key"
_ADVICE: Final = "install bubblewrap 0.8 or newer and allow unprivileged user namespaces"

_PART_FOR_FILES: Final = 4
"""Divisor of the machine's memory for the files in `/dev/shm`, which belong to no process. The kernel's is 2."""


@dataclass(frozen=True)
class LocalIsolation:
    """The isolation of this machine's agents. sandbox: None if it does not work here."""

    levels: IsolationLevels
    sandbox: Sandbox | None = None


def choose_isolation(settings: EngineSettings, schema_created_with: int) -> LocalIsolation:
    """Return the levels of isolation on this machine. It is logged if agents have no sandbox by default.

    schema_created_with: the schema version of the database when the data folder was created.
    Raises LabratsError if the settings require a level that does not work here.
    """
    wanted = settings.sandbox or ("auto" if schema_created_with >= FIRST_SCHEMA_WITH_AUTO else "false")
    sandbox, reason = _find_sandbox(settings)
    if wanted == "true" and reason:
        raise LabratsError(f"agents cannot run in a sandbox here: {reason}; {_ADVICE}, or set LABRATS_SANDBOX=auto")
    advice = f"A sandbox does not work ({reason}): {_ADVICE}." if reason else "Other levels need Kubernetes."
    levels = IsolationLevels(
        available=(Isolation.PROCESS, Isolation.SANDBOX) if sandbox else (Isolation.PROCESS,),
        default=Isolation.SANDBOX if sandbox and wanted != "false" else Isolation.PROCESS,
        untrusted=settings.isolation_of_untrusted,
        advice=advice,
        no_sandbox=reason or "" if wanted == "auto" and settings.isolation is None else "",
    )
    if settings.isolation:
        if problem := levels.problem_of(settings.isolation):
            raise LabratsError(f"LABRATS_ISOLATION {problem}")
        levels = replace(levels, default=settings.isolation)
    _log_default(settings, levels, sandbox, reason)
    return LocalIsolation(levels, sandbox)


def _find_sandbox(settings: EngineSettings) -> tuple[Sandbox | None, str | None]:
    """Return the sandbox, or the reason why it does not work here."""
    snapshots = settings.data_dir / "etc-snapshots"
    if (program := shutil.which("bwrap")) is None:
        return None, denied_program("bwrap") or "bwrap is not on PATH"
    reason, has_snapshot = _test_bubblewrap(program, snapshots)
    if reason:
        return None, reason
    engine_folders = {settings.data_dir, settings.workspaces, settings.uploads, settings.pdf_uploads, settings.models}
    sandbox = Sandbox(
        program=program,
        unshare=_unshare(program),
        readable=tuple(map(str, settings.sandbox_read_paths)),
        hidden=tuple(sorted(map(str, engine_folders))),
        private=tuple(map(str, private_software(_programs(settings)))),
        etc_snapshots=str(snapshots) if has_snapshot else None,
        may_debug=settings.sandbox_ptrace,
        shm_bytes=settings.agent_memory or _memory() // _PART_FOR_FILES,
    )
    return sandbox, None


def _programs(settings: EngineSettings) -> Iterator[Path]:
    """Yield the agents' programs that are named by settings, or found on PATH."""
    for name, configured in settings.program_paths.items():
        if found := configured or shutil.which(name):
            yield Path(found)


def _unshare(program: str) -> str | None:
    """Return the program `unshare` if an ordinary user's sandbox works with it. See Sandbox."""
    if os.geteuid() == 0:
        return None
    unshare = shutil.which("unshare")
    problem = bubblewrap_problem(program, unshare=unshare) if unshare else "unshare is not on PATH"
    if problem:
        risk = "a file system that is mounted below a shown folder during a job appears in its sandbox, writable"
        log.warning("later mounts not kept out of the sandbox", reason=problem, risk=risk)
    return None if problem else unshare


def _memory() -> int:
    """Return the bytes of the machine's memory."""
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def _log_default(
    settings: EngineSettings, levels: IsolationLevels, sandbox: Sandbox | None, reason: str | None
) -> None:
    if sandbox and levels.default is not Isolation.PROCESS:
        _warn_of_gaps(settings)
        log.info("sandbox enabled", program=sandbox.program)
    elif settings.isolation is Isolation.PROCESS:
        log.warning("sandbox disabled", risk=_RISK, advice="set LABRATS_ISOLATION=sandbox")
    elif reason and settings.sandbox != "false":
        log.warning(
            "sandbox disabled",
            reason=reason,
            effect="only jobs of administrators run, without a sandbox",
            advice=_ADVICE,
        )
    else:
        advice = "set LABRATS_SANDBOX=auto"
        if not settings.sandbox:
            advice += "; it is not the default for a data folder of an earlier version"
        log.warning("sandbox disabled", risk=_RISK, advice=advice)


def default_network(settings: EngineSettings, levels: IsolationLevels, created_with: int) -> str | None:
    """Return the network rule of sandboxed jobs for which no setting names one; None for an open network.

    It is logged if agents can reach services on loopback only because the data folder is older than the default.
    """
    if created_with >= FIRST_WITH_PUBLIC:
        return PUBLIC
    if settings.network is None and levels.default is not Isolation.PROCESS:
        log.warning(
            "network of agents is open",
            risk="they reach every service on loopback and in private networks",
            advice="set LABRATS_NETWORK=public, the default for new data folders, or LABRATS_NETWORK=open",
        )
    return None


def network_problem(sandbox: Sandbox | None) -> str | None:
    """Return why the network of agents cannot be restricted here, as part of a sentence; None if it can."""
    if sandbox is None:
        return "must be open: agents run without a sandbox here; see LABRATS_SANDBOX"
    if problem := namespace_problem(sandbox.program):
        log.warning("network of agents not restrictable", reason=problem)
        return f"must be open: network namespaces do not work here ({problem})"
    return None


def _test_bubblewrap(program: str, snapshots: Path) -> tuple[str | None, bool]:
    """Return the problem of bubblewrap, if it has one, and whether the test could use a snapshot of /etc."""
    try:
        with EtcSnapshots(snapshots).current() as etc:
            return bubblewrap_problem(program, etc), True
    except SnapshotFailed as failure:
        log.warning("etc snapshot failed", reason=str(failure), effect="every sandbox starts some 50 ms slower")
        return bubblewrap_problem(program), False


def _warn_of_gaps(settings: EngineSettings) -> None:
    if not can_scope_sockets():
        log.warning(
            "abstract Unix sockets not confined",
            reason="the kernel has no Landlock ABI 6",
            advice="use Linux 6.12 or newer with Landlock enabled",
        )
    if not can_refuse_calls():
        log.warning("system calls not filtered", reason="the numbers of this machine's system calls are unknown")
    for path in settings.sandbox_read_paths:
        if not os.access(path, os.R_OK):
            log.warning("sandbox path unreadable", path=str(path), setting="LABRATS_SANDBOX_READ_PATHS")
