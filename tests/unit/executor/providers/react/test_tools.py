"""What the model can do, and what it cannot: no call leaves the workspace, runs for ever, or floods."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from labrats.executor.context import RunContext
from labrats.executor.event_writer import EventWriter
from labrats.executor.providers.react.arguments import parse_tool_call
from labrats.executor.providers.react.observations import Observation
from labrats.executor.providers.react.tools import Tools
from labrats.model.redaction import Redactor
from labrats.processes import with_environment
from tests.unit.executor.attempts import a_task, some_work

WINDOW_TOKENS = 8192  # of which one answer takes 3072 characters
KEY = "sk-test-0123456789"


class Hands:
    """Calls tools as a model does."""

    def __init__(self, tools: Tools) -> None:
        self.tools = tools
        self.workspace = tools.context.workspace

    async def use(self, tool: str, **arguments: Any) -> Observation:
        return await self.tools.use(parse_tool_call(tool, arguments))

    async def says(self, tool: str, **arguments: Any) -> str:
        """What a call that succeeds says."""
        observed = await self.use(tool, **arguments)
        assert not observed.is_error, observed.text
        return observed.text

    async def fails(self, tool: str, **arguments: Any) -> str:
        """What a call that fails says."""
        observed = await self.use(tool, **arguments)
        assert observed.is_error, observed.text
        return observed.text


@pytest.fixture
def hands(tmp_path: Path, unique_name: str) -> Iterator[Hands]:
    with some_work(tmp_path, a_task(tmp_path, attempt=unique_name)) as work:
        yield Hands(Tools.of(work.context, WINDOW_TOKENS))


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    """A file beside the workspace, which nothing may touch."""
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "file").write_text("untouched\n")
    return tmp_path / "outside" / "file"


async def test_a_file_that_was_written_is_read_edited_and_found(hands: Hands) -> None:
    assert await hands.says("write_file", path="src/a.py", content="x = 1\ny = 2\n") == ("Wrote 12 bytes to src/a.py.")
    assert await hands.says("read_file", path="src/a.py") == "x = 1\ny = 2"
    await hands.says("edit_file", path="./src//a.py", old="y = 2", new="y = 3")
    assert (hands.workspace / "src" / "a.py").read_text() == "x = 1\ny = 3\n"
    assert await hands.says("search", pattern="^y = [0-9]") == "./src/a.py:2:y = 3\n"
    assert await hands.says("search", pattern="y =", path="src/a.py") == "./src/a.py:2:y = 3\n"
    assert await hands.says("search", pattern="nowhere") == "No matches."


async def test_a_path_may_be_absolute_within_the_workspace(hands: Hands) -> None:
    await hands.says("write_file", path=f"{hands.workspace}/a.txt", content="hello")

    assert await hands.says("read_file", path=f"{hands.workspace}/a.txt") == "hello"
    assert await hands.says("list_files", path=str(hands.workspace)) == "a.txt"


async def test_a_folder_is_listed_with_what_its_entries_are(hands: Hands) -> None:
    assert await hands.says("list_files") == "The folder is empty."
    (hands.workspace / "b").mkdir()
    (hands.workspace / "a").write_text("")
    (hands.workspace / "c").symlink_to("/etc/passwd")
    assert await hands.says("list_files") == "a\nb/\nc -> /etc/passwd"


@pytest.mark.parametrize(("old", "count"), [("z", "does not occur"), ("x", "occurs 2 times")])
async def test_an_edit_needs_a_piece_that_is_there_once(hands: Hands, old: str, count: str) -> None:
    (hands.workspace / "a").write_text("x x")

    assert count in await hands.fails("edit_file", path="a", old=old, new="y")
    assert (hands.workspace / "a").read_text() == "x x"


@pytest.mark.parametrize(
    "path", ["../outside/file", "a/../../outside/file", "/etc/passwd", "{outside}", "link", "dir/file"]
)
@pytest.mark.parametrize(
    ("tool", "arguments"),
    [("read_file", {}), ("write_file", {"content": "x"}), ("edit_file", {"old": "untouched", "new": "x"})],
)
async def test_no_path_and_no_link_leads_outside(
    hands: Hands, outside: Path, tool: str, arguments: dict[str, str], path: str
) -> None:
    (hands.workspace / "link").symlink_to(outside)
    (hands.workspace / "dir").symlink_to(outside.parent)

    await hands.fails(tool, path=path.replace("{outside}", str(outside)), **arguments)

    assert outside.read_text() == "untouched\n"


@pytest.mark.parametrize("path", ["..", "/", "dir", "/etc", "dir/..", "link", "a\0b"])
@pytest.mark.parametrize(("tool", "arguments"), [("list_files", {}), ("search", {"pattern": "untouched"})])
async def test_no_folder_outside_is_looked_into(
    hands: Hands, outside: Path, tool: str, arguments: dict[str, str], path: str
) -> None:
    (hands.workspace / "dir").symlink_to(outside.parent)
    (hands.workspace / "link").symlink_to(outside)

    assert "untouched" not in await hands.fails(tool, path=path, **arguments)


async def test_a_search_follows_no_link_and_waits_at_no_pipe(hands: Hands, outside: Path) -> None:
    (hands.workspace / "dir").symlink_to(outside.parent)
    os.mkfifo(hands.workspace / "pipe")

    assert await hands.says("search", pattern="untouched") == "No matches."


@pytest.mark.parametrize(
    ("tool", "arguments"),
    [("read_file", {}), ("write_file", {"content": "x"}), ("edit_file", {"old": "a", "new": "b"})],
)
async def test_what_is_no_plain_file_is_not_opened(hands: Hands, tool: str, arguments: dict[str, str]) -> None:
    os.mkfifo(hands.workspace / "pipe")
    (hands.workspace / "folder").mkdir()
    os.mknod(hands.workspace / "null", 0o600 | 0o020000, os.makedev(1, 3)) if os.geteuid() == 0 else None

    for path in ["pipe", "folder", "null"]:
        await hands.fails(tool, path=path, **arguments)


async def test_a_binary_file_is_not_shown(hands: Hands) -> None:
    (hands.workspace / "a").write_bytes(b"\x7fELF\0\0")

    assert "not a text file. It has 6 bytes" in await hands.fails("read_file", path="a")


async def test_a_long_file_is_read_page_by_page(hands: Hands) -> None:
    lines = [f"line {number}" for number in range(1, 1001)]
    (hands.workspace / "long").write_text("\n".join(lines) + "\n")

    first = await hands.says("read_file", path="long")
    assert len(first) < 3300
    *shown, note = first.split("\n")
    assert shown == lines[: len(shown)]
    assert note == f"[lines 1 to {len(shown)} of 1000; continue with offset {len(shown) + 1}]"
    assert await hands.says("read_file", path="long", offset=999) == "line 999\nline 1000\n[lines 999 to 1000 of 1000]"
    assert await hands.says("read_file", path="long", offset=5, limit=1) == (
        "line 5\n[lines 5 to 5 of 1000; continue with offset 6]"
    )


async def test_a_command_runs_in_the_workspace(hands: Hands) -> None:
    assert await hands.says("run_command", command="pwd; echo oops >&2") == f"{hands.workspace}\noops\n"
    assert await hands.fails("run_command", command="echo no; exit 3") == "no\n\n[exit status 3]"
    assert await hands.says("run_command", command="true") == "The command succeeded and printed nothing."


async def test_a_command_has_an_environment_of_its_own(
    hands: Hands, unique_name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)

    environment = await hands.says("run_command", command="env")

    assert KEY not in environment
    assert f"LABRATS_ATTEMPT={unique_name}" in environment


async def test_a_command_that_takes_too_long_is_ended_and_what_it_said_is_kept(hands: Hands, unique_name: str) -> None:
    said = await hands.fails("run_command", command="echo begun; trap '' TERM; sleep 300", timeout_seconds=1)

    assert said == "begun\n\n[the program was killed after 1 seconds]"
    assert with_environment("LABRATS_ATTEMPT", unique_name) == []


async def test_a_flood_is_cut_and_the_rest_can_be_read(hands: Hands) -> None:
    said = await hands.fails("run_command", command="seq 1 100000000")

    assert said.startswith("1\n2\n3\n")
    assert said.endswith("[the program was killed after printing 4 MiB]")
    assert len(said) < 3400
    [note] = [line for line in said.split("\n") if line.startswith("[…")]
    path = note.partition("the full text is in ")[2].partition(",")[0]
    assert (await hands.says("read_file", path=path, offset=5000, limit=1)).startswith("5000\n")
    await hands.fails("write_file", path=path, content="no")


async def test_a_command_with_a_nul_is_refused(hands: Hands) -> None:
    assert "NUL" in await hands.fails("run_command", command="echo a\0b")
    assert "NUL" in await hands.fails("search", pattern="a\0b")


async def test_a_pattern_that_is_none_is_said_to_be(hands: Hands) -> None:
    assert "grep" in await hands.fails("search", pattern="(")


async def test_what_is_secret_is_not_told_to_the_models_server(tmp_path: Path) -> None:
    (tmp_path / "ws").mkdir()
    with (tmp_path / "output").open("wb") as output:
        context = RunContext(
            a_task(tmp_path),
            "x",
            "",
            {},
            tmp_path,
            tmp_path / "credentials",
            EventWriter(output.fileno(), None, Redactor([KEY])),
        )
        hands = Hands(Tools.of(context, WINDOW_TOKENS))
        assert await hands.says("run_command", command=f"echo key {KEY}") == "key [redacted]\n"
