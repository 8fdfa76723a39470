"""Renewals of Codex's logins: one at a time, stored before a job gets them, and never by a job."""

import asyncio
import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from msgspec.structs import replace

from labrats.files.attempt_inputs import inputs_of
from labrats.intake.codex_logins import CodexLogins
from labrats.model.codex_login import JOB_LOGIN_KEY, LOGIN_KEY, CodexLogin
from labrats.model.core_resources import Secret
from labrats.model.errors import Conflict, GiveUp, RetryLater
from labrats.model.job import FailedCode, Job
from labrats.model.phases import Phase
from labrats.model.record import Metadata
from labrats.ports import Attempt, SystemClock
from tests.fakes.clock import FakeClock
from tests.fakes.store import MemoryStore
from tests.support.builders import a_job, a_spec, an_ai_model
from tests.support.login_server import LoginServer, a_login_server

MODEL = an_ai_model(provider="codex", model="gpt-5.5", credentials_ref="codex")
DAY = 86_400.0


def a_codex_job(**config: Any) -> Job:
    return started(datetime.now(UTC), **config)


def started(started_at: datetime, **config: Any) -> Job:
    config = {"provider": "codex", "model": "gpt-5.5"} | config
    return a_job(Phase.RUNNING, spec=a_spec(config=config), started_at=started_at)


@pytest.fixture
def server() -> Iterator[LoginServer]:
    with a_login_server() as server:
        yield server


@pytest.fixture
def store() -> MemoryStore:
    return MemoryStore()


@pytest.fixture
def logins(server: LoginServer, store: MemoryStore) -> CodexLogins:
    return CodexLogins(store, server.url, SystemClock())


async def stored(store: MemoryStore, login: str) -> None:
    await store.create(Secret(metadata=Metadata(name="codex"), data={LOGIN_KEY: login, "other": "value"}))


async def data_of(store: MemoryStore) -> dict[str, str]:
    return (await store.get(Secret, "codex")).data


def tokens_of(text: str) -> dict[str, str]:
    tokens: dict[str, str] = json.loads(text)["tokens"]
    return tokens


async def test_expired_login_is_renewed_and_stored_and_a_job_gets_no_refresh_token(
    logins: CodexLogins, store: MemoryStore, server: LoginServer
) -> None:
    await stored(store, server.login(expires_in=-60))

    await logins.provide(job := a_codex_job(), MODEL)

    data = await data_of(store)
    assert server.requests[0]["refresh_token"] == "refresh-token-1"
    assert (tokens_of(data[LOGIN_KEY])["access_token"], tokens_of(data[LOGIN_KEY])["refresh_token"]) == (
        server.access[0],
        "refresh-token-2",
    )
    assert (tokens_of(data[JOB_LOGIN_KEY])["access_token"], tokens_of(data[JOB_LOGIN_KEY])["refresh_token"]) == (
        server.access[0],
        "",
    )
    assert data["other"] == "value"
    (secret,) = inputs_of(Attempt(job, MODEL)).secrets
    assert secret.files(data) == {LOGIN_KEY: JOB_LOGIN_KEY}


async def test_valid_login_is_not_renewed(logins: CodexLogins, store: MemoryStore, server: LoginServer) -> None:
    await stored(store, login := server.login(expires_in=DAY))

    await logins.provide(a_codex_job(), MODEL)

    data = await data_of(store)
    assert server.requests == []
    assert data[LOGIN_KEY] == login
    assert tokens_of(data[JOB_LOGIN_KEY]) == tokens_of(login) | {"refresh_token": ""}


async def test_login_that_would_expire_during_the_job_is_renewed(
    logins: CodexLogins, store: MemoryStore, server: LoginServer
) -> None:
    await stored(store, server.login(expires_in=3600, age=5 * DAY))

    await logins.provide(a_codex_job(timeout_ms=7_200_000), MODEL)
    assert len(server.access) == 1

    await logins.provide(a_codex_job(timeout_ms=7_200_000), MODEL)
    assert len(server.access) == 1


async def test_many_jobs_at_once_renew_a_login_once(
    logins: CodexLogins, store: MemoryStore, server: LoginServer
) -> None:
    await stored(store, server.login())

    await asyncio.gather(*(logins.provide(a_codex_job(), MODEL) for _ in range(20)))

    assert (len(server.access), server.refused) == (1, [])


async def test_short_lived_tokens_are_renewed_after_half_of_their_life(
    logins: CodexLogins, store: MemoryStore, server: LoginServer
) -> None:
    server.lifetime = 60
    await stored(store, server.login())

    for _ in range(3):
        await logins.provide(a_codex_job(timeout_ms=7_200_000), MODEL)

    assert (len(server.access), server.refused) == (1, [])


async def test_renewed_login_that_cannot_be_stored_is_stored_by_the_next_try(
    logins: CodexLogins, store: MemoryStore, server: LoginServer
) -> None:
    await stored(store, server.login())
    store.refusals["codex"] = Conflict("changed")
    with pytest.raises(RetryLater):
        await logins.provide(a_codex_job(), MODEL)
    store.refusals.clear()

    await logins.provide(a_codex_job(), MODEL)

    assert (len(server.access), server.refused) == (1, [])
    assert tokens_of((await data_of(store))[LOGIN_KEY])["refresh_token"] == "refresh-token-2"


async def test_login_of_a_user_who_has_signed_in_again_is_kept(
    logins: CodexLogins, store: MemoryStore, server: LoginServer
) -> None:
    await stored(store, server.login())
    store.refusals["codex"] = Conflict("changed")
    with pytest.raises(RetryLater):
        await logins.provide(a_codex_job(), MODEL)
    store.refusals.clear()
    server.valid = "refresh-token-new"
    await store.update(
        replace(await store.get(Secret, "codex"), data={LOGIN_KEY: (new := server.login(expires_in=DAY))})
    )

    await logins.provide(a_codex_job(), MODEL)

    assert (await data_of(store))[LOGIN_KEY] == new


