"""The custom resource definitions: validation by a real API server, and output of kubectl."""

import json
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import yaml
from msgspec.structs import replace

from labrats.backends.kubernetes.client import ApiClient
from labrats.backends.kubernetes.store import KubernetesStore
from labrats.controller.agent_status import AgentStatusReconciler
from labrats.index.catalog import Catalog
from labrats.manifests.crds import custom_resource_definitions
from labrats.model.errors import Invalid
from labrats.model.job import Job, JobStatus
from labrats.model.record import Metadata, encode
from labrats.ports import SystemClock
from tests.conformance.store_resources import a_finished_job
from tests.kubernetes.conftest import Kubectl
from tests.support.background import run_in_background
from tests.support.builders import a_config, a_job, an_applied_spec
from tests.support.waiting import eventually

pytestmark = pytest.mark.kubernetes

JOB: dict[str, Any] = {"source": "kubectl", "type": "code-review", "prompt": "Look at it."}
MODEL: dict[str, Any] = {"provider": "claude", "model": "opus", "slots": 2}
REPO = "https://git.example/rats.git"
SERVER = {"command": "npx"}
PLURALS = {each["spec"]["names"]["kind"]: each["spec"]["names"]["plural"] for each in custom_resource_definitions()}


def an_object(kind: str, spec: dict[str, Any], name: str = "by-hand") -> dict[str, Any]:
    return {"apiVersion": "labrats.work/v1alpha1", "kind": kind, "metadata": {"name": name}, "spec": spec}


def with_change(spec: dict[str, Any], path: str, value: Any) -> dict[str, Any]:
    """Return `spec` with `value` at the dotted path. None removes the field."""
    changed = deepcopy(spec)
    *folders, last = path.split(".")
    target = changed
    for folder in folders:
        target = target.setdefault(folder, {})
    if value is None:
        target.pop(last)
    else:
        target[last] = value
    return changed


async def try_out(client: ApiClient, resource: dict[str, Any]) -> None:
    """Create an object without storing it. Raises Invalid if the API server refuses it."""
    path = f"/apis/labrats.work/v1alpha1/namespaces/default/{PLURALS[resource['kind']]}"
    await client.request("POST", path, encode(resource), query={"dryRun": "All"})


async def refusal(client: ApiClient, resource: dict[str, Any]) -> str:
    """Return the reason for which the API server refuses an object."""
    with pytest.raises(Invalid) as refused:
        await try_out(client, resource)
    return str(refused.value)


