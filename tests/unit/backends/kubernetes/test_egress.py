"""Network rules on a cluster: grants, the key, and reasons to refuse a rule."""

import asyncio
from pathlib import Path
from typing import Any, cast

import pytest
from msgspec.structs import replace

from labrats.backends.kubernetes import egress as egress_module
from labrats.backends.kubernetes.batch_client import BatchClient
from labrats.backends.kubernetes.egress import (
    OPEN_CHECK,
    RULES_CHECK,
    Egress,
    grants_of,
    record_check,
)
from labrats.executor.egress.cluster_proxy import ClusterProxy, rule_of_grant
from labrats.executor.egress.gateway import ConnectionRefused, Gateway
from labrats.model.attempt_name import AttemptName
from labrats.model.core_resources import Secret, is_of_engine
from labrats.model.egress_grant import EgressGrant, read_grant
from labrats.model.errors import GiveUp, RetryLater
from labrats.model.job import WorkspaceSetup
from labrats.model.network import AllowedHosts
from labrats.ports import Attempt
from tests.fakes.store import MemoryStore
from tests.support.builders import a_spec, an_ai_model, an_attempt

pytestmark = pytest.mark.anyio

RULE = AllowedHosts(allow=("pypi",))
NETWORKS = ("10.0.0.0/8",)


def an_attempt_with(endpoint: str | None = None, provider: str = "claude", **spec: Any) -> Attempt:
    settings = {"provider": provider, "network": RULE, **spec.pop("config", {})}
    return Attempt(
        replace(an_attempt(job_id="ir-0000000a").job, spec=a_spec(config=settings, **spec)),
        an_ai_model(endpoint=endpoint, provider=provider),
    )


def grants(attempt: Attempt, *, has_proxy: bool) -> dict[str, EgressGrant]:
    return grants_of(attempt, (3, 10), 1000, NETWORKS, has_proxy=has_proxy)


def test_agent_with_a_key_proxy_reaches_what_its_rule_allows() -> None:
    found = grants(an_attempt_with(), has_proxy=True)
    assert found["agent"] == EgressGrant(
        attempt="ir-0000000a-1", network=RULE, listed_after=(3, 10), expires_at=1000, private_networks=NETWORKS
    )
    assert found["model"] == EgressGrant(
        attempt="ir-0000000a-1",
        network="none",
        listed_after=(3, 10),
        expires_at=1000,
        model_server=("api.anthropic.com", 443),
    )


def test_key_proxy_reaches_the_server_of_the_operator_only() -> None:
    found = grants(an_attempt_with("https://models.internal:8443/v1"), has_proxy=True)
    assert found["model"].model_server == ("models.internal", 8443)
    assert (found["agent"].model_server, found["agent"].hosts) == (None, ())


def test_agent_with_a_login_reaches_the_servers_of_its_provider() -> None:
    found = grants(an_attempt_with(provider="codex"), has_proxy=False)
    assert ("auth.openai.com", 443) in found["agent"].hosts
    own = grants(an_attempt_with("http://10.1.2.3:9", "codex"), has_proxy=False)["agent"]
    assert (own.hosts, own.model_server) == ((), ("10.1.2.3", 9))


@pytest.mark.parametrize(
    ("repository", "hosts"),
    [
        ("https://git.example/a.git", (("git.example", 443),)),
        ("ssh://git@git.example:2222/a.git", (("git.example", 2222),)),
        ("git@git.example:a.git", (("git.example", 22),)),
        ("not a repository", ()),
    ],
)
def test_clone_reaches_the_git_server_only(repository: str, hosts: Any) -> None:
    found = grants(an_attempt_with(workspace_setup=WorkspaceSetup(git_repo=repository)), has_proxy=True)
    assert (found["repository"].network, found["repository"].hosts) == ("none", hosts)
    assert found["agent"].hosts == ()


def test_setup_commands_have_a_rule_of_their_own(tmp_path: Path) -> None:
    def both(network: Any, **setup: Any) -> tuple[bool, Any, Any]:
        commands = WorkspaceSetup(git_repo="https://git.example/a.git", setup=(("npm", "ci"),), **setup)
        attempt = an_attempt_with(config={"network": network}, workspace_setup=commands)
        found = grants(attempt, has_proxy=True)
        return an_egress(tmp_path, MemoryStore()).confines(attempt), found["agent"].network, found["setup"].network

    assert both("none", setup_network=RULE) == (True, "none", RULE)
    assert both(RULE) == (True, RULE, RULE)
    assert both(RULE, setup_network="open") == (True, RULE, "open")
    assert both(None, setup_network="none") == (True, "open", "none")
    assert both("open") == (False, "open", "open")
    assert "setup" not in grants(an_attempt_with(), has_proxy=True)


def test_a_part_without_a_rule_reaches_public_hosts_only() -> None:
    setup = WorkspaceSetup(git_repo="https://example.com/r.git", setup=(("true",),), setup_network="none")
    found = grants(an_attempt_with(config={"network": None}, workspace_setup=setup), has_proxy=True)
    assert (found["agent"].private_networks, found["repository"].private_networks) == ((), NETWORKS)
    rule = rule_of_grant(found["agent"])
    assert [rule.allows("example.com", port) for port in (22, 80, 443, 6443, 10250)] == [True] * 3 + [False] * 2


