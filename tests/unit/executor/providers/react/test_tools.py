"""Tests of the tools: calls are confined to the workspace and limited in time and output."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from labrats.executor.context import RunContext
from labrats.executor.event_lines import EventLines
from labrats.executor.event_writer import EventWriter
from labrats.executor.providers.react.arguments import parse_tool_call
from labrats.executor.providers.react.observations import Observation
from labrats.executor.providers.react.tools import Tools
from labrats.model.config import JobConfig
from labrats.model.errors import GiveUp
from labrats.model.protocol import Sandbox
from labrats.model.redaction import Redactor
from labrats.processes import with_environment
from tests.unit.executor.attempts import a_task, some_work

WINDOW_TOKENS = 8192  # a result is shortened to 3072 characters
KEY = "sk-test-0123456789"


class ToolCaller:
    """Calls tools as a model does."""

    def __init__(self, tools: Tools) -> None:
        self.tools = tools
        self.workspace = tools.context.workspace

    async def use(self, tool: str, **arguments: Any) -> Observation:
        return await self.tools.use(parse_tool_call(tool, arguments))

    async def succeeds(self, tool: str, **arguments: Any) -> str:
        """Return the result of a call that must succeed."""
        observation = await self.use(tool, **arguments)
        assert not observation.is_error, observation.text
        return observation.text

    async def fails(self, tool: str, **arguments: Any) -> str:
        """Return the error of a call that must fail."""
        observation = await self.use(tool, **arguments)
        assert observation.is_error, observation.text
        return observation.text


@pytest.fixture
def tools(tmp_path: Path, unique_name: str) -> Iterator[ToolCaller]:
    with some_work(tmp_path, a_task(tmp_path, attempt=unique_name)) as work:
        yield ToolCaller(Tools.of(work.context, WINDOW_TOKENS))


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    """Create a file beside the workspace that no tool may access."""
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "file").write_text("untouched\n")
    return tmp_path / "outside" / "file"


async def test_written_file_can_be_read_edited_and_found(tools: ToolCaller) -> None:
    assert await tools.succeeds("write_file", path="src/a.py", content="x = 1\ny = 2\n") == (
        "Wrote 12 bytes to src/a.py."
    )
    assert await tools.succeeds("read_file", path="src/a.py") == "x = 1\ny = 2"
    await tools.succeeds("edit_file", path="./src//a.py", old="y = 2", new="y = 3")
    assert (tools.workspace / "src" / "a.py").read_text() == "x = 1\ny = 3\n"
    assert await tools.succeeds("search", pattern="^y = [0-9]") == "./src/a.py:2:y = 3\n"
    assert await tools.succeeds("search", pattern="y =", path="src/a.py") == "./src/a.py:2:y = 3\n"
    assert await tools.succeeds("search", pattern="nowhere") == "No matches."


async def test_path_in_the_workspace_may_be_absolute(tools: ToolCaller) -> None:
    await tools.succeeds("write_file", path=f"{tools.workspace}/a.txt", content="hello")

    assert await tools.succeeds("read_file", path=f"{tools.workspace}/a.txt") == "hello"
    assert await tools.succeeds("list_files", path=str(tools.workspace)) == "a.txt"


async def test_list_marks_folders_and_links(tools: ToolCaller) -> None:
    assert await tools.succeeds("list_files") == "The folder is empty."
    (tools.workspace / "b").mkdir()
    (tools.workspace / "a").write_text("")
    (tools.workspace / "c").symlink_to("/etc/passwd")
    assert await tools.succeeds("list_files") == "a\nb/\nc -> /etc/passwd"


@pytest.mark.parametrize(("old", "count"), [("z", "does not occur"), ("x", "occurs 2 times")])
async def test_edit_requires_a_part_that_occurs_once(tools: ToolCaller, old: str, count: str) -> None:
    (tools.workspace / "a").write_text("x x")

    assert count in await tools.fails("edit_file", path="a", old=old, new="y")
    assert (tools.workspace / "a").read_text() == "x x"


@pytest.mark.parametrize(
    "path", ["../outside/file", "a/../../outside/file", "/etc/passwd", "{outside}", "link", "dir/file"]
)
@pytest.mark.parametrize(
    ("tool", "arguments"),
    [("read_file", {}), ("write_file", {"content": "x"}), ("edit_file", {"old": "untouched", "new": "x"})],
)
async def test_no_path_or_link_leads_outside_the_workspace(
    tools: ToolCaller, outside: Path, tool: str, arguments: dict[str, str], path: str
) -> None:
    (tools.workspace / "link").symlink_to(outside)
    (tools.workspace / "dir").symlink_to(outside.parent)

    await tools.fails(tool, path=path.replace("{outside}", str(outside)), **arguments)

    assert outside.read_text() == "untouched\n"


@pytest.mark.parametrize("path", ["..", "/", "dir", "/etc", "dir/..", "link", "a\0b"])
@pytest.mark.parametrize(("tool", "arguments"), [("list_files", {}), ("search", {"pattern": "untouched"})])
async def test_folder_outside_the_workspace_is_not_read(
    tools: ToolCaller, outside: Path, tool: str, arguments: dict[str, str], path: str
) -> None:
    (tools.workspace / "dir").symlink_to(outside.parent)
    (tools.workspace / "link").symlink_to(outside)

    assert "untouched" not in await tools.fails(tool, path=path, **arguments)


async def test_link_in_place_of_the_full_results_leads_nowhere(tools: ToolCaller, outside: Path) -> None:
    """The model's programs may write to the folder in which the full results are stored."""
    scratch = tools.tools.observations.scratch
    await tools.succeeds("run_command", command=f"ln -s {outside.parent} {scratch}/observations")

    assert "untouched" not in await tools.fails("read_file", path=f"{scratch}/observations/file")
    assert "untouched" not in await tools.fails("read_file", path=f"{scratch}/observations/../observations/file")
    with pytest.raises(GiveUp, match="cannot write"):
        await tools.use("run_command", command="seq 1 10000")
    assert [path.name for path in outside.parent.iterdir()] == ["file"]


