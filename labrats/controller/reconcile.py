"""The controller: feeds the schedule from the watches, and acts on the plan of each job that needs work."""

import asyncio
from collections.abc import Iterable
from datetime import datetime, timedelta
from typing import Any

import structlog
from msgspec.structs import replace

from labrats.controller.applied_jobs import AppliedJobs
from labrats.controller.plan import (
    Action,
    Admit,
    Delays,
    Kill,
    Move,
    ReconcileAt,
    Resolve,
    Start,
    Stop,
    Supersede,
    is_overdue,
    plan_job,
)
from labrats.controller.schedule import AllocateLater, CancelTimer, JobSchedule, Reconcile, ReconcileLater, Work
from labrats.intake.codex_logins import CodexLogins
from labrats.intake.forge import Tokens
from labrats.intake.immediate_starts import ImmediateStarts
from labrats.metrics import Metrics
from labrats.model.ai_config import AiConfig
from labrats.model.ai_model import AiModel
from labrats.model.attempt_name import AttemptName
from labrats.model.errors import BecameUnreadable, Conflict, GiveUp, Invalid, NotFound
from labrats.model.job import FailedCode, Job, advance, superseded
from labrats.model.phases import JobEvent, Phase
from labrats.model.queue_order import Group, group_of
from labrats.ports import Attempt, Changed, Clock, Deleted, NotStarted, Runner, Store
from labrats.settings import EngineSettings
from labrats.timers import Timers
from labrats.work_queue import WorkQueue, work_forever

log = structlog.get_logger()

WORKERS = 64
"""Jobs reconciled at once. A worker mostly waits: on one machine for a commit, which many workers share; on a cluster
for the API server and its watches, which are slower under load.
"""

LONGEST_REASON = 500
"""Most characters of a reason that quotes another error."""


