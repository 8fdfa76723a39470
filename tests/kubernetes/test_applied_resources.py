"""Applied resources on a real node: jobs and settings that are created with kubectl alone."""

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from typing import Any

import pytest

from labrats.backends.kubernetes.client import ApiClient
from tests.acceptance.engine import LocalEngine, User
from tests.kubernetes.conftest import EngineFactory, Kubectl
from tests.kubernetes.engine import SOON_WITHOUT_PARTS
from tests.kubernetes.test_engine import leftovers_in
from tests.support.waiting import DEADLINE_SECONDS

pytestmark = pytest.mark.kubernetes(node=True)

HANG = {"mock": {"steps": [{"log": "here"}, {"hang": True}]}}


@pytest.fixture
def namespace(jobs_namespace: str) -> str:
    """The namespace that kubectl uses."""
    return jobs_namespace


@pytest.fixture
async def admin(engine: LocalEngine) -> AsyncIterator[User]:
    async with engine.admin() as admin:
        yield admin


def a_resource(kind: str, name: str, /, **spec: Any) -> dict[str, Any]:
    return {"apiVersion": "labrats.work/v1alpha1", "kind": kind, "metadata": {"name": name}, "spec": spec}


def a_job(name: str, /, **spec: Any) -> dict[str, Any]:
    defaults = {"source": "kubectl", "type": "code-review", "prompt": "Look at it.", "config": {"provider": "mock"}}
    return a_resource("InferenceRequest", name, **defaults | spec)


def apply(kubectl: Kubectl, *resources: Mapping[str, Any]) -> None:
    """Apply all resources at once, in this order."""
    output = kubectl("apply", "-f", "-", stdin={"apiVersion": "v1", "kind": "List", "items": resources})
    assert output.count(" created") == len(resources), output


INSTRUCTION = a_resource("AiInstruction", "rules", scope="global", content="Be kind to {{ metadata.repo }}.")
AGENT = a_resource("AiAgent", "reviewer", triggerName="ai-reviewer", defaultProvider="mock", defaultEffort="high")
CONFIG = a_resource("AiConfig", "default", providers={"mock": {"model": "big"}})


async def test_an_applied_job_runs_with_the_applied_settings_and_instructions(kubectl: Kubectl, admin: User) -> None:
    job = a_job("by-hand", agentRole="ai-reviewer", config={"maxTurns": 3}, metadata={"repo": "octo/rats"})
    apply(kubectl, INSTRUCTION, AGENT, CONFIG, job)
    detail = await admin.wait("by-hand")

    assert (detail["status"], detail["failedReason"]) == ("completed", None)
    assert {name: detail["config"][name] for name in ("provider", "model", "effort", "maxTurns")} == {
        "provider": "mock",
        "model": "big",
        "effort": "high",
        "maxTurns": 3,
    }
    assert detail["configOrigins"]["model"] == "ai-config.providers.mock"
    status = json.loads(kubectl("get", "ir", "by-hand", "-o", "json"))["status"]
    texts = json.loads(kubectl("get", "configmap", status["instructionsRef"]["name"], "-o", "json"))["data"]
    assert "Be kind to <data-" in texts["instructions"]
    assert ">octo/rats</data-" in texts["instructions"]
    pod = json.loads(kubectl("get", "job", "by-hand-1", "-o", "json"))["spec"]["template"]["spec"]
    assert status["instructionsRef"]["name"] in json.dumps(pod["volumes"])

    header, line = kubectl("get", "ir").splitlines()
    assert header.split() == ["NAME", "TYPE", "SOURCE", "AGENT", "MODEL", "PHASE", "ATTEMPTS", "AGE"]
    assert line.split()[:-1] == ["by-hand", "code-review", "kubectl", "ai-reviewer", "big", "Succeeded", "1"]


async def test_unchanged_agent_is_unchanged_for_kubectl_and_for_a_second_manager(kubectl: Kubectl) -> None:
    triggers = [{"source": "github", "events": ["issues.labeled"], "next": {"agentTriggerName": "ai-reviewer"}}]
    agent = a_resource("AiAgent", "developer", triggerName="ai-developer", eventTriggers=triggers)
    kubectl("apply", "-f", "-", stdin=agent)
    assert "unchanged" in kubectl("apply", "-f", "-", stdin=agent)
    for manager in ("flux", "argo"):
        kubectl("apply", "--server-side", f"--field-manager={manager}", "-f", "-", stdin=agent)


async def test_an_applied_job_has_its_own_result_schema_or_its_agents(kubectl: Kubectl, admin: User) -> None:
    of_agent = {"type": "object", "properties": {"$ref": {"type": "integer"}}, "required": ["$ref"]}
    agent = a_resource("AiAgent", "judge", triggerName="judge", resultSchema=of_agent)
    own = {"type": "array", "items": {"$ref": "#/$defs/name"}, "minItems": 1, "$defs": {"name": {"const": "rat"}}}
    apply(kubectl, agent, a_job("inherited", agentRole="judge"), a_job("own", agentRole="judge", resultSchema=own))

    inherited, other = await admin.wait("inherited"), await admin.wait("own")

    assert (inherited["resultSchema"], inherited["resultData"]) == (of_agent, {"$ref": 0})
    assert (other["resultSchema"], other["resultData"]) == (own, ["rat"])


