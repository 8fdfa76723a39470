"""The tools of the model, each with limits and confined to the workspace."""

from dataclasses import dataclass
from pathlib import Path
from typing import Final

from labrats.executor.agent_sandbox import sandboxed_command, sandboxed_tool
from labrats.executor.context import RunContext
from labrats.executor.egress.agent_network import agent_network
from labrats.executor.providers.react.arguments import (
    EditFile,
    InvalidToolCall,
    ListFiles,
    ReadFile,
    RunCommand,
    Search,
    ToolArguments,
    WriteFile,
)
from labrats.executor.providers.react.commands import CommandResult, run_program, shell
from labrats.executor.providers.react.files import FileTools
from labrats.executor.providers.react.observations import Observation, ObservationStore, shown_characters
from labrats.files.safe_paths import open_folder_inside, open_inside
from labrats.model.errors import GiveUp

_SEARCH_SECONDS: Final = 60.0
_PAGE_NOTE_CHARACTERS: Final = 200
_GREP: Final = ("grep", "-rnHIEs", "--devices=skip", "--exclude-dir=.git", "--color=never")


@dataclass(frozen=True)
class Tools:
    """Executes calls. Results are redacted, since the model's server must not receive secrets."""

    context: RunContext
    files: FileTools
    observations: ObservationStore
    environment: dict[str, str]

    @classmethod
    def of(cls, context: RunContext, window_tokens: int) -> "Tools":
        environment = context.agent_environment()
        observations = ObservationStore(Path(environment["TMPDIR"]), shown_characters(window_tokens))
        files = FileTools(context.workspace, observations.scratch, observations.characters - _PAGE_NOTE_CHARACTERS)
        return cls(context, files, observations, environment)

    async def use(self, call: ToolArguments) -> Observation:
        """Execute a call, and return its result or its error."""
        try:
            observation = await self._execute(call)
        except (InvalidToolCall, GiveUp) as error:  # safe_paths raises GiveUp; here the model decides how to continue
            observation = Observation(str(error), is_error=True)
        except OSError as error:
            observation = Observation(f"The call failed: {error.strerror}.", is_error=True)
        return Observation(self.observations.shorten(self.context.events.clean(observation.text)), observation.is_error)

    async def _execute(self, call: ToolArguments) -> Observation:
        match call:
            case ReadFile():
                return Observation(self.files.read(call))
            case WriteFile():
                return Observation(self.files.write(call))
            case EditFile():
                return Observation(self.files.edit(call))
            case ListFiles():
                return Observation(self.files.list(call))
            case Search():
                return await self._search(call)
            case RunCommand():
                return await self._run_command(call)
        raise AssertionError(f"{call.tool} cannot be executed")

    async def _search(self, call: Search) -> Observation:
        path = self._checked_path(call.path)
        workspace, environment = self.context.workspace, self.context.environment()
        # The PATH in `self.environment` may be the job's, and name a folder in which the model has put a `grep`.
        with sandboxed_tool([*_GREP, "-e", call.pattern, "--", path], self.context) as command:
            result = await run_program(command, workspace, environment, _SEARCH_SECONDS)
        if result.status == 1 and not result.output:
            return Observation("No matches.")
        return Observation(result.output + _limit_note(result), is_error=result.status not in (0, None))

    async def _run_command(self, call: RunCommand) -> Observation:
        with sandboxed_command([shell(), "-c", call.command], self.context) as command:
            async with agent_network(self.context) as network:
                environment = {**self.environment, **network.variables}
                seconds, workspace = call.timeout_seconds, self.context.workspace
                result = await run_program(command, workspace, environment, seconds, network.enter)
        if result.status == 0:
            return Observation(result.output or "The command succeeded and printed nothing.")
        exit_note = _limit_note(result) or f"\n[exit status {result.status}]"
        return Observation(result.output + exit_note, is_error=True)

    def _checked_path(self, path: str) -> str:
        """Return `path` relative to the workspace, for a program that runs there. Raises GiveUp if it is outside."""
        name = self.files.name(path)
        if not name:
            return "."
        try:
            with open_folder_inside(self.context.workspace, name):
                pass
        except GiveUp:
            open_inside(self.context.workspace, name).close()
        return f"./{name}"


def _limit_note(result: CommandResult) -> str:
    return f"\n[the program was killed after {result.limit}]" if result.limit else ""
