"""The key proxy of an attempt's pod, on a real node, with the agent of tests/acceptance/test_key_proxy.py."""

import json
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from labrats.backends.kubernetes.client import ApiClient
from labrats.backends.kubernetes.runner import KubernetesRunner, KubernetesRunnerSettings
from labrats.model.ai_model import Prices
from labrats.model.core_resources import Secret
from labrats.model.job import FailedCode
from labrats.model.protocol import ErrorEvent, RequestEvent, ResultEvent
from labrats.model.record import Metadata, encode
from labrats.ports import Attempt
from labrats.settings import PodExtras
from tests.agents.claude import MessagesApi
from tests.cluster.cluster import GATEWAY, Cluster
from tests.conformance.attempts import end_of, events_of
from tests.conformance.kubernetes_backend import a_pod_settings
from tests.fakes.store import MemoryStore
from tests.support import key_seeker
from tests.support.background import run_in_background
from tests.support.builders import a_spec, an_ai_model, an_attempt
from tests.support.scripted_model import ModelServer, Says, scripted_model

pytestmark = pytest.mark.kubernetes(node=True)

KEY = key_seeker.KEY.decode()
MODEL = "claude-sonnet-5-5"


@pytest.fixture
def server(cluster: Cluster | None) -> Iterator[ModelServer]:
    if cluster is None:
        pytest.skip("needs the tests' own cluster, whose pods can reach this machine")
    with scripted_model(MessagesApi(), [Says("hi", input_tokens=30, output_tokens=12)], cluster.listen()) as server:
        yield server


@pytest.fixture
async def runner(
    api_client: ApiClient, jobs_namespace: str, executor_image: str, tmp_path: Path
) -> AsyncIterator[KubernetesRunner]:
    """A runner in a namespace with the Secret `anthropic`, whose pods have the agent as their Claude Code."""
    store, data = MemoryStore(), {"ANTHROPIC_API_KEY": KEY}
    await store.create(Secret(metadata=Metadata(name="anthropic"), data=data))
    objects: dict[str, dict[str, Any]] = {
        "secrets": {"metadata": {"name": "anthropic"}, "stringData": data},
        "configmaps": {
            "metadata": {"name": "agent"},
            "data": {"claude": f"#!/usr/bin/env python3\n{Path(key_seeker.__file__).read_text()}"},
        },
    }
    for kind, manifest in objects.items():
        await api_client.request("POST", f"/api/v1/namespaces/{jobs_namespace}/{kind}", encode(manifest))
    extras = PodExtras(
        volumes=({"name": "agent", "configMap": {"name": "agent", "defaultMode": 0o755}},),
        volumeMounts=({"name": "agent", "mountPath": "/opt/agent-clis/node_modules/.bin"},),
    )
    settings = KubernetesRunnerSettings(
        jobs_namespace, tmp_path / "attempts", a_pod_settings(executor_image, extras=extras)
    )
    runner = KubernetesRunner(api_client, store, settings)
    async with run_in_background(runner.run()):
        yield runner


def an_attempt_of(server: ModelServer, **config: Any) -> Attempt:
    settings = {"provider": "claude", "model": MODEL, "timeout_ms": 120_000, **config}
    ai_model = an_ai_model(
        "sonnet",
        provider="claude",
        model=MODEL,
        credentials_ref="anthropic",
        endpoint=f"http://{GATEWAY}:{server.port}",
        prices=Prices(input=1, output=1),
    )
    return Attempt(replace(an_attempt().job, spec=a_spec(config=settings)), ai_model)


async def test_agent_in_a_pod_finds_no_key_and_reaches_no_other_model(
    runner: KubernetesRunner, server: ModelServer
) -> None:
    attempt = an_attempt_of(server)
    await runner.start(attempt)
    gone = await end_of(runner, attempt)
    events = await events_of(runner, attempt)

    assert isinstance(gone.outcome, ResultEvent), gone
    assert json.loads(gone.outcome.result) == {
        "found": [],
        "statuses": {MODEL: 200, "claude-opus-5-5": 404, "wrong token": 401},
        "token is the key": False,
    }
    assert (server.key, [request["model"] for request in server.requests]) == (KEY, [MODEL])
    assert (gone.outcome.usage.input_tokens, gone.outcome.usage.output_tokens) == (30, 12)
    requests = [event.request for event in events if isinstance(event, RequestEvent)]
    assert [(request.model, request.status) for request in requests] == [
        (MODEL, 200),
        ("claude-opus-5-5", 404),
        (None, 401),
    ]


@pytest.mark.parametrize("limit", [{"max_tokens": 40}, {"max_cost_usd": 0.00001}], ids=str)
async def test_limit_ends_the_attempt_although_its_agent_reports_no_usage(
    runner: KubernetesRunner, server: ModelServer, limit: dict[str, Any]
) -> None:
    attempt = an_attempt_of(server, **limit)
    await runner.start(attempt)
    gone = await end_of(runner, attempt)

    assert isinstance(gone.outcome, ErrorEvent), gone
    assert gone.outcome.code is FailedCode.BUDGET
    assert gone.outcome.usage.output_tokens == 12
