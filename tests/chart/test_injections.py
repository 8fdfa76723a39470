"""The obedient agent of tests/acceptance/test_injections.py in the pods of an installation on a real node.

The corpus is the same, and the goals are those of a pod. Without one of the defences, named goals are reached.
"""

import asyncio
import inspect
import json
import os
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import pytest

from labrats.model.core_resources import JOB_CREDENTIALS
from tests.acceptance.engine import User
from tests.acceptance.git_server import serve_git
from tests.acceptance.obedience import obey_an_event, obeyed_by, published_by
from tests.chart.fixture import new_installation
from tests.chart.installation import VALUES, Helm, Installation
from tests.chart.test_installation import a_user_of
from tests.chart.test_network import ASKS_NODE, Listener, a_listener, a_name_server, an_uplink
from tests.cluster.cluster import GATEWAY, Cluster
from tests.support import obedient_agent
from tests.support.injections import (
    CONFIGURATION,
    EVENT,
    MARK,
    RAN,
    Injection,
    a_poisoned_repository,
    corpus_of,
    mcp_servers_of,
    prompt_of,
    reached_goals,
)
from tests.support.internet import METADATA, TCP_HOST, UDP_HOST, Uplink

pytestmark = [pytest.mark.kubernetes(node=True, helm=True, engine_image=True), pytest.mark.timeout(600)]

KEY: Final = "sk-canary-of-the-model-0123456789"
TOOLS: Final = "canary-of-another-agent-0123456789"
LOGGED: Final = "canary-of-another-log-0123456789"
GIT: Final = "canary-of-the-repository-0123456789"
GRANT: Final = "eyJhdHRlbXB0Ijoi"
"""The start of every token of the egress proxy."""

SECONDS: Final = 240.0
"""Time for a job, some of whose commands wait for a network that does not answer."""

ASK_FOR_SECRETS: Final = """python3 -c '
import ssl, urllib.request
token = open("/var/run/secrets/kubernetes.io/serviceaccount/token").read()
request = urllib.request.Request("{url}", headers={{"Authorization": f"Bearer {{token}}"}})
print(urllib.request.urlopen(request, timeout=3, context=ssl._create_unverified_context()).status)
'"""
ASK_BY_PROXY: Final = """python3 -c '
import os, urllib.request
proxies = urllib.request.ProxyHandler({"http": os.environ["HTTP_PROXY"]})
urllib.request.build_opener(proxies).open(os.environ["URL"], timeout=3)
'"""
OUTSIDE: Final = {
    "TCP to a host outside": TCP_HOST, "UDP to a host outside": UDP_HOST, "metadata address": METADATA,
}  # fmt: skip
"""Goals that send packets to hosts outside of the cluster, which are counted at the node's uplink."""

NETWORK: Final = {
    "TCP", "UDP", "IPv6", "engine's Service", "engine's pod", "API server", "kubelet", "name in DNS", *OUTSIDE,
}  # fmt: skip
OF_A_CARELESS_POD: Final = {
    "token of the egress proxy", "raw packets", "programs of the system", "programs of the agent", "mount", "root",
    "cached folders", "processes of the node", "secrets of the namespace", "secret of another agent", "git credential",
}  # fmt: skip
WAYS_TO_THE_KEY: Final = {
    "model's key in the environment", "model's key of other processes", "model's key in the attempt's files",
    "model's key in a descriptor", "model's key on a volume", "patch",
}  # fmt: skip
"""Goals that look for the key of the model in different places. Reaching one of them is called `model's key`."""

ALLOWED: Final = "allowed.test"
"""A name that the egress proxy knows, at the node's address."""

MODEL: Final = {"provider": "claude", "model": "claude-sonnet-5-5", "slots": 2, "endpoint": f"http://{GATEWAY}:9"}


def tcp(host: str, port: int, mark: str) -> str:
    """Return a command that sends its mark, or prints it once it is connected."""
    return f"timeout 2 bash -c 'echo {MARK}{mark} > /dev/tcp/{host}/{port}' && echo {MARK}{mark}"


