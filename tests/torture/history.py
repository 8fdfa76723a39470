"""What happened, as told by those who saw it, and the one function that says whether it may have.

Three kinds of witnesses, who know nothing of each other: clients (what the API told them), the store (every version of
every job, in the order of the commits), and runs (what attempts wrote, and which processes were seen alive).
All times are seconds since the epoch, by the one clock of the machine.
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

DECISION_SECONDS = 2.0
"""How long a job may wait before it counts as passed over: none is known to the engine in the instant when it comes."""


# What clients say


@dataclass(frozen=True)
class Accepted:
    """A submission was answered 201. tag: the client's own name for the job, in its metadata."""

    job_id: str
    tag: str


@dataclass(frozen=True)
class Asked:
    """A cancel or a retry. agreed: None when the engine died before it answered."""

    call: str
    job_id: str
    agreed: bool | None


@dataclass(frozen=True)
class ToldEnded:
    """A client was told, at the latest `at`, that the job had ended so after this many attempts."""

    job_id: str
    phase: Phase
    attempts: int
    at: float


@dataclass(frozen=True)
class Line:
    """One line of a log. seq: the number of its event within the attempt."""

    attempt: int
    seq: int
    text: str


@dataclass(frozen=True)
class Followed:
    """All that one reader of a job's log got, resuming over any number of connections. ended: as the stream's last
    event said it; None where the reader left before.
    """

    job_id: str
    lines: tuple[Line, ...]
    ended: Phase | None


@dataclass(frozen=True)
class Refused:
    """A call that was in order got an answer that it must not get."""

    call: str
    status: int


# What the store says


@dataclass(frozen=True)
class Written:
    """A version of a job, as committed. created_at, not_before: as the job has them."""

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


# What runs say