async def test_login_that_the_models_server_rejects_is_renewed_once(
    logins: CodexLogins, store: MemoryStore, server: LoginServer
) -> None:
    await stored(store, server.login(expires_in=DAY, last_refresh="2020-01-01T00:00:00Z"))
    jobs = [a_codex_job(), a_codex_job()]

    for job in jobs:
        await logins.provide(job, MODEL)
    for job in jobs:
        logins.note_rejected(job, MODEL)
        await logins.provide(job, MODEL)

    assert (len(server.access), server.refused) == (1, [])


async def test_renewed_login_that_the_models_server_does_not_know_yet_is_tried_again_and_not_renewed(
    server: LoginServer, store: MemoryStore
) -> None:
    logins = CodexLogins(store, server.url, clock := FakeClock(datetime.now(UTC)))
    await stored(store, server.login())
    await logins.provide(a_codex_job(), MODEL)
    clock.step(5)
    job = started(clock.now())
    clock.step(5)
    logins.note_rejected(job, MODEL)

    with pytest.raises(RetryLater, match="does not know the renewed login") as later:
        await logins.provide(job, MODEL)
    clock.step(later.value.delay_seconds or 0)
    await logins.provide(job, MODEL)
    assert (len(server.access), server.refused) == (1, [])

    logins.note_rejected(started(clock.now()), MODEL)
    clock.step(5)
    await logins.provide(job, MODEL)
    assert (len(server.access), server.refused) == (2, [])


@pytest.mark.slow
async def test_answer_of_a_slow_server_is_awaited_as_it_may_have_spent_the_refresh_token(
    logins: CodexLogins, store: MemoryStore, server: LoginServer
) -> None:
    server.delay = 22.0
    await stored(store, server.login())

    await logins.provide(a_codex_job(), MODEL)

    assert (len(server.access), server.refused) == (1, [])


async def test_refusal_is_final_and_says_what_to_do(
    logins: CodexLogins, store: MemoryStore, server: LoginServer
) -> None:
    await stored(store, server.login())
    server.valid = "another"

    with pytest.raises(GiveUp, match=r"refuses to renew .* \(refresh_token_reused\): sign in again") as refused:
        await logins.provide(a_codex_job(), MODEL)

    assert refused.value.code is FailedCode.AUTH


async def test_failing_server_delays_a_job_only_if_its_login_has_expired(
    logins: CodexLogins, store: MemoryStore, server: LoginServer
) -> None:
    await stored(store, server.login(expires_in=600))
    server.fault = 503
    await logins.provide(a_codex_job(), MODEL)
    assert JOB_LOGIN_KEY in await data_of(store)

    await store.update(replace(await store.get(Secret, "codex"), data={LOGIN_KEY: server.login()}))
    server.fault = 503
    with pytest.raises(RetryLater, match="answered 503"):
        await logins.provide(a_codex_job(), MODEL)


async def test_renewal_is_finished_although_the_engine_stops(
    logins: CodexLogins, store: MemoryStore, server: LoginServer
) -> None:
    await stored(store, server.login())
    work = asyncio.create_task(logins.provide(a_codex_job(), MODEL))
    async with asyncio.timeout(30):
        while not server.requests:
            await asyncio.sleep(0)
    work.cancel()

    await asyncio.wait([work])

    assert len(server.access) == 1
    assert tokens_of((await data_of(store))[LOGIN_KEY])["refresh_token"] == server.valid


@pytest.mark.parametrize("text", ["", "sk-key", '{"OPENAI_API_KEY": "sk-key"}', '{"tokens": {"access_token": "a"}}'])
async def test_other_credentials_are_left_alone(
    logins: CodexLogins, store: MemoryStore, server: LoginServer, text: str
) -> None:
    await stored(store, text)
    before = await data_of(store)

    await logins.provide(a_codex_job(), MODEL)
    await logins.provide(a_codex_job(), an_ai_model(provider="codex"))
    await logins.provide(a_codex_job(provider="claude"), MODEL)

    assert (server.requests, await data_of(store)) == ([], before)


async def test_copy_of_a_former_login_is_removed(logins: CodexLogins, store: MemoryStore, server: LoginServer) -> None:
    await stored(store, server.login())
    await logins.provide(a_codex_job(), MODEL)
    secret = await store.get(Secret, "codex")
    await store.update(replace(secret, data=secret.data | {LOGIN_KEY: '{"OPENAI_API_KEY": "sk-key"}'}))

    await logins.provide(a_codex_job(), MODEL)

    assert JOB_LOGIN_KEY not in await data_of(store)


def test_time_of_a_renewal_decides_where_a_token_does_not_say_when_it_expires() -> None:
    now = datetime(2030, 1, 10, tzinfo=UTC)
    times = (("2030-01-09T00:00:00Z", False), ("2030-01-01T00:00:00.123Z", True), (None, True), ("x", True))
    for last_refresh, due in times:
        document = {"tokens": {"access_token": "opaque", "refresh_token": "r"}, "last_refresh": last_refresh}
        login = CodexLogin.of(json.dumps(document))
        assert login
        assert login.must_be_renewed(now, timedelta(hours=1)) is due
        assert login.is_valid_at(now)


def test_token_of_an_odd_form_has_no_times() -> None:
    for token in ("a.b.c", "..", "a.é.c", "a.e30.c", "a.bnVsbA.c"):
        login = CodexLogin({"tokens": {"access_token": token, "refresh_token": "r"}})
        assert login.is_valid_at(datetime.now(UTC))
