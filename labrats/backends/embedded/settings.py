"""What attempts on this machine are told, by the engine's settings."""

import os
import shutil
import subprocess
from pathlib import Path
from typing import Final

from labrats.backends.embedded.folders import Folders
from labrats.backends.embedded.runner import LocalRunnerSettings
from labrats.model.errors import LabratsError
from labrats.model.protocol import Sandbox
from labrats.settings import EngineSettings

SHARED_FOLDERS: Final = ("/home", "/root", "/tmp", "/var/tmp")  # noqa: S108, nothing is written there
"""Where other things of the machine's users lie than programs: no confined agent sees them."""


def runner_settings(settings: EngineSettings) -> LocalRunnerSettings:
    programs = {
        "claude": settings.claude_path or shutil.which("claude"),
        "codex": settings.codex_path or shutil.which("codex"),
    }
    return LocalRunnerSettings(
        folders=Folders(settings.data_dir / "attempts", settings.workspaces),
        uploads=settings.uploads,
        environment=dict(os.environ),
        programs={provider: program for provider, program in programs.items() if program},
        git_addresses=settings.outbound_allowed_cidrs,
        repo_roots=settings.local_repo_roots,
        cli_login=settings.claude_use_login,
        idle_seconds=settings.agent_idle_seconds,
        sandbox=sandbox_of(settings),
        allow_untrusted=settings.allow_untrusted,
    )


def sandbox_of(settings: EngineSettings) -> Sandbox | None:
    """How agents are confined, where the settings say so. Raises LabratsError when that cannot be done here."""
    if not settings.sandbox:
        return None
    advice = "install bubblewrap (0.8 or newer), and let users have namespaces; or start without --sandbox"
    if (program := shutil.which("bwrap")) is None:
        raise LabratsError(f"there is no bwrap on PATH to confine agents with; {advice}")
    command = [program, "--unshare-pid", "--ro-bind", "/", "/", "--dev", "/dev", "--proc", "/proc", "--", "true"]
    tried = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    if tried.returncode != 0:
        raise LabratsError(f"agents cannot be confined here, bwrap says: {tried.stderr.strip()}; {advice}")
    own = (settings.data_dir, settings.workspaces, settings.uploads, Path.home())
    return Sandbox(program=program, hidden=tuple(str(folder) for folder in (*own, *map(Path, SHARED_FOLDERS))))