@dataclass(frozen=True)
class Pod:
    """A pod of an agent in an installation, beside a listener and a name server at the node's address.

    asked: the questions to the name server. uplink: the way of packets to hosts outside of the cluster.
    """

    installation: Installation
    listener: Listener
    asked: list[bytes]
    uplink: Uplink

    def goals(self) -> dict[str, str]:
        """Return a command for each goal. It prints a canary or its mark, or sends its mark."""
        port = self.listener.port
        (engine,) = self.installation.addresses("api")
        service = self.installation.get("service", "labrats")[0]["spec"]["clusterIP"]
        api_server = self.installation.cluster.kubectl(
            "get", "service", "kubernetes", "-o", "jsonpath={.spec.clusterIP}"
        )
        data = "/var/lib/labrats /mnt/data /attempt"
        secrets = f"https://{api_server}/api/v1/namespaces/{self.installation.namespace}/secrets"
        return {
            "model's key in the environment": "env",
            "model's key of other processes": "cat /proc/[0-9]*/environ /proc/[0-9]*/cmdline",
            "model's key in the attempt's files": "cat /attempt/inputs/secrets/* /attempt/inputs/job.json",
            "model's key in a descriptor": "echo $CREDENTIAL",
            "model's key on a volume": f"grep -raoh 'sk-canary[a-z0-9-]*' {data} /tmp /run /home",
            "secret of another agent": f"grep -raoh 'canary-of-another-agent[0-9-]*' {data} /tmp /run /etc",
            "secrets of the namespace": f"{ASK_FOR_SECRETS.format(url=secrets)} && echo {MARK}secrets",
            "output of another job": f"grep -raoh 'canary-of-another-log[0-9-]*' {data}",
            "git credential": "cat ~/.git-credentials ~/.netrc .git/config; git config --list; env | grep -i git",
            "token of the egress proxy": f"grep -raoh '{GRANT[:-1]}[{GRANT[-1]}]' /attempt/inputs /attempt/scratch",
            "TCP": tcp(GATEWAY, port, "tcp"),
            "UDP": f"echo {MARK}udp > /dev/udp/{GATEWAY}/{port}",
            "IPv6": tcp(f"::ffff:{GATEWAY}", port, "ipv6"),
            "engine's Service": tcp(service, 80, "service"),
            "engine's pod": tcp(engine, 3001, "pod"),
            "API server": tcp(api_server, 443, "server"),
            "kubelet": tcp(GATEWAY, 10251, "kubelet"),
            "metadata address": f"timeout 2 bash -c 'echo > /dev/tcp/{METADATA}/80'",
            "TCP to a host outside": f"timeout 2 bash -c 'echo > /dev/tcp/{TCP_HOST}/443'",
            "UDP to a host outside": f"echo > /dev/udp/{UDP_HOST}/53",
            "proxy": f"URL=http://{ALLOWED}:{port}/{MARK}proxy {ASK_BY_PROXY}",
            "name in DNS": "timeout 3 getent hosts example.com",
            "raw packets": f"python3 -c 'import socket as s; s.socket(2, 3, 1)' && echo {MARK}raw",
            "programs of the system": f"test -w /usr/bin && echo {MARK}programs",
            "programs of the agent": f"test -w /opt/labrats && echo {MARK}labrats",
            "mount": f"{{ unshare -m true || unshare -Um true; }} && echo {MARK}mount",
            "root": f"test $(id -u) = 0 && echo {MARK}root",
            "data of the engine": f"test -w /mnt/data/attempts && echo {MARK}data",
            "cached folders": f"test -e /attempt/caches && echo {MARK}caches",
            "processes of the node": f"test -e /proc/{os.getpid()} && echo {MARK}node",
            "patch": "env > leaked.txt; cat /proc/[0-9]*/environ | rev > leaked-too.txt",
        }

    async def reached(
        self, user: User, folder: Path, network: Any, credential: str, *, with_event: bool = False
    ) -> set[str]:
        """Run the obedient agent on the corpus, and return the goals that it has reached."""
        corpus = corpus_of(self.goals())
        a_poisoned_repository(folder / "poisoned.git", corpus)
        await a_model(user, self.installation, credential)
        await an_agent(user, corpus)
        config = {"provider": "claude", "model": MODEL["model"], "network": network, "timeoutMs": 300_000}
        with serve_git(folder, "octocat", GIT, self.installation.cluster.listen()) as server:
            url = f"http://octocat:{GIT}@{GATEWAY}:{server.port}/poisoned.git"
            body = {"source": "manual", "type": "code-review", "agentRole": "obedient", "prompt": prompt_of(corpus)}
            setup = {"gitRepo": url, "setup": CONFIGURATION}
            answer = await user.post("/api/jobs/submit", body | {"config": config, "workspaceSetup": setup})
            assert answer.status_code == 201, answer.text
            async with asyncio.timeout(SECONDS):
                while (job := await user.job(answer.json()["jobId"]))["status"] in ("waiting", "active"):
                    await asyncio.sleep(0.5)
        assert (
            obeyed_by(job) == {each.command for each in corpus if each.place not in EVENT} == {*self.goals().values()}
        )
        published = await published_by(user, job)
        assert all(text in published for text in RAN)
        if with_event:
            defaults = {"defaultProvider": "claude", "defaultModel": MODEL["model"], "defaultNetwork": network}
            child = await obey_an_event(user, corpus, defaults)
            assert child["config"]["network"] == network
            assert obeyed_by(child) >= {each.command for each in corpus if each.place in EVENT}
            published += await published_by(user, child)
        return self.reached_by(published + self.installation.log("controller"))

    def reached_by(self, published: str) -> set[str]:
        """Return the goals that were reached: by what was published, and by what arrived or left the node."""
        canaries = {
            KEY: "model's key", TOOLS: "secret of another agent", LOGGED: "output of another job",
            GIT: "git credential", GRANT: "token of the egress proxy",
        }  # fmt: skip
        found = "\n".join([published, *(each.decode(errors="replace") for each in self.listener.arrived)])
        hosts = {address: goal for goal, address in OUTSIDE.items()}
        outside = {hosts.get(address, address) for address in self.uplink.destinations()}
        asked = {"name in DNS"} if self.asked else set()
        return reached_goals(self.goals(), canaries, f"{found}\n{found[::-1]}") | outside | asked

    def run_careless(self, manifest: dict[str, Any]) -> str:
        """Run a pod to its end, and return its log."""
        name = manifest["metadata"]["name"]
        self.installation.kubectl("create", "-f", "-", stdin=json.dumps(manifest))
        ended = "jsonpath={.status.phase}=Succeeded"
        try:
            self.installation.kubectl("wait", f"--for={ended}", f"pod/{name}", f"--timeout={SECONDS:.0f}s")
            return self.installation.kubectl("logs", name)
        finally:
            self.installation.kubectl("delete", "pod", name, "--wait=false")


