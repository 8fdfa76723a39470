"""API keys that people apply as Secrets."""

import base64
from datetime import UTC, datetime

import pytest

from labrats.api.auth.keys import KeyRing
from labrats.backends.kubernetes.client import ApiClient
from labrats.backends.kubernetes.store import KubernetesStore
from labrats.model.core_resources import API_KEY_LABEL, API_KEY_LABEL_VALUE
from tests.kubernetes.conftest import Kubectl
from tests.support.background import run_in_background
from tests.support.waiting import eventually

pytestmark = pytest.mark.kubernetes

NOW = datetime.now(UTC)


def a_secret(name: str, key: str, **fields: object) -> dict[str, object]:
    metadata = {"name": name, "labels": {API_KEY_LABEL: API_KEY_LABEL_VALUE}}
    return {"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "stringData": {"key": key}} | fields


async def test_a_key_that_is_applied_is_soon_in_the_clear_nowhere(
    api_client: ApiClient, namespace: str, kubectl: Kubectl
) -> None:
    ring, key = KeyRing([]), "lr_test-key-that-was-applied"
    in_the_clear = (key, base64.b64encode(key.encode()).decode())
    async with KubernetesStore.open(api_client, namespace) as store, run_in_background(ring.follow(store)):
        for _ in range(2):  # what is applied once more holds the key once more
            kubectl("apply", "-f", "-", stdin=a_secret("applied", key))
            await eventually(lambda: not any(each in kubectl("get", "secrets", "-oyaml") for each in in_the_clear))
        assert ring.caller(key, NOW) is not None


async def test_a_secret_that_cannot_be_changed_is_a_key_and_stops_nobody(
    api_client: ApiClient, namespace: str, kubectl: Kubectl
) -> None:
    ring = KeyRing([])
    async with KubernetesStore.open(api_client, namespace) as store, run_in_background(ring.follow(store)):
        kubectl("create", "-f", "-", stdin=a_secret("fixed", "lr_test-key-that-is-fixed", immutable=True))
        await eventually(lambda: ring.caller("lr_test-key-that-is-fixed", NOW) is not None)
        kubectl("create", "-f", "-", stdin=a_secret("other", "lr_another-test-key"))
        await eventually(lambda: ring.caller("lr_another-test-key", NOW) is not None)