@pytest.mark.parametrize(
    ("path", "value", "words"),
    [
        ("source", None, "spec.source: Required value"),
        ("source", "", "spec.source"),
        ("source", "two\nlines", "spec.source"),
        ("type", "x" * 201, "spec.type: Too long"),
        ("prompt", None, "exactly one of prompt and promptRef"),
        ("prompt", "", "spec.prompt"),
        ("promptRef", {"name": "a", "key": "prompt"}, "exactly one of prompt and promptRef"),
        ("promptRef", {"name": "../secrets/a", "key": "prompt"}, "spec.promptRef.name"),
        ("promptRef", {"name": "a", "key": "a/b"}, "spec.promptRef.key"),
        ("priority", 1001, "spec.priority"),
        ("priority", "high", "spec.priority"),
        ("chain", {"id": "c", "depth": -1}, "spec.chain.depth"),
        ("config.provider", "unheard-of", 'Unsupported value: "unheard-of"'),
        ("config.effort", "some", "spec.config.effort"),
        ("config.timeoutMs", 0, "spec.config.timeoutMs"),
        ("config.timeoutMs", 7 * 24 * 3600 * 1000 + 1, "spec.config.timeoutMs"),
        ("config.maxTurns", 1.5, "spec.config.maxTurns"),
        ("config.maxCostUsd", 0, "spec.config.maxCostUsd"),
        ("config.maxAttempts", 101, "spec.config.maxAttempts"),
        ("config.fast", "yes", "spec.config.fast"),
        ("config.executorResources", {"limits": {"cpu": "lots"}}, "spec.config.executorResources.limits.cpu"),
        ("config.executorResources", {"limit": {"cpu": "1"}}, "must have only requests and limits"),
        ("config.mcpServers", {"docs": {}}, "must have either a `command` or a `url`"),
        ("config.mcpServers", {"docs": SERVER | {"url": REPO}}, "must have either a `command` or a `url`"),
        ("config.mcpServers", {"two words": SERVER}, "must be 1 to 64 letters"),
        ("config.mcpServers", {"docs": {"url": "mcp.example"}}, "spec.config.mcpServers.docs.url"),
        ("config.mcpServers", {f"n{number}": SERVER for number in range(21)}, "spec.config.mcpServers: Too many"),
        ("workspaceSetup.gitRef", "main", "spec.workspaceSetup.gitRepo: Required value"),
        ("workspaceSetup", {"gitRepo": REPO, "gitRef": "-f"}, "spec.workspaceSetup.gitRef"),
        ("workspaceSetup", {"gitRepo": REPO, "gitDepth": 0}, "spec.workspaceSetup.gitDepth"),
        ("workspaceSetup", {"gitRepo": REPO, "credentialsRef": "Not a name"}, "spec.workspaceSetup.credentialsRef"),
        ("workspaceSetup.gitRepo", "https://token@git.example/rats.git", "must not carry a credential"),
        ("workspaceSetup.gitRepo", "https://rat:token@git.example/rats.git", "must not carry a credential"),
        ("workspaceFiles", [{"name": "../up", "path": "a", "size": 1}], "relative path inside the workspace"),
        ("workspaceFiles", [{"name": "a/.git/config", "path": "a", "size": 1}], "relative path inside the workspace"),
        ("workspaceFiles", [{"name": "a", "path": "/etc/shadow", "size": 1}], "must be jobs/FOLDER/NAME"),
        ("workspaceFiles", [{"name": "a", "path": "jobs/../../c", "size": 1}], "must be jobs/FOLDER/NAME"),
        ("workspaceFiles", [{"name": "a", "path": "jobs/0", "size": 1}], "must be jobs/FOLDER/NAME"),
        ("workspaceFiles", [{"name": "a", "path": "jobs/a/0", "size": -1}], "size"),
        ("metadata", "none", "spec.metadata"),
    ],
)
async def test_an_invalid_job_is_refused_with_the_reason(
    api_client: ApiClient, path: str, value: Any, words: str
) -> None:
    assert words in await refusal(api_client, an_object("InferenceRequest", with_change(JOB, path, value)))


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("priority", -2.5),
        ("config.provider", "mock"),
        ("config.mcpServers", {"docs": {"command": "npx", "args": ["-y"], "env": {"A": ""}}, "web": {"url": REPO}}),
        ("workspaceSetup.gitRepo", REPO),
        ("workspaceSetup.gitRepo", "ssh://git@git.example/rats.git"),
        ("workspaceSetup.gitRepo", "git@git.example:rats.git"),
        ("workspaceFiles", [{"name": "notes/.todo..txt", "path": "jobs/ir-0000000a-1f/0", "size": 0}]),
        ("metadata", {"repo": "octo/rats", "nested": {"list": [1, None, {"": 2.5}]}}),
    ],
)
async def test_a_valid_job_is_accepted(api_client: ApiClient, path: str, value: Any) -> None:
    await try_out(api_client, an_object("InferenceRequest", with_change(JOB, path, value)))


MODEL_FILE = {"filename": "tiny.gguf", "url": "https://models.example/tiny.gguf"}
TRIGGER = {"source": "github", "events": ["issues.*"]}
AGENT = {"triggerName": "developer", "eventTriggers": [TRIGGER]}