class Controller:
    """Drives every job from Pending to its end. Only one may run at a time."""

    def __init__(
        self,
        store: Store,
        runner: Runner,
        applied_jobs: AppliedJobs,
        clock: Clock,
        settings: EngineSettings,
        metrics: Metrics,
        tokens: Tokens | None = None,
        immediate_starts: ImmediateStarts | None = None,
        logins: CodexLogins | None = None,
    ) -> None:
        """Create the controller.

        tokens:           provides jobs of webhook sources with tokens for their repositories.
        logins:           renews the logins of models.
        immediate_starts: of the API in this process; None where the API runs in another.
        """
        self._store, self._runner, self._clock = store, runner, clock
        self._applied_jobs, self._metrics, self._tokens = applied_jobs, metrics, tokens
        self._delays = Delays(
            grace=timedelta(seconds=settings.stop_grace_seconds),
            backoff=timedelta(seconds=settings.retry_backoff_seconds),
            pause=timedelta(seconds=settings.model_pause_seconds),
        )
        self._schedule = JobSchedule(settings.default_model_slots, settings.priority_aging_seconds)
        self._work = WorkQueue()
        self._pauses: Timers[Group] = Timers(self._end_pause)
        self._models_known = asyncio.Event()
        self._pause_known = asyncio.Event()
        self._jobs_known = asyncio.Event()
        self._immediate_starts = immediate_starts or ImmediateStarts()
        self._logins = logins

    async def run(self) -> None:
        """Run until cancelled. If one loop dies, all stop and its error surfaces."""
        try:
            with self._immediate_starts.decided_by(self):
                await self._run_loops()
        finally:
            self._work.cancel_timers()
            self._pauses.cancel_all()

    async def _run_loops(self) -> None:
        async with asyncio.TaskGroup() as loops:
            loops.create_task(self._watch_ai_models(), name="watch-ai-models")
            loops.create_task(self._watch_pause(), name="watch-pause")
            loops.create_task(self._watch_jobs(), name="watch-jobs")
            loops.create_task(self._watch_attempts(), name="watch-attempts")
            for number in range(WORKERS):
                loops.create_task(self._work_forever(), name=f"reconcile-{number}")

    # New jobs

    def start_new(self, job: Job) -> Job | None:
        """Return the job as started, and hold a slot for it; None if it must wait (see ImmediateStarts)."""
        now = self._clock.now()
        if not self._schedule.place_new(job, now):
            return None
        created = replace(job, metadata=replace(job.metadata, created_at=now))
        return advance(created, JobEvent.START, **self._next_attempt(created, now))

    def forget_new(self, job: Job) -> None:
        """Take note that a job could not be stored after `start_new`, and release its slot if it has one."""
        self._add_work(self._schedule.forget_new(job, self._clock.now()))

    # Watches

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
            self._add_work(self._schedule.observe_ai_models(by_name.values(), self._clock.now()))

    async def _watch_pause(self) -> None:
        async for change in self._store.watch(AiConfig):
            match change:
                case Changed(config):
                    self._add_work(self._schedule.observe_pause(config.pause is not None, self._clock.now()))
                case Deleted():
                    self._add_work(self._schedule.observe_pause(False, self._clock.now()))
                case _:
                    self._pause_known.set()

    async def _watch_jobs(self) -> None:
        await self._models_known.wait()
        await self._pause_known.wait()
        async for change in self._store.watch(Job, unsettled_only=True):
            match change:
                case Changed(job):
                    self._observe(job)
                case Deleted(job):
                    self._add_work(self._schedule.observe_deletion(job, self._clock.now()))
                case _:
                    self._jobs_known.set()
                    self._add_work(self._schedule.observe_synced(self._clock.now()))

    async def _watch_attempts(self) -> None:
        async for name in self._runner.watch():
            self._work.add(name.job_id)

    def _observe(self, job: Job) -> None:
        self._add_work(self._schedule.observe(job, self._clock.now()))

    def _add_work(self, work: Iterable[Work]) -> None:
        for each in work:
            match each:
                case Reconcile(job_id):
                    self._work.add(job_id)
                case ReconcileLater(job_id, delay_seconds):
                    self._work.add_later(job_id, delay_seconds)
                case CancelTimer(job_id):
                    self._work.cancel_timer(job_id)
                case AllocateLater(group, delay_seconds):
                    self._pauses.start(group, delay_seconds)

    def _end_pause(self, group: Group) -> None:
        self._add_work(self._schedule.end_pause(group, self._clock.now()))

    # Workers

    async def _work_forever(self) -> None:
        await self._jobs_known.wait()
        await work_forever(self._work, self._reconcile)

    async def _reconcile(self, job_id: str) -> None:
        try:
            await self._reconcile_observed(job_id)
        except (Conflict, NotFound):
            await self._refresh(job_id)

    async def _reconcile_observed(self, job_id: str) -> None:
        """Compare the job with its attempt, and do what the plan says."""
        if abandoned := self._schedule.abandoned(job_id):
            await self._clean_up(abandoned)
            return
        if (job := self._schedule.job(job_id)) is None:
            return
        now = self._clock.now()
        superseder = self._schedule.superseder(job)
        if self._schedule.is_waiting(job) and not superseder and not is_overdue(job, now):
            self._add_work(self._schedule.ensure_queued(job, now))
            return
        if job.phase is Phase.PENDING:
            whole = await self._whole(job)
            if whole.metadata.resource_version != job.metadata.resource_version:
                self._observe(whole)
                self._work.add(job_id)
                return
            job = whole
        attempt = await self._runner.find(job.attempt_name) if job.phase is Phase.RUNNING else NotStarted()
        now = self._clock.now()  # the attempt may have ended while the job was read, and never after the job
        has_slot = self._schedule.holds_slot(job)
        for action in plan_job(job, attempt, has_slot=has_slot, now=now, delays=self._delays, superseded_by=superseder):
            await self._apply(action, job, now)

    async def _whole(self, known: Job) -> Job:
        """Return a job with its large fields, which the schedule does not keep, in no older version than the known one.

        Raises NotFound; Conflict if the newer version cannot be read.
        """
        for found in await self._store.get_many(Job, [known.id]):  # on a cluster without a request, as a rule
            if int(found.metadata.resource_version) >= int(known.metadata.resource_version):
                return found
        try:
            return await self._store.get(Job, known.id)
        except BecameUnreadable as error:
            raise Conflict(str(error)) from error

    async def _refresh(self, job_id: str) -> None:
        """Read a job that another writer changed or deleted first, and reconcile it again."""
        known = self._schedule.job(job_id)
        try:
            observed = await self._store.get(Job, job_id)
        except NotFound:
            pass
        except BecameUnreadable:
            if known is None or known.phase is not Phase.PENDING:
                raise
            # The job must keep no slot from others. The watch reports it once a person has fixed it.
            if self._schedule.job(job_id) is not known:  # it has done so before this answer arrived
                self._work.add(job_id)
                return
        else:
            self._observe(observed)
            self._work.add(job_id)
            return
        if known:
            self._add_work(self._schedule.observe_deletion(known, self._clock.now()))

    async def _clean_up(self, job: Job) -> None:
        """Kill the attempt of an abandoned job, and remove the files of all its attempts if the job was deleted."""
        await self._runner.kill(job.attempt_name)
        successor = self._schedule.successor(job.id)
        if successor is None or successor.metadata.uid != job.metadata.uid:
            for number in range(1, job.status.attempts + 1):
                await self._runner.remove(AttemptName(job.id, number))
        self._add_work(self._schedule.finish_abandoned(job, self._clock.now()))

    # Actions

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
            case Supersede(by):
                self._observe(await self._store.update(superseded(job, by, now)))
                self._work.add(job.id)
            case ReconcileAt(at):
                self._work.add_later(job.id, (at - now).total_seconds())
            case Move(event, changes):
                await self._move(job, event, now, changes)

    async def _resolve(self, job: Job, now: datetime) -> None:
        """Give a job its settings: one applied with kubectl, or one of a delivery. Fail an invalid one."""
        try:
            resolved = await self._applied_jobs.resolve(job)
        except Invalid as error:
            reason = str(error)[:LONGEST_REASON]
            await self._fail(job, FailedCode.INVALID, reason, now)
            return
        if job.spec.resolved is None:  # applied with kubectl: whoever creates another job counts it
            self._metrics.job_submitted(resolved)
        self._observe(resolved)

    async def _admit(self, job: Job, now: datetime) -> None:
        if self._schedule.is_over_allocated(job):
            await self._give_up_slot(job)
            return
        await self._move(job, JobEvent.START, now, self._next_attempt(job, now))

    def _next_attempt(self, job: Job, now: datetime) -> dict[str, Any]:
        """Return the changes to the status of a job that starts an attempt."""
        return {
            "attempts": job.status.attempts + 1,
            "slot": self._schedule.slot_name(job),
            "started_at": now,
            "deadline_at": job.status.deadline_at or now + timedelta(seconds=job.resolved.timeout_seconds),
            "not_before": None,
            "failed_code": None,
            "failed_reason": None,
        }

    async def _give_up_slot(self, job: Job) -> None:
        """Queue the job again, because its model lost the slot; unless the store says that the job has started."""
        fresh = await self._store.get(Job, job.id)
        self._observe(fresh)
        if fresh.phase is Phase.PENDING:
            self._add_work(self._schedule.enqueue(fresh, self._clock.now()))

    async def _start(self, job: Job) -> None:
        ai_models = self._schedule.ai_models
        try:
            if job.spec.resolved is None:  # applied with kubectl
                await self._applied_jobs.check_credentials(job)
            if self._tokens:
                await self._tokens.provide(job)
            if self._logins:
                await self._logins.provide(job, ai_models.get(group_of(job)))
            followed = await self._followed(job)
            await self._runner.start(Attempt(job, ai_models.get(group_of(job)), ai_models.values(), followed))
        except GiveUp as error:
            await self._runner.kill(job.attempt_name)
            await self._fail(job, FailedCode(error.code), str(error), self._clock.now())

    async def _followed(self, job: Job) -> Job | None:
        """Return the job that this one continues, if it still exists. Another one may have its id now."""
        if job.spec.follow_up_of is None:
            return None
        try:
            followed = await self._store.get(Job, job.spec.follow_up_of)
        except NotFound:
            return None
        return followed if job.spec.follow_up_uid in (None, followed.metadata.uid) else None

    async def _fail(self, job: Job, code: FailedCode, reason: str, now: datetime) -> None:
        failed = {"failed_code": code, "failed_reason": reason, "finished_at": now}
        await self._move(job, JobEvent.FAIL, now, failed)

    async def _move(self, job: Job, event: JobEvent, now: datetime, changes: dict[str, Any]) -> None:
        """Store the job's next phase, and observe it at once: the next decision must not be older than this one."""
        if self._logins and job.phase is Phase.RUNNING and changes.get("failed_code") is FailedCode.AUTH:
            self._logins.note_rejected(job, self._schedule.ai_models.get(group_of(job)))
        with self._schedule.moving(job):
            moved = await self._update(job, event, now, changes)
            self._observe(moved)
        self._metrics.job_moved(job, moved, now)
        if moved.phase is Phase.FAILED:
            log.info(
                "job failed",
                job=moved.id,
                attempts=moved.status.attempts,
                code=moved.status.failed_code,
                reason=moved.status.failed_reason,
            )

    async def _update(self, job: Job, event: JobEvent, now: datetime, changes: dict[str, Any]) -> Job:
        """Store the move. Fail the job if the store refuses its outcome: an executor may report anything."""
        try:
            return await self._store.update(advance(job, event, **changes))
        except Invalid as error:
            reason = f"the outcome of the job cannot be stored: {error}"[:LONGEST_REASON]
            failed = {"failed_code": FailedCode.INTERNAL, "failed_reason": reason, "finished_at": now}
            return await self._store.update(advance(job, JobEvent.FAIL, **failed))
