"""Network rules on a cluster: the grants by which an attempt's pod reaches hosts through the egress proxy.

A NetworkPolicy of the installation lets pods with a rule reach only the proxy, which listens behind a Service. The
leader creates the key that signs the grants, in a Secret that the proxy mounts.
"""

import asyncio
import secrets
from collections.abc import Iterable
from contextlib import closing
from pathlib import Path
from typing import Final

from msgspec.structs import replace

from labrats.backends.kubernetes.batch_client import BatchClient
from labrats.backends.kubernetes.pod_settings import PodEgress
from labrats.model.attempt_name import AttemptName
from labrats.model.core_resources import TYPE_LABEL, Secret
from labrats.model.egress_grant import (
    KEY_BYTES,
    LIVING_REQUEST,
    EgressGrant,
    ListNumber,
    LivingAttemptsHead,
    sign_grant,
    sign_living,
)
from labrats.model.errors import Conflict, GiveUp, Invalid, NotFound, RetryLater
from labrats.model.git_repo import GitRepo, parse_git_repo
from labrats.model.job import FailedCode
from labrats.model.network import NONE, OPEN, PUBLIC, Network, is_restricted, limits_hosts
from labrats.model.provider_spec import host_and_port, provider_spec
from labrats.model.record import Metadata
from labrats.ports import Attempt, Store

PORT: Final = 3128
"""Port of the egress proxy's Service."""

ANNOUNCE_SECONDS: Final = 10.0
"""Interval at which the leader reports the attempts that have not ended to the proxy."""

RULES_CHECK: Final = "network-policies"
OPEN_CHECK: Final = "network-policy-of-open-jobs"
"""Files on the engine's volume with the results of the leader's checks, for all processes of the engine: whether the
pods of jobs with a network rule, and those of other jobs, are kept from the cluster's network.
"""

_ENFORCED: Final = "enforced"
_NOT_ENFORCED: Final = "not enforced"
_KEY: Final = "key"
_KEY_LABELS: Final = {TYPE_LABEL: "egress-key"}
_NO_PROXY: Final = (
    "must be open: the installation has no egress proxy, which enforces rules; set `egressProxy.enabled` and "
    "`networkPolicy.enabled` to true in the chart's values"
)
_NO_POLICIES: Final = (
    "must be open: the cluster's network does not enforce NetworkPolicies; use a network plugin that does, such as "
    "Calico or Cilium"
)

_OPEN_TO_UNTRUSTED: Final = (
    "must not be open: an external contributor caused this job, and nothing keeps the pods of jobs from the cluster's "
    "network. Set `networkPolicy.enabled`, use a network plugin that enforces NetworkPolicies, and open no more by "
    "`networkPolicy.executorEgress` in the chart's values; or allow such jobs by LABRATS_ALLOW_UNTRUSTED=true"
)


_UNKNOWN: Final = "it is unknown yet whether the cluster's network enforces NetworkPolicies"


def record_check(file: Path, *, is_enforced: bool) -> None:
    """Store the result of the leader's check."""
    draft = file.with_suffix(".new")
    draft.write_text(_ENFORCED if is_enforced else _NOT_ENFORCED)
    draft.replace(file)


def is_enforced(check: Path) -> bool | None:
    """Return the result of a check that the leader stored in a file; None if it is unknown."""
    try:
        return {_ENFORCED: True, _NOT_ENFORCED: False}.get(check.read_text())
    except OSError:
        return None


def rules_problem(service: str | None, checks: Path) -> str | None:
    """Return why network rules cannot be enforced, as part of a sentence; None if nothing is known against it.

    Each pod with a rule tests the network itself, so that an unknown state is no risk. service, checks: see Egress.
    """
    if service is None:
        return _NO_PROXY
    return _NO_POLICIES if is_enforced(checks / RULES_CHECK) is False else None


