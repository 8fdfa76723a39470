"""Attempts as processes of this machine: started by the launcher, known by their claim, watched by pidfd."""

import asyncio
import os
import signal
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Self

import structlog
from msgspec.structs import replace

from labrats.backends.embedded.folders import AttemptFolder, Folders, Placeholder
from labrats.backends.embedded.launcher import LauncherClient
from labrats.backends.embedded.output_watch import OutputWatch
from labrats.files.attempt_inputs import (
    PROMPT_FILE,
    SECRETS_FOLDER,
    TASK_FILE,
    AttemptInputs,
    SecretInput,
    TextInput,
    inputs_of,
    missing_text,
    task_of,
)
from labrats.files.attempt_output import OutputReader, read_end, read_patch, read_result
from labrats.model.attempt_name import AttemptName
from labrats.model.config import CREDENTIAL_NAMES, ENDPOINT_VARIABLES
from labrats.model.core_resources import ConfigMap, Secret, problem_of_credentials
from labrats.model.errors import GiveUp, NotFound, RetryLater
from labrats.model.job import FailedCode, Job
from labrats.model.protocol import IDLE_SECONDS, OUTPUT_BYTES, REDACTED_ONLY, Resumption, Sandbox, Task
from labrats.model.record import encode
from labrats.ports import Alive, Attempt, AttemptState, Gone, NotStarted, OutputTail, Place, Store
from labrats.processes import ProcessId, describe_exit, kill_descendants, send_signal, with_environment

log = structlog.get_logger()

ALIVE: Final = Alive()

KILL_PAUSE_SECONDS: Final = 0.02
"""The pause between two looks at an attempt that is killed."""

REAP_SECONDS: Final = 5.0
"""How long the launcher may take to end what a crashed executor left, before the engine does it alone."""

UNCLAIMED_SECONDS: Final = 1.0
"""The pause after an executor died before it could claim its attempt: the next one may well die of the same."""

MARKER: Final = "LABRATS_ATTEMPT"
"""Set to the attempt's name in the environment of every process that a provider starts."""


@dataclass(frozen=True)
class LocalRunnerSettings:
    """What attempts on this machine are told beside their job.

    programs: agent CLIs by provider. environment: the engine's own variables, of which a provider's credentials are
    taken when its AiModel names no Secret. own_secrets, admin_key_file: the engine's, which no output may hold. The
    rest is as in Task.
    """

    folders: Folders
    uploads: Path
    environment: Mapping[str, str]
    programs: Mapping[str, str]
    git_addresses: tuple[str, ...] = ()
    git_ssh_key: str | None = None
    git_ssh_known_hosts: str | None = None
    repo_roots: tuple[str, ...] = ()
    cli_login: bool = False
    sandbox: Sandbox | None = None
    allow_untrusted: bool = False
    idle_seconds: float = IDLE_SECONDS
    output_bytes: int = OUTPUT_BYTES
    own_secrets: tuple[str, ...] = ()
    admin_key_file: Path | None = None


@dataclass(frozen=True)
class Executor:
    """A living executor of ours. `pidfd` becomes readable when it ends, whoever's child it is."""

    id: ProcessId
    pidfd: int