@pytest.mark.parametrize("is_confined", [False, True], ids=["process", "sandbox"])
async def test_search_runs_no_program_that_the_model_has_written(
    tmp_path: Path, unique_name: str, is_confined: bool
) -> None:
    config = JobConfig(provider="vllm", env={"PATH": f"bin:{os.environ['PATH']}"})
    sandbox = Sandbox(program=shutil.which("bwrap") or "bwrap") if is_confined else None
    with some_work(tmp_path, a_task(tmp_path, attempt=unique_name, config=config, sandbox=sandbox)) as work:
        tools = ToolCaller(Tools.of(work.context, WINDOW_TOKENS))
        await tools.succeeds("write_file", path="bin/grep", content="#!/bin/sh\necho forged\n")
        await tools.succeeds("run_command", command="chmod +x bin/grep")

        assert await tools.succeeds("run_command", command="grep x") == "forged\n"
        assert await tools.succeeds("search", pattern="echo") == "./bin/grep:2:echo forged\n"


async def test_search_ignores_links_and_pipes(tools: ToolCaller, outside: Path) -> None:
    (tools.workspace / "dir").symlink_to(outside.parent)
    os.mkfifo(tools.workspace / "pipe")

    assert await tools.succeeds("search", pattern="untouched") == "No matches."


@pytest.mark.parametrize(
    ("tool", "arguments"),
    [("read_file", {}), ("write_file", {"content": "x"}), ("edit_file", {"old": "a", "new": "b"})],
)
async def test_special_file_is_not_opened(tools: ToolCaller, tool: str, arguments: dict[str, str]) -> None:
    os.mkfifo(tools.workspace / "pipe")
    (tools.workspace / "folder").mkdir()
    os.mknod(tools.workspace / "null", 0o600 | 0o020000, os.makedev(1, 3)) if os.geteuid() == 0 else None

    for path in ["pipe", "folder", "null"]:
        await tools.fails(tool, path=path, **arguments)