@pytest.mark.parametrize(
    ("kind", "spec", "words"),
    [
        ("AiAgent", {}, "spec.triggerName: Required value"),
        ("AiAgent", AGENT | {"defaultProvider": "gpt"}, "spec.defaultProvider"),
        ("AiAgent", AGENT | {"eventTriggers": [TRIGGER | {"events": []}]}, "spec.eventTriggers[0].events"),
        ("AiAgent", AGENT | {"eventTriggers": [TRIGGER | {"config": {"maxTurns": 0}}]}, "config.maxTurns"),
        ("AiAgent", AGENT | {"eventTriggers": [TRIGGER | {"next": {"condition": "maybe"}}]}, "next.condition"),
        ("AiAgent", AGENT | {"mcpServers": {"two words": SERVER}}, "must be 1 to 64 letters"),
        (
            "AiAgent",
            AGENT | {"eventTriggers": [TRIGGER | {"config": {"mcpServers": {"docs": {}}}}]},
            "either a `command`",
        ),
        ("AiAgent", AGENT | {"instructions": ["Not a name"]}, "spec.instructions[0]"),
        ("WebhookSource", {}, "spec.type: Required value"),
        ("WebhookSource", {"type": "gitlab"}, "spec.type"),
        ("WebhookSource", {"type": "github", "host": "no host"}, "spec.host"),
        ("WebhookSource", {"type": "github", "path": "relative"}, "spec.path"),
        ("WebhookSource", {"type": "github", "allowedAssociations": ["EVERYBODY"]}, "spec.allowedAssociations[0]"),
        ("WebhookSource", {"type": "github", "defaults": {"maxTurns": 0}}, "spec.defaults.maxTurns"),
        (
            "WebhookSource",
            {"type": "github", "repoOverrides": {"octo/rats": {"provider": "gpt"}}},
            "spec.repoOverrides.octo/rats.provider",
        ),
        ("WebhookSource", {"type": "github", "repoOverrides": {"octo": {}}}, "must be the name of a repository"),
        ("AiInstruction", {"content": ""}, "spec.content"),
        ("AiInstruction", {"content": "x", "scope": "everywhere"}, "spec.scope"),
        ("AiConfig", {"effort": "utmost"}, "spec.effort"),
        ("AiConfig", {"providers": {"gpt": {"model": "4"}}}, "the providers are claude, codex"),
        ("AiConfig", {"providers": {"mock": {"effort": "utmost"}}}, "spec.providers.mock.effort"),
        (
            "AiConfig",
            {"providers": {"codex": {"files": [MODEL_FILE]}}},
            "only openai, vllm, gemma, qwen run models from files",
        ),
        (
            "AiConfig",
            {"providers": {"qwen": {"files": [MODEL_FILE | {"url": "ftp://x"}]}}},
            "spec.providers.qwen.files",
        ),
        ("AiConfig", {"executorResources": {"limit": {"cpu": "1"}}}, "must have only requests and limits"),
        ("AiConfig", {"executorResources": {"limits": {"cpu": "lots"}}}, "spec.executorResources.limits.cpu"),
        ("AiConfig", {"model": "opus"}, "the only AiConfig is named 'default'"),
    ],
)
async def test_invalid_agents_sources_instructions_and_settings_are_refused(
    api_client: ApiClient, kind: str, spec: dict[str, Any], words: str
) -> None:
    assert words in await refusal(api_client, an_object(kind, spec, "one"))


@pytest.mark.parametrize(
    ("kind", "spec", "name"),
    [
        ("AiAgent", AGENT | {"eventTriggers": [TRIGGER | {"filters": {"label.name": ["ai", None, 7]}}]}, "developer"),
        ("AiAgent", AGENT | {"mcpServers": {"docs": SERVER}}, "developer"),
        ("AiInstruction", {"content": "Fix {{ payload.issue.title }}."}, "implement"),
        ("AiConfig", {"model": "opus", "providers": {"codex": {"model": "o3"}}}, "default"),
        ("AiConfig", {"providers": {"qwen": {"files": [MODEL_FILE]}}}, "default"),
        ("AiConfig", {"executorResources": {"limits": {"cpu": "1"}, "requests": {"memory": "1Gi"}}}, "default"),
    ],
)
async def test_valid_agents_instructions_and_settings_are_accepted(
    api_client: ApiClient, kind: str, spec: dict[str, Any], name: str
) -> None:
    await try_out(api_client, an_object(kind, spec, name))