class LocalRunner:
    """Fulfils Runner. An async context manager: leaving it lets go of the attempts, which live on."""

    def __init__(self, store: Store, settings: LocalRunnerSettings) -> None:
        self._store, self._settings = store, settings
        self._launcher = LauncherClient()
        self._output_watch = OutputWatch()
        self._executors: dict[AttemptName, Executor] = {}
        self._settling: dict[AttemptName, asyncio.Task[None]] = {}
        self._resumed_from: dict[AttemptName, AttemptName] = {}  # the earlier attempt whose workspace and home it uses
        self._changed: asyncio.Queue[AttemptName] = asyncio.Queue()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        for name in list(self._executors):
            self._let_go(name)
        for task in list(self._settling.values()):
            task.cancel()
        await asyncio.gather(*self._settling.values(), return_exceptions=True)
        self._launcher.close()
        self._output_watch.close()

    async def start(self, attempt: Attempt) -> None:
        if not isinstance(await self.find(attempt.name), NotStarted):
            return
        self._refuse_untrusted(attempt)
        folder = self._folder(attempt.name)
        await self._check_alone(attempt)
        await self._write_inputs(attempt, folder)
        pid = await self._launcher.fork(str(folder.path))
        unclaimed = folder.executor() is None  # otherwise `find` knows by the claim who has it
        if unclaimed and attempt.name not in self._executors and (process := ProcessId.of(pid)):
            self._adopt(attempt.name, process)
        self._report(attempt.name)

    async def find(self, name: AttemptName) -> AttemptState:
        state = await self._find(name)
        if isinstance(state, Gone):
            self._resumed_from.pop(name, None)
            self._folder(name).remove_secrets()
        return state

    async def _find(self, name: AttemptName) -> AttemptState:
        if name in self._executors or name in self._settling:
            return ALIVE
        folder = self._folder(name)
        match folder.executor():
            case None:
                return NotStarted()
            case Placeholder():
                return Gone(reason="the attempt was ended before it started")
            case process if folder.is_run_by(process):
                self._adopt(name, process)
                return ALIVE
            case process:
                outcome, tail = read_end(folder.output)
                if outcome is None:
                    await self._end_leftovers(name, process)
                    outcome, tail = read_end(folder.output)
                return Gone(outcome, tail=tail) if outcome else self._gone_without_outcome(folder, tail)

    async def stop(self, name: AttemptName) -> None:
        await self.find(name)  # an earlier engine may have started it
        if executor := self._executors.get(name):
            with suppress(ProcessLookupError):
                signal.pidfd_send_signal(executor.pidfd, signal.SIGTERM)

    async def kill(self, name: AttemptName) -> None:
        if self._folder(name).executor() is None:
            self._bury(name)
        while isinstance(await self.find(name), Alive):
            if executor := self._executors.get(name):
                # By a descriptor of the thread's own: this one is closed, and its number soon another's, when it ends.
                await asyncio.to_thread(_kill_tree, executor.id.pid, os.dup(executor.pidfd))
            if task := self._settling.get(name):
                await asyncio.wait([task])
            else:
                await asyncio.sleep(KILL_PAUSE_SECONDS)

    async def watch(self) -> AsyncIterator[AttemptName]:
        while True:
            yield await self._changed.get()

    async def place(self, name: AttemptName) -> Place:
        return Place()

    async def tail(self, name: AttemptName) -> OutputTail:
        return read_end(self._folder(name).output)[1]

    async def read(self, name: AttemptName, after_seq: int = 0, *, follow: bool) -> AsyncGenerator[bytes]:
        folder = self._folder(name)
        reader = OutputReader(folder.output, after_seq)
        with self._output_watch.changes_in(folder.path) if follow else nullcontext() as changes:
            while True:
                ended = changes is None or isinstance(await self.find(name), Gone)
                while lines := reader.read():
                    yield lines
                if ended or changes is None:
                    return
                await changes.wait()

    async def result(self, name: AttemptName) -> Any:
        folder = self._folder(name)
        return read_result(name, folder.output, folder.result)

    async def patch(self, name: AttemptName) -> bytes:
        return await asyncio.to_thread(read_patch, name, self._folder(name).patch)

    async def workspaces(self) -> list[AttemptName]:
        return await asyncio.to_thread(self._settings.folders.workspace_names)

    async def kept(self) -> list[AttemptName]:
        return await asyncio.to_thread(self._settings.folders.attempt_names)

    async def remove(self, name: AttemptName, *, keep_output: bool = False) -> None:
        if keep_output and name in self._resumed_from.values():
            return
        # Before the first wait: an attempt that starts meanwhile must find its workspace whole, or not at all.
        self._folder(name).give_up()
        await asyncio.to_thread(self._folder(name).remove, keep_output=keep_output)

    def _refuse_untrusted(self, attempt: Attempt) -> None:
        """Raises GiveUp for the job of an external contributor that would run without a sandbox."""
        if attempt.job.spec.untrusted and not (self._settings.sandbox or self._settings.allow_untrusted):
            message = (
                "an external contributor caused this job, and agents run without a sandbox here: start the engine with "
                "LABRATS_SANDBOX=true, or allow it by LABRATS_ALLOW_UNTRUSTED=true"
            )
            raise GiveUp(FailedCode.WORKSPACE, message)

    async def _check_alone(self, attempt: Attempt) -> None:
        """Raises RetryLater while an earlier attempt works in what this one is to go on in."""
        if session := attempt.earlier_session:
            for number in range(session.attempt, attempt.job.status.attempts):
                if isinstance(await self.find(AttemptName(attempt.job.id, number)), Alive):
                    raise RetryLater(f"attempt {number} of the job still works in its workspace")

    def _folder(self, name: AttemptName) -> AttemptFolder:
        return self._settings.folders.of(name)

    def _bury(self, name: AttemptName) -> None:
        try:
            self._folder(name).bury()
        except OSError as error:
            raise RetryLater(f"the attempt cannot be kept from starting: {error.strerror}", 5) from error

    # Inputs

    async def _write_inputs(self, attempt: Attempt, folder: AttemptFolder) -> None:
        """Write every file that the executor reads. `job.json` comes last: it refers to the others."""
        inputs = inputs_of(attempt)
        secrets = await self._secrets(attempt, inputs)
        files = {f"{SECRETS_FOLDER}/{name}": value for name, value in secrets.items()}
        files |= await self._texts(inputs)
        files |= {TASK_FILE: encode(self._task(attempt, folder)).decode()}
        try:
            if attempt.earlier_session:
                folder.workspace.mkdir(parents=True, exist_ok=True)  # by this the attempt is known, if by nothing else
            folder.write_inputs({name: text.encode() for name, text in files.items()})
        except OSError as error:
            raise RetryLater(f"the inputs of the attempt cannot be written: {error.strerror}", 5) from error

    def _task(self, attempt: Attempt, folder: AttemptFolder) -> Task:
        settings = self._settings
        task = task_of(attempt, workspace=str(folder.workspace), uploads=settings.uploads)
        return replace(
            task,
            endpoint=task.endpoint or self._default_endpoint(attempt.job),
            sandbox=settings.sandbox,
            programs=dict(settings.programs),
            git_addresses=settings.git_addresses,
            git_ssh_key=settings.git_ssh_key,
            git_ssh_known_hosts=settings.git_ssh_known_hosts,
            repo_roots=settings.repo_roots,
            cli_login=settings.cli_login,
            idle_seconds=settings.idle_seconds,
            output_bytes=settings.output_bytes,
            resumption=self._resumption(attempt),
        )

    def _resumption(self, attempt: Attempt) -> Resumption | None:
        """The session to go on with, in the workspace and the home where it began, as long as they are kept.

        Nothing is moved: what an agent has made knows where it lies, and a start that is repeated finds it there.
        """
        if (session := attempt.earlier_session) is None:
            return None
        earlier = AttemptName(attempt.job.id, session.attempt)
        if not (folder := self._folder(earlier)).is_kept:
            return Resumption(session=session)
        self._resumed_from[attempt.name] = earlier
        return Resumption(session=session, workspace=str(folder.workspace), folder=str(folder.path))

    def _default_endpoint(self, job: Job) -> str | None:
        """Return the provider's endpoint from the engine's environment."""
        return self._settings.environment.get(ENDPOINT_VARIABLES.get(job.resolved.provider, ""))

    async def _texts(self, inputs: AttemptInputs) -> dict[str, str]:
        texts = {} if inputs.prompt is None else {PROMPT_FILE: inputs.prompt}
        return texts | {text.file: await self._text(text) for text in inputs.texts}

    async def _text(self, text: TextInput) -> str:
        found = None
        with suppress(NotFound):
            found = await self._store.get(ConfigMap, text.ref.name)
        if found is None or text.ref.key not in found.data:
            reason = missing_text(text.file, text.ref, has_config_map=found is not None)
            raise GiveUp(FailedCode.INTERNAL, reason)
        return found.data[text.ref.key]

    async def _secrets(self, attempt: Attempt, inputs: AttemptInputs) -> dict[str, str]:
        """Return the contents of `secrets/`, with the engine's own secrets, which the attempt redacts in its output.

        A model without a Secret has its credentials from the engine's environment.
        """
        secrets = {f"{REDACTED_ONLY}{number}": value for number, value in enumerate(self._own_secrets())}
        for secret in inputs.secrets:
            data = await self._secret(secret)
            secrets |= {file: data[key] for file, key in secret.files(data).items()}
        if not (attempt.ai_model and attempt.ai_model.spec.credentials_ref):
            names = CREDENTIAL_NAMES[attempt.job.resolved.provider]
            secrets |= {name: value for name in names if (value := self._settings.environment.get(name))}
        return secrets

    def _own_secrets(self) -> list[str]:
        file = self._settings.admin_key_file
        try:
            return [*self._settings.own_secrets, *([file.read_text().strip()] if file else [])]
        except FileNotFoundError:
            return list(self._settings.own_secrets)

    async def _secret(self, wanted: SecretInput) -> dict[str, str]:
        try:
            secret = await self._store.get(Secret, wanted.name)
        except NotFound as error:
            command = f"labrats secret set {wanted.name} {next(iter(wanted.keys or ()), 'KEY')}"
            raise GiveUp(wanted.failed_code, f"{wanted.missing} (run `{command}`)") from error
        if problem := problem_of_credentials(secret, None, labelled_only=False):
            raise GiveUp(wanted.failed_code, problem)
        return secret.data

    # The life of an executor

    def _adopt(self, name: AttemptName, process: ProcessId) -> None:
        """Watch `process` until it ends, as the executor of the attempt."""
        try:
            pidfd = os.pidfd_open(process.pid)
        except ProcessLookupError:
            self._settle_later(name)
            return
        self._executors[name] = Executor(process, pidfd)
        asyncio.get_running_loop().add_reader(pidfd, self._executor_ended, name)

    def _let_go(self, name: AttemptName) -> Executor:
        executor = self._executors.pop(name)
        asyncio.get_running_loop().remove_reader(executor.pidfd)
        os.close(executor.pidfd)
        return executor

    def _executor_ended(self, name: AttemptName) -> None:
        ended = self._let_go(name)
        folder = self._folder(name)
        claimed_by = folder.executor()
        if isinstance(claimed_by, ProcessId) and claimed_by != ended.id and folder.is_run_by(claimed_by):
            self._adopt(name, claimed_by)  # ours lost the claim to one that an earlier engine had started
        elif read_end(folder.output)[0] is not None:
            self._report(name)  # it ended in order, and an executor does so only after all it started
        else:
            self._settle_later(name)

    def _settle_later(self, name: AttemptName) -> None:
        """See to it, in the background, that nothing is left of a crashed attempt; until then it counts as alive."""
        task = asyncio.create_task(self._settle(name), name=f"settle {name}")
        self._settling[name] = task

    async def _settle(self, name: AttemptName) -> None:
        try:
            executor = self._folder(name).executor()
            if isinstance(executor, ProcessId):
                await self._end_leftovers(name, executor)
            elif executor is None:
                await asyncio.sleep(UNCLAIMED_SECONDS)
        finally:
            del self._settling[name]
            self._report(name)

    def _report(self, name: AttemptName) -> None:
        """Have watchers and readers look at the attempt again."""
        self._changed.put_nowait(name)
        self._output_watch.wake(self._folder(name).path)

    async def _end_leftovers(self, name: AttemptName, executor: ProcessId) -> None:
        """Wait until the launcher has counted the dead executor, last of all it left; then look for strays."""
        with suppress(TimeoutError):
            async with asyncio.timeout(REAP_SECONDS):
                while not executor.is_reaped:
                    await asyncio.sleep(0.002)
        await asyncio.to_thread(_kill_strays, name)

    def _gone_without_outcome(self, folder: AttemptFolder, tail: OutputTail) -> Gone:
        if (words := folder.exit_words()) is None:
            return Gone(tail=tail)
        return Gone(None, FailedCode.EXECUTOR_DIED, f"the executor {describe_exit(*words)} without an outcome", tail)


def _kill_tree(pid: int, pidfd: int) -> None:
    """End the executor and all below it, and close `pidfd`.

    It is stopped first, so that it starts nothing more while they are ended.
    """
    try:
        signal.pidfd_send_signal(pidfd, signal.SIGSTOP)
        if not kill_descendants(pid):
            log.error("processes of an attempt resist", executor=pid)
        signal.pidfd_send_signal(pidfd, signal.SIGKILL)
    except ProcessLookupError:
        pass  # it has ended
    finally:
        os.close(pidfd)


def _kill_strays(name: AttemptName) -> None:
    """End what carries the attempt's mark and escaped its executor."""
    for pid in with_environment(MARKER, str(name)):
        kill_descendants(pid)
        send_signal(pid, signal.SIGKILL)
