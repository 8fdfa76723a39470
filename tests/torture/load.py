"""Clients of a kill test. They record all answers, and try again while the engine is down."""

import asyncio
import json
import random
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import count
from typing import Any

import httpx2

from labrats.model.phases import API_STATUS, ENDED, Phase
from tests.torture.history import Accepted, Command, Followed, Line, ReportedEnd, UnexpectedAnswer

SLOTS = {"wide": 12, "narrow": 2}
"""Slots of each model: about as many as the load needs, so that all are held most of the time."""

MOST_WAITING = 150
"""Clients submit nothing while more jobs than this wait, so that the last ones end soon."""

PAUSE_SECONDS = 0.05
"""Pause between two tries of a call while the engine is down."""

CHECK_SECONDS = 0.3

PHASES = {status: phase for phase, status in API_STATUS.items()}
ENDED_STATUSES = [API_STATUS[phase] for phase in sorted(ENDED)]


@dataclass(frozen=True)
class Order:
    """A job to submit, and the later actions of its client. readers: number of clients that follow its log."""

    steps: Sequence[Any]
    config: dict[str, Any] = field(default_factory=dict)
    readers: int = 0
    cancel_after_seconds: float | None = None
    retries: bool = False


def quick(chance: random.Random) -> Order:
    return Order([{"log": "only"}, {"result": "quick"}], readers=int(chance.random() < 0.1))


def talkative(chance: random.Random) -> Order:
    times, pause = chance.randrange(10, 60), chance.randrange(50)
    return Order([{"log": "tick {n}", "times": times, "everyMs": pause}, {"result": "said"}], readers=2)


def patient(chance: random.Random) -> Order:
    """Return a job that outlives several engines, and the grace for executors that are dead but not reaped."""
    return Order([{"log": "tick {n}", "times": chance.randrange(70, 90), "everyMs": 100}], readers=1)


def failing(chance: random.Random) -> Order:
    return Order([{"log": "about to fail"}, {"fail": "as asked"}], readers=chance.randrange(2), retries=True)


def crashing(chance: random.Random) -> Order:
    death = chance.choice([{"signal": 9}, {"signal": 11}, {"exit": 3}])
    return Order([{"log": "about to die"}, death], readers=chance.randrange(2))


def second_attempt(chance: random.Random) -> Order:
    first = [{"log": "first"}, chance.choice([{"signal": 9}, {"fail": "once"}])]
    steps = [{"onAttempt": 1, "steps": first}, {"log": "again"}, {"result": "at last"}]
    return Order(steps, {"maxAttempts": 2}, readers=1)


def forking(chance: random.Random) -> Order:
    end = chance.choice([{"result": "forked"}, {"signal": 9}, {"sleepMs": 300}])
    return Order([{"fork": {"seconds": 300, "detached": chance.random() < 0.7}}, {"log": "forked"}, end])


def overtime(chance: random.Random) -> Order:
    return Order([{"log": "too slow"}, {"hang": True}], {"timeoutMs": chance.randrange(50, 500)}, readers=1)


def cancelled(chance: random.Random) -> Order:
    steps = [{"log": "tick {n}", "times": 30, "everyMs": 30}]
    return Order(steps, readers=1, cancel_after_seconds=chance.uniform(0, 1.5))


def stubborn(chance: random.Random) -> Order:
    """Return a job that only a kill can end, with a child that outlives it."""
    steps = [{"ignoreSignals": True}, {"fork": {"seconds": 300, "detached": True}}, {"log": "no"}, {"hang": True}]
    return Order(steps, {"timeoutMs": 3000}, cancel_after_seconds=chance.uniform(0, 1))


ORDERS: Sequence[tuple[int, Callable[[random.Random], Order]]] = (
    (45, quick),
    (10, talkative),
    (1, patient),
    (8, failing),
    (6, crashing),
    (8, second_attempt),
    (8, forking),
    (5, overtime),
    (7, cancelled),
    (3, stubborn),
)


@dataclass
class Answers:
    """All answers that the clients received."""

    accepted: list[Accepted] = field(default_factory=list)
    commands: list[Command] = field(default_factory=list)
    reported: list[ReportedEnd] = field(default_factory=list)
    followed: list[Followed] = field(default_factory=list)
    unexpected_answers: list[UnexpectedAnswer] = field(default_factory=list)
    reconnects: int = 0


