"""The `labrats` command: registered commands, help, usage errors, streams."""

import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from cyclopts import App

from labrats import __version__
from labrats.cli import jobs
from labrats.cli.app import build_app
from labrats.cli.errors import ExitCode
from labrats.cli.key_values import parse_pairs
from tests.unit.cli.engines import Labrats, OwnEngine

LABRATS = (sys.executable, "-c", "import sys; from labrats.main import main; sys.exit(main())")
NO_ENGINE = {"PATH": os.environ["PATH"], "LABRATS_URL": "http://127.0.0.1:9", "LABRATS_API_KEY": "test-key"}

COMMANDS = (
    "submit jobs job logs wait cancel retry apply get describe delete export model secret api-key serve config"
    " completion"
).split()


def commands_of(app: App) -> Iterator[App]:
    """Yield the commands below `app` that can be run."""
    for name in app:
        if not name.startswith("-"):
            subs = list(commands_of(app[name]))
            yield from subs or [app[name]]


@pytest.mark.parametrize(
    ("arguments", "message", "command"),
    [
        (("submit", "-p", "x", "--priority", "high"), '--priority: unable to convert "high" into a number.', "submit"),
        (("jobs", "--limit", "few"), '--limit: unable to convert "few" into a whole number.', "jobs"),
        (("model", "create", "opus"), "--provider requires an argument.", "model create"),
    ],
)
def test_usage_errors_name_no_python_types_and_point_to_the_help(
    labrats: Labrats, arguments: tuple[str, ...], message: str, command: str
) -> None:
    ended = labrats(*arguments)
    assert ended.code is ExitCode.USAGE
    assert message in ended.err
    assert f"Try `labrats {command} --help`." in ended.err


def test_help_names_every_command_and_the_exit_codes(labrats: Labrats) -> None:
    ended = labrats("--help")
    assert ended.code == 0
    for command in COMMANDS:
        assert f"│ {command} " in ended.out
    for code in ExitCode:
        assert f" {code.value} " in " ".join(ended.out.split())


def test_every_command_and_option_has_a_help_text(own_engine: OwnEngine) -> None:
    for command in commands_of(build_app(own_engine)):
        assert command.help, command.name
        for argument in command.assemble_argument_collection(parse_docstring=True):
            assert argument.parameter.help or argument.children, (command.name, argument.name)


def test_no_arguments_print_the_help(labrats: Labrats) -> None:
    ended = labrats()
    assert ended.code == 0
    assert "Usage: labrats COMMAND [OPTIONS]" in ended.out


def test_version_prints_the_version(labrats: Labrats) -> None:
    code, out, _ = labrats("--version")
    assert code == 0
    assert re.fullmatch(rf"{re.escape(__version__)}( \(commit [0-9a-f]{{12}}\))?\n", out)


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["jbs"], 'Did you mean "jobs"?'),
        (["jobs", "--stauts", "failed"], "--stauts"),
        (["job"], "JOB_ID"),
        (["job", "ir-1", "ir-2"], "ir-2"),
    ],
)
def test_usage_errors_go_to_stderr_with_exit_code_2(labrats: Labrats, arguments: list[str], complaint: str) -> None:
    ended = labrats(*arguments)
    assert (ended.code, ended.out) == (2, "")
    assert complaint in ended.err
    assert ended.err.startswith("labrats: ")


@pytest.mark.parametrize("command", [["logs", "-f"], ["wait"]])
def test_interrupt_exits_with_130_and_leaves_the_job_running(
    labrats: Labrats, monkeypatch: pytest.MonkeyPatch, command: list[str]
) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(jobs, "follow_log", interrupted)
    ended = labrats(*command, "ir-3ab1c2d4")
    assert ended.code == 130
    assert "ir-3ab1c2d4 continues" in ended.err


@pytest.mark.parametrize("length", [1, 1_000_000])
def test_closed_stdout_causes_no_error_message(length: int) -> None:
    program = f"import sys; from labrats.cli.app import *; sys.exit(run(lambda _: print('x' * {length})))"
    reader, writer = os.pipe()
    os.close(reader)
    buffered = os.environ | {"PYTHONUNBUFFERED": ""}
    ended = subprocess.run(
        [sys.executable, "-c", program], stdout=writer, stderr=subprocess.PIPE, env=buffered, check=False
    )
    os.close(writer)
    assert (ended.returncode, ended.stderr) == (128 + signal.SIGPIPE, b"")


def test_full_disk_is_reported_with_an_exit_code_of_its_own() -> None:
    program = "import sys; from labrats.cli.app import *; sys.exit(run(lambda _: print('a result')))"
    with open("/dev/full", "w") as full:
        ended = subprocess.run([sys.executable, "-c", program], stdout=full, stderr=subprocess.PIPE, check=False)
    assert (ended.returncode, ended.stderr) == (6, b"labrats: cannot write the output: No space left on device\n")


def test_prompt_without_quotes_is_explained(labrats: Labrats) -> None:
    ended = labrats("submit", "Say", "hello")
    assert ended.code == 2
    assert "unexpected argument 'hello'; a text with spaces needs quotes" in ended.err


def test_unencodable_characters_are_replaced() -> None:
    program = r"from labrats.cli.app import *; run(lambda _: print('Zo\u00eb \ud800'))"
    environment = {"PYTHONIOENCODING": "ascii"}
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, env=environment, check=True)
    assert ended.stdout == b"Zo? ?\n"


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_script_is_valid_in_its_shell(labrats: Labrats, tmp_path: Path, shell: str) -> None:
    script = labrats("completion", shell).out
    assert "labrats" in script
    assert "follow" in script
    if program := shutil.which(shell):
        (tmp_path / "script").write_text(script)
        subprocess.run([program, "-n", tmp_path / "script"], check=True)


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["submit", "-p", b"caf\xe9"], "not valid UTF-8"),
        (["job", b"\xff"], "not valid UTF-8"),
        (["submit", "-p", "x", "--idempotency-key", "schlüssel"], "must contain ASCII characters only"),
        (["submit", "-p", "x", "--priority", "inf"], "the request cannot be sent: Out of range float"),
        (["submit", "-p", "x", "--metadata", f"a={'[' * 100_000}"], "nested too deeply"),
        (["submit", "-p", "x", "--timeout", f"{'9' * 400}s"], "the duration is too long"),
        (["jobs", "--url", "http://a..b"], "the request cannot be sent: "),
    ],
    ids=lambda value: str(value)[:40],
)
def test_text_that_cannot_be_sent_is_wrong_usage(arguments: list[str | bytes], complaint: str) -> None:
    ended = subprocess.run(
        [*LABRATS, *arguments], capture_output=True, text=True, check=False, env=NO_ENGINE, stdin=subprocess.DEVNULL
    )
    assert (ended.returncode, ended.stdout) == (ExitCode.USAGE, "")
    assert complaint in ended.stderr
    assert "Traceback" not in ended.stderr


def test_prompt_that_is_not_utf_8_is_wrong_usage() -> None:
    ended = subprocess.run([*LABRATS, "submit"], input=b"caf\xe9", capture_output=True, check=False, env=NO_ENGINE)
    assert ended.returncode is ExitCode.USAGE.value
    assert b"not valid UTF-8" in ended.stderr


def test_commit_that_looks_like_a_huge_number_stays_text() -> None:
    assert parse_pairs("--metadata", ["commit=12345e678", "n=1.5"]) == {"commit": "12345e678", "n": 1.5}
