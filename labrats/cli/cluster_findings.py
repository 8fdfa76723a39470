"""The checks of `labrats doctor` on Kubernetes: isolation and network of jobs' pods, and labels of their Secrets."""

from collections.abc import Iterator
from itertools import chain
from typing import Final

from labrats.cli.findings import Finding
from labrats.model.agent import AiAgent
from labrats.model.ai_model import AiModel
from labrats.model.core_resources import Secret, is_for_jobs, label_command
from labrats.model.secret_users import secrets_of_agent
from labrats.model.webhook_source import WebhookSource
from labrats.ports import Store

_CLUSTER_NETWORK: Final = {
    True: Finding("cluster's network", "ok", "pods of jobs with an open network do not reach the cluster's addresses"),
    False: Finding(
        "cluster's network",
        "missing",
        "pods of jobs with an open network reach it, so that jobs of external contributors are refused: enable "
        "networkPolicy, and use a network plugin that enforces NetworkPolicies",
    ),
    None: Finding("cluster's network", "missing", "not tested yet: the leader does this after its start"),
}


def levels_of(vm_runtime_class: str | None) -> Iterator[Finding]:
    """Yield a finding for each level of isolation."""
    for level in ("process", "sandbox"):
        yield Finding(f"isolation: {level}", "missing", "not on Kubernetes: jobs that ask for it get container")
    yield Finding("isolation: container", "ok", "pods that fulfil Pod Security `restricted`")
    if vm_runtime_class:
        command = f"kubectl get runtimeclass {vm_runtime_class}"
        detail = f"pods with the RuntimeClass {vm_runtime_class!r}, which is not looked up: see `{command}`"
        yield Finding("isolation: vm", "ok", detail)
    else:
        advice = "install gVisor or Kata Containers, and name the RuntimeClass in LABRATS_VM_RUNTIME_CLASS"
        yield Finding("isolation: vm", "missing", advice)


def network_findings(rules_problem: str | None, is_closed: bool | None) -> Iterator[Finding]:
    """Yield what is known of the network of jobs' pods. For the parameters see `EngineCommands.cluster_network`."""
    if rules_problem:
        yield Finding("network rules", "missing", f"config.network {rules_problem}")
    else:
        detail = "config.network can be enforced: each pod with a rule tests this before its agent starts"
        yield Finding("network rules", "ok", detail)
    yield _CLUSTER_NETWORK[is_closed]


async def labels_of_secrets(store: Store, *, required: bool) -> list[Finding]:
    """Return a finding for each Secret that lacks the label, or one if none does. Raises RetryLater.

    required: whether jobs may use only labelled Secrets.
    """
    users = await _users_of_secrets(store)
    secrets = await store.get_many(Secret, sorted(users))
    result = "fails" if required else "missing"
    findings = [
        Finding(
            f"secret: {each.name}",
            result,
            f"not labelled, but named by {', '.join(users[each.name])}: {label_command(each.name)}",
        )
        for each in secrets
        if not is_for_jobs(each)
    ]
    return findings or [Finding("secrets of jobs", "ok", f"all {len(secrets)} have the label")]


async def _users_of_secrets(store: Store) -> dict[str, list[str]]:
    """Return the resources that name each Secret."""
    models, agents, sources = await store.list(AiModel), await store.list(AiAgent), await store.list(WebhookSource)
    named = chain(
        ((f"the model {model.name}", [model.spec.credentials_ref]) for model in models),
        ((f"the agent {agent.name}", secrets_of_agent(agent)) for agent in agents),
        ((f"the webhook source {source.name}", [source.spec.credentials_ref]) for source in sources),
    )
    users: dict[str, list[str]] = {}
    for user, names in named:
        for name in filter(None, names):
            users.setdefault(name, []).append(user)
    return users