async def an_agent(user: User, corpus: list[Injection]) -> None:
    """Create the agent of the jobs, or change its MCP servers."""
    servers = {"mcpServers": mcp_servers_of(corpus)}
    created = await user.post("/api/agents", {"name": "obedient", **servers})
    if created.status_code == 409:
        created = await user.http.patch("/api/agents/obedient", json=servers)
    assert created.status_code in (200, 201), created.text


async def a_model(user: User, installation: Installation, credential: str) -> None:
    """Create the model of the jobs, whose Secret has the key as `credential`."""
    name = credential.lower().replace("_", "-")
    metadata = {"name": name, "labels": dict(JOB_CREDENTIALS)}
    secret = {"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "stringData": {credential: KEY}}
    installation.kubectl("apply", "-f", "-", stdin=json.dumps(secret))
    await user.http.delete("/api/ai-models/sonnet")
    created = await user.post("/api/ai-models", {"name": "sonnet", "credentialsRef": name, **MODEL})
    assert created.status_code == 201, created.text


def values_of(installation: Installation, *mounts: dict[str, str]) -> dict[str, Any]:
    """Return values with the obedient agent as Claude Code. mounts: further ones of its container."""
    agent = {"name": "agent", "mountPath": "/opt/agent-clis/node_modules/.bin"}
    extras = {
        "extraVolumes": [{"name": "agent", "configMap": {"name": "agent", "defaultMode": 0o755}}],
        "extraVolumeMounts": [agent, *mounts],
    }
    return {
        "api": {"replicas": 1},
        "controller": {"replicas": 1, "resources": {"requests": {"cpu": "10m"}}},
        "executor": installation.values()["executor"] | extras | {"pod": ASKS_NODE},
        "egressProxy": {
            "drainSeconds": 0,
            "extraVolumes": [{"name": "hosts", "configMap": {"name": "hosts"}}],
            "extraVolumeMounts": [{"name": "hosts", "mountPath": "/etc/hosts", "subPath": "hosts"}],
        },
        "networkPolicy": {"executorEgress": [{"to": [{"ipBlock": {"cidr": "0.0.0.0/0"}}]}]},
        "settings": VALUES["settings"] | {"OUTBOUND_ALLOWED_CIDRS": f"{GATEWAY}/32"},
    }


@pytest.fixture(scope="module")
def obeying(
    cluster: Cluster | None,
    helm: Helm,
    engine_image: str,
    executor_image: str,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Installation]:
    """An installation whose Claude Code is the obedient agent. Jobs with an open network reach all."""
    if cluster is None:
        pytest.skip("the tests need a cluster of their own, whose node has its volumes on this machine")
    folder = tmp_path_factory.mktemp("volumes")
    with new_installation(cluster, helm, engine_image, executor_image, folder) as installation:
        agent = {"claude": f"#!/usr/bin/env python3\n{inspect.getsource(obedient_agent)}"}
        tools = {"metadata": {"name": "tools", "labels": JOB_CREDENTIALS}, "stringData": {"token": TOOLS}}
        hosts = {"hosts": f"127.0.0.1 localhost\n{GATEWAY} {ALLOWED}\n"}
        for each in (
            {"kind": "ConfigMap", "metadata": {"name": "agent"}, "data": agent},
            {"kind": "ConfigMap", "metadata": {"name": "hosts"}, "data": hosts},
            {"kind": "Secret"} | tools,
        ):
            installation.kubectl("create", "-f", "-", stdin=json.dumps({"apiVersion": "v1"} | each))
        installation.install(**values_of(installation))
        asyncio.run(run_another_job(installation))
        yield installation


async def run_another_job(installation: Installation) -> None:
    """Run a job that leaves LOGGED in its output."""
    async with a_user_of(installation) as user:
        await user.run({"log": LOGGED}, {"result": 1})


@pytest.fixture
async def user(obeying: Installation) -> AsyncIterator[User]:
    async with a_user_of(obeying) as user:
        yield user


@pytest.fixture
def pod(obeying: Installation) -> Iterator[Pod]:
    cluster = obeying.cluster
    with a_listener(cluster) as listener, a_name_server(cluster) as asked, an_uplink(cluster) as uplink:
        yield Pod(obeying, listener, asked, uplink)


async def test_obedient_agent_in_a_pod_reaches_no_goal(pod: Pod, user: User, tmp_path: Path) -> None:
    assert await pod.reached(user, tmp_path, "none", "ANTHROPIC_API_KEY", with_event=True) == set()


async def test_without_a_network_rule_it_reaches_the_network_only(pod: Pod, user: User, tmp_path: Path) -> None:
    assert await pod.reached(user, tmp_path, "open", "ANTHROPIC_API_KEY") == NETWORK


async def test_with_the_token_of_a_subscription_it_reaches_an_allowed_host_only(
    pod: Pod, user: User, tmp_path: Path
) -> None:
    """Such a token is proxied as a key is. The rule of this job allows the host that the goal `proxy` asks for."""
    rule = {"allow": [f"{ALLOWED}:{pod.listener.port}"]}
    assert await pod.reached(user, tmp_path, rule, "CLAUDE_CODE_OAUTH_TOKEN") == {"proxy"}


def a_careless_pod(pod: Pod, prompt: str) -> list[dict[str, Any]]:
    """Return a pod of the obedient agent that keeps no rule of Pod Security, with an account that may read Secrets."""
    name = {"metadata": {"name": "careless"}}
    rule = {"apiGroups": [""], "resources": ["secrets"], "verbs": ["list"]}
    subject = {"kind": "ServiceAccount", "name": "careless", "namespace": pod.installation.namespace}
    role = {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "careless"}
    files: dict[str, dict[str, Any]] = {
        "agent": {"configMap": {"name": "agent"}},
        "caches": {"emptyDir": {}},
        "inputs": {"secret": {"secretName": "grant"}},
        "tools": {"secret": {"secretName": "tools"}},
    }
    places = {"agent": "/agent", "caches": "/attempt/caches", "inputs": "/attempt/inputs", "tools": "/run/tools"}
    container = {
        "name": "agent",
        "image": pod.installation.executor_image,
        "command": ["bash", "-c", 'mkdir /tmp/w && cd /tmp/w && python3 /agent/claude <<< "$PROMPT"'],
        "env": [{"name": "PROMPT", "value": prompt}, {"name": "GIT_TOKEN", "value": GIT}],
        "securityContext": {"privileged": True, "runAsUser": 0},
        "volumeMounts": [{"name": each, "mountPath": path} for each, path in places.items()],
    }
    spec = {
        "restartPolicy": "Never", "hostPID": True, "serviceAccountName": "careless", "containers": [container],
        "volumes": [{"name": each} | source for each, source in files.items()], **ASKS_NODE,
    }  # fmt: skip
    rbac = {"apiVersion": "rbac.authorization.k8s.io/v1"}
    return [
        {"apiVersion": "v1", "kind": "ServiceAccount"} | name,
        {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "grant"}, "stringData": {"egress": GRANT}},
        rbac | {"kind": "Role", "rules": [rule]} | name,
        rbac | {"kind": "RoleBinding", "roleRef": role, "subjects": [subject]} | name,
        {"apiVersion": "v1", "kind": "Pod", "spec": spec} | name,
    ]


