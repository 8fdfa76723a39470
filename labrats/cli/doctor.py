"""`labrats doctor`: what this machine has for agents, and how far it can contain them."""

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Annotated, Final

from cyclopts import Parameter

from labrats.cli.errors import ExitCode
from labrats.cli.output import Styled, print_table, print_text

_VERSION_SECONDS: Final = 20.0
_STYLES: Final = {"ok": "green", "missing": "yellow", "fails": "red"}
_AGENT_PROGRAMS: Final = (
    ("Claude Code", "claude", "@anthropic-ai/claude-code"),
    ("Codex", "codex", "@openai/codex"),
)
_INSTALL_BUBBLEWRAP: Final = "install bubblewrap 0.8 or newer, and allow unprivileged user namespaces"


@dataclass(frozen=True)
class Finding:
    """The result of one check. result: ok, missing or fails. detail: the version, or what to do."""

    check: str
    result: str
    detail: str


def doctor(*, as_json: Annotated[bool, Parameter(name="--json")] = False) -> ExitCode:
    """Check what this machine has for agents, and how far it can contain them. Needs no running engine.

    Exit code 1 if git is missing, without which no repository can be cloned.

    Args:
        as_json: Print JSON.
    """
    findings = list(examine())
    if as_json:
        print_text(json.dumps([asdict(finding) for finding in findings]))
    else:
        rows = [(each.check, Styled(each.result, _STYLES[each.result]), each.detail) for each in findings]
        print_table(("CHECK", "RESULT", "DETAIL"), rows)
    return ExitCode.OK if findings[0].result == "ok" else ExitCode.JOB_FAILED


def examine() -> Iterator[Finding]:
    """Yield the findings on this machine: its programs, then the isolation that it offers."""
    from labrats.network_namespace import namespace_problem  # other commands do not need it
    from labrats.sandbox import can_scope_sockets

    yield _program("git", "git", "install git: repositories are cloned with it")
    for name, provider, package in _AGENT_PROGRAMS:
        program = os.environ.get(f"LABRATS_{provider.upper()}_PATH") or provider
        yield _program(name, program, f"needed by the provider {provider} only: `npm install -g {package}`")
    yield Finding("isolation: process", "ok", "stops nothing: an agent can do what the engine's user can")
    sandbox = _sandbox()
    yield sandbox
    if sandbox.result != "ok":
        yield Finding("network rules", "missing", "need the sandbox")
        return
    problem = namespace_problem(shutil.which("bwrap") or "")
    yield Finding("network rules", "fails" if problem else "ok", problem or "config.network can be enforced")
    if not can_scope_sockets():
        detail = "agents with an open network can reach them; use Linux 6.12 or newer with Landlock enabled"
        yield Finding("abstract sockets", "missing", detail)


def _program(name: str, program: str, advice: str) -> Finding:
    if (path := shutil.which(program)) is None:
        return Finding(name, "missing", advice)
    try:
        answer = subprocess.run(
            [path, "--version"], capture_output=True, text=True, timeout=_VERSION_SECONDS, stdin=subprocess.DEVNULL,
            check=False,
        )  # fmt: skip
    except (OSError, subprocess.TimeoutExpired) as error:
        return Finding(name, "fails", f"{path}: {error}")
    if answer.returncode != 0:
        return Finding(name, "fails", f"{path} --version exited with {answer.returncode}")
    version = answer.stdout.strip().partition("\n")[0]
    return Finding(name, "ok", f"{version} ({path})")


def _sandbox() -> Finding:
    from labrats.sandbox import bubblewrap_problem

    program = shutil.which("bwrap")
    if program is None:
        return Finding("isolation: sandbox", "missing", _INSTALL_BUBBLEWRAP)
    if problem := bubblewrap_problem(program):
        return Finding("isolation: sandbox", "fails", f"{problem}; {_INSTALL_BUBBLEWRAP}")
    return Finding("isolation: sandbox", "ok", f"bubblewrap ({program})")
