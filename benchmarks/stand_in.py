"""A stand-in for Claude Code: a script that prints the `stream-json` output of a run."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

NAME = "claude"
SESSION = "00000000-0000-4000-8000-000000000000"
USAGE = {"input_tokens": 9, "output_tokens": 9}
_TIME = "THE-TIME"

_INIT: Mapping[str, object] = {
    "type": "system", "subtype": "init", "session_id": SESSION, "model": "opus", "tools": [],
}  # fmt: skip
_TEXT: Mapping[str, object] = {
    "type": "assistant",
    "message": {"id": "m", "content": [{"type": "text", "text": _TIME}], "usage": USAGE},
}
_RESULT: Mapping[str, object] = {
    "type": "result", "subtype": "success", "is_error": False, "result": _TIME, "session_id": SESSION,
    "num_turns": 1, "total_cost_usd": 0.01, "usage": USAGE,
}  # fmt: skip


def short_run(folder: Path) -> Path:
    """Write a stand-in that prints a text and a result, both the time of its start in seconds, and exits."""
    return _script(folder, ["now=$EPOCHREALTIME", *(_echo(event, "$now") for event in (_INIT, _TEXT, _RESULT))])


def silent_run(folder: Path) -> Path:
    """Write a stand-in that prints nothing after its first event, and runs until it is killed."""
    return _script(folder, [_echo(_INIT, ""), _NEVER, "read -u 3"])


def talkative_run(folder: Path, seconds: float) -> Path:
    """Write a stand-in that prints the time every `seconds`, until it is killed."""
    text = _echo(_TEXT, "$EPOCHREALTIME")
    return _script(folder, [_echo(_INIT, ""), _NEVER, f"while ! read -t {seconds} -u 3; do {text}; done"])


_NEVER = "exec 3<> <(:)"
"""Open a pipe without data as descriptor 3. A wait for its data needs no further process, unlike `sleep`."""


def _echo(event: Mapping[str, object], time: str) -> str:
    return f"echo '{json.dumps(event)}'".replace(_TIME, f"'{time}'")


def _script(folder: Path, lines: Sequence[str]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / NAME
    path.write_text("\n".join(["#!/bin/bash", *lines, ""]))
    path.chmod(0o755)
    return path
