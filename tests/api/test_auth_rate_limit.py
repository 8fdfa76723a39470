"""The rate limit for wrong API keys."""

from datetime import timedelta
from ipaddress import IPv6Address

import httpx2

from labrats.api.auth.keys import new_key
from labrats.api.auth.rate_limit import MAX_ADDRESSES, MAX_WRONG_KEYS, WINDOW, AuthRateLimit
from tests.api.conftest import KEYS, Api
from tests.fakes.clock import NOON


async def send(client: httpx2.AsyncClient, key: str) -> httpx2.Response:
    return await client.get("/api/jobs", headers={"Authorization": f"Bearer {key}"})


async def guess_many(client: httpx2.AsyncClient) -> None:
    for number in range(MAX_WRONG_KEYS):
        assert (await send(client, f"guess-{number}")).status_code == 401


async def test_after_many_wrong_keys_another_is_refused_but_a_valid_key_is_accepted(api: Api) -> None:
    async with api.client(None) as guesser:
        await guess_many(guesser)

        for key in ("one-more-guess", new_key()):
            refused = await send(guesser, key)
            assert (refused.status_code, refused.json()["code"]) == (429, "too_many_attempts")
            assert 0 < int(refused.headers["Retry-After"]) <= WINDOW.total_seconds()
        assert (await send(guesser, KEYS["user"])).status_code == 200

        api.clock.step(WINDOW.total_seconds())
        assert (await send(guesser, "one-more-guess")).status_code == 401


async def test_a_clock_that_is_set_back_ends_the_wait(api: Api) -> None:
    async with api.client(None) as guesser:
        await guess_many(guesser)
        assert (await send(guesser, "one-more-guess")).status_code == 429
        api.clock.step(-86_400)
        assert (await send(guesser, "another-guess")).status_code == 401


async def test_a_repeated_wrong_key_and_a_missing_key_are_not_counted(api: Api) -> None:
    async with api.client(None) as forgetful:
        for _ in range(2 * MAX_WRONG_KEYS):
            assert (await send(forgetful, "a-revoked-test-key")).status_code == 401
            assert (await forgetful.get("/api/jobs")).status_code == 401

        assert (await send(forgetful, KEYS["user"])).status_code == 200


def test_the_limit_applies_per_ipv4_address_and_per_ipv6_network() -> None:
    auth_rate_limit = AuthRateLimit()
    for number in range(MAX_WRONG_KEYS):
        auth_rate_limit.record_failure("::ffff:192.0.2.1", f"{number}", NOON)
        auth_rate_limit.record_failure(str(IPv6Address("2001:db8::") + number), f"{number}", NOON)

    waiting = ("192.0.2.1", "::ffff:192.0.2.1", "2001:db8::ffff")
    free = ("192.0.2.2", "::ffff:192.0.2.2", "2001:db8:0:1::", "")
    waits = [address for address in waiting + free if auth_rate_limit.seconds_to_wait(address, NOON)]
    assert waits == [*waiting]
    assert auth_rate_limit.seconds_to_wait("192.0.2.1", NOON + timedelta(seconds=60)) == 240


def test_memory_for_addresses_and_keys_is_bounded() -> None:
    auth_rate_limit = AuthRateLimit()
    for number in range(MAX_ADDRESSES + 100):
        auth_rate_limit.record_failure(f"address {number}", "wrong", NOON)
    for number in range(10 * MAX_WRONG_KEYS):
        auth_rate_limit.record_failure("address", f"{number}", NOON)

    assert len(auth_rate_limit._by_network) == MAX_ADDRESSES
    assert max(len(failures.key_hashes) for failures in auth_rate_limit._by_network.values()) == MAX_WRONG_KEYS
