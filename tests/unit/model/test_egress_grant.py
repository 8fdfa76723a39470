"""Grants of the egress proxy."""

import base64
import json

import pytest
from msgspec.structs import replace

from labrats.model.egress_grant import (
    EgressGrant,
    InvalidGrant,
    LivingAttempts,
    LivingAttemptsHead,
    read_grant,
    read_living,
    sign_grant,
    sign_living,
)
from labrats.model.network import AllowedHosts

KEY = "a key that only the engine and the proxy have"
GRANT = EgressGrant(
    attempt="ir-1-1",
    network=AllowedHosts(allow=("pypi", "*.example.com:8443")),
    hosts=(("git.example", 22),),
    private_networks=("10.0.0.0/8",),
    model_server=("10.0.0.7", 8000),
    expires_at=1000,
)


def test_grant_is_read_as_it_was_signed() -> None:
    token = sign_grant(GRANT, KEY)
    assert read_grant(token, KEY, now=999.9) == GRANT
    assert token.isascii()
    assert not set(token) & set(" \r\n:=/+")


def test_grant_ends_at_its_expiry() -> None:
    with pytest.raises(InvalidGrant, match="expired"):
        read_grant(sign_grant(GRANT, KEY), KEY, now=1000)


def changed(token: str) -> str:
    """Return a token that allows everything, with the signature of another one."""
    payload, signature = token.split(".")
    fields = json.loads(base64.urlsafe_b64decode(payload + "=="))
    opened = base64.urlsafe_b64encode(json.dumps(fields | {"network": "open"}).encode()).decode()
    return f"{opened}.{signature}"


@pytest.mark.parametrize(
    "token",
    [
        changed(sign_grant(GRANT, KEY)),
        sign_grant(GRANT, "another key"),
        sign_grant(GRANT, ""),
        sign_grant(GRANT, KEY)[:-1],
        sign_grant(GRANT, KEY).partition(".")[0],
        "",
        ".",
        "é.é",
    ],
)
def test_token_without_a_valid_signature_is_refused(token: str) -> None:
    with pytest.raises(InvalidGrant, match="not signed"):
        read_grant(token, KEY, now=0)


def test_list_of_attempts_is_no_grant_and_a_grant_is_no_list() -> None:
    living = LivingAttemptsHead.of(b"ir-1-1 ir-2-1", (7, 5))
    assert read_living(sign_living(living, KEY), KEY) == living
    with pytest.raises(InvalidGrant, match="not signed"):
        read_grant(sign_living(living, KEY), KEY, now=0)
    with pytest.raises(InvalidGrant, match="not signed"):
        read_living(sign_grant(GRANT, KEY), KEY)


def test_grant_of_an_attempt_that_is_not_listed_ends_with_the_first_list_after_it() -> None:
    living = LivingAttempts(number=(2, 10), names=frozenset({"ir-1-1"}))
    other = replace(GRANT, attempt="ir-2-1")
    assert living.includes(replace(GRANT, listed_after=(0, 0)))
    assert [living.includes(replace(other, listed_after=(2, last))) for last in (9, 10, 11)] == [False, True, True]
    assert [living.includes(replace(other, listed_after=(epoch, 0))) for epoch in (1, 3)] == [False, True]