async def test_a_job_name_that_is_too_long_for_attempt_names_is_refused(kubectl: Kubectl) -> None:
    assert "created" in kubectl("create", "-f", "-", stdin=an_object("InferenceRequest", JOB, "x" * 52))
    assert "at most 52 characters" in kubectl("create", "-f", "-", stdin=an_object("InferenceRequest", JOB, "x" * 53))


@pytest.mark.parametrize(("path", "value"), [("prompt", "Something else."), ("priority", 1), ("metadata.repo", "new")])
async def test_the_spec_of_a_job_cannot_be_changed(kubectl: Kubectl, path: str, value: Any) -> None:
    kubectl("apply", "-f", "-", stdin=an_object("InferenceRequest", JOB))
    assert "unchanged" in kubectl("apply", "-f", "-", stdin=an_object("InferenceRequest", JOB))
    output = kubectl("apply", "-f", "-", stdin=an_object("InferenceRequest", with_change(JOB, path, value)))
    assert "a job cannot be changed after it was submitted" in output


@pytest.mark.parametrize(
    ("path", "value", "words"),
    [
        ("provider", None, "spec.provider: Required value"),
        ("provider", "unheard-of", 'spec.provider: Unsupported value: "unheard-of"'),
        ("provider", 7, "spec.provider"),
        ("model", None, "spec.model: Required value"),
        ("model", "", "spec.model"),
        ("model", "two\nlines", "spec.model"),
        ("model", "x" * 201, "spec.model: Too long"),
        ("slots", -1, "spec.slots"),
        ("slots", 100_001, "spec.slots"),
        ("slots", 1.5, "spec.slots"),
        ("slots", "many", "spec.slots"),
        ("endpoint", "ftp://10.0.0.5", "spec.endpoint"),
        ("endpoint", "http://10.0.0.5 /v1", "spec.endpoint"),
        ("endpoint", "http://" + "x" * 2048, "spec.endpoint: Too long"),
        ("credentialsRef", "Not_A_Name", "spec.credentialsRef"),
        ("credentialsRef", "", "spec.credentialsRef"),
        ("prices", "free", "spec.prices"),
        ("prices.input", -1, "spec.prices.input"),
        ("prices.output", -0.5, "spec.prices.output"),
        ("prices.cacheRead", "none", "spec.prices.cacheRead"),
        ("prices.cacheWrite", -1, "spec.prices.cacheWrite"),
    ],
)
async def test_an_invalid_model_is_refused(api_client: ApiClient, path: str, value: Any, words: str) -> None:
    assert words in await refusal(api_client, an_object("AiModel", with_change(MODEL, path, value)))


async def test_kubectl_prints_the_reason_of_a_refusal(kubectl: Kubectl) -> None:
    output = kubectl("create", "-f", "-", stdin=an_object("AiModel", with_change(MODEL, "slots", -1)))
    assert 'The AiModel "by-hand" is invalid: spec.slots' in output


@pytest.mark.parametrize(
    ("kind", "spec", "defaults"),
    [
        ("AiModel", {"provider": "claude", "model": "opus"}, {"slots": 4}),
        ("AiInstruction", {"content": "Be kind."}, {"scope": "local", "priority": 0}),
        ("AiAgent", {"triggerName": "developer"}, {"enabled": True}),
        (
            "WebhookSource",
            {"type": "github"},
            {"enabled": True, "mode": "webhook", "allowedAssociations": ["OWNER", "MEMBER", "COLLABORATOR"]},
        ),
    ],
)
async def test_defaults_of_omitted_fields_are_those_of_the_api(
    kubectl: Kubectl, kind: str, spec: dict[str, Any], defaults: dict[str, Any]
) -> None:
    kubectl("create", "-f", "-", stdin=an_object(kind, spec))
    assert json.loads(kubectl("get", kind, "by-hand", "-ojson"))["spec"] == spec | defaults


