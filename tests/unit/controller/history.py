"""The history of a simulated engine, and a check of it against the promises."""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from itertools import pairwise

from labrats.model.ai_model import AiModel
from labrats.model.attempt_name import AttemptName
from labrats.model.job import FailedCode, Job
from labrats.model.phases import ENDED, MOVES, Phase
from labrats.model.queue_order import group_of

P = Phase

FOR_EVER = datetime.max.replace(tzinfo=UTC)


@dataclass(frozen=True)
class Run:
    """The life of one executor."""

    name: AttemptName
    started_at: datetime
    ended_at: datetime | None

    @property
    def job_id(self) -> str:
        return self.name.job_id


@dataclass
class History:
    """Everything that happened. jobs, ai_models: every write with its time, in order. runs: every executor."""

    jobs: list[tuple[datetime, Job]] = field(default_factory=list)
    ai_models: list[tuple[datetime, AiModel]] = field(default_factory=list)
    runs: list[Run] = field(default_factory=list)

    def by_job(self) -> dict[str, list[tuple[datetime, Job]]]:
        found = defaultdict(list)
        for at, job in self.jobs:
            found[job.id].append((at, job))
        return found


def violations(history: History, lag: timedelta) -> list[str]:
    """Return a sentence for each broken promise.

    lag: time by which the observed state of the controller may lag, including the write of a decision.
    """
    return [
        *_wrong_lives(history),
        *_overlapping_runs(history),
        *_runs_out_of_place(history),
        *_too_many_at_once(history, lag),
        *_overtaken(history, lag),
    ]


def _wrong_lives(history: History) -> Iterator[str]:
    """R1, R6, R9, R14: a job has one outcome, moves only by the table, counts its attempts and obeys a cancel."""
    for job_id, writes in history.by_job().items():
        last = writes[-1][1]
        if not last.ended:
            yield f"{job_id} never ended: {last.status}"
        for (_, before), (_, after) in pairwise(writes):
            yield from _wrong_step(before, after)


def _wrong_step(before: Job, after: Job) -> Iterator[str]:
    old, new = before.status, after.status
    if old.phase is new.phase:
        if old.phase in ENDED or old.attempts != new.attempts:
            yield f"{before.id} was written while {old.phase}: {new}"
        return
    if (old.phase, new.phase) not in {(phase, to) for (phase, _), to in MOVES.items()}:
        yield f"{before.id} went from {old.phase} to {new.phase}"
    if new.attempts - old.attempts != (new.phase is P.RUNNING):
        yield f"{before.id} went from {old.phase} to {new.phase} and from {old.attempts} attempts to {new.attempts}"
    if old.phase is P.RUNNING and old.cancel_requested_at and new.phase is not P.CANCELLED:
        yield f"{before.id} was cancelled on request, and is {new.phase}"
    if (old.phase, new.phase) == (P.RUNNING, P.PENDING) and old.attempts >= before.resolved.max_attempts:
        yield f"{before.id} was requeued after its last attempt"
    if new.phase is P.FAILED and new.failed_code is FailedCode.TIMEOUT:
        assert new.finished_at
        assert old.deadline_at
        if new.finished_at < old.deadline_at:
            yield f"{before.id} timed out before its deadline"
    if new.phase is P.FAILED and new.failed_reason == "stopped on request":
        yield f"{before.id} was stopped with no reason"


def _overlapping_runs(history: History) -> Iterator[str]:
    """R1: at most one executor of a job lives at a time, and at most one ever has a given name."""
    runs = defaultdict(list)
    for run in history.runs:
        runs[run.job_id].append(run)
    for job_runs in runs.values():
        job_runs.sort(key=lambda run: run.started_at)
        for earlier, later in pairwise(job_runs):
            if earlier.ended_at is None or earlier.ended_at > later.started_at or earlier.name == later.name:
                yield f"{earlier} and {later} overlap"


def _runs_out_of_place(history: History) -> Iterator[str]:
    """R8: an executor lives only while its job is Running with its attempt."""
    spans: dict[AttemptName, tuple[datetime, datetime]] = {}
    for writes in history.by_job().values():
        for at, job in writes:
            if job.phase is P.RUNNING:
                spans.setdefault(job.attempt_name, (at, FOR_EVER))
            elif job.attempt_name in spans and at < spans[job.attempt_name][1]:
                spans[job.attempt_name] = spans[job.attempt_name][0], at
    for run in history.runs:
        admitted, recorded = spans.get(run.name, (FOR_EVER, FOR_EVER))
        if run.started_at < admitted or run.ended_at is None or run.ended_at > recorded:
            yield f"{run} lived outside the time it was admitted for, {admitted} to {recorded}"


def _too_many_at_once(history: History, lag: timedelta) -> Iterator[str]:
    """R11: no job starts without a free slot of its model, counted now or up to `lag` ago."""
    running: dict[str, set[str]] = defaultdict(set)
    for at, job in history.jobs:
        holders = running[job.resolved.model]
        if job.phase is not P.RUNNING:
            holders.discard(job.id)
        elif job.id not in holders:
            holders.add(job.id)
            slots = _most_slots(history.ai_models, job, at - lag, at)
            if len(holders) > slots:
                yield f"{job.id} started at {at} as number {len(holders)} on {slots} slots"


def _most_slots(ai_models: Sequence[tuple[datetime, AiModel]], job: Job, since: datetime, until: datetime) -> int:
    counts = [
        (at, ai_model.spec.slots)
        for at, ai_model in ai_models
        if (ai_model.spec.provider, ai_model.spec.model) == group_of(job) and at <= until
    ]
    earlier = [count for at, count in counts if at <= since]
    return max(earlier[-1:] + [count for at, count in counts if at > since], default=0)


def _overtaken(history: History, lag: timedelta) -> Iterator[str]:
    """R12: no job starts while an older one of equal or better priority waits for the same model."""
    waits = list(_waits(history))
    for wait in filter(lambda wait: wait.ends_in_start, waits):
        for other in waits:
            overtaken = other.since < wait.until - lag and wait.until + lag < other.until
            if overtaken and _goes_before(other.job, wait.job):
                yield f"{wait.job.id} started at {wait.until} before {other.job.id}, waiting since {other.since}"


@dataclass(frozen=True)
class _Wait:
    """A time in which a job could have been started."""

    job: Job
    since: datetime
    until: datetime
    ends_in_start: bool


def _waits(history: History) -> Iterator[_Wait]:
    for writes in history.by_job().values():
        ends = [(until, after.phase is P.RUNNING) for until, after in writes[1:]]
        for (written_at, job), (until, ends_in_start) in zip(writes, [*ends, (FOR_EVER, False)], strict=True):
            if job.phase is P.PENDING:
                yield _Wait(job, max(written_at, job.status.not_before or written_at), until, ends_in_start)


def _goes_before(job: Job, other: Job) -> bool:
    return (
        group_of(job) == group_of(other)
        and job.spec.priority <= other.spec.priority
        and job.created_at < other.created_at
    )