class Clients:
    """Clients that submit jobs at random times, follow, cancel and retry some, and poll the list of jobs."""

    def __init__(self, http: httpx2.AsyncClient, chance: random.Random) -> None:
        self.answers = Answers()
        self._http, self._chance = http, chance
        self._reported: set[tuple[str, Phase, int]] = set()
        self._waiting = 0

    async def load(self, jobs_per_second: float, enough: asyncio.Event) -> None:
        """Submit jobs until `enough` is set, and return when every client has finished."""
        async with asyncio.TaskGroup() as clients:
            polling = clients.create_task(self._poll_list())
            async with asyncio.TaskGroup() as customers:
                next_comes_at = time.monotonic()
                for number in count():
                    if enough.is_set():
                        break
                    if self._waiting < MOST_WAITING:
                        customers.create_task(self._order(f"job-{number}"), name=f"job-{number}")
                    next_comes_at += self._chance.expovariate(jobs_per_second)
                    await asyncio.sleep(next_comes_at - time.monotonic())
            polling.cancel()

    async def configure_models(self) -> None:
        for model, slots in SLOTS.items():
            body = {"name": model, "provider": "mock", "model": model, "slots": slots}
            await self._call_until("POST /api/ai-models", 201, json=body)

    async def all_ended(self) -> None:
        """Wait until every accepted job has ended. No client may submit or retry meanwhile."""
        while sum([await self._total(status) for status in ENDED_STATUSES]) < len(self.answers.accepted):
            await asyncio.sleep(CHECK_SECONDS)

    async def _total(self, status: str) -> int:
        total: int = (await self._call_until(f"GET /api/jobs?status={status}&limit=1", 200)).json()["total"]
        return total

    async def _order(self, tag: str) -> None:
        kinds = [kind for _, kind in ORDERS]
        kind = self._chance.choices(kinds, [weight for weight, _ in ORDERS])[0]
        job_id = await self._submit(order := kind(self._chance), kind.__name__, tag)
        async with asyncio.TaskGroup() as actions:
            for _ in range(order.readers):
                actions.create_task(self._follow(job_id))
            if order.cancel_after_seconds is not None:
                actions.create_task(self._command("cancel", job_id, order.cancel_after_seconds))
            if order.retries:
                actions.create_task(self._command("retry", job_id, self._chance.uniform(0, 3)))

    async def _submit(self, order: Order, kind: str, tag: str) -> str:
        model = self._chance.choices(["wide", "narrow"], [4, 1])[0]
        body = {
            "source": "torture",
            "type": kind,
            "prompt": "a job of the kill test",
            "priority": self._chance.randrange(5),
            "config": {"provider": "mock", "model": model} | order.config,
            "metadata": {"tag": tag, "mock": {"steps": order.steps}},
        }
        answer = await self._call_until("POST /api/jobs/submit", 201, json=body, headers={"Idempotency-Key": tag})
        job_id: str = answer.json()["jobId"]
        self.answers.accepted.append(Accepted(job_id, tag))
        return job_id

    async def _command(self, call: str, job_id: str, after_seconds: float) -> None:
        """Cancel or retry a job, and try again until there is an answer, which may be a refusal."""
        await asyncio.sleep(after_seconds)
        while True:
            answer = await self._try("POST", f"/api/jobs/{job_id}/{call}")
            succeeded = None if answer is None else answer.status_code == 200
            self.answers.commands.append(Command(call, job_id, succeeded))
            if answer is not None:
                self._check(f"{call} a job", answer, 200, 400)
                return
            await asyncio.sleep(PAUSE_SECONDS)

    async def _poll_list(self) -> None:
        while True:
            for status in ENDED_STATUSES:
                answer = await self._call_until(f"GET /api/jobs?status={status}&limit=100", 200)
                self._record_ends(answer.json()["jobs"], at=time.time())
            self._waiting = await self._total("waiting")
            await asyncio.sleep(CHECK_SECONDS)

    def _record_ends(self, jobs: Sequence[dict[str, Any]], at: float) -> None:
        for job in jobs:
            phase = PHASES[job["status"]]
            end = (job["id"], phase, job["attempts"])
            if phase in ENDED and end not in self._reported:  # a job may have been retried since the list was made
                self._reported.add(end)
                self.answers.reported.append(ReportedEnd(*end, at))

    async def _follow(self, job_id: str) -> None:
        """Read the log to its end, over broken connections and random disconnects."""
        lines: list[Line] = []
        while (ended := await self._read_lines(job_id, lines, at_most=1 + int(self._chance.expovariate(0.05)))) is None:
            self.answers.reconnects += 1
            await asyncio.sleep(PAUSE_SECONDS)
        self.answers.followed.append(Followed(job_id, tuple(lines), ended))

    async def _read_lines(self, job_id: str, lines: list[Line], at_most: int) -> Phase | None:
        """Append the lines of one connection. Return the final phase of the job; None if the connection ended first."""
        headers = {"Last-Event-ID": f"{lines[-1].attempt}-{lines[-1].seq}"} if lines else {}
        with suppress(httpx2.TransportError):
            async with self._http.stream("GET", f"/api/jobs/{job_id}/logs", headers=headers) as answer:
                if not self._check("follow a log", answer, 200):
                    return None
                async for event in httpx2.EventSource(answer):
                    message = json.loads(event.data)
                    if "done" in message:
                        return PHASES[message["status"]]
                    attempt, _, seq = event.id.partition("-")
                    lines.append(Line(int(attempt), int(seq), message["log"]))
                    if (at_most := at_most - 1) == 0:
                        return None
        return None

    async def _call_until(self, call: str, status: int, **request: Any) -> httpx2.Response:
        """Try until the answer has this status, and return it."""
        while True:
            answer = await self._try(*call.split(" "), **request)
            if answer is not None and self._check(call, answer, status):
                return answer
            await asyncio.sleep(PAUSE_SECONDS)

    async def _try(self, method: str, path: str, **request: Any) -> httpx2.Response | None:
        """Return the answer; None if the engine is down, dies meanwhile, or answers 503."""
        try:
            answer = await self._http.request(method, path, **request)
        except httpx2.TransportError:
            return None
        return None if answer.status_code == 503 else answer

    def _check(self, call: str, answer: httpx2.Response, *statuses: int) -> bool:
        if answer.status_code not in (*statuses, 503):
            self.answers.unexpected_answers.append(UnexpectedAnswer(call, answer.status_code))
        return answer.status_code in statuses
