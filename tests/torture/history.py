"""The history of a kill test, and `violations`, which checks it against the promises.

It has three independent sources: clients (answers of the API), the store (every version of every job, in the order of
commits), and runs (output of attempts, and observed processes). All times are seconds since the epoch, by the clock of
the machine.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import pairwise
from math import inf
from operator import attrgetter
from typing import TypeVar

from labrats.model.phases import ENDED, MOVES, Phase

T = TypeVar("T")

CREATED = ((Phase.PENDING, 0), (Phase.RUNNING, 1))
"""Phase and attempts of a new job. One that need not wait is stored as started."""

DECISION_SECONDS = 2.0
"""Time after which a waiting job counts as passed over. The engine does not know a new job at once."""


# Reports of clients


@dataclass(frozen=True)
class Accepted:
    """A submission answered with 201. tag: name of the job in its metadata, given by the client."""

    job_id: str
    tag: str


@dataclass(frozen=True)
class Command:
    """A cancel or a retry. succeeded: None if the engine died before it answered."""

    call: str
    job_id: str
    succeeded: bool | None


@dataclass(frozen=True)
class ReportedEnd:
    """The end of a job, as a client read it from the API at the time `at` or before."""

    job_id: str
    phase: Phase
    attempts: int
    at: float


@dataclass(frozen=True)
class Line:
    """One line of a log. seq: number of its event within the attempt."""

    attempt: int
    seq: int
    text: str


@dataclass(frozen=True)
class Followed:
    """All lines that one reader of a log received, over any number of connections.

    ended: phase in the last event of the stream; None if the reader left before it.
    """

    job_id: str
    lines: tuple[Line, ...]
    ended: Phase | None


@dataclass(frozen=True)
class UnexpectedAnswer:
    """A valid call with an unexpected answer."""

    call: str
    status: int


# Versions in the store


@dataclass(frozen=True)
class JobVersion:
    """One version of a job. at: time of the commit."""

    at: float
    job_id: str
    phase: Phase
    attempts: int = 0
    tag: str = ""
    model: str = ""
    priority: float = 0
    max_attempts: int = 1
    created_at: float = 0
    not_before: float = 0


# Runs of attempts


@dataclass(frozen=True)
class Run:
    """An attempt that started.

    first, last: the executor or one of its processes lived at least from the first to the last time.
    seqs:        numbers of its events, in the order in which it wrote them.
    lines:       log lines among its events.
    outcome:     kind of its last event if that is terminal: `result` or `error`.
    """

    job_id: str
    attempt: int
    first: float
    last: float
    seqs: tuple[int, ...] = ()
    lines: tuple[Line, ...] = ()
    outcome: str | None = None


@dataclass(frozen=True)
class History:
    """Everything that was observed. leftovers: processes that lived after the test. slots: by model."""

    accepted: Sequence[Accepted] = ()
    commands: Sequence[Command] = ()
    reported: Sequence[ReportedEnd] = ()
    followed: Sequence[Followed] = ()
    unexpected_answers: Sequence[UnexpectedAnswer] = ()
    written: Sequence[JobVersion] = ()
    runs: Sequence[Run] = ()
    leftovers: Sequence[str] = ()
    slots: Mapping[str, int] = field(default_factory=dict)
    aging_seconds: float = 600

    @cached_property
    def versions(self) -> Mapping[str, Sequence[JobVersion]]:
        """Versions of each job, in the order of commits."""
        return _grouped(self.written, "job_id")

    @cached_property
    def runs_of(self) -> Mapping[str, Sequence[Run]]:
        """Runs of each job, by attempt."""
        return _grouped(sorted(self.runs, key=attrgetter("attempt")), "job_id")


@dataclass(frozen=True)
class Violation:
    """A broken promise. about: the job, model or process."""

    promise: str
    about: str
    what: str


def violations(history: History) -> list[Violation]:
    """Return every broken promise that the history proves. Pure. Uncertain facts prove nothing."""
    return [
        *_lost_jobs(history),
        *_duplicate_jobs(history),
        *_illegal_moves(history),
        *_second_outcomes(history),
        *_excess_attempts(history),
        *_unrequested_moves(history),
        *_lost_cancels(history),
        *_false_reports(history),
        *_unexpected_answers(history),
        *_wrong_outcomes(history),
        *_overlapping_runs(history),
        *_runs_after_the_end(history),
        *_exceeded_slots(history),
        *_priority_inversions(history),
        *_broken_outputs(history),
        *_broken_streams(history),
        *_leftover_processes(history),
    ]


# Jobs: created once, moved by the table, ended once


def _lost_jobs(history: History) -> Iterator[Violation]:
    last = {job_id: versions[-1] for job_id, versions in history.versions.items()}
    for accepted in history.accepted:
        if (version := last.get(accepted.job_id)) is None or version.tag != accepted.tag:
            yield Violation("lost", accepted.job_id, "was accepted, but is not in the store")
    for job_id, version in last.items():
        if version.phase not in ENDED:
            yield Violation("lost", job_id, f"never ended: it is still {version.phase}")


def _duplicate_jobs(history: History) -> Iterator[Violation]:
    jobs = Counter(versions[0].tag for versions in history.versions.values())
    for tag, count in jobs.items():
        if count > 1:
            yield Violation("duplicate", tag, f"was submitted under one Idempotency-Key and became {count} jobs")


def _illegal_moves(history: History) -> Iterator[Violation]:
    known = {(before, after) for (before, _), after in MOVES.items()}
    for job_id, versions in history.versions.items():
        first = versions[0]
        if (first.phase, first.attempts) not in CREATED:
            yield Violation("moves", job_id, f"was created as {first.phase} with {first.attempts} attempts")
        for before, after in pairwise(versions):
            if before.phase is not after.phase and (before.phase, after.phase) not in known:
                yield Violation("moves", job_id, f"went from {before.phase} to {after.phase}")
            started = after.phase is Phase.RUNNING and before.phase is Phase.PENDING
            if after.attempts != before.attempts + started:
                what = f"had {before.attempts}, then {after.attempts} attempts, from {before.phase} to {after.phase}"
                yield Violation("moves", job_id, what)


def _second_outcomes(history: History) -> Iterator[Violation]:
    for job_id, versions in history.versions.items():
        for before, after in pairwise(versions):
            if before.phase in ENDED and after.phase in ENDED:
                yield Violation("second end", job_id, f"ended as {before.phase}, and then as {after.phase}")


def _excess_attempts(history: History) -> Iterator[Violation]:
    """Attempts come from `maxAttempts` and from retries."""
    retries = Counter(_possible_commands(history, "retry"))
    for job_id, versions in history.versions.items():
        allowed = versions[0].max_attempts + retries[job_id]
        if versions[-1].attempts > allowed:
            yield Violation("attempts", job_id, f"had {versions[-1].attempts} attempts; {allowed} were allowed")


def _unrequested_moves(history: History) -> Iterator[Violation]:
    cancelled, retried = _possible_commands(history, "cancel"), _possible_commands(history, "retry")
    for job_id, versions in history.versions.items():
        for before, after in pairwise(versions):
            if after.phase is Phase.CANCELLED and job_id not in cancelled:
                yield Violation("unrequested", job_id, "was cancelled without a request")
            if before.phase is Phase.FAILED and after.phase is Phase.PENDING and job_id not in retried:
                yield Violation("unrequested", job_id, "was retried without a request")


def _possible_commands(history: History, call: str) -> list[str]:
    """Return the job ids of commands that succeeded, or whose answer was lost."""
    return [command.job_id for command in history.commands if command.call == call and command.succeeded is not False]


def _lost_cancels(history: History) -> Iterator[Violation]:
    """A job whose cancel succeeded ends in Cancelled."""
    for command in history.commands:
        versions = history.versions.get(command.job_id)
        if command.call == "cancel" and command.succeeded and versions and versions[-1].phase is not Phase.CANCELLED:
            yield Violation("cancel", command.job_id, f"a cancel succeeded, but it is {versions[-1].phase}")


def _false_reports(history: History) -> Iterator[Violation]:
    """Every end that a client read is in the store."""
    ends = {(version.job_id, version.phase, version.attempts) for version in history.written if version.phase in ENDED}
    for report in history.reported:
        if (report.job_id, report.phase, report.attempts) not in ends:
            what = f"was reported as {report.phase} after {report.attempts} attempts, which is not in the store"
            yield Violation("false report", report.job_id, what)


def _unexpected_answers(history: History) -> Iterator[Violation]:
    for (call, status), count in Counter((answer.call, answer.status) for answer in history.unexpected_answers).items():
        yield Violation("unexpected answer", call, f"a valid call was answered with {status}, {count} times")


# Runs: one at a time, within their job, within the slots


def _wrong_outcomes(history: History) -> Iterator[Violation]:
    """The outcome in the store matches the outcome that the attempt wrote."""
    outcomes = {(run.job_id, run.attempt): run.outcome for run in history.runs}
    for job_id, versions in history.versions.items():
        for before, after in pairwise(versions):
            if before.phase is not Phase.RUNNING or after.phase is Phase.RUNNING:
                continue
            outcome = outcomes.get((job_id, after.attempts))
            if after.phase is Phase.SUCCEEDED and outcome != "result":
                yield Violation("outcome", job_id, f"{after.phase}, but attempt {after.attempts} wrote {outcome}")
            if after.phase in (Phase.FAILED, Phase.PENDING) and outcome == "result":
                yield Violation("outcome", job_id, f"{after.phase}, but attempt {after.attempts} wrote a result")


def _overlapping_runs(history: History) -> Iterator[Violation]:
    for job_id, runs in history.runs_of.items():
        for earlier, later in pairwise(runs):
            if later.first < earlier.last:
                overlap = earlier.last - later.first
                what = f"attempt {later.attempt} started {overlap:.3f} s before the end of attempt {earlier.attempt}"
                yield Violation("overlap", job_id, what)


def _runs_after_the_end(history: History) -> Iterator[Violation]:
    runs = {(run.job_id, run.attempt): run for run in history.runs}
    for report in history.reported:
        if (run := runs.get((report.job_id, report.attempts))) and run.last > report.at:
            what = f"was reported as {report.phase} {run.last - report.at:.3f} s before its last process ended"
            yield Violation("run after the end", report.job_id, what)


def _exceeded_slots(history: History) -> Iterator[Violation]:
    models = {version.job_id: version.model for version in history.written}
    for model, slots in history.slots.items():
        runs = [run for run in history.runs if models.get(run.job_id) == model]
        if (most := _most_at_once([(run.first, run.last) for run in runs])) > slots:
            yield Violation("slots", model, f"has {slots} slots, and {most} runs were alive at once")
        if (most := _most_running(version for version in history.written if version.model == model)) > slots:
            yield Violation("slots", model, f"has {slots} slots, and {most} jobs were Running at once")


def _most_at_once(spans: Iterable[tuple[float, float]]) -> int:
    """Return the greatest number of spans that share an instant, ends excluded."""
    begins_and_ends = [(begin, 1) for begin, end in spans if begin < end]
    begins_and_ends += [(end, -1) for begin, end in spans if begin < end]
    now = most = 0
    for _, change in sorted(begins_and_ends):
        now += change
        most = max(most, now)
    return most


def _most_running(written: Iterable[JobVersion]) -> int:
    running: set[str] = set()
    most = 0
    for version in written:
        if version.phase is Phase.RUNNING:
            running.add(version.job_id)
        else:
            running.discard(version.job_id)
        most = max(most, len(running))
    return most


@dataclass
class _Waiting:
    """A Pending job.

    grace: number of jobs that may still start before it, because their slots may have been allocated before it came: at
           most the number of slots whose holders were not in the store yet.
    """

    version: JobVersion
    grace: float


def _priority_inversions(history: History) -> Iterator[Violation]:
    for model, versions in _grouped(history.written, "model").items():
        waiting: dict[str, _Waiting] = {}
        running: set[str] = set()
        for version in versions:
            was_running, left = version.job_id in running, waiting.pop(version.job_id, None)
            running.discard(version.job_id)
            if version.phase is Phase.RUNNING:
                running.add(version.job_id)
                if not was_running:
                    started = left.version if left else version
                    yield from _passed_over(started, version.at, waiting.values(), history.aging_seconds)
            elif version.phase is Phase.PENDING:
                # The store does not show when the engine queues a requeued job again.
                free = inf if version.not_before else history.slots.get(model, inf) - len(running)
                waiting[version.job_id] = _Waiting(version, grace=free)


def _passed_over(
    started: JobVersion, at: float, waiting: Iterable[_Waiting], aging_seconds: float
) -> Iterator[Violation]:
    """Yield a violation for each waiting job that should have been started instead."""
    for other in waiting:
        job = other.version
        if _rank(job, aging_seconds) < _rank(started, aging_seconds):
            other.grace -= 1
            if other.grace < 0 and at - job.at > DECISION_SECONDS:
                what = f"waited {at - job.at:.1f} s with priority {job.priority}, when {started.job_id} was started"
                yield Violation("priority", job.job_id, f"{what} with priority {started.priority}")


def _rank(job: JobVersion, aging_seconds: float) -> tuple[float, float]:
    """Return the place in the queue. A lower rank starts first. A job gains one level per `aging_seconds`."""
    return job.priority + job.created_at / aging_seconds, job.created_at


def _leftover_processes(history: History) -> Iterator[Violation]:
    for leftover in history.leftovers:
        yield Violation("leftover", leftover, "lives after the end of all jobs")


# Logs: written once, read without gaps or repetition


def _broken_outputs(history: History) -> Iterator[Violation]:
    for run in history.runs:
        if run.seqs != tuple(range(1, len(run.seqs) + 1)):
            what = f"the events of attempt {run.attempt} are not numbered 1, 2, 3 …: two executors, or a lost event"
            yield Violation("output", run.job_id, what)


def _broken_streams(history: History) -> Iterator[Violation]:
    """A reader receives each written line once, in order, and all lines up to the end that the stream reports."""
    for followed in history.followed:
        written = _lines(history, followed.job_id)
        got = len(followed.lines)
        if followed.lines != written[:got]:
            yield Violation("stream", followed.job_id, _first_difference(followed.lines, written))
        elif followed.ended and not any(
            version.phase is followed.ended and got == len(_lines(history, followed.job_id, version.attempts))
            for version in history.versions.get(followed.job_id, ())
        ):
            what = f"the stream reported {followed.ended} after {got} lines; {len(written)} were written"
            yield Violation("stream", followed.job_id, what)


def _lines(history: History, job_id: str, attempts: float = inf) -> tuple[Line, ...]:
    """Return the lines that the first attempts of the job logged."""
    return tuple(line for run in history.runs_of.get(job_id, ()) if run.attempt <= attempts for line in run.lines)


def _first_difference(got: Sequence[Line], written: Sequence[Line]) -> str:
    at = next((n for n, (one, other) in enumerate(zip(got, written, strict=False)) if one != other), len(written))
    expected = written[at] if at < len(written) else "nothing more"
    return f"line {at + 1} of the stream is {got[at]}, where {expected} was written"


def _grouped(records: Iterable[T], by: str) -> dict[str, list[T]]:
    """Return the records by one of their fields, in order."""
    groups: dict[str, list[T]] = defaultdict(list)
    for record in records:
        groups[getattr(record, by)].append(record)
    return groups