async def test_resources_can_be_applied_in_any_order(kubectl: Kubectl, admin: User) -> None:
    apply(kubectl, a_job("by-hand", agentRole="ai-reviewer", config={}))
    apply(kubectl, AGENT)
    detail = await admin.wait("by-hand")
    assert (detail["status"], detail["config"]["provider"]) == ("completed", "mock")


async def test_an_applied_job_may_refer_to_a_config_map_or_have_a_long_prompt(kubectl: Kubectl, admin: User) -> None:
    prompt = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "asked"}, "data": {"text": "Say hello."}}
    long = "rats " * 50_000
    apply(
        kubectl,
        prompt,
        a_job("referring", prompt=None, promptRef={"name": "asked", "key": "text"}),
        a_job("long", prompt=long),
    )
    assert "2 words" in (await admin.wait("referring"))["returnvalue"]
    assert "50000 words" in str((await admin.wait("long"))["returnvalue"])


async def test_a_running_job_that_is_deleted_leaves_nothing(
    kubectl: Kubectl, engine: LocalEngine, admin: User, api_client: ApiClient, namespace: str
) -> None:
    apply(kubectl, INSTRUCTION, a_job("by-hand", metadata=HANG))
    async with admin.log_stream("by-hand") as events:
        assert (await anext(events)).data == {"log": "here"}
    assert "deleted" in kubectl("delete", "ir", "by-hand")
    async with asyncio.timeout(2 * DEADLINE_SECONDS):
        while await leftovers_in(api_client, namespace) or any(engine.data_dir.rglob("by-hand-*")):
            await asyncio.sleep(0.1)


async def test_each_invalid_applied_job_fails_with_its_reason(kubectl: Kubectl, start_engine: EngineFactory) -> None:
    repo = "https://git.example/rats.git"
    bad: dict[str, dict[str, Any]] = {
        "agent": {"agentRole": "nobody"},
        "script": {"metadata": {"mock": {"steps": [{"sing": "la"}]}}},
        "schema": {"resultSchema": {"$ref": "http://169.254.169.254/schema.json"}},
        "address": {"workspaceSetup": {"gitRepo": "http://169.254.169.254/rats.git"}},
        "callback": {"callbackUrl": "http://127.0.0.1/callback"},
        "upload": {"workspaceUploads": [{"id": "up-0123456789abcdef", "name": "a.txt"}]},
        "no-prompt": {"prompt": None, "promptRef": {"name": "nowhere", "key": "text"}},
        "no-key": {"prompt": None, "promptRef": {"name": "kube-root-ca.crt", "key": "text"}},
        "no-secret": {"workspaceSetup": {"gitRepo": repo, "credentialsRef": "nowhere"}},
    }
    async with start_engine(**SOON_WITHOUT_PARTS).admin() as admin:
        apply(kubectl, *(a_job(name, **spec) for name, spec in bad.items()))
        details = {name: await admin.wait(name) for name in bad}

    assert {name: detail["failedCode"] for name, detail in details.items()} == {
        "agent": "invalid",
        "script": "invalid",
        "schema": "invalid",
        "address": "invalid",
        "callback": "invalid",
        "upload": "invalid",
        "no-prompt": "internal",
        "no-key": "internal",
        "no-secret": "git_clone",
    }
    for name, words in {
        "agent": "agentRole: no agent has the `triggerName` 'nobody'",
        "script": "metadata.mock.steps",
        "schema": "resultSchema: has a `$ref` that must point into the schema",
        "address": "workspaceSetup.gitRepo: the address of '169.254.169.254' is not allowed",
        "callback": "callbackUrl: its host has no address, or one that is not allowed",
        "upload": "workspaceUploads[0]: there is no upload 'up-0123456789abcdef'",
        "no-prompt": "there is no ConfigMap 'nowhere'",
        "no-key": "the job's prompt is missing: the ConfigMap 'kube-root-ca.crt' has no key 'text'",
        "no-secret": "there is no Secret 'nowhere'",
    }.items():
        assert words in details[name]["failedReason"]
        assert words in kubectl("describe", "ir", name).split("Events:")[1]
    condition = kubectl("get", "ir", "script", "-o", "jsonpath={.status.conditions[?(@.type=='Accepted')]}")
    assert {key: json.loads(condition)[key] for key in ("status", "reason")} == {"status": "False", "reason": "Invalid"}


async def test_the_later_of_two_ai_models_for_one_model_is_not_accepted(kubectl: Kubectl, admin: User) -> None:
    for name in ("a-first", "b-second"):
        apply(kubectl, a_resource("AiModel", name, provider="mock", model="mock", slots=1))
    message = await accepted_message(kubectl, "aim", "b-second", "False")
    assert "the older AiModel 'a-first' has the provider 'mock' with the model 'mock'" in message
    assert "'a-first'" in kubectl("get", "aim", "b-second")
    assert (await admin.run())["accountName"] == "a-first"

    kubectl("delete", "aim", "a-first")
    assert await accepted_message(kubectl, "aim", "b-second", "True") == ""
    assert (await admin.run())["accountName"] == "b-second"


async def accepted_message(kubectl: Kubectl, kind: str, name: str, status: str) -> str:
    """Wait until the condition `Accepted` has that status, and return its message."""
    async with asyncio.timeout(DEADLINE_SECONDS):
        while True:
            conditions = json.loads(kubectl("get", kind, name, "-ojson")).get("status", {}).get("conditions", [])
            for each in conditions:
                if (each["type"], each["status"]) == ("Accepted", status):
                    return str(each.get("message", ""))
            await asyncio.sleep(0.05)
