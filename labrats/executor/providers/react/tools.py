"""What the model can do: the tools, each within its limits and inside the workspace."""

from dataclasses import dataclass
from pathlib import Path
from typing import Final

from labrats.executor.agent_sandbox import sandboxed_command
from labrats.executor.context import RunContext
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
from labrats.executor.providers.react.commands import Ended, run_program, shell
from labrats.executor.providers.react.files import FileTools
from labrats.executor.providers.react.observations import Observation, ObservationStore, shown_characters
from labrats.files.safe_paths import folder_beneath, open_to_read
from labrats.model.errors import GiveUp

_SEARCH_SECONDS: Final = 60.0
_PAGE_NOTE_CHARACTERS: Final = 200
_GREP: Final = ("grep", "-rnHIEs", "--devices=skip", "--exclude-dir=.git", "--color=never")


@dataclass(frozen=True)
class Tools:
    """Carries out calls. What they answer is redacted: what is secret here need not reach the model's server."""

    context: RunContext
    files: FileTools
    notes: ObservationStore
    environment: dict[str, str]

    @classmethod
    def of(cls, context: RunContext, window_tokens: int) -> "Tools":
        environment = context.agent_environment()
        notes = ObservationStore(Path(environment["TMPDIR"]), shown_characters(window_tokens))
        files = FileTools(context.workspace, notes.folder, notes.characters - _PAGE_NOTE_CHARACTERS)
        return cls(context, files, notes, environment)

    async def use(self, call: ToolArguments) -> Observation:
        """What the tool answers; an error too is an answer."""
        try:
            observed = await self._use(call)
        except (
            InvalidToolCall,
            GiveUp,
        ) as error:  # GiveUp is how the attempt's own files say it; here the model decides
            observed = Observation(str(error), is_error=True)
        except OSError as error:
            observed = Observation(f"It failed: {error.strerror}.", is_error=True)
        return Observation(self.notes.shown(self.context.events.clean(observed.text)), observed.is_error)

    async def _use(self, call: ToolArguments) -> Observation:
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
                return await self._run(call)
        raise AssertionError(f"{call.tool} is no tool to use")

    async def _search(self, call: Search) -> Observation:
        place = self._place(call.path)
        command = [*_GREP, "-e", call.pattern, "--", place]
        ended = await run_program(command, self.context.workspace, self.environment, _SEARCH_SECONDS)
        if ended.status == 1 and not ended.output:
            return Observation("Nothing matches.")
        return Observation(ended.output + _limit_note(ended), is_error=ended.status not in (0, None))

    async def _run(self, call: RunCommand) -> Observation:
        command = sandboxed_command([shell(), "-c", call.command], self.context)
        ended = await run_program(command, self.context.workspace, self.environment, call.timeout_seconds)
        if ended.status == 0:
            return Observation(ended.output or "It succeeded, and printed nothing.")
        exit_note = _limit_note(ended) or f"\n[exit status {ended.status}]"
        return Observation(ended.output + exit_note, is_error=True)

    def _place(self, path: str) -> str:
        """`path` as a program run in the workspace is to be given it; whether it is inside is looked at first."""
        name = self.files.name(path)
        if not name:
            return "."
        try:
            with folder_beneath(self.context.workspace, name):
                pass
        except GiveUp:
            open_to_read(self.context.workspace, name).close()
        return f"./{name}"


def _limit_note(ended: Ended) -> str:
    return f"\n[the program was ended: {ended.limit}]" if ended.limit else ""
