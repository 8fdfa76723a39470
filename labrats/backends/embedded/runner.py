"""Attempts as processes on this machine: started by the launcher, identified by their claim, watched by pidfd."""

import asyncio
import os
import signal
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Final, Self

import structlog
from msgspec.structs import replace

from labrats.backends.embedded.folders import AttemptFolder, Folders, Placeholder
from labrats.backends.embedded.launcher_client import LauncherClient
from labrats.backends.embedded.output_watch import OutputWatch
from labrats.backends.embedded.stored_inputs import StoredInputs
from labrats.files.attempt_inputs import TaskSettings, task_of
from labrats.files.attempt_output import (
    OutputReader,
    in_batches,
    read_activity,
    read_end,
)
from labrats.files.attempt_results import AttemptResults
from labrats.model.attempt_name import AttemptName
from labrats.model.errors import GiveUp, RetryLater
from labrats.model.isolation import PROCESS_ONLY, Isolation, IsolationLevels
from labrats.model.job import FailedCode, Job, base_cache_scope, cache_scope
from labrats.model.network import Network
from labrats.model.phases import Phase
from labrats.model.protocol import (
    ATTEMPT_VARIABLE,
    CLAIM_FILE,
    TASK_FILE,
    Continuation,
    Resumption,
    Sandbox,
    Task,
)
from labrats.model.provider_spec import provider_spec
from labrats.model.record import encode
from labrats.ports import (
    Alive,
    Attempt,
    AttemptState,
    Changed,
    Gone,
    NotStarted,
    OutputTail,
    Place,
    Store,
    Synced,
)
from labrats.processes import ProcessId, describe_exit, kill_descendants, send_signal, with_environment, with_mount
from labrats.sandbox.control_groups import remove_group

log = structlog.get_logger()

ALIVE: Final = Alive()

KILL_PAUSE_SECONDS: Final = 0.02
"""Pause between two checks of an attempt that is being killed."""

REAP_SECONDS: Final = 5.0
"""Time for the launcher to end the processes that a crashed executor left, before the engine ends them itself."""

ADOPT_SECONDS: Final = 1.0
"""Time after which an executor is watched if there was no file descriptor for it."""

CHANGES_SECONDS: Final = 5.0
"""Age up to which the changes of a running attempt are not computed again."""

CHANGES_PATIENCE_SECONDS: Final = 10.0
CHANGES_POLL_SECONDS: Final = 0.1
"""Time to wait for these changes, and the pause between two looks."""

UNCLAIMED_SECONDS: Final = 1.0
"""Pause after an executor died before it claimed its attempt, since the next one may die of the same cause."""


@dataclass(frozen=True)
class LocalRunnerSettings:
    """Settings of attempts on this machine.

    environment: the engine's environment, with the credentials of models whose AiModel names no Secret.
    task: settings of the executors' tasks.
    own_secrets, admin_key_file: secrets of the engine, which are redacted in every output.
    isolation, network_problem: see Runner. sandbox: that of attempts with the level `sandbox`.
    caches: folder of the cached folders of all scopes; None to keep none.
    origin: the database and the boot of this machine, by which interrupted attempts are recognized; None to start all.
    kept_open: descriptors of this process that executors inherit and agents do not.
    """

    folders: Folders
    uploads: Path
    environment: Mapping[str, str]
    task: TaskSettings = TaskSettings()
    isolation: IsolationLevels = PROCESS_ONLY
    sandbox: Sandbox | None = None
    own_secrets: tuple[str, ...] = ()
    admin_key_file: Path | None = None
    network_problem: str | None = None
    caches: Path | None = None
    origin: str | None = None
    kept_open: tuple[int, ...] = ()


@dataclass
class Executor:
    """A living executor of an attempt.

    pidfd:       becomes readable when the executor exits, also if it is a child of another process.
    is_reusable: False if it may still receive a signal that was sent because of this attempt.
    """

    id: ProcessId
    pidfd: int
    is_reusable: bool = True


