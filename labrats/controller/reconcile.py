"""The controller: keeps what it knows of live jobs, gives out slots, and acts on the plan of each job that changed."""

import asyncio
from contextlib import suppress
from datetime import datetime, timedelta
from typing import Any

import structlog

from labrats.controller.applied_jobs import AppliedJobs
from labrats.controller.plan import (
    Action,
    Admit,
    Kill,
    Limits,
    LookAgain,
    Record,
    Resolve,
    Start,
    Stop,
    is_overdue,
    plan_job,
)
from labrats.controller.queue import Group, JobQueue, SlotHolders, group_of, rank_of
from labrats.controller.work_queue import WorkQueue, work_forever
from labrats.intake.repository_tokens import RepositoryTokens
from labrats.metrics import Metrics
from labrats.model.ai_model import AiModel, ai_models_in_use, slots_for
from labrats.model.attempt_name import AttemptName
from labrats.model.errors import Conflict, GiveUp, Invalid, NotFound
from labrats.model.job import FailedCode, Job, advance
from labrats.model.phases import JobEvent, Phase
from labrats.ports import Attempt, Changed, Clock, Deleted, NotStarted, Runner, Store
from labrats.settings import EngineSettings

log = structlog.get_logger()

WORKERS = 64
"""Jobs reconciled at once. Reconciling mostly waits: on one machine for a commit, which so many may share; on a cluster
for answers of the API server and for the watch, which take longer the more the API server has to do.
"""

LONGEST_REASON = 500
"""Characters of a reason that repeats what somebody else said."""


