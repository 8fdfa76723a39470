"""Receivers of webhook sources on a real API server without nodes, so that no receiver becomes ready."""

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
from msgspec.structs import replace

from labrats.backends.kubernetes.client import ApiClient
from labrats.backends.kubernetes.receiver_manifests import ReceiverSettings
from labrats.backends.kubernetes.receiver_reconciler import ReceiverReconciler
from labrats.backends.kubernetes.store import KubernetesStore
from labrats.controller.source_status import SourceStatusReconciler
from labrats.model.core_resources import Secret
from labrats.model.job import KeyReference
from labrats.model.record import Metadata
from labrats.model.webhook_source import WebhookSource, WebhookSourceSpec
from labrats.ports import Store, SystemClock
from tests.kubernetes.conftest import Kubectl
from tests.support.waiting import DEADLINE_SECONDS

pytestmark = pytest.mark.kubernetes


@pytest.fixture
async def store(api_client: ApiClient, namespace: str) -> AsyncIterator[Store]:
    async with KubernetesStore.open(api_client, namespace) as store:
        yield store


@pytest.fixture
async def _reconciler(api_client: ApiClient, namespace: str, store: Store) -> AsyncIterator[None]:
    settings = ReceiverSettings(namespace, "engine:1", "receiver", {}, {})
    receivers = ReceiverReconciler(api_client, settings)
    running = asyncio.create_task(SourceStatusReconciler(store, SystemClock(), receivers).run())
    yield
    running.cancel()


async def add_source(store: Store, name: str = "github") -> WebhookSource:
    """Create a source and its Secret."""
    await store.create(Secret(metadata=Metadata(name=f"{name}-secret"), data={"key": "test-secret"}))
    spec = WebhookSourceSpec(type="github", secret_ref=KeyReference(name=f"{name}-secret", key="key"))
    return await store.create(WebhookSource(metadata=Metadata(name=name), spec=spec))


async def condition(store: Store, kind: str, status: str, name: str = "github") -> str:
    """Wait until the condition has that status, and return its message."""
    async with asyncio.timeout(DEADLINE_SECONDS):
        while True:
            source = await store.get(WebhookSource, name)
            for each in source.status.conditions:
                if (each.type, each.status) == (kind, status):
                    return each.message
            await asyncio.sleep(0.05)


@pytest.mark.usefixtures("_reconciler")
async def test_a_source_gets_a_deployment_a_service_and_an_ingress(store: Store, kubectl: Kubectl) -> None:
    source = await add_source(store)
    await condition(store, "Provisioned", "True")
    for kind in ("deployment", "service", "ingress"):
        created = json.loads(kubectl("get", kind, "labrats-webhook-github", "-ojson"))
        assert created["metadata"]["ownerReferences"][0]["uid"] == source.metadata.uid


@pytest.mark.usefixtures("_reconciler")
async def test_a_foreign_deployment_is_not_taken_over_and_is_replaced_once_it_is_deleted(
    store: Store, kubectl: Kubectl
) -> None:
    labels = {"app": "another"}
    pod = {"metadata": {"labels": labels}, "spec": {"containers": [{"name": "another", "image": "none"}]}}
    foreign: dict[str, Any] = {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "labrats-webhook-github"},
        "spec": {"selector": {"matchLabels": labels}, "template": pod},
    }
    kubectl("create", "-f", "-", stdin=foreign)
    source = await add_source(store)

    assert "the cluster refuses" in await condition(store, "Provisioned", "False")
    unchanged = json.loads(kubectl("get", "deployment", "labrats-webhook-github", "-ojson"))
    assert "ownerReferences" not in unchanged["metadata"]

    kubectl("delete", "deployment", "labrats-webhook-github")
    await store.update(replace(await store.get(WebhookSource, source.name), spec=replace(source.spec, host="h.test")))
    await condition(store, "Provisioned", "True")


@pytest.mark.usefixtures("_reconciler")
async def test_a_source_without_a_secret_does_not_affect_others(store: Store) -> None:
    invalid = WebhookSource(metadata=Metadata(name="without-secret"), spec=WebhookSourceSpec(type="github"))
    await store.create(invalid)
    await add_source(store)
    await condition(store, "Provisioned", "True")
    assert "names no Secret" in await condition(store, "SecretFound", "False", invalid.name)
