"""The `labrats` command: registers all commands, and turns errors into messages and exit codes."""

import errno
import io
import os
import re
import signal
import sys
from collections.abc import Callable, Sequence
from typing import Final, Literal

from cyclopts import App, CycloptsError, Group, UnusedCliTokensError

from labrats.cli import chains, engine_pause, jobs, published, resources, uploads
from labrats.cli.agents import agents_app, instructions_app
from labrats.cli.api_keys import api_keys_app
from labrats.cli.apply import apply_command, export
from labrats.cli.backup import backup_command, restore_command
from labrats.cli.connect import connect_app
from labrats.cli.connect_github import github
from labrats.cli.doctor import doctor_command
from labrats.cli.engine import EngineCommands, config_command, login_link_command, serve_command
from labrats.cli.errors import EXIT_CODES_HELP, CommandError, ExitCode
from labrats.cli.events import events_app
from labrats.cli.manifests import manifests_app
from labrats.cli.models import models_app
from labrats.cli.output import print_stderr
from labrats.cli.secrets import secrets_app
from labrats.cli.version import version_text

INTERRUPTED: Final = 128 + signal.SIGINT
PIPE_CLOSED: Final = 128 + signal.SIGPIPE
_OUTPUT_ERRORS: Final = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO})
"""Errors of a full or broken disk, to which the output of a command is redirected."""

_JOBS: Final = Group("Jobs", sort_key=1)
_RESOURCES: Final = Group("Resources", sort_key=2)
_SET_UP: Final = Group("Set-up", sort_key=3)
_ENGINE: Final = Group("Engine", sort_key=4)

connect_app.command(github)


def build_app(engine: EngineCommands) -> App:
    """Build the command line. `run` executes it."""
    app = App(
        name="labrats",
        help="Turns requests and events into runs of AI agents.",
        usage="Usage: labrats COMMAND [OPTIONS]",
        help_epilogue=EXIT_CODES_HELP,
        help_format="plaintext",
        version=version_text,
        result_action="return_value",
        exit_on_error=False,
        print_error=False,
        suppress_keyboard_interrupt=False,
    )

    def completion(shell: Literal["bash", "zsh", "fish"], /) -> None:
        """Print the completion script for a shell.

        For bash: labrats completion bash > ~/.local/share/bash-completion/completions/labrats

        Args:
            shell: The shell to complete in.
        """
        print(app.generate_completion(shell=shell))

    _add_commands(
        app,
        _JOBS,
        jobs.submit,
        jobs.jobs,
        jobs.job,
        jobs.logs,
        jobs.wait,
        jobs.cancel,
        jobs.retry,
        jobs.rerun,
        jobs.reply,
        jobs.patch,
        jobs.bundle,
        published.published,
        published.publish,
        chains.chain,
        uploads.upload,
    )
    _add_commands(app, _RESOURCES, apply_command(engine), resources.get, resources.describe, resources.delete, export)
    _add_sub_apps(
        app,
        _SET_UP,
        connect_app,
        agents_app,
        instructions_app,
        events_app,
        models_app,
        secrets_app(engine),
        api_keys_app(engine),
    )
    _add_commands(
        app,
        _ENGINE,
        serve_command(engine),
        engine_pause.pause,
        engine_pause.resume,
        login_link_command(engine),
        backup_command(engine),
        restore_command(engine),
        config_command(engine),
        doctor_command(engine),
        completion,
    )
    _add_sub_apps(app, _ENGINE, manifests_app(engine))
    return app


def _add_commands(app: App, group: Group, *functions: Callable[..., object]) -> None:
    for place, function in enumerate(functions):
        app.command(function, group=group, sort_key=place, help_epilogue="")


def _add_sub_apps(app: App, group: Group, *sub_apps: App) -> None:
    for place, sub_app in enumerate(sub_apps):
        sub_app.group, sub_app.sort_key, sub_app.help_epilogue = group, place, ""
        app.command(sub_app)


def run(app: App, arguments: Sequence[str] | None = None) -> int:
    """Run one command and return the exit code. Without `arguments`, use those of this process."""
    _replace_unprintable()
    try:
        code = app(arguments)
        sys.stdout.flush()
    except CycloptsError as error:
        command = " ".join(("labrats", *(error.command_chain or ())))
        print_stderr(f"labrats: {_usage_message(error)}\nTry `{command} --help`.")
        return ExitCode.USAGE
    except CommandError as stop:
        print_stderr(f"labrats: {stop}")
        return stop.code
    except UnicodeEncodeError as error:
        if "surrogates" not in error.reason:
            raise
        print_stderr("labrats: an argument or the input is not valid UTF-8")  # Python reads such bytes as surrogates
        return ExitCode.USAGE
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:
        _discard_stdout()
        return PIPE_CLOSED
    except OSError as error:
        if error.errno not in _OUTPUT_ERRORS:
            raise
        _discard_stdout()
        print_stderr(f"labrats: cannot write the output: {error.strerror}")
        return ExitCode.OUTPUT_FAILED
    return code if isinstance(code, int) else ExitCode.OK


def _usage_message(error: CycloptsError) -> str:
    """Describe a usage error in plain words, such as "a number" instead of the names of Python types."""
    if isinstance(error, UnusedCliTokensError) and error.unused_tokens:
        return f"unexpected argument {error.unused_tokens[0]!r}; a text with spaces needs quotes"
    words = {"int": "a whole number", "float": "a number", "int|float": "a number"}
    return re.sub(r"\binto (int\|float|int|float)(\|None)?\.", lambda match: f"into {words[match[1]]}.", str(error))


def _replace_unprintable() -> None:
    """Print a question mark for a character that the terminal's encoding lacks, instead of failing."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")


def _discard_stdout() -> None:
    """Discard buffered output after the reader of stdout has gone. Otherwise Python prints an error at exit."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
