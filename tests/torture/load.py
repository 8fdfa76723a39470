"""Clients of all sorts, who write down what they were told, and never give up because the engine is away."""

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
from tests.torture.history import Accepted, Asked, Followed, Line, Refused, ToldEnded

SLOTS = {"wide": 12, "narrow": 2}
"""The models that jobs run on: about as many slots as the load needs, so that all are taken most of the time."""

MOST_WAITING = 150
"""Clients hold back while more jobs wait, so that the last of them end soon."""

PAUSE_SECONDS = 0.05
"""Between two tries of a call that found no engine."""

LOOK_SECONDS = 0.3

PHASES = {status: phase for phase, status in API_STATUS.items()}
ENDED_STATUSES = [API_STATUS[phase] for phase in sorted(ENDED)]


@dataclass(frozen=True)
class Order:
    """What a client submits, and what it does then. readers: how many follow the log."""

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
    """Outlives several engines, and their patience with executors that are dead and not yet reaped."""
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
    """Only its kill ends it, and what it left behind."""
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
class Statements:
    """What the clients were told."""

    accepted: list[Accepted] = field(default_factory=list)
    asked: list[Asked] = field(default_factory=list)
    told: list[ToldEnded] = field(default_factory=list)
    followed: list[Followed] = field(default_factory=list)
    refused: list[Refused] = field(default_factory=list)
    reconnects: int = 0


class Clients:
    """Submit jobs at random moments, follow some, cancel some, retry some, and look at the list all the while."""

    def __init__(self, http: httpx2.AsyncClient, chance: random.Random) -> None:
        self.statements = Statements()
        self._http, self._chance = http, chance
        self._told: set[tuple[str, Phase, int]] = set()
        self._waiting = 0

    async def load(self, jobs_per_second: float, enough: asyncio.Event) -> None:
        """Until `enough` is set; returns when every client has what it wants."""
        async with asyncio.TaskGroup() as clients:
            looking = clients.create_task(self._look_at_the_list())
            async with asyncio.TaskGroup() as customers:
                next_comes_at = time.monotonic()
                for number in count():
                    if enough.is_set():
                        break
                    if self._waiting < MOST_WAITING:
                        customers.create_task(self._order(f"job-{number}"), name=f"job-{number}")
                    next_comes_at += self._chance.expovariate(jobs_per_second)
                    await asyncio.sleep(next_comes_at - time.monotonic())
            looking.cancel()

    async def configure_models(self) -> None:
        for model, slots in SLOTS.items():
            body = {"name": model, "provider": "mock", "model": model, "slots": slots}
            await self._insist("POST /api/ai-models", 201, json=body)

    async def all_ended(self) -> None:
        """Return when every accepted job has ended. Nobody may submit or retry meanwhile."""
        while sum([await self._total(status) for status in ENDED_STATUSES]) < len(self.statements.accepted):
            await asyncio.sleep(LOOK_SECONDS)

    async def _total(self, status: str) -> int:
        total: int = (await self._insist(f"GET /api/jobs?status={status}&limit=1", 200)).json()["total"]
        return total

    async def _order(self, tag: str) -> None:
        kinds = [kind for _, kind in ORDERS]
        kind = self._chance.choices(kinds, [weight for weight, _ in ORDERS])[0]
        job_id = await self._submit(order := kind(self._chance), kind.__name__, tag)
        async with asyncio.TaskGroup() as wishes:
            for _ in range(order.readers):
                wishes.create_task(self._follow(job_id))
            if order.cancel_after_seconds is not None:
                wishes.create_task(self._ask("cancel", job_id, order.cancel_after_seconds))
            if order.retries:
                wishes.create_task(self._ask("retry", job_id, self._chance.uniform(0, 3)))

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
        answer = await self._insist("POST /api/jobs/submit", 201, json=body, headers={"Idempotency-Key": tag})
        job_id: str = answer.json()["jobId"]
        self.statements.accepted.append(Accepted(job_id, tag))
        return job_id

    async def _ask(self, call: str, job_id: str, after_seconds: float) -> None:
        """Cancel or retry, until there is an answer; that may be that it is not possible."""
        await asyncio.sleep(after_seconds)
        while True:
            answer = await self._try("POST", f"/api/jobs/{job_id}/{call}")
            agreed = None if answer is None else answer.status_code == 200
            self.statements.asked.append(Asked(call, job_id, agreed))
            if answer is not None:
                self._check(f"{call} a job", answer, 200, 400)
                return
            await asyncio.sleep(PAUSE_SECONDS)

    async def _look_at_the_list(self) -> None:
        while True:
            for status in ENDED_STATUSES:
                answer = await self._insist(f"GET /api/jobs?status={status}&limit=100", 200)
                self._note_ends(answer.json()["jobs"], at=time.time())
            self._waiting = await self._total("waiting")
            await asyncio.sleep(LOOK_SECONDS)

    def _note_ends(self, jobs: Sequence[dict[str, Any]], at: float) -> None:
        for job in jobs:
            phase = PHASES[job["status"]]
            end = (job["id"], phase, job["attempts"])
            if phase in ENDED and end not in self._told:  # one may have been retried since the list was made
                self._told.add(end)
                self.statements.told.append(ToldEnded(*end, at))

    async def _follow(self, job_id: str) -> None:
        """Read the log to its end, however often the connection breaks; now and then leave, and come back."""
        lines: list[Line] = []
        while (ended := await self._read_on(job_id, lines, at_most=1 + int(self._chance.expovariate(0.05)))) is None:
            self.statements.reconnects += 1
            await asyncio.sleep(PAUSE_SECONDS)
        self.statements.followed.append(Followed(job_id, tuple(lines), ended))

    async def _read_on(self, job_id: str, lines: list[Line], at_most: int) -> Phase | None:
        """Add the lines that one connection brings. The end of the job; None when the connection broke, or was left."""
        headers = {"Last-Event-ID": f"{lines[-1].attempt}-{lines[-1].seq}"} if lines else {}
        with suppress(httpx2.TransportError):
            async with self._http.stream("GET", f"/api/jobs/{job_id}/logs", headers=headers) as answer:
                if not self._check("follow a log", answer, 200):
                    return None
                async for event in httpx2.EventSource(answer):
                    said = json.loads(event.data)
                    if "done" in said:
                        return PHASES[said["status"]]
                    attempt, _, seq = event.id.partition("-")
                    lines.append(Line(int(attempt), int(seq), said["log"]))
                    if (at_most := at_most - 1) == 0:
                        return None
        return None

    async def _insist(self, call: str, status: int, **request: Any) -> httpx2.Response:
        """Try until the answer has this status."""
        while True:
            answer = await self._try(*call.split(" "), **request)
            if answer is not None and self._check(call, answer, status):
                return answer
            await asyncio.sleep(PAUSE_SECONDS)

    async def _try(self, method: str, path: str, **request: Any) -> httpx2.Response | None:
        """The answer, or None when the engine is away, goes away, or says that it will be there later."""
        try:
            answer = await self._http.request(method, path, **request)
        except httpx2.TransportError:
            return None
        return None if answer.status_code == 503 else answer

    def _check(self, call: str, answer: httpx2.Response, *statuses: int) -> bool:
        if answer.status_code not in (*statuses, 503):
            self.statements.refused.append(Refused(call, answer.status_code))
        return answer.status_code in statuses