class Services:
    """A stand-in for the requests of BatchClient for Services."""

    def __init__(self, **addresses: str) -> None:
        self._addresses = addresses

    async def service_addresses(self, name: str) -> tuple[str, ...]:
        return tuple(self._addresses.get(name, "").split())

    async def pod_addresses(self, service: str) -> list[str]:
        return self._addresses[service].split()


def an_egress(
    folder: Path,
    store: MemoryStore,
    service: str | None = "proxy",
    *,
    allows_untrusted: bool = False,
    epoch: int = 0,
    **addresses: str,
) -> Egress:
    api = cast("BatchClient", Services(**addresses))
    return Egress(api, store, service, folder, allows_untrusted=allows_untrusted, epoch=epoch)


async def test_tokens_are_signed_with_a_key_that_all_leaders_share(tmp_path: Path) -> None:
    store = MemoryStore()
    found = [
        await an_egress(tmp_path, store, proxy="10.96.0.9").of(an_attempt_with(), 1000, NETWORKS, has_proxy=True)
        for _ in range(2)
    ]
    stored = await store.get(Secret, "proxy-key")
    assert is_of_engine(stored)
    for each in found:
        assert each
        assert each.address == ("10.96.0.9", 3128)
        assert read_grant(each.tokens["agent"], stored.data["key"], now=0).network == RULE
        assert each.tokens["agent"] not in repr(each)


async def test_open_network_needs_no_proxy(tmp_path: Path) -> None:
    attempt = an_attempt_with(config={"network": "open"})
    egress = an_egress(tmp_path, MemoryStore(), None)
    assert await egress.of(attempt, 1000, NETWORKS, has_proxy=True) is None
    assert await egress.ensure_key() is None


async def test_public_network_needs_no_proxy_where_the_policy_of_all_jobs_is_enforced(tmp_path: Path) -> None:
    attempt = an_attempt_with(config={"network": "public"})
    egress = an_egress(tmp_path, MemoryStore(), None)
    record_check(tmp_path / OPEN_CHECK, is_enforced=True)

    assert egress.problem("public") is None
    assert not egress.confines(attempt)
    assert await egress.of(attempt, 1000, NETWORKS, has_proxy=True) is None


async def test_public_network_uses_the_proxy_where_that_policy_is_not_enforced(tmp_path: Path) -> None:
    attempt = an_attempt_with(config={"network": "public"})
    egress = an_egress(tmp_path, store := MemoryStore(), proxy="10.96.0.9")
    record_check(tmp_path / OPEN_CHECK, is_enforced=False)

    assert egress.confines(attempt)
    way_out = await egress.of(attempt, 1000, NETWORKS, has_proxy=True)
    assert way_out
    key = (await store.get(Secret, "proxy-key")).data["key"]
    rule = rule_of_grant(read_grant(way_out.tokens["agent"], key, now=0))
    assert [rule.allows(host, port) for host, port in (("example.com", 22), ("1.1.1.1", 5432))] == [True, True]
    assert (rule.private_networks, rule.inspects) == (NETWORKS, False)
    record_check(tmp_path / RULES_CHECK, is_enforced=False)
    assert egress.problem("public")
    with pytest.raises(GiveUp, match="does not enforce NetworkPolicies"):
        await egress.of(attempt, 1000, NETWORKS, has_proxy=True)


async def test_public_network_waits_until_it_is_known_how_it_is_enforced(tmp_path: Path) -> None:
    attempt = an_attempt_with(config={"network": "public"})
    egress = an_egress(tmp_path, MemoryStore(), None)

    assert egress.problem("public") is None
    with pytest.raises(RetryLater, match="unknown yet"):
        await egress.of(attempt, 1000, NETWORKS, has_proxy=True)


async def test_rule_waits_for_the_service(tmp_path: Path) -> None:
    with pytest.raises(RetryLater, match="the Service 'proxy' of the egress proxy does not exist"):
        await an_egress(tmp_path, MemoryStore()).of(an_attempt_with(), 1000, NETWORKS, has_proxy=True)


async def test_rule_is_refused_without_a_proxy_or_enforcement(tmp_path: Path) -> None:
    store = MemoryStore()
    problem = an_egress(tmp_path, store, None).problem()
    assert problem
    assert "set `egressProxy.enabled`" in problem
    egress = an_egress(tmp_path, store, proxy="10.96.0.9")
    assert egress.problem() is None
    record_check(tmp_path / RULES_CHECK, is_enforced=True)
    assert egress.problem() is None
    record_check(tmp_path / RULES_CHECK, is_enforced=False)
    assert "does not enforce NetworkPolicies" in (egress.problem() or "")
    with pytest.raises(GiveUp, match=r"config\.network must be open: the cluster's network does not enforce"):
        await egress.of(an_attempt_with(), 1000, NETWORKS, has_proxy=True)