class Controller:
    """Drives every job from Pending to its end. One runs at a time."""

    def __init__(
        self,
        store: Store,
        runner: Runner,
        applied_jobs: AppliedJobs,
        clock: Clock,
        settings: EngineSettings,
        metrics: Metrics,
        tokens: RepositoryTokens | None = None,
    ) -> None:
        """tokens: what gives jobs of webhook sources tokens for their repositories, where there are such."""
        self._store, self._runner, self._clock, self._settings = store, runner, clock, settings
        self._applied_jobs, self._metrics, self._tokens = applied_jobs, metrics, tokens
        self._limits = Limits(
            grace=timedelta(seconds=settings.stop_grace_seconds),
            backoff=timedelta(seconds=settings.retry_backoff_seconds),
            pause=timedelta(seconds=settings.model_pause_seconds),
        )
        self._jobs: dict[str, Job] = {}
        self._deleted: dict[str, Job] = {}  # those that may still run, deleted or taken from their attempts,
        self._successors: dict[str, Job] = {}  # and what there is under their names since
        self._moving: set[str] = set()
        self._ai_models: dict[Group, AiModel] = {}
        self._waiting = JobQueue()
        self._slots = SlotHolders()
        self._pauses: dict[Group, datetime] = {}
        self._work = WorkQueue()
        self._models_known = asyncio.Event()
        self._jobs_known = asyncio.Event()

    async def run(self) -> None:
        """Run until cancelled. If one loop dies, all stop and its error surfaces."""
        async with asyncio.TaskGroup() as loops:
            loops.create_task(self._watch_ai_models(), name="watch-ai-models")
            loops.create_task(self._watch_jobs(), name="watch-jobs")
            loops.create_task(self._watch_attempts(), name="watch-attempts")
            for number in range(WORKERS):
                loops.create_task(self._reconcile_forever(), name=f"reconcile-{number}")

    # What it knows

    async def _watch_ai_models(self) -> None:
        by_name: dict[str, AiModel] = {}
        async for change in self._store.watch(AiModel):
            match change:
                case Changed(ai_model):
                    by_name[ai_model.name] = ai_model
                case Deleted(ai_model):
                    by_name.pop(ai_model.name, None)
                case _:
                    self._models_known.set()
            self._ai_models = ai_models_in_use(by_name.values())
            self._give_out_slots(self._waiting.groups())

    async def _watch_jobs(self) -> None:
        await self._models_known.wait()
        async for change in self._store.watch(Job):
            match change:
                case Changed(job):
                    self._observe(job)
                case Deleted(job):
                    self._note_deletion(job)
                case _:
                    # No slot is given before every running job is known: one not yet seen may hold it.
                    self._jobs_known.set()
                    self._give_out_slots(self._waiting.groups())

    async def _watch_attempts(self) -> None:
        async for name in self._runner.watch():
            self._work.add(name.job_id)

    def _observe(self, job: Job) -> None:
        """Take note of `job` as it now is, unless something newer is known."""
        if job.id in self._deleted:  # another of that name, whose turn comes when nothing of the deleted one runs
            self._successors[job.id] = job
            return
        known = self._jobs.get(job.id)
        if known and int(known.metadata.resource_version) >= int(job.metadata.resource_version):
            return
        if known and self._is_taken_from_its_attempt(known, job):
            self._deleted[job.id], self._successors[job.id] = self._jobs.pop(job.id), job
            self._work.add(job.id)
            return
        if job.ended:
            self._forget(job)
            return
        self._jobs[job.id] = job
        group = group_of(job)
        if job.phase is Phase.RUNNING:
            self._waiting.discard(job.id)
            self._slots.take(job.id, group)
            self._work.add(job.id)
        elif not job.is_resolved:
            self._work.add(job.id)
        elif known is None or known.phase is Phase.RUNNING or not known.is_resolved:
            self._enqueue(job, group)

    def _is_taken_from_its_attempt(self, known: Job, job: Job) -> bool:
        """Whether somebody else has written that it does not run, or another attempt of it: a person with kubectl."""
        is_same = job.phase is Phase.RUNNING and job.attempt_name == known.attempt_name
        return known.phase is Phase.RUNNING and not is_same and job.id not in self._moving

    def _enqueue(self, job: Job, group: Group) -> None:
        """Let a Pending job wait for a slot, from `not_before` on. One that it still holds is free for the best."""
        self._slots.release(job.id)
        if job.paused_until:
            self._pause(group, job.paused_until)
        if (wait := self._seconds_until(job.status.not_before)) > 0:
            self._work.add_later(job.id, wait)
        else:
            self._waiting.put(job.id, group, rank_of(job, self._settings.priority_aging_seconds))
            if job.status.deadline_at:
                self._work.add_later(job.id, self._seconds_until(job.status.deadline_at))
        self._give_out_slots([group])

    def _pause(self, group: Group, until: datetime) -> None:
        """Start nothing more of `group` before `until`. Derived from the jobs that wait for it, never stored."""
        if (wait := self._seconds_until(until)) > self._seconds_until(self._pauses.get(group)):
            self._pauses[group] = until
            asyncio.get_running_loop().call_later(wait, self._give_out_slots, [group])

    def _seconds_until(self, time: datetime | None) -> float:
        return (time - self._clock.now()).total_seconds() if time else 0.0

    def _note_deletion(self, job: Job) -> None:
        """Somebody has deleted `job`. While it may still run it keeps its slot."""
        self._successors.pop(job.id, None)
        known = self._jobs.get(job.id)
        if known is None or known.metadata.uid != job.metadata.uid:
            return
        if known.phase is not Phase.RUNNING:
            self._forget(known)
            return
        self._deleted[job.id] = self._jobs.pop(job.id)
        self._work.add(job.id)

    def _forget(self, job: Job) -> None:
        """`job` needs nothing more: it has ended, or is deleted."""
        self._jobs.pop(job.id, None)
        self._waiting.discard(job.id)
        self._work.forget_timer(job.id)
        if freed := self._slots.release(job.id):
            self._give_out_slots([freed])

    def _give_out_slots(self, groups: list[Group]) -> None:
        """Give each free slot of `groups` to the best waiting job; a worker then records its start."""
        if not self._jobs_known.is_set():
            return
        for group in groups:
            while (job_id := self._next_for(group)) is not None:
                self._slots.take(job_id, group)
                self._work.add(job_id)

    def _next_for(self, group: Group) -> str | None:
        if self._seconds_until(self._pauses.get(group)) > 0 or self._slots.used(group) >= self._slot_count(group):
            return None
        return self._waiting.pop(group)

    def _slot_count(self, group: Group) -> int:
        ai_model = self._ai_models.get(group)
        return ai_model.spec.slots if ai_model else self._settings.default_model_slots

    # What it does

    async def _reconcile_forever(self) -> None:
        await self._jobs_known.wait()
        await work_forever(self._work, self._reconcile)

    async def _reconcile(self, job_id: str) -> None:
        try:
            await self._follow_plan(job_id)
        except (Conflict, NotFound):
            await self._look_afresh(job_id)

    async def _follow_plan(self, job_id: str) -> None:
        """Look at the job and its attempt, and do what the plan says."""
        if deleted := self._deleted.get(job_id):
            await self._clear_up_after(deleted)
            return
        if (job := self._jobs.get(job_id)) is None:
            return
        now = self._clock.now()
        waits = job.phase is Phase.PENDING and job.is_resolved and job_id not in self._slots
        if waits and not is_overdue(job, now):
            if job_id not in self._waiting:
                self._enqueue(job, group_of(job))
            return
        attempt = await self._runner.find(job.attempt_name) if job.phase is Phase.RUNNING else NotStarted()
        has_slot = job_id in self._slots
        for action in plan_job(job, attempt, has_slot=has_slot, now=now, limits=self._limits):
            await self._apply(action, job, now)

    async def _apply(self, action: Action, job: Job, now: datetime) -> None:
        match action:
            case Resolve():
                await self._resolve(job, now)
            case Admit():
                await self._admit(job, now)
            case Start():
                await self._start(job)
                self._work.add(job.id)
            case Stop():
                await self._runner.stop(job.attempt_name)
            case Kill():
                await self._runner.kill(job.attempt_name)
                self._work.add(job.id)
            case LookAgain(at):
                self._work.add_later(job.id, (at - now).total_seconds())
            case Record(event, changes):
                await self._move(job, event, now, changes)

    async def _clear_up_after(self, job: Job) -> None:
        """End a deleted job's attempt, remove all that its attempts left, and only then let another have its slot.

        What the attempts left of a job that is still there stays.
        """
        await self._runner.kill(job.attempt_name)
        successor = self._successors.get(job.id)
        if successor is None or successor.metadata.uid != job.metadata.uid:
            for number in range(1, job.status.attempts + 1):
                await self._runner.remove(AttemptName(job.id, number))
        del self._deleted[job.id]
        self._forget(job)
        if successor := self._successors.pop(job.id, None):
            self._observe(successor)

    async def _resolve(self, job: Job, now: datetime) -> None:
        """Make a job that a person wrote one that can wait for a slot; or fail it, where it makes no sense."""
        try:
            resolved = await self._applied_jobs.resolve(job)
        except Invalid as error:
            reason = f"the job makes no sense: {error}"[:LONGEST_REASON]
            failed = {"failed_code": FailedCode.INVALID, "failed_reason": reason, "finished_at": now}
            await self._move(job, JobEvent.FAIL, now, failed)
            return
        self._metrics.job_submitted(resolved)
        self._observe(resolved)

    async def _admit(self, job: Job, now: datetime) -> None:
        if self._slots.used(group_of(job)) > self._slot_count(group_of(job)):
            await self._return_slot(job)
            return
        started = {
            "attempts": job.status.attempts + 1,
            "slot": slots_for(job, self._ai_models, self._settings.default_model_slots).name,
            "started_at": now,
            "deadline_at": job.status.deadline_at or now + timedelta(seconds=job.resolved.timeout_seconds),
            "not_before": None,
            "failed_code": None,
            "failed_reason": None,
        }
        await self._move(job, JobEvent.START, now, started)

    async def _return_slot(self, job: Job) -> None:
        """The model has fewer slots than when `job` got one: let it wait again, unless it has started after all."""
        fresh = await self._store.get(Job, job.id)
        self._observe(fresh)
        if fresh.phase is Phase.PENDING:
            self._enqueue(fresh, group_of(fresh))

    async def _start(self, job: Job) -> None:
        try:
            if self._tokens:
                await self._tokens.provide(job)
            await self._runner.start(Attempt(job, self._ai_models.get(group_of(job)), self._ai_models.values()))
        except GiveUp as error:
            await self._runner.kill(job.attempt_name)
            now = self._clock.now()
            failed = {"failed_code": FailedCode(error.code), "failed_reason": str(error), "finished_at": now}
            await self._move(job, JobEvent.FAIL, now, failed)

    async def _move(self, job: Job, event: JobEvent, now: datetime, changes: dict[str, Any]) -> None:
        """Store the job's next phase, and know it at once: the next decision must not be older than this one."""
        self._moving.add(job.id)
        try:
            moved = await self._update(job, event, now, changes)
            self._observe(moved)
        finally:
            self._moving.discard(job.id)
        self._metrics.job_moved(job, moved, now)
        if moved.phase is Phase.FAILED:
            ending = moved.status
            log.info(
                "job failed",
                job=moved.id,
                attempts=ending.attempts,
                code=ending.failed_code,
                reason=ending.failed_reason,
            )

    async def _update(self, job: Job, event: JobEvent, now: datetime, changes: dict[str, Any]) -> Job:
        """Store it. A job whose outcome no store takes has failed: executors may say anything, and it must end."""
        try:
            return await self._store.update(advance(job, event, **changes))
        except Invalid as error:
            reason = f"what became of the job cannot be kept: {error}"[:LONGEST_REASON]
            failed = {"failed_code": FailedCode.INTERNAL, "failed_reason": reason, "finished_at": now}
            return await self._store.update(advance(job, JobEvent.FAIL, **failed))

    async def _look_afresh(self, job_id: str) -> None:
        """Somebody else wrote first: take what they wrote, and plan again."""
        known = self._jobs.get(job_id)
        with suppress(NotFound):
            fresh = await self._store.get(Job, job_id)
            self._observe(fresh)
            self._work.add(job_id)
            return
        if known:
            self._note_deletion(known)
