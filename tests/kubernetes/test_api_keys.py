"""API keys that are applied as Secrets."""

import base64
from datetime import UTC, datetime

import pytest

from labrats.api.auth.keys import ApiKeyIndex
from labrats.backends.kubernetes.client import ApiClient
from labrats.backends.kubernetes.store import KubernetesStore
from labrats.model.api_key import hash_key
from labrats.model.core_resources import API_KEY_LABEL, API_KEY_LABEL_VALUE
from tests.kubernetes.conftest import Kubectl
from tests.support.background import run_in_background
from tests.support.waiting import eventually

pytestmark = pytest.mark.kubernetes

NOW = datetime.now(UTC)


def a_secret(name: str, key: str, **fields: object) -> dict[str, object]:
    metadata = {"name": name, "labels": {API_KEY_LABEL: API_KEY_LABEL_VALUE}}
    return {"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "stringData": {"key": key}} | fields


async def test_an_applied_api_key_is_soon_replaced_by_its_hash(
    api_client: ApiClient, namespace: str, kubectl: Kubectl
) -> None:
    index, key = ApiKeyIndex([]), "lr_test-key-that-was-applied-to-a-cluster"
    plain_texts = (key, base64.b64encode(key.encode()).decode())
    async with KubernetesStore.open(api_client, namespace) as store, run_in_background(index.follow(store)):
        for _ in range(2):  # the second apply writes the key again
            kubectl("apply", "-f", "-", stdin=a_secret("applied", key))
            await eventually(lambda: not any(each in kubectl("get", "secrets", "-oyaml") for each in plain_texts))
        assert index.caller(key, NOW) is not None


async def test_an_immutable_secret_is_an_api_key_and_does_not_block_others(
    api_client: ApiClient, namespace: str, kubectl: Kubectl
) -> None:
    index = ApiKeyIndex([])
    async with KubernetesStore.open(api_client, namespace) as store, run_in_background(index.follow(store)):
        kubectl(
            "create", "-f", "-", stdin=a_secret("fixed", "lr_test-key-that-is-fixed-and-long-enough", immutable=True)
        )
        await eventually(lambda: index.caller("lr_test-key-that-is-fixed-and-long-enough", NOW) is not None)
        kubectl("create", "-f", "-", stdin=a_secret("other", "lr_another-test-key-that-is-long-enough"))
        await eventually(lambda: index.caller("lr_another-test-key-that-is-long-enough", NOW) is not None)


async def test_an_applied_hash_of_a_key_stays_as_it_is_applied(
    api_client: ApiClient, namespace: str, kubectl: Kubectl
) -> None:
    key, index = "lr_test-key-whose-hash-is-applied-only", ApiKeyIndex([])
    manifest = a_secret("hashed", key) | {"stringData": {"hash": hash_key(key), "scopes": "submit"}}
    async with KubernetesStore.open(api_client, namespace) as store, run_in_background(index.follow(store)):
        kubectl("apply", "-f", "-", stdin=manifest)
        await eventually(lambda: index.caller(key, NOW) is not None)
        assert kubectl("diff", "-f", "-", stdin=manifest) == ""