async def test_leader_reports_living_attempts_to_each_pod_of_the_proxy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, attempt = MemoryStore(), an_attempt_with()
    egress, later = (an_egress(tmp_path, store, proxy="127.0.0.1", epoch=epoch) for epoch in (4, 5))
    proxy = ClusterProxy(await egress.ensure_key() or "")
    server = await asyncio.start_server(proxy.serve, "127.0.0.1", 0)
    address = server.sockets[0].getsockname()
    monkeypatch.setattr(egress_module, "PORT", address[1])

    async def a_gateway(egress: Egress) -> Gateway:
        way_out = await egress.of(attempt, 2**40, NETWORKS, has_proxy=True)
        assert way_out
        return Gateway(address, way_out.tokens["agent"])

    try:
        gateway = await a_gateway(egress)
        await egress.announce([attempt.name, AttemptName("ir-0000000b", 2)])
        assert (await gateway.bound()).token
        await egress.announce([])
        with pytest.raises(ConnectionRefused, match="the attempt has ended"):
            await gateway.bound()

        gateway = await a_gateway(egress)  # after that list
        assert (await gateway.bound()).token
        await later.announce([attempt.name])
        assert (await gateway.bound()).token
        with pytest.raises(RetryLater, match=r"answers 'HTTP/1\.1 409 Conflict'"):
            await egress.announce([])
        assert (await gateway.bound()).token
        with pytest.raises(OSError, match=r"127\.0\.0\.2"):  # nothing listens there
            await an_egress(tmp_path, store, proxy="127.0.0.2 127.0.0.1", epoch=6).announce([])
        with pytest.raises(ConnectionRefused, match="the attempt has ended"):
            await gateway.bound()
    finally:
        server.close()
        await proxy.drain(0)


ADDRESS = ("10.96.0.9", 3128)


@pytest.mark.parametrize(
    ("is_enforced", "untrusted", "service", "expected"),
    [
        (True, False, "proxy", ADDRESS),
        (True, True, "proxy", ADDRESS),
        (True, True, None, None),
        (True, True, "missing", None),
        (False, False, "proxy", None),  # such jobs run as before
        (None, False, "proxy", None),
        (None, True, "proxy", ADDRESS),
    ],
)
async def test_open_pod_tests_policies_that_should_be_in_force(
    tmp_path: Path, is_enforced: bool | None, untrusted: bool, service: str | None, expected: object
) -> None:
    if is_enforced is not None:
        record_check(tmp_path / OPEN_CHECK, is_enforced=is_enforced)
    egress = an_egress(tmp_path, MemoryStore(), service, proxy=f"{ADDRESS[0]} fd00::9")
    attempt = an_attempt_with(config={"network": None}, untrusted=untrusted)
    assert await egress.policy_tests(attempt) == ((expected,) if expected else ())


@pytest.mark.parametrize("service", [None, "missing"])
async def test_external_contributors_job_waits_while_nothing_tells_whether_policies_are_enforced(
    tmp_path: Path, service: str | None
) -> None:
    attempt = an_attempt_with(config={"network": None}, untrusted=True)
    egress = an_egress(tmp_path, MemoryStore(), service)
    with pytest.raises(RetryLater, match="it is unknown yet whether the cluster's network enforces NetworkPolicies"):
        await egress.policy_tests(attempt)
    assert await egress.policy_tests(an_attempt_with(config={"network": None})) == ()
    allowing = an_egress(tmp_path, MemoryStore(), service, allows_untrusted=True)
    assert await allowing.policy_tests(attempt) == ()
    record_check(tmp_path / OPEN_CHECK, is_enforced=True)
    assert await egress.policy_tests(attempt) == ()


async def test_external_contributors_job_needs_enforced_policies_or_a_rule(tmp_path: Path) -> None:
    record_check(tmp_path / OPEN_CHECK, is_enforced=False)
    attempt = an_attempt_with(config={"network": "open"}, untrusted=True)
    refusing = an_egress(tmp_path, MemoryStore(), proxy=ADDRESS[0])
    assert "LABRATS_ALLOW_UNTRUSTED=true" in (refusing.problem_of_untrusted() or "")
    with pytest.raises(GiveUp, match=r"config\.network must not be open: an external contributor caused this job"):
        await refusing.policy_tests(attempt)
    assert await refusing.policy_tests(an_attempt_with(untrusted=True)) == (ADDRESS,)  # it has a rule

    allowing = an_egress(tmp_path, MemoryStore(), proxy=ADDRESS[0], allows_untrusted=True)
    assert allowing.problem_of_untrusted() is None
    assert await allowing.policy_tests(attempt) == ()


async def test_pod_with_a_rule_tests_policies_by_every_address_of_the_proxy(tmp_path: Path) -> None:
    egress = an_egress(tmp_path, MemoryStore(), proxy="10.96.0.9 fd00::9")
    assert await egress.policy_tests(an_attempt_with()) == (ADDRESS, ("fd00::9", 3128))