class LocalRunner(AttemptResults):
    """The Runner for this machine. Attempts live on after the context manager is left."""

    def __init__(self, store: Store, settings: LocalRunnerSettings) -> None:
        self._store, self._settings = store, settings
        self.isolation, self._network_problem = settings.isolation, settings.network_problem
        self._inputs = StoredInputs(store, settings.environment)
        self._launcher = LauncherClient(self._attempt_ended, settings.kept_open)
        self._output_watch = OutputWatch()
        self._executors: dict[AttemptName, Executor] = {}
        self._cleanups: dict[AttemptName, asyncio.Task[None]] = {}
        self._adoptions: dict[AttemptName, asyncio.TimerHandle] = {}
        self._resumed_from: dict[AttemptName, AttemptName] = {}  # by attempt, the earlier one whose workspace it uses
        self._changed: asyncio.Queue[AttemptName] = asyncio.Queue()

    async def __aenter__(self) -> Self:
        self._settings.folders.prepare()
        origin = self._settings.origin
        if origin and self._settings.folders.origin() != origin:
            try:
                await self._prevent_interrupted()
                self._settings.folders.note_origin(origin)
            except (RetryLater, OSError) as error:  # the next start tries again
                log.warning("interrupted attempts may start again", reason=str(error))
        return self

    async def _prevent_interrupted(self) -> None:
        """Prevent the start of admitted attempts without a claim, after a reboot or with another database.

        They may have run: their claims were not on stable storage yet, or were not restored.
        """
        async for change in self._store.watch(Job, unsettled_only=True):
            match change:
                case Changed(job) if job.phase is Phase.RUNNING and self._folder(job.attempt_name).executor() is None:
                    self._prevent_start(job.attempt_name)
                case Synced():
                    return

    async def __aexit__(self, *_: object) -> None:
        for timer in self._adoptions.values():
            timer.cancel()
        for name in list(self._executors):
            self._release(name)
        for task in list(self._cleanups.values()):
            task.cancel()
        await asyncio.gather(*self._cleanups.values(), return_exceptions=True)
        self._launcher.close()
        self._output_watch.close()

    def network_problem(self, network: Network | None = None) -> str | None:
        return self._network_problem

    def untrusted_network_problem(self) -> str | None:
        return None

    async def start(self, attempt: Attempt) -> None:
        if not isinstance(await self.find(attempt.name), NotStarted):
            return
        folder = self._folder(attempt.name)
        await self._check_workspace_is_free(attempt)
        await self._write_inputs(attempt, folder)
        sandboxed = attempt.isolation_in(self.isolation) is Isolation.SANDBOX
        try:
            pid = await self._launcher.fork(str(folder.path), self._own_secrets(), sandboxed=sandboxed)
        except GiveUp as failure:
            self._prevent_start(attempt.name)
            folder.write_note(str(failure))
            raise
        unclaimed = folder.executor() is None  # otherwise `find` adopts the process that the claim names
        if unclaimed and attempt.name not in self._executors and (process := ProcessId.of(pid)):
            self._adopt(attempt.name, process)
        self._notify(attempt.name)

    async def find(self, name: AttemptName) -> AttemptState:
        state = await self._find(name)
        if isinstance(state, Gone):
            self._resumed_from.pop(name, None)
            if (folder := self._folder(name)).has_secrets:
                await asyncio.to_thread(folder.remove_secrets)
        return state

    async def _find(self, name: AttemptName) -> AttemptState:
        if name in self._executors or name in self._cleanups:
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
            executor.is_reusable = False
            with suppress(ProcessLookupError):
                signal.pidfd_send_signal(executor.pidfd, signal.SIGTERM)

    async def kill(self, name: AttemptName) -> None:
        if self._folder(name).executor() is None:
            self._prevent_start(name)
        while isinstance(await self.find(name), Alive):
            if executor := self._executors.get(name):
                executor.is_reusable = False
                # A duplicate for the thread: when the executor ends, this one is closed and its number may be reused.
                await asyncio.to_thread(_kill_tree, executor.id.pid, os.dup(executor.pidfd))
            if task := self._cleanups.get(name):
                await asyncio.wait([task])
            else:
                await asyncio.sleep(KILL_PAUSE_SECONDS)

    async def watch(self) -> AsyncIterator[AttemptName]:
        while True:
            yield await self._changed.get()

    def path_of(self, name: AttemptName) -> Path:
        return self._folder(name).path

    async def changes_so_far(self, name: AttemptName) -> BinaryIO:
        await self._ask_for_changes(name)
        return await super().changes_so_far(name)

    async def _ask_for_changes(self, name: AttemptName) -> None:
        """Have the executor report the changes of the last seconds. Give up after a while: it may be busy."""
        folder = self._folder(name)
        if folder.has_changes_younger_than(CHANGES_SECONDS) or not isinstance(await self.find(name), Alive):
            return
        with suppress(OSError, TimeoutError):  # the disk may be full
            folder.ask_for_changes()
            async with asyncio.timeout(CHANGES_PATIENCE_SECONDS):
                while folder.is_asked_for_changes and isinstance(await self.find(name), Alive):
                    await asyncio.sleep(CHANGES_POLL_SECONDS)

    async def place(self, name: AttemptName) -> Place:
        return Place()

    async def tail(self, name: AttemptName) -> OutputTail:
        return read_end(self._folder(name).output)[1]

    async def activity(self, name: AttemptName) -> str | None:
        return read_activity(self._folder(name).output)

    async def read(self, name: AttemptName, after_seq: int = 0, *, follow: bool) -> AsyncGenerator[bytes]:
        folder = self._folder(name)
        reader = OutputReader(folder.output, after_seq)
        with self._output_watch.changes_in(folder.path) if follow else nullcontext() as changes:
            while True:
                ended = changes is None or isinstance(await self.find(name), Gone)
                while lines := reader.read():
                    yield lines
                    if reader.at_end:
                        break
                if ended or changes is None:
                    return
                await changes.wait()

    async def workspaces(self) -> list[AttemptName]:
        return await asyncio.to_thread(self._settings.folders.workspace_names)

    async def workspace_bytes(self, name: AttemptName) -> int:
        return await asyncio.to_thread(self._folder(name).workspace_bytes)

    def retained(self) -> AsyncIterator[list[AttemptName]]:
        return in_batches(self._settings.folders.attempt_names())

    async def remove(self, name: AttemptName, *, keep_output: bool = False) -> None:
        if keep_output and name in self._resumed_from.values():
            return
        # Before the first await: an attempt that starts meanwhile must not resume in a workspace that is being deleted.
        self._folder(name).forbid_resume()
        await asyncio.to_thread(self._folder(name).remove, keep_output=keep_output)

    async def _check_workspace_is_free(self, attempt: Attempt) -> None:
        """Raise RetryLater while an earlier attempt works in the workspace that this one resumes."""
        if session := attempt.earlier_session:
            for number in range(session.attempt, attempt.job.status.attempts):
                if isinstance(await self.find(AttemptName(attempt.job.id, number)), Alive):
                    raise RetryLater(f"attempt {number} of the job still works in the workspace")

    def _folder(self, name: AttemptName) -> AttemptFolder:
        return self._settings.folders.of(name)

    def _prevent_start(self, name: AttemptName) -> None:
        try:
            self._folder(name).prevent_start()
        except OSError as error:
            raise RetryLater(f"the attempt cannot be prevented from starting: {error.strerror}", 5) from error

    # Inputs

    async def _write_inputs(self, attempt: Attempt, folder: AttemptFolder) -> None:
        """Write every file that the executor reads. `job.json` comes last: it refers to the others."""
        files = await self._inputs.read(attempt)
        files |= {TASK_FILE: encode(self._task(attempt, folder)).decode()}
        try:
            if attempt.earlier_session or attempt.followed:
                folder.workspace.mkdir(parents=True, exist_ok=True)  # retention finds the attempt by its workspace
            folder.write_inputs({name: text.encode() for name, text in files.items()})
        except OSError as error:
            raise RetryLater(f"the inputs of the attempt cannot be written: {error.strerror}", 5) from error

    def _task(self, attempt: Attempt, folder: AttemptFolder) -> Task:
        settings, base = self._settings, base_cache_scope(attempt.job)
        is_sandboxed = attempt.isolation_in(self.isolation) is Isolation.SANDBOX
        task = task_of(attempt, settings.task, workspace=str(folder.workspace), uploads=settings.uploads)
        return replace(
            task,
            endpoint=task.endpoint or self._default_endpoint(attempt.job),
            sandbox=settings.sandbox if is_sandboxed else None,
            no_sandbox="" if is_sandboxed else self.isolation.no_sandbox,
            resumption=self._resumption(attempt),
            continuation=self._continuation(attempt),
            caches=str(settings.caches / cache_scope(attempt.job)) if settings.caches else None,
            base_caches=str(settings.caches / base) if settings.caches and base else None,
        )

    def _resumption(self, attempt: Attempt) -> Resumption | None:
        """Return the session to resume, with the workspace and the home in which it began, if they still exist.

        The folders are not moved: files of the agent contain their own paths, and a repeated start finds them again.
        """
        if (session := attempt.earlier_session) is None:
            return None
        earlier = AttemptName(attempt.job.id, session.attempt)
        if not (folder := self._folder(earlier)).is_resumable:
            return Resumption(session=session)
        self._resumed_from[attempt.name] = earlier
        return Resumption(session=session, workspace=str(folder.workspace), folder=str(folder.path))

    def _continuation(self, attempt: Attempt) -> Continuation | None:
        """Return the job that this one continues, with its session and folders where they still exist."""
        if (job_id := attempt.job.spec.follow_up_of) is None:
            return None
        if attempt.followed is None or (name := attempt.continued) is None:
            return Continuation(job_id=job_id)
        kept, at_head = self._folder(attempt.followed.attempt_name).path, attempt.starts_at_head
        found = Continuation(job_id=job_id, kept=str(kept), at_head=at_head)
        if not (folder := self._folder(name)).is_resumable:
            return found
        session = attempt.continued_session
        workspace = None if at_head else str(folder.workspace)
        return replace(found, session=session, workspace=workspace, folder=str(folder.path))

    def _default_endpoint(self, job: Job) -> str | None:
        """Return the provider's endpoint from the engine's environment."""
        return self._settings.environment.get(provider_spec(job.resolved.provider).endpoint_variable or "")

    def _own_secrets(self) -> list[str]:
        """Return the engine's own secrets, which an attempt redacts in its output. No file of the attempt has them."""
        file = self._settings.admin_key_file
        try:
            return [*self._settings.own_secrets, *([file.read_text().strip()] if file else [])]
        except FileNotFoundError:
            return list(self._settings.own_secrets)

    # Executors

    def _adopt(self, name: AttemptName, process: ProcessId) -> None:
        """Watch `process`, the executor of the attempt, until it ends."""
        loop = asyncio.get_running_loop()
        if earlier := self._adoptions.pop(name, None):
            earlier.cancel()
        try:
            pidfd = os.pidfd_open(process.pid)
        except ProcessLookupError:
            self._clean_up_later(name)
            return
        except OSError as error:  # too many open files
            log.warning("executor not watched yet", attempt=str(name), reason=error.strerror)
            self._adoptions[name] = loop.call_later(ADOPT_SECONDS, self._adopt_now, name, process)
            return
        self._executors[name] = Executor(process, pidfd)
        loop.add_reader(pidfd, self._executor_ended, name)

    def _adopt_now(self, name: AttemptName, process: ProcessId) -> None:
        """Watch an executor for which there was no file descriptor. Meanwhile, its id may have become another's."""
        del self._adoptions[name]
        if process.is_reaped:
            self._clean_up_later(name)
        else:
            self._adopt(name, process)

    def _release(self, name: AttemptName) -> Executor:
        executor = self._executors.pop(name)
        asyncio.get_running_loop().remove_reader(executor.pidfd)
        os.close(executor.pidfd)
        return executor

    def _attempt_ended(self, folder: str, executor: int) -> bool:
        """Handle the end of an attempt whose executor lives on. Return whether the executor is reusable."""
        name = AttemptName.parse(Path(folder).name)
        watched = self._executors.get(name) if name else None
        if name is None or watched is None or watched.id.pid != executor:
            return True  # nobody has sent it a signal
        self._executor_ended(name)
        return watched.is_reusable

    def _executor_ended(self, name: AttemptName) -> None:
        ended = self._release(name)
        try:
            is_over = self._is_over(name, ended.id)
        except OSError as error:  # too many open files
            log.warning("end of an attempt not read yet", attempt=str(name), reason=error.strerror)
            is_over = False
        if name in self._executors or name in self._adoptions or name in self._cleanups:
            return  # an executor of an earlier engine won the claim
        if is_over:
            self._notify(name)  # it ended normally, which an executor does only after all its descendants
        else:
            self._clean_up_later(name)

    def _is_over(self, name: AttemptName, ended: ProcessId) -> bool:
        """Return whether the attempt has an outcome. Adopt an executor of an earlier engine that won the claim."""
        folder = self._folder(name)
        claimed_by = folder.executor()
        if isinstance(claimed_by, ProcessId) and claimed_by != ended and folder.is_run_by(claimed_by):
            self._adopt(name, claimed_by)
            return False
        return read_end(folder.output)[0] is not None

    def _clean_up_later(self, name: AttemptName) -> None:
        """End the leftovers of a crashed attempt in the background. Until then, the attempt counts as alive."""
        task = asyncio.create_task(self._clean_up(name), name=f"clean up {name}")
        self._cleanups[name] = task

    async def _clean_up(self, name: AttemptName) -> None:
        try:
            executor = self._folder(name).executor()
            if isinstance(executor, ProcessId):
                await self._end_leftovers(name, executor)
            elif executor is None:
                await asyncio.sleep(UNCLAIMED_SECONDS)
            if groups := self._settings.task.limits.control_groups:  # the executor could not remove its own
                remove_group(Path(groups, str(name)))
        finally:
            del self._cleanups[name]
            self._notify(name)

    def _notify(self, name: AttemptName) -> None:
        """Make watchers and readers check the attempt again."""
        self._changed.put_nowait(name)
        self._output_watch.wake(self._folder(name).path)

    async def _end_leftovers(self, name: AttemptName, executor: ProcessId) -> None:
        """Wait until the launcher has reaped the executor, which it does last; then kill stray processes."""
        with suppress(TimeoutError):
            async with asyncio.timeout(REAP_SECONDS):
                while not executor.is_reaped:
                    await asyncio.sleep(0.002)
        # A living claimant that does not run this attempt runs that of a data folder from which this one was copied.
        folder = self._folder(name).path
        await asyncio.to_thread(_kill_strays, name, folder, folder / "home" if executor.is_alive else None)

    def _gone_without_outcome(self, folder: AttemptFolder, tail: OutputTail) -> Gone:
        if (status := folder.exit_status()) is None:
            return Gone(tail=tail)
        return Gone(None, FailedCode.EXECUTOR_DIED, f"the executor {describe_exit(*status)} without an outcome", tail)


def _kill_tree(pid: int, pidfd: int) -> None:
    """Kill the executor and its descendants, and close `pidfd`.

    The executor is stopped first, so that it starts no process while its descendants are killed.
    """
    try:
        signal.pidfd_send_signal(pidfd, signal.SIGSTOP)
        if not kill_descendants(pid):
            log.error("processes of an attempt not killed", executor=pid)
        signal.pidfd_send_signal(pidfd, signal.SIGKILL)
    except ProcessLookupError:
        pass  # it has ended already
    finally:
        os.close(pidfd)


def _kill_strays(name: AttemptName, folder: Path, home: Path | None) -> None:
    """Kill processes of the attempt that escaped their executor.

    They have its claim mounted in their sandbox, or its name in their environment, which an agent can change.

    folder: of the attempt. home: that of the attempt, if processes of another engine have this name, too.
    """
    strays = {*with_environment(ATTEMPT_VARIABLE, str(name))}
    if home:
        strays &= {*with_environment("HOME", str(home))}
    for pid in sorted(strays | {*with_mount(folder / CLAIM_FILE)}):
        kill_descendants(pid)
        send_signal(pid, signal.SIGKILL)
