"""The choice whether agents on this machine run in a sandbox, from the settings and a test of the machine."""

import os
import shutil
from pathlib import Path
from typing import Final

import structlog

from labrats.etc_snapshots import EtcSnapshots, SnapshotFailed
from labrats.model.errors import LabratsError
from labrats.model.protocol import Sandbox
from labrats.network_namespace import namespace_problem
from labrats.sandbox import bubblewrap_problem, can_scope_sockets
from labrats.settings import EngineSettings
from labrats.system_calls import can_refuse_calls

log = structlog.get_logger()

FIRST_SCHEMA_WITH_AUTO: Final = 2
"""Data folders created before this schema retain the default of that time: no sandbox."""

_RISK: Final = "an agent can read and change all that the engine's user can, so a submit key is as good as an admin key"
_ADVICE: Final = "install bubblewrap 0.8 or newer and allow unprivileged user namespaces"


def choose_sandbox(settings: EngineSettings, schema_created_with: int) -> Sandbox | None:
    """Return the sandbox of this engine's agents; None if they run without one, which is then logged.

    schema_created_with: the schema version of the database when the data folder was created.
    Raises LabratsError if the settings require a sandbox that does not work here.
    """
    is_new = schema_created_with >= FIRST_SCHEMA_WITH_AUTO
    wanted = settings.sandbox or ("auto" if is_new else "false")
    if wanted == "false":
        advice = "set LABRATS_SANDBOX=auto"
        if not settings.sandbox:
            advice += "; it is not the default for a data folder of an earlier version"
        log.warning("sandbox disabled", risk=_RISK, advice=advice)
        return None
    program = shutil.which("bwrap")
    snapshots = settings.data_dir / "etc-snapshots"
    reason, has_snapshot = _test_bubblewrap(program, snapshots) if program else ("bwrap is not on PATH", False)
    if program is None or reason:
        if wanted == "true":
            raise LabratsError(f"agents cannot run in a sandbox here: {reason}; {_ADVICE}, or set LABRATS_SANDBOX=auto")
        log.warning("sandbox disabled", reason=reason, risk=_RISK, advice=_ADVICE)
        return None
    _warn_of_gaps(settings)
    log.info("sandbox enabled", program=program)
    engine_folders = {settings.data_dir, settings.workspaces, settings.uploads, settings.pdf_uploads, settings.models}
    return Sandbox(
        program=program,
        readable=tuple(map(str, settings.sandbox_read_paths)),
        hidden=tuple(sorted(map(str, engine_folders))),
        etc_snapshots=str(snapshots) if has_snapshot else None,
        may_debug=settings.sandbox_ptrace,
    )


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
