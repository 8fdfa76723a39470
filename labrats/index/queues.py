"""The queues of jobs for the slots of each provider and model. The queries use the tables of job_table.py."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from heapq import heapify, heapreplace
from statistics import median
from typing import Any, Final, NamedTuple

import apsw

from labrats.model.job import Job
from labrats.model.queue_order import Group, group_of, rank_of

RECENT_JOBS: Final = 50
"""The number of ended jobs from which the usual run time of a model is taken."""

FEWEST_ENDED: Final = 5
"""The number of ended jobs from which the start of a waiting job can be told."""

_IN_GROUP: Final = "provider = ? AND queue_model = ?"


class RunTimes(NamedTuple):
    """The run times of the jobs of one provider and model, in seconds.

    ended: of the latest jobs that have ended. running: of those that hold a slot, until now.
    """

    ended: Sequence[float]
    running: Sequence[float]

    def seconds_until_start(self, position: int, slots: int) -> float | None:
        """Return the time until the job at this position starts, 1 being next; None if that is not known.

        A job that runs is expected to end like those before it that have run at least as long.
        """
        if len(self.ended) < FEWEST_ENDED or slots == 0:
            return None
        usual, free = median(self.ended), [0.0] * (slots - len(self.running))
        for seconds in self.running:
            if not (longer := [each for each in self.ended if each > seconds]):
                return None
            free.append(median(longer) - seconds)
        free = sorted(free)[-slots:]  # the model may have lost slots since
        heapify(free)
        for _ in range(position - 1):
            heapreplace(free, free[0] + usual)
        return free[0]


class Place(NamedTuple):
    """The place of a waiting job. position: 1 is next. holders: the ids and owners of the jobs that hold slots."""

    position: int
    holders: Sequence[tuple[str, str]]
    run_times: RunTimes


class Position(NamedTuple):
    """The position of a waiting job, 1 being next, and the number of jobs that hold slots."""

    position: int
    active: int
    run_times: RunTimes


class Queue(NamedTuple):
    """The load of one provider and model. oldest: creation of the job that has waited longest, in Unix seconds.

    usual_seconds: median run time of the latest jobs that have ended; None if there is none.
    """

    provider: str
    model: str
    active: int
    waiting: int
    oldest: float | None
    usual_seconds: float | None


def place_of(db: apsw.Connection, job: Job, aging_seconds: float, now: datetime) -> Place:
    """Return the place of a waiting job. aging_seconds: see `rank_of`. Requeued jobs that wait longer are not ahead."""
    group, rank = group_of(job), rank_of(job, aging_seconds)
    ahead = db.execute(
        f"SELECT count(*) FROM jobs WHERE status = 'waiting' AND {_IN_GROUP} AND coalesce(not_before, 0) <= ?"  # noqa: S608
        " AND (priority * ? + created, created, id) < (?, ?, ?)",
        (*group, now.timestamp(), aging_seconds, *rank),
    ).get
    holders = db.execute(
        f"SELECT id, owner FROM jobs WHERE status = 'active' AND {_IN_GROUP} ORDER BY created",  # noqa: S608
        group,
    ).fetchall()
    return Place(int(ahead) + 1, [(str(job_id), str(owner)) for job_id, owner in holders], _run_times(db, group, now))


def positions_of(
    db: apsw.Connection, job_ids: Sequence[str], aging_seconds: float, now: datetime
) -> Mapping[str, Position]:
    """Return the positions of those jobs that wait, as `place_of` counts them. Reads each of their queues once."""
    wanted = ", ".join("?" * len(job_ids))
    query = f"""
        WITH queues AS (SELECT DISTINCT provider, queue_model FROM jobs WHERE status = 'waiting' AND id IN ({wanted})),
        places AS (
            SELECT id, provider, queue_model, count(*) FILTER (WHERE coalesce(not_before, 0) <= ?) OVER (
                PARTITION BY provider, queue_model ORDER BY priority * ? + created, created, id
                ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING
            ) AS ahead
            FROM jobs JOIN queues USING (provider, queue_model) WHERE status = 'waiting'
        )
        SELECT id, provider, queue_model, ahead FROM places WHERE id IN ({wanted})
    """  # noqa: S608
    rows: list[Any] = db.execute(query, (*job_ids, now.timestamp(), aging_seconds, *job_ids)).fetchall()
    groups = {(str(provider), str(model)) for _, provider, model, _ in rows}
    loads = {group: (_active_jobs(db, group), _run_times(db, group, now)) for group in groups}
    return {
        str(job_id): Position(int(ahead) + 1, *loads[str(provider), str(model)])
        for job_id, provider, model, ahead in rows
    }


_OTHERS_OF_KEY: Final = "concurrency = ? AND owner = ? AND untrusted = ? AND id <> ?"


def blockers_of(db: apsw.Connection, jobs: Sequence[Job]) -> Mapping[str, str]:
    """Return, for each of the waiting jobs that must wait for another one of its concurrency key, the id of that job.

    It is the one that runs, or else the oldest one that waits.
    """
    query = f"""
        SELECT id FROM jobs WHERE {_OTHERS_OF_KEY} AND status IN ('active', 'waiting')
        AND (status = 'active' OR (created, id) < (?, ?)) ORDER BY status, created, id LIMIT 1
    """  # noqa: S608
    found = {job.id: db.execute(query, _key_and_place(job)).get for job in jobs if job.spec.concurrency}
    return {job_id: str(blocker) for job_id, blocker in found.items() if blocker is not None}


def superseder_of(db: apsw.Connection, job: Job) -> str | None:
    """Return the id of the newest live job that supersedes a waiting one of its concurrency key, if there is one."""
    query = f"""
        SELECT id FROM jobs WHERE {_OTHERS_OF_KEY} AND status IN ('active', 'waiting')
        AND supersedes AND (created, id) > (?, ?) ORDER BY created DESC, id DESC LIMIT 1
    """  # noqa: S608
    found = db.execute(query, _key_and_place(job)).get if job.spec.concurrency else None
    return None if found is None else str(found)


def _key_and_place(job: Job) -> tuple[str, str, bool, str, float, str]:
    assert job.spec.concurrency is not None, "only jobs with a key block each other"
    spec = job.spec
    return job.spec.concurrency.key, spec.owner, spec.untrusted, job.id, job.created_at.timestamp(), job.id


def _active_jobs(db: apsw.Connection, group: Group) -> int:
    query = f"SELECT sum(jobs) FROM counts WHERE status = 'active' AND {_IN_GROUP}"  # noqa: S608
    return int(db.execute(query, group).get or 0)


def all_queues(db: apsw.Connection) -> list[Queue]:
    """Return every queue in which a job waits or runs."""
    counts: dict[Group, dict[str, int]] = {}
    query = (
        "SELECT provider, queue_model, status, sum(jobs) FROM counts"
        " WHERE status IN ('waiting', 'active') GROUP BY 1, 2, 3"
    )
    for provider, model, status, jobs in db.execute(query):
        if jobs:
            counts.setdefault((str(provider), str(model)), {})[str(status)] = int(jobs)
    query = "SELECT provider, queue_model, min(created) FROM jobs WHERE status = 'waiting' GROUP BY 1, 2"
    oldest = {(str(provider), str(model)): float(created) for provider, model, created in db.execute(query)}
    return [
        Queue(*group, each.get("active", 0), each.get("waiting", 0), oldest.get(group), _usual_seconds(db, group))
        for group, each in sorted(counts.items())
    ]


def _run_times(db: apsw.Connection, group: Group, now: datetime) -> RunTimes:
    query = f"SELECT ? - first_started FROM jobs WHERE status = 'active' AND {_IN_GROUP} AND first_started IS NOT NULL"  # noqa: S608
    running = [max(float(seconds), 0.0) for (seconds,) in db.execute(query, (now.timestamp(), *group))]
    return RunTimes(_ended_run_times(db, group), running)


def _usual_seconds(db: apsw.Connection, group: Group) -> float | None:
    seconds = _ended_run_times(db, group)
    return median(seconds) if seconds else None


def _ended_run_times(db: apsw.Connection, group: Group) -> list[float]:
    query = (
        f"SELECT ran FROM jobs WHERE {_IN_GROUP} AND ran IS NOT NULL"  # noqa: S608
        f" ORDER BY created DESC LIMIT {RECENT_JOBS}"
    )
    return [float(ran) for (ran,) in db.execute(query, group)]