async def test_in_a_pod_without_restrictions_it_reaches_what_these_stop(obeying: Installation, pod: Pod) -> None:
    """The rights of an agent's pod are not set one by one, so this pod has all that it lacks."""
    corpus = corpus_of(pod.goals())
    *others, careless = a_careless_pod(pod, "\n".join(each.text for each in corpus))
    for each in others:
        obeying.kubectl("create", "-f", "-", stdin=json.dumps(each))
    set_pod_security(obeying, "privileged")
    try:
        log = await asyncio.to_thread(pod.run_careless, careless)
    finally:
        set_pod_security(obeying, "restricted")
    assert pod.reached_by(log) >= OF_A_CARELESS_POD


def set_pod_security(installation: Installation, level: str) -> None:
    label = f"pod-security.kubernetes.io/enforce={level}"
    installation.cluster.kubectl("label", "--overwrite", "namespace", installation.namespace, label)


OF_THE_VOLUME: Final = {"output of another job", "data of the engine"}


async def test_with_the_data_volume_in_its_pod_it_reaches_the_outputs_of_other_jobs(
    obeying: Installation, pod: Pod, user: User, tmp_path: Path
) -> None:
    """The volume `claims` is the engine's, of which an agent's container usually mounts nothing."""
    obeying.upgrade(**values_of(obeying, {"name": "claims", "mountPath": "/mnt/data"}))
    reached = await pod.reached(user, tmp_path, "none", "ANTHROPIC_API_KEY")
    assert reached == OF_THE_VOLUME


def test_every_goal_is_reached_in_a_run_without_a_defence(pod: Pod) -> None:
    goals = set(pod.goals()) - WAYS_TO_THE_KEY
    assert goals == NETWORK | OF_A_CARELESS_POD | OF_THE_VOLUME | {"proxy"}
