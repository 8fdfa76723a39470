"""Tests of reading the files in which agent programs record their sessions."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from labrats.executor.providers.claude_sessions import SessionFiles
from labrats.executor.providers.codex_events import SessionUsageReader
from labrats.executor.providers.session_lines import MOST_BYTES, complete_lines
from labrats.model.config import JobConfig
from tests.unit.executor.attempts import an_attempt

MEBIBYTE = 1024 * 1024

AGENT_THAT_CLOSES_ITS_HOME = """#!/bin/sh
echo '{"type": "system", "subtype": "init", "session_id": "one"}'
chmod 000 "$HOME"
echo '{"type": "assistant", "parent_tool_use_id": "two", "message": {"id": "three", "content": []}}'
echo '{"type": "result", "subtype": "success", "result": "done"}'
"""

MEASURE = """
import re
import sys
from pathlib import Path
from labrats.executor.providers.session_lines import complete_lines

def peak_kibibytes():  # not ru_maxrss, which begins with the peak of the parent
    return int(re.search(r"VmHWM:\\s+(\\d+) kB", Path("/proc/self/status").read_text())[1])

before = peak_kibibytes()
with open(sys.argv[1], "rb") as file:
    size = sum(map(len, complete_lines(file)))
print(size, peak_kibibytes() - before)
"""


def test_an_incomplete_line_is_read_once_it_is_complete(tmp_path: Path) -> None:
    path = tmp_path / "session.jsonl"
    path.write_bytes(b"one\ntwo\nthr")
    with path.open("rb") as file, path.open("ab") as program:
        assert list(complete_lines(file)) == [b"one\n", b"two\n"]
        assert list(complete_lines(file)) == []
        program.write(b"ee\n")
        program.flush()
        assert list(complete_lines(file)) == [b"three\n"]


def test_a_line_without_an_end_takes_little_memory(tmp_path: Path) -> None:
    path = tmp_path / "session.jsonl"
    path.touch()
    os.truncate(path, MOST_BYTES)
    command = [sys.executable, "-c", MEASURE, str(path)]
    read, kibibytes = map(int, subprocess.run(command, capture_output=True, check=True, timeout=60).stdout.split())
    assert read == MOST_BYTES
    assert kibibytes < 64 * 1024


@pytest.mark.parametrize("size", [MOST_BYTES + 1, 1024 * 1024 * MEBIBYTE])
def test_usage_in_a_file_that_is_too_large_is_not_counted(tmp_path: Path, size: int) -> None:
    """An agent can make the file of its session as large as it likes: the executor must not read it into memory."""
    rollout = tmp_path / ".codex" / "sessions" / "rollout-2026-thread.jsonl"
    session = tmp_path / ".claude" / "projects" / "ws" / "session.jsonl"
    subagent = tmp_path / ".claude" / "projects" / "ws" / "session" / "subagents" / "agent-1.jsonl"
    for file in (rollout, session, subagent):
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch()
    codex, claude = SessionUsageReader(tmp_path, "thread"), SessionFiles(tmp_path, "session")
    usage = {"input_tokens": 5, "output_tokens": 6}
    rollout.write_text(
        json.dumps({"payload": {"response_id": "r", "usage": usage}, "type": "token_usage_record"}) + "\n"
    )
    session.write_text(json.dumps({"type": "cost-state", "totalCostUSD": 1.0}) + "\n")
    subagent.write_text(json.dumps({"type": "assistant", "message": {"id": "m", "usage": usage}}) + "\n")
    for file in (rollout, session, subagent):
        os.truncate(file, size)

    assert not codex.read()
    assert claude.usage() is None
    assert list(claude.new_subagent_messages()) == []
    codex.close()


def test_a_session_file_that_is_a_pipe_or_a_link_is_not_read(tmp_path: Path) -> None:
    (tmp_path / ".codex" / "sessions").mkdir(parents=True)
    os.mkfifo(tmp_path / ".codex" / "sessions" / "rollout-2026-pipe.jsonl")
    (tmp_path / ".codex" / "sessions" / "rollout-2026-link.jsonl").symlink_to("/etc/passwd")
    for name in ("pipe", "link"):
        reader = SessionUsageReader(tmp_path, name)
        assert not reader.read()
        reader.close()


def test_sessions_behind_a_link_are_not_read(tmp_path: Path) -> None:
    usage = {"input_tokens": 5, "output_tokens": 6}
    outside, home = tmp_path / "outside", tmp_path / "home"
    for file, line in (
        ("ws/session.jsonl", {"type": "cost-state", "totalCostUSD": 1.0}),
        ("ws/session/subagents/agent-1.jsonl", {"type": "assistant", "message": {"id": "m", "usage": usage}}),
        ("rollout-2026-session.jsonl", {"type": "token_usage_record", "payload": {"response_id": "r", "usage": usage}}),
    ):
        (outside / file).parent.mkdir(parents=True, exist_ok=True)
        (outside / file).write_text(json.dumps(line) + "\n")
    (home / ".claude").mkdir(parents=True)
    (home / ".codex").mkdir()
    codex, claude = SessionUsageReader(home), SessionFiles(home)
    codex.thread_id = claude.session_id = "session"
    (home / ".claude" / "projects").symlink_to(outside)
    (home / ".codex" / "sessions").symlink_to(outside)
    assert not codex.read()
    assert (claude.usage(), list(claude.new_subagent_messages())) == (None, [])


def test_messages_of_subagents_are_read_up_to_a_limit(tmp_path: Path) -> None:
    usage = {"input_tokens": 5, "output_tokens": 6}
    folder = tmp_path / ".claude" / "projects" / "ws" / "session" / "subagents"
    folder.mkdir(parents=True)
    for number in range(3):
        line = json.dumps({"type": "assistant", "message": {"id": str(number), "usage": usage}}) + "\n"
        (folder / f"agent-{number}.jsonl").write_text(line)
        os.truncate(folder / f"agent-{number}.jsonl", MOST_BYTES // 2)
    claude = SessionFiles(tmp_path)
    claude.session_id = "session"
    assert [message_id for message_id, _ in claude.new_subagent_messages()] == ["0", "1"]


def test_agent_that_closes_its_home_succeeds(tmp_path: Path) -> None:
    program = tmp_path / "claude"
    program.write_text(AGENT_THAT_CLOSES_ITS_HOME)
    program.chmod(0o755)
    attempt = an_attempt(tmp_path, config=JobConfig(provider="claude"), programs={"claude": str(program)})
    attempt.run(without_capabilities=True)
    assert attempt.result == "done"