async def test_kubectl_get_shows_the_phase_of_jobs(kubectl: Kubectl) -> None:
    kubectl("create", "-f", "-", stdin=an_object("InferenceRequest", JOB | {"agentRole": "ai-reviewer"}))
    header, line = kubectl("get", "ir").splitlines()
    assert header.split() == ["NAME", "TYPE", "SOURCE", "AGENT", "MODEL", "PHASE", "ATTEMPTS", "AGE"]
    assert line.split()[:-1] == ["by-hand", "code-review", "kubectl", "ai-reviewer", "Pending", "0"]


@pytest.mark.parametrize("part", ["spec", "status"])
async def test_kubectl_get_shows_the_model_from_the_spec_or_the_status(
    api_client: ApiClient, namespace: str, kubectl: Kubectl, part: str
) -> None:
    async with KubernetesStore.open(api_client, namespace) as store:
        resolved = a_config(model="opus")
        spec = an_applied_spec(resolved=resolved if part == "spec" else None)
        job = await store.create(a_job(job_id="ir-1", spec=spec, resource_version=""))
        if part == "status":
            await store.update(replace(job, status=replace(job.status, resolved=resolved)))
    _, line = kubectl("get", "ir").splitlines()
    assert line.split()[:-1] == ["ir-1", "code-review", "kubectl", "opus", "Pending", "0"]


async def test_kubectl_get_shows_the_problem_of_an_agent(
    api_client: ApiClient, namespace: str, kubectl: Kubectl
) -> None:
    kubectl("create", "-f", "-", stdin=an_object("AiAgent", AGENT | {"instructions": ["missing"]}, "developer"))
    catalog = Catalog()
    async with (
        KubernetesStore.open(api_client, namespace) as store,
        run_in_background(catalog.follow(store), AgentStatusReconciler(store, catalog, SystemClock()).run()),
    ):
        await eventually(lambda: "there is no instruction 'missing'" in kubectl("get", "aia"))
        kubectl("create", "-f", "-", stdin=an_object("AiInstruction", {"content": "Do it."}, "missing"))
        await eventually(lambda: "there is no" not in kubectl("get", "aia"))
    assert "condition met" in kubectl("wait", "aia/developer", "--for=condition=Accepted", "--timeout=1s")


async def test_kubectl_get_labrats_lists_all_kinds(kubectl: Kubectl) -> None:
    kubectl("create", "-f", "-", stdin=an_object("InferenceRequest", JOB))
    kubectl("create", "-f", "-", stdin=an_object("AiModel", MODEL))
    output = kubectl("get", "labrats")
    assert "inferencerequest.labrats.work/by-hand" in output
    assert "aimodel.labrats.work/by-hand" in output


async def test_the_manifests_in_the_documentation_are_accepted(kubectl: Kubectl) -> None:
    section = Path("docs/kubernetes.md").read_text("utf-8").split("## With kubectl and GitOps")[1]
    resources = list(yaml.safe_load_all(section.split("```yaml\n")[1].split("```")[0]))
    output = kubectl("apply", "-f", "-", stdin={"apiVersion": "v1", "kind": "List", "items": resources})
    assert output.count(" created") == len(resources) == 4


async def test_kubectl_explain_describes_fields(kubectl: Kubectl) -> None:
    assert "Milliseconds per attempt." in kubectl("explain", "ir.spec.config.timeoutMs")
    assert "Maximum number of concurrent attempts" in kubectl("explain", "aimodel.spec.slots")


async def test_the_schema_accepts_what_the_engine_writes(api_client: ApiClient, namespace: str) -> None:
    async with KubernetesStore.open(api_client, namespace) as store:
        finished = a_finished_job("ir-00000001")
        created = await store.create(Job(metadata=Metadata(name="ir-00000001"), spec=finished.spec))
        assert created.spec == finished.spec
        assert created.status == JobStatus()
        with pytest.raises(Invalid, match="logs"):
            await store.update(Job(metadata=created.metadata, spec=created.spec, status=JobStatus(logs=("x",) * 101)))


def test_the_definitions_are_small() -> None:
    """`kubectl apply` stores a copy of each in an annotation, of at most 256 KiB."""
    for definition in custom_resource_definitions():
        assert len(json.dumps(definition)) < 64 * 1024