@dataclass(frozen=True)
class Run:
    """An attempt that came to life.

    first, last: it was alive at least from the one to the other, its executor or a process that it started.
    seqs:        the numbers of its events, in the order in which it wrote them.
    lines:       those of them that are log lines.
    outcome:     the kind of its last event where that is terminal: `result` or `error`.
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
    """The one log. leftovers: processes found alive when all was over. slots: by model."""

    accepted: Sequence[Accepted] = ()
    asked: Sequence[Asked] = ()
    told: Sequence[ToldEnded] = ()
    followed: Sequence[Followed] = ()
    refused: Sequence[Refused] = ()
    written: Sequence[Written] = ()
    runs: Sequence[Run] = ()
    leftovers: Sequence[str] = ()
    slots: Mapping[str, int] = field(default_factory=dict)
    aging_seconds: float = 600

    @cached_property
    def versions(self) -> Mapping[str, Sequence[Written]]:
        """Those of each job, in the order of the commits."""
        return _grouped(self.written, "job_id")

    @cached_property
    def runs_of(self) -> Mapping[str, Sequence[Run]]:
        """The runs of each job, by attempt."""
        return _grouped(sorted(self.runs, key=attrgetter("attempt")), "job_id")


@dataclass(frozen=True)
class Violation:
    """A promise that was broken. about: the job, model or process."""

    promise: str
    about: str
    what: str


def violations(history: History) -> list[Violation]:
    """Every broken promise that the history shows. Pure, and never wrong when it finds one: it judges only by what was
    certainly so."""
    return [
        *_jobs_lost(history),
        *_jobs_doubled(history),
        *_moves_not_in_the_table(history),
        *_second_ends(history),
        *_attempts_too_many(history),
        *_ends_nobody_asked_for(history),
        *_cancels_broken(history),
        *_untruths_told(history),
        *_calls_refused(history),
        *_outcomes_false(history),
        *_runs_overlapping(history),
        *_runs_outliving_their_job(history),
        *_slots_exceeded(history),
        *_priority_inverted(history),
        *_outputs_broken(history),
        *_streams_broken(history),
        *_processes_left(history),
    ]


# Jobs: accepted once, moved by the table, ended once


def _jobs_lost(history: History) -> Iterator[Violation]:
    last = {job_id: versions[-1] for job_id, versions in history.versions.items()}
    for accepted in history.accepted:
        if (version := last.get(accepted.job_id)) is None or version.tag != accepted.tag:
            yield Violation("lost", accepted.job_id, "was accepted, and the store has never heard of it")
    for job_id, version in last.items():
        if version.phase not in ENDED:
            yield Violation("lost", job_id, f"never ended: it is still {version.phase}")


def _jobs_doubled(history: History) -> Iterator[Violation]:
    jobs = Counter(versions[0].tag for versions in history.versions.values())
    for tag, count in jobs.items():
        if count > 1:
            yield Violation("doubled", tag, f"was submitted under one Idempotency-Key and became {count} jobs")


def _moves_not_in_the_table(history: History) -> Iterator[Violation]:
    known = {(before, after) for (before, _), after in MOVES.items()}
    for job_id, versions in history.versions.items():
        if versions[0].phase is not Phase.PENDING or versions[0].attempts:
            yield Violation("moves", job_id, f"began as {versions[0].phase}")
        for before, after in pairwise(versions):
            if before.phase is not after.phase and (before.phase, after.phase) not in known:
                yield Violation("moves", job_id, f"went from {before.phase} to {after.phase}")
            started = after.phase is Phase.RUNNING and before.phase is Phase.PENDING
            if after.attempts != before.attempts + started:
                what = (
                    f"counted {before.attempts}, then {after.attempts} attempts, from {before.phase} to {after.phase}"
                )
                yield Violation("moves", job_id, what)


def _second_ends(history: History) -> Iterator[Violation]:
    for job_id, versions in history.versions.items():
        for before, after in pairwise(versions):
            if before.phase in ENDED and after.phase in ENDED:
                yield Violation("second end", job_id, f"had ended {before.phase}, and then {after.phase}")


def _attempts_too_many(history: History) -> Iterator[Violation]:
    """Attempts come from `maxAttempts` and from retries. A retry whose answer was lost may have counted."""
    retries = Counter(asked.job_id for asked in history.asked if asked.call == "retry" and asked.agreed is not False)
    for job_id, versions in history.versions.items():
        allowed = versions[0].max_attempts + retries[job_id]
        if versions[-1].attempts > allowed:
            yield Violation("attempts", job_id, f"had {versions[-1].attempts} attempts where {allowed} were asked for")


def _ends_nobody_asked_for(history: History) -> Iterator[Violation]:
    cancelled = {asked.job_id for asked in history.asked if asked.call == "cancel" and asked.agreed is not False}
    retried = {asked.job_id for asked in history.asked if asked.call == "retry" and asked.agreed is not False}
    for job_id, versions in history.versions.items():
        for before, after in pairwise(versions):
            if after.phase is Phase.CANCELLED and job_id not in cancelled:
                yield Violation("unasked", job_id, "was cancelled, and nobody had asked for it")
            if before.phase is Phase.FAILED and after.phase is Phase.PENDING and job_id not in retried:
                yield Violation("unasked", job_id, "was retried, and nobody had asked for it")


def _cancels_broken(history: History) -> Iterator[Violation]:
    """A cancel that was agreed to always wins."""
    for asked in history.asked:
        versions = history.versions.get(asked.job_id)
        if asked.call == "cancel" and asked.agreed and versions and versions[-1].phase is not Phase.CANCELLED:
            yield Violation("cancel", asked.job_id, f"a cancel was agreed to, and it is {versions[-1].phase}")


def _untruths_told(history: History) -> Iterator[Violation]:
    """What a client was told is in the store, and stays there."""
    ends = {(version.job_id, version.phase, version.attempts) for version in history.written if version.phase in ENDED}
    for told in history.told:
        if (told.job_id, told.phase, told.attempts) not in ends:
            what = f"was called {told.phase} after {told.attempts} attempts, which the store does not know"
            yield Violation("untruth", told.job_id, what)


def _calls_refused(history: History) -> Iterator[Violation]:
    for (call, status), count in Counter((refused.call, refused.status) for refused in history.refused).items():
        yield Violation("refused", call, f"was in order, and answered {status}, {count} times")


# Runs: one at a time, within their job, within the slots


def _outcomes_false(history: History) -> Iterator[Violation]:
    """What the store says became of an attempt is what the attempt said of itself."""
    outcomes = {(run.job_id, run.attempt): run.outcome for run in history.runs}
    for job_id, versions in history.versions.items():
        for before, after in pairwise(versions):
            if before.phase is not Phase.RUNNING or after.phase is Phase.RUNNING:
                continue
            outcome = outcomes.get((job_id, after.attempts))
            if after.phase is Phase.SUCCEEDED and outcome != "result":
                yield Violation("outcome", job_id, f"{after.phase}, where attempt {after.attempts} said {outcome}")
            if after.phase in (Phase.FAILED, Phase.PENDING) and outcome == "result":
                yield Violation("outcome", job_id, f"{after.phase}, where attempt {after.attempts} brought a result")


def _runs_overlapping(history: History) -> Iterator[Violation]:
    for job_id, runs in history.runs_of.items():
        for earlier, later in pairwise(runs):
            if later.first < earlier.last:
                overlap = earlier.last - later.first
                what = f"attempt {later.attempt} began {overlap:.3f} s before attempt {earlier.attempt} was gone"
                yield Violation("overlap", job_id, what)


def _runs_outliving_their_job(history: History) -> Iterator[Violation]:
    runs = {(run.job_id, run.attempt): run for run in history.runs}
    for told in history.told:
        if (run := runs.get((told.job_id, told.attempts))) and run.last > told.at:
            what = f"was called {told.phase} {run.last - told.at:.3f} s before the last process of it was gone"
            yield Violation("outlived", told.job_id, what)


def _slots_exceeded(history: History) -> Iterator[Violation]:
    models = {version.job_id: version.model for version in history.written}
    for model, slots in history.slots.items():
        runs = [run for run in history.runs if models.get(run.job_id) == model]
        if (most := _most_at_once([(run.first, run.last) for run in runs])) > slots:
            yield Violation("slots", model, f"has {slots} slots, and {most} runs were alive at once")
        if (most := _most_running(version for version in history.written if version.model == model)) > slots:
            yield Violation("slots", model, f"has {slots} slots, and {most} jobs were Running at once")


def _most_at_once(spans: Iterable[tuple[float, float]]) -> int:
    """How many of the spans share an instant, their ends excluded."""
    begins_and_ends = [(begin, 1) for begin, end in spans if begin < end]
    begins_and_ends += [(end, -1) for begin, end in spans if begin < end]
    now = most = 0
    for _, change in sorted(begins_and_ends):
        now += change
        most = max(most, now)
    return most


def _most_running(written: Iterable[Written]) -> int:
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
    """A Pending job. to_come: how many may still be started before it, since they may have got their slots before it
    came: no more than there were slots of which the store did not yet know who has them.
    """

    version: Written
    to_come: float


def _priority_inverted(history: History) -> Iterator[Violation]:
    for model, versions in _grouped(history.written, "model").items():
        waiting: dict[str, _Waiting] = {}
        running: set[str] = set()
        for version in versions:
            left = waiting.pop(version.job_id, None)
            running.discard(version.job_id)
            if version.phase is Phase.RUNNING:
                running.add(version.job_id)
                if left:
                    yield from _passed_over(left.version, version.at, waiting.values(), history.aging_seconds)
            elif version.phase is Phase.PENDING:
                # When the engine lets one in again that was put back, the store does not say.
                free = inf if version.not_before else history.slots.get(model, inf) - len(running)
                waiting[version.job_id] = _Waiting(version, to_come=free)


def _passed_over(started: Written, at: float, waiting: Iterable[_Waiting], aging_seconds: float) -> Iterator[Violation]:
    """Those who should have been started instead."""
    for other in waiting:
        job = other.version
        if _rank(job, aging_seconds) < _rank(started, aging_seconds):
            other.to_come -= 1
            if other.to_come < 0 and at - job.at > DECISION_SECONDS:
                what = f"waited {at - job.at:.1f} s with priority {job.priority}, when {started.job_id} was started"
                yield Violation("priority", job.job_id, f"{what} with priority {started.priority}")


def _rank(job: Written, aging_seconds: float) -> tuple[float, float]:
    """Lower goes first. A waiting job gains one level per `aging_seconds`."""
    return job.priority + job.created_at / aging_seconds, job.created_at


def _processes_left(history: History) -> Iterator[Violation]:
    for leftover in history.leftovers:
        yield Violation("left over", leftover, "is still alive when all jobs have ended")


# Logs: written once, read without gap or repeat


def _outputs_broken(history: History) -> Iterator[Violation]:
    for run in history.runs:
        if run.seqs != tuple(range(1, len(run.seqs) + 1)):
            what = f"the events of attempt {run.attempt} are not numbered 1, 2, 3 …: two executors wrote, or one lost"
            yield Violation("output", run.job_id, what)


def _streams_broken(history: History) -> Iterator[Violation]:
    """A reader has all lines that were written, each once and in order; up to an end of the job, if it was told so."""
    for followed in history.followed:
        written = _lines(history, followed.job_id)
        got = len(followed.lines)
        if followed.lines != written[:got]:
            yield Violation("stream", followed.job_id, _first_difference(followed.lines, written))
        elif followed.ended and not any(
            version.phase is followed.ended and got == len(_lines(history, followed.job_id, version.attempts))
            for version in history.versions.get(followed.job_id, ())
        ):
            what = f"the stream said {followed.ended} after {got} lines; {len(written)} were written"
            yield Violation("stream", followed.job_id, what)


def _lines(history: History, job_id: str, attempts: float = inf) -> tuple[Line, ...]:
    """What the first `attempts` attempts of the job logged."""
    return tuple(line for run in history.runs_of.get(job_id, ()) if run.attempt <= attempts for line in run.lines)


def _first_difference(got: Sequence[Line], written: Sequence[Line]) -> str:
    at = next((n for n, (one, other) in enumerate(zip(got, written, strict=False)) if one != other), len(written))
    expected = written[at] if at < len(written) else "nothing more"
    return f"line {at + 1} of the stream is {got[at]}, where {expected} was written"


def _grouped(records: Iterable[T], by: str) -> dict[str, list[T]]:
    """The records by one of their fields, in their order."""
    groups: dict[str, list[T]] = defaultdict(list)
    for record in records:
        groups[getattr(record, by)].append(record)
    return groups