async def test_binary_file_is_not_shown(tools: ToolCaller) -> None:
    (tools.workspace / "a").write_bytes(b"\x7fELF\0\0")

    assert "not a text file. It has 6 bytes" in await tools.fails("read_file", path="a")


async def test_long_file_is_read_page_by_page(tools: ToolCaller) -> None:
    lines = [f"line {number}" for number in range(1, 1001)]
    (tools.workspace / "long").write_text("\n".join(lines) + "\n")

    first = await tools.succeeds("read_file", path="long")
    assert len(first) < 3300
    *shown, note = first.split("\n")
    assert shown == lines[: len(shown)]
    assert note == f"[lines 1 to {len(shown)} of 1000; continue with offset {len(shown) + 1}]"
    assert (
        await tools.succeeds("read_file", path="long", offset=999) == "line 999\nline 1000\n[lines 999 to 1000 of 1000]"
    )
    assert await tools.succeeds("read_file", path="long", offset=5, limit=1) == (
        "line 5\n[lines 5 to 5 of 1000; continue with offset 6]"
    )


async def test_command_runs_in_the_workspace(tools: ToolCaller) -> None:
    assert await tools.succeeds("run_command", command="pwd; echo oops >&2") == f"{tools.workspace}\noops\n"
    assert await tools.fails("run_command", command="echo no; exit 3") == "no\n\n[exit status 3]"
    assert await tools.succeeds("run_command", command="true") == "The command succeeded and printed nothing."


async def test_command_does_not_inherit_the_engines_environment(
    tools: ToolCaller, unique_name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)

    environment = await tools.succeeds("run_command", command="env")

    assert KEY not in environment
    assert f"LABRATS_ATTEMPT={unique_name}" in environment


async def test_command_over_its_timeout_is_killed_and_its_output_returned(tools: ToolCaller, unique_name: str) -> None:
    output = await tools.fails("run_command", command="echo begun; trap '' TERM; sleep 300", timeout_seconds=1)

    assert output == "begun\n\n[the program was killed after 1 seconds]"
    assert with_environment("LABRATS_ATTEMPT", unique_name) == []


async def test_long_output_is_shortened_and_the_rest_can_be_read(tools: ToolCaller) -> None:
    output = await tools.fails("run_command", command="seq 1 100000000")

    assert output.startswith("1\n2\n3\n")
    assert output.endswith("[the program was killed after printing 4 MiB]")
    assert len(output) < 3400
    [note] = [line for line in output.split("\n") if line.startswith("[…")]
    path = note.partition("the full text is in ")[2].partition(",")[0]
    assert (await tools.succeeds("read_file", path=path, offset=5000, limit=1)).startswith("5000\n")
    await tools.fails("write_file", path=path, content="no")


async def test_command_with_a_nul_character_is_rejected(tools: ToolCaller) -> None:
    assert "NUL" in await tools.fails("run_command", command="echo a\0b")
    assert "NUL" in await tools.fails("search", pattern="a\0b")


async def test_invalid_pattern_returns_the_error_of_grep(tools: ToolCaller) -> None:
    assert "grep" in await tools.fails("search", pattern="(")


async def test_secret_in_a_result_is_redacted(tmp_path: Path) -> None:
    (tmp_path / "ws").mkdir()
    with (tmp_path / "output").open("wb") as output:
        context = RunContext(
            a_task(tmp_path),
            "x",
            "",
            {},
            tmp_path,
            tmp_path / "credentials",
            EventWriter(EventLines(output.fileno(), None), Redactor([KEY])),
        )
        tools = ToolCaller(Tools.of(context, WINDOW_TOKENS))
        assert await tools.succeeds("run_command", command=f"echo key {KEY}") == "key [redacted]\n"
