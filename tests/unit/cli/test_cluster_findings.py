"""`labrats doctor` on a cluster: levels of isolation, the network, and Secrets without the label for jobs."""

import pytest

from labrats.cli.cluster_findings import labels_of_secrets, levels_of, network_findings
from labrats.cli.findings import Finding
from labrats.model.config import JobConfig
from labrats.model.core_resources import JOB_CREDENTIALS, Secret
from labrats.model.mcp_server import McpServer
from labrats.model.record import Metadata
from labrats.model.variables import SecretKey
from labrats.model.webhook_source import WebhookSource, WebhookSourceSpec
from tests.fakes.store import MemoryStore
from tests.support.builders import a_trigger, an_agent, an_ai_model


async def a_store(*labelled: str, unlabelled: tuple[str, ...] = ()) -> MemoryStore:
    store = MemoryStore()
    for name in (*labelled, *unlabelled):
        labels = JOB_CREDENTIALS if name in labelled else {}
        await store.create(Secret(metadata=Metadata(name=name, labels=labels)))
    return store


@pytest.mark.parametrize(("required", "result"), [(True, "fails"), (False, "missing")])
async def test_each_secret_without_the_label_is_named_with_its_users_and_the_command(
    required: bool, result: str
) -> None:
    store = await a_store("good", unlabelled=("model", "mcp", "npm", "app", "unused"))
    await store.create(an_ai_model("one", model="one", credentials_ref="model"))
    await store.create(an_ai_model("two", model="two", credentials_ref="good"))
    server = McpServer(command="docs", credentials_ref="mcp")
    trigger = a_trigger(config=JobConfig(env={"NPM_TOKEN": SecretKey(secret="npm", key="token")}))
    await store.create(an_agent("developer", mcp_servers={"docs": server}, event_triggers=(trigger,)))
    spec = WebhookSourceSpec(type="github", credentials_ref="app")
    await store.create(WebhookSource(metadata=Metadata(name="github"), spec=spec))

    findings = await labels_of_secrets(store, required=required)

    command = "kubectl label secret {} labrats.work/type=job-credentials"
    assert findings == [
        Finding(
            "secret: app", result, f"not labelled, but named by the webhook source github: {command.format('app')}"
        ),
        Finding("secret: mcp", result, f"not labelled, but named by the agent developer: {command.format('mcp')}"),
        Finding("secret: model", result, f"not labelled, but named by the model one: {command.format('model')}"),
        Finding("secret: npm", result, f"not labelled, but named by the agent developer: {command.format('npm')}"),
    ]


async def test_labelled_and_missing_secrets_are_no_problem() -> None:
    store = await a_store("good")
    await store.create(an_ai_model("one", model="one", credentials_ref="good"))
    await store.create(an_ai_model("two", model="two", credentials_ref="none-such"))
    assert await labels_of_secrets(store, required=True) == [Finding("secrets of jobs", "ok", "all 1 have the label")]


@pytest.mark.parametrize(("runtime_class", "result"), [("gvisor", "ok"), (None, "missing")])
def test_the_level_vm_needs_a_runtime_class(runtime_class: str | None, result: str) -> None:
    found = {each.check: each for each in levels_of(runtime_class)}
    assert found["isolation: container"].result == "ok"
    assert found["isolation: sandbox"].result == "missing"
    assert found["isolation: vm"].result == result
    assert (runtime_class or "LABRATS_VM_RUNTIME_CLASS") in found["isolation: vm"].detail


@pytest.mark.parametrize(("is_closed", "result"), [(True, "ok"), (False, "missing"), (None, "missing")])
def test_the_network_of_jobs_is_reported(is_closed: bool | None, result: str) -> None:
    rules, network = network_findings("must be open: there is no egress proxy", is_closed)
    assert rules == Finding("network rules", "missing", "config.network must be open: there is no egress proxy")
    assert (network.check, network.result) == ("cluster's network", result)
    assert next(network_findings(None, is_closed)).result == "ok"