class Egress:
    """The egress proxy of the installation, as the runner uses it.

    service: name of the proxy's Service; None if there is no proxy. checks: folder of the files of RULES_CHECK.
    allows_untrusted: whether jobs of external contributors may reach the cluster's network. epoch: that of the leader.
    """

    def __init__(
        self,
        api: BatchClient,
        store: Store,
        service: str | None,
        checks: Path,
        *,
        allows_untrusted: bool = False,
        epoch: int = 0,
    ) -> None:
        self._api, self._store, self._service, self._checks = api, store, service, checks
        self._allows_untrusted = allows_untrusted
        self._epoch, self._lists = epoch, 0

    def problem(self, network: Network | None = None) -> str | None:
        """See `rules_problem`. For `public`, the policy of all jobs is enough where the cluster enforces it.

        While that is unknown, `of` decides.
        """
        if network == PUBLIC and is_enforced(self._checks / OPEN_CHECK) is not False:
            return None
        return rules_problem(self._service, self._checks)

    def confines(self, attempt: Attempt) -> bool:
        """Return whether the attempt's pod reaches only the egress proxy: its agent or its setup commands need that.

        Both are in one pod. Where only the commands have a rule, the agent reaches any public host through the proxy.
        """
        is_closed = is_enforced(self._checks / OPEN_CHECK)
        return any(is_restricted(rule) and not (rule == PUBLIC and is_closed) for rule in _rules_of(attempt))

    def problem_of_untrusted(self) -> str | None:
        """Return why the network of an external contributor's job must not be open, as part of a sentence.

        None if nothing is known against it.
        """
        if self._allows_untrusted or is_enforced(self._checks / OPEN_CHECK) is not False:
            return None
        return _OPEN_TO_UNTRUSTED

    async def policy_tests(self, attempt: Attempt) -> tuple[tuple[str, int], ...]:
        """Return the addresses of the proxy by which the attempt's pod tests whether policies are in force.

        A pod with a network rule tests all of them, one of each family. Others test the first, as the leader's check
        tests one family, and nothing where policies are not known to be enforced, except for jobs of external
        contributors. Raises GiveUp for one of those where policies are known not to be enforced, and RetryLater where
        this is unknown and the pod cannot test it.
        """
        if self.confines(attempt):
            return await self._addresses()
        is_untrusted, is_closed = attempt.job.spec.untrusted, is_enforced(self._checks / OPEN_CHECK)
        if is_untrusted and (problem := self.problem_of_untrusted()):
            raise GiveUp(FailedCode.INVALID, f"config.network {problem}")
        is_in_doubt = is_closed is None and is_untrusted and not self._allows_untrusted
        tests = (await self._addresses())[:1] if is_closed or is_in_doubt else ()
        if is_in_doubt and not tests:
            raise RetryLater(_UNKNOWN, delay_seconds=5)
        return tests

    async def _addresses(self) -> tuple[tuple[str, int], ...]:
        found = await self._api.service_addresses(self._service) if self._service else ()
        return tuple((address, PORT) for address in found)

    async def ensure_key(self) -> str | None:
        """Return the key of the grants, which is created if it does not exist. None without a proxy."""
        if self._service is None:
            return None
        name = f"{self._service}-key"
        try:
            stored = await self._store.get(Secret, name)
        except NotFound:
            new = Secret(
                metadata=Metadata(name=name, labels=_KEY_LABELS), data={_KEY: secrets.token_urlsafe(KEY_BYTES)}
            )
            try:
                stored = await self._store.create(new)
            except Conflict:
                stored = await self._store.get(Secret, name)
        if _KEY not in stored.data:
            raise RetryLater(f"the Secret {name!r} is not the engine's: delete it, and the engine creates its own")
        return stored.data[_KEY]

    async def of(
        self, attempt: Attempt, expires_at: int, networks: tuple[str, ...], *, has_proxy: bool
    ) -> PodEgress | None:
        """Return the way out of the attempt's pod; None for an open network. Raises GiveUp, RetryLater.

        All lists that are announced later must have the attempt until it has ended.

        expires_at: of its grants, in seconds since the epoch.
        networks: those that jobs may reach in addition to public addresses. has_proxy: see PodCredentials.
        """
        if not self.confines(attempt):
            return None
        if problem := self.problem():
            if is_enforced(self._checks / OPEN_CHECK) is None and not any(map(limits_hosts, _rules_of(attempt))):
                raise RetryLater(_UNKNOWN, delay_seconds=5)
            raise GiveUp(FailedCode.INVALID, f"config.network {problem}")
        key = await self.ensure_key()
        if self._service is None or key is None or not (found := await self._api.service_addresses(self._service)):
            raise RetryLater(f"the Service {self._service!r} of the egress proxy does not exist", delay_seconds=5)
        grants = grants_of(attempt, (self._epoch, self._lists), expires_at, networks, has_proxy=has_proxy)
        return PodEgress((found[0], PORT), {part: sign_grant(grant, key) for part, grant in grants.items()})

    async def announce(self, living: Iterable[AttemptName]) -> None:
        """Report the attempts that have not ended to each replica of the proxy. Raises LabratsError, OSError.

        The proxy then refuses the grants of all others, except for those that are signed from now on.
        """
        self._lists += 1  # before anything is awaited: an attempt that starts meanwhile is missing in `living`
        number = self._epoch, self._lists
        if self._service is None or (key := await self.ensure_key()) is None:
            return
        names = b" ".join(str(name).encode() for name in living)
        request = _living_request(LivingAttemptsHead.of(names, number), key) + names
        async with asyncio.timeout(ANNOUNCE_SECONDS):
            posts = [_post(address, request) for address in await self._api.pod_addresses(self._service)]
            failures = [each for each in await asyncio.gather(*posts, return_exceptions=True) if each]
        if failures:
            raise failures[0]


