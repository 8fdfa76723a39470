"""A job's settings come from the first layer that sets them, which is recorded."""

from typing import Any

import pytest

from labrats.index.catalog import Catalog
from labrats.intake.request import JobRequest
from labrats.intake.settings import settings_of
from labrats.model.ai_config import AiConfig, AiConfigSpec, ProviderConfig
from labrats.model.config import JobConfig, ResolvedConfig
from labrats.model.isolation import Isolation, IsolationLevels
from labrats.model.record import Metadata
from labrats.model.webhook_source import RepoOverride, WebhookSource, WebhookSourceSpec
from tests.support.builders import a_trigger, an_agent

ORDER = (
    "request",
    "trigger",
    "webhook-source-override",
    "webhook-source",
    "agent",
    "ai-config.providers.claude",
    "ai-config",
    "built-in",
)


def a_catalog(**config: Any) -> Catalog:
    catalog = Catalog()
    catalog.put(AiConfig(metadata=Metadata(name="default", resource_version="1"), spec=AiConfigSpec(**config)))
    return catalog


def a_source(overrides: dict[str, RepoOverride] | None = None, **defaults: Any) -> WebhookSource:
    spec = WebhookSourceSpec(type="github", defaults=JobConfig(**defaults), repo_overrides=overrides or {})
    return WebhookSource(metadata=Metadata(name="github"), spec=spec)


def a_request(**fields: Any) -> JobRequest:
    return JobRequest(**{"source": "github", "type": "issues.labeled", "owner": "key-1"} | fields)


def resolve(request: JobRequest, catalog: Catalog) -> ResolvedConfig:
    return settings_of(request, request.agent, catalog)


@pytest.mark.parametrize("weakest", range(len(ORDER) - 1))
def test_a_layer_overrides_those_below_it(weakest: int) -> None:
    """The layer `weakest` and all below it set the model."""

    def model(layer: str) -> str | None:
        return f"model of {layer}" if ORDER.index(layer) >= weakest else None

    request = a_request(
        metadata={"repo": "octo/demo"},
        config=JobConfig(model=model("request")),
        trigger=a_trigger(config=JobConfig(model=model("trigger"))),
        webhook_source=a_source(
            {"octo/demo": RepoOverride(model=model("webhook-source-override"))}, model=model("webhook-source")
        ),
        agent=an_agent(default_model=model("agent")),
    )
    catalog = a_catalog(
        model=model("ai-config"), providers={"claude": ProviderConfig(model=model("ai-config.providers.claude"))}
    )

    resolved = resolve(request, catalog)

    assert (resolved.config.model, resolved.origins["model"]) == (f"model of {ORDER[weakest]}", ORDER[weakest])


def test_built_in_settings_apply_where_no_layer_sets_any() -> None:
    resolved = resolve(a_request(), Catalog())
    assert (resolved.provider, resolved.model, set(resolved.origins.values())) == ("claude", "sonnet", {"built-in"})


def test_provider_settings_apply_to_the_resolved_provider() -> None:
    catalog = a_catalog(
        effort="low",
        providers={"claude": ProviderConfig(model="opus"), "codex": ProviderConfig(model="o3", effort="high")},
    )
    resolved = resolve(a_request(agent=an_agent(default_provider="codex")), catalog)
    assert (resolved.provider, resolved.model, resolved.config.effort) == ("codex", "o3", "high")
    assert resolved.origins["model"] == "ai-config.providers.codex"


def test_the_model_of_an_agent_never_reaches_another_provider() -> None:
    agent = an_agent(default_provider="claude", default_model="opus", default_effort="high")
    resolved = resolve(a_request(agent=agent, config=JobConfig(provider="mock")), Catalog())
    assert (resolved.model, resolved.config.effort) == ("mock", "medium")


def test_a_repository_override_ignores_case() -> None:
    source = a_source({"Octo/Demo": RepoOverride(effort="high")})
    resolved = resolve(a_request(webhook_source=source, metadata={"repo": "octo/demo"}), Catalog())
    assert resolved.origins["effort"] == "webhook-source-override"


def test_a_repository_without_an_override_gets_the_sources_defaults() -> None:
    source = a_source({"octo/demo": RepoOverride(effort="high")}, effort="low")
    resolved = resolve(a_request(webhook_source=source, metadata={"repo": "octo/other"}), Catalog())
    assert (resolved.config.effort, resolved.origins["effort"]) == ("low", "webhook-source")


def test_image_and_resources_of_the_executor_come_from_the_engines_settings() -> None:
    resources = {"limits": {"memory": "4Gi"}}
    resolved = resolve(a_request(), a_catalog(executor_image="example.test/executor:2", executor_resources=resources))
    assert (resolved.config.executor_image, resolved.config.executor_resources) == (
        "example.test/executor:2",
        resources,
    )
    assert resolved.origins["executorImage"] == resolved.origins["executorResources"] == "ai-config"


@pytest.mark.parametrize(
    ("asked", "minimum", "expected"),
    [
        (None, Isolation.SANDBOX, "sandbox"),
        (None, Isolation.PROCESS, "process"),
        (Isolation.SANDBOX, Isolation.PROCESS, "sandbox"),
        (Isolation.SANDBOX, Isolation.VM, "vm"),
    ],
)
def test_an_external_contributors_event_raises_the_isolation_and_never_lowers_it(
    asked: Isolation | None, minimum: Isolation, expected: str
) -> None:
    levels = IsolationLevels((Isolation.PROCESS, Isolation.SANDBOX), Isolation.PROCESS, untrusted=minimum)
    request = a_request(trigger=a_trigger(config=JobConfig(isolation=asked)), untrusted=True)
    resolved = settings_of(request, None, Catalog(), levels)
    assert (resolved.config.isolation, resolved.isolation) == (asked, expected)


def test_an_isolation_is_at_least_the_one_that_was_asked_for() -> None:
    levels = IsolationLevels((Isolation.CONTAINER, Isolation.VM), Isolation.CONTAINER)
    request = a_request(config=JobConfig(isolation=Isolation.SANDBOX), is_by_admin=True)
    resolved = settings_of(request, None, Catalog(), levels)
    assert (resolved.config.isolation, resolved.isolation) == (Isolation.SANDBOX, Isolation.CONTAINER)


@pytest.mark.parametrize(
    ("asked", "isolation", "network", "origin"),
    [
        (JobConfig(), Isolation.SANDBOX, "public", "built-in"),
        (JobConfig(isolation=Isolation.PROCESS), Isolation.PROCESS, None, None),
        (JobConfig(network="open"), Isolation.SANDBOX, "open", "request"),
    ],
)
def test_default_network_is_that_of_the_backend_for_jobs_in_the_sandbox(
    asked: JobConfig, isolation: Isolation, network: str | None, origin: str | None
) -> None:
    levels = IsolationLevels((Isolation.PROCESS, Isolation.SANDBOX), Isolation.SANDBOX, network="public")
    resolved = settings_of(a_request(config=asked, is_by_admin=True), None, Catalog(), levels)
    assert (resolved.isolation, resolved.config.network, resolved.origins.get("network")) == (
        isolation,
        network,
        origin,
    )
    engine = settings_of(a_request(), None, Catalog(), levels, JobConfig(network="none"))
    assert (engine.config.network, engine.origins["network"]) == ("none", "engine")