def _living_request(head: LivingAttemptsHead, key: str) -> bytes:
    method, target = LIVING_REQUEST
    token = sign_living(head, key)
    return f"{method} {target} HTTP/1.1\r\nHost: x\r\nProxy-Authorization: Bearer {token}\r\n\r\n".encode()


async def _post(address: str, request: bytes) -> None:
    """Send a request to a pod of the proxy. Raises RetryLater, OSError."""
    reader, writer = await asyncio.open_connection(address, PORT)
    with closing(writer):
        writer.write(request)
        status = await reader.readline()
        if not status.startswith(b"HTTP/1.1 200 "):
            raise RetryLater(f"the egress proxy at {address} answers {status[:60].decode('latin-1').strip()!r}")


def _rules_of(attempt: Attempt) -> tuple[Network | None, Network | None]:
    """Return the rule of the agent, and that of the setup commands if there are any."""
    setup = attempt.job.spec.workspace_setup
    return attempt.config.network, setup.setup_network if setup and setup.setup else None


def grants_of(
    attempt: Attempt, listed_after: ListNumber, expires_at: int, networks: tuple[str, ...], *, has_proxy: bool
) -> dict[str, EgressGrant]:
    """Return the grant of each part of an attempt's pod, by the names in EGRESS_ANNOTATIONS. Pure."""
    config, provider = attempt.config, attempt.config.provider or ""
    endpoint = attempt.ai_model.spec.endpoint if attempt.ai_model else None
    own_server = host_and_port(endpoint)
    nothing = EgressGrant(attempt=str(attempt.name), network=NONE, listed_after=listed_after, expires_at=expires_at)
    agent = replace(
        nothing,
        network=config.network or OPEN,
        private_networks=_private(config.network, networks),
        hosts=() if own_server or has_proxy else provider_spec(provider).login_servers,
        model_server=None if has_proxy else own_server,
    )
    model = replace(nothing, model_server=own_server or host_and_port(provider_spec(provider).endpoint))
    parts = {"agent": agent, "model": model if has_proxy else nothing, "repository": nothing}
    setup = attempt.job.spec.workspace_setup
    if setup and setup.setup:
        rule = setup.setup_network or config.network
        parts["setup"] = replace(nothing, network=rule or OPEN, private_networks=_private(rule, networks))
    if setup and not (repo := _repository(setup.git_repo)).is_local:
        parts["repository"] = replace(nothing, private_networks=networks, hosts=((repo.host, repo.port),))
    return parts


def _private(network: Network | None, networks: tuple[str, ...]) -> tuple[str, ...]:
    """Return the private networks that a part of a pod may reach. Without a rule it reaches none, as in an open pod."""
    return networks if is_restricted(network) else ()


def _repository(address: str) -> GitRepo:
    """Parse the address of a repository. An invalid one, in an applied job, fails in the pod with a message."""
    try:
        return parse_git_repo(address)
    except Invalid:
        return GitRepo("")
