"""A cluster for the tests that are marked `kubernetes`: one that is named to us, or else one of our own."""

import asyncio
import os
import secrets
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

import pytest

from labrats.backends.kubernetes.client import APPLY, ApiClient
from labrats.backends.kubernetes.fence import leader_policy
from labrats.manifests.crds import custom_resource_definitions
from labrats.model.errors import RetryLater
from labrats.model.record import encode
from tests.cluster.cluster import Cluster
from tests.cluster.node import start_node
from tests.cluster.prepare import prepare
from tests.cluster.programs import cache_folder, only_one_at
from tests.cluster.shell import PATIENCE_SECONDS, Failed
from tests.support.workers import CLUSTER_FAILURE

NAMED: Final = "LABRATS_TEST_KUBECONFIG"

_RUNNING: Final = ("apis/apps/v1/{}/deployments", "apis/batch/v1/{}/jobs", "api/v1/{}/pods")
"""What runs in a namespace, where the namespace stands in the path."""

_MADE_FOR: Final = {"node": "node", "helm": "helm", "engine": "engine_image"}
"""What has to be made where a test asks for that."""


def pytest_collection_finish(session: pytest.Session) -> None:
    """Make what a cluster is made of before the tests begin, if any will need one: the first time it takes minutes."""
    config = session.config
    if config.option.collectonly or not any(item.get_closest_marker("kubernetes") for item in session.items):
        return
    if os.environ.get(NAMED):
        return
    capture = config.pluginmanager.getplugin("capturemanager")
    with capture.global_and_fixture_disabled():
        try:
            prepare(**{what: any(_needs(item, name) for item in session.items) for what, name in _MADE_FOR.items()})
        except Failed as failure:
            config.stash[CLUSTER_FAILURE] = str(failure)


def write_why_no_cluster(terminalreporter: pytest.TerminalReporter) -> None:
    """Say so, in so many words, when the Kubernetes tests did not run."""
    if reason := terminalreporter.config.stash.get(CLUSTER_FAILURE, None):
        terminalreporter.write_line(
            f"The Kubernetes tests did not run: {reason}. To run them, set {NAMED} to the kubeconfig of a cluster that "
            "they may use, or run them on Linux as root, where they make a cluster of their own.",
            yellow=True,
        )


@pytest.fixture(scope="session")
def cluster(request: pytest.FixtureRequest, kubectl_cache: None) -> Iterator[Cluster | None]:
    """The cluster that was started for the tests; None when they were given another one.

    It has a node if any of the selected tests asks for `node`, or is marked `kubernetes(node=True)`.
    """
    if os.environ.get(NAMED):
        yield None
        return
    if reason := request.config.stash.get(CLUSTER_FAILURE, None):
        if os.environ.get("CI") == "true":
            pytest.fail(reason)
        pytest.skip(reason)
    _stop_abandoned_clusters()
    cluster = Cluster(f"pytest-{os.getpid()}")
    try:
        if any(_needs(item, "node") for item in request.session.items):
            start_node(cluster)
        else:
            cluster.start_api()
        yield cluster
    finally:
        cluster.stop()


@pytest.fixture(scope="session")
def kubectl_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Has kubectl and helm keep what they know of clusters in a folder of the tests, rather than in the user's home."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("KUBECACHEDIR", str(tmp_path_factory.mktemp("kubectl")))
        patch.setenv("GOGC", "off")  # they end before collecting garbage would pay
        yield


@pytest.fixture(scope="session")
def kubeconfig(cluster: Cluster | None) -> Path:
    """An administrator's kubeconfig of the cluster, which knows Labrats' custom resources."""
    kubeconfig = cluster.kubeconfig if cluster else Path(os.environ[NAMED])
    asyncio.run(install_custom_resources(kubeconfig))
    return kubeconfig


@pytest.fixture
def node(cluster: Cluster | None) -> None:
    """Asks for a cluster that can run pods."""


@pytest.fixture
async def api_client(kubeconfig: Path) -> AsyncIterator[ApiClient]:
    """An administrator's connection to the cluster."""
    async with ApiClient.open(kubeconfig) as client:
        yield client


@pytest.fixture
async def namespace(api_client: ApiClient) -> AsyncIterator[str]:
    """An empty namespace for one test."""
    async with new_namespace(api_client) as name:
        yield name


@asynccontextmanager
async def new_namespace(client: ApiClient, labels: Mapping[str, str] | None = None) -> AsyncIterator[str]:
    """An empty namespace. On leaving, what runs in it ends, which nobody need wait for.

    In a cluster of our own the rest stays until the cluster ends: for one namespace, its controller goes through all
    kinds of objects that there are, which takes more of the machine than many a test.
    """
    name = f"labrats-test-{secrets.token_hex(4)}"
    await client.request("POST", "/api/v1/namespaces", encode({"metadata": {"name": name, "labels": labels or {}}}))
    try:
        yield name
    finally:
        if os.environ.get(NAMED):
            await client.request("DELETE", f"/api/v1/namespaces/{name}")
        else:
            for collection in _RUNNING:
                path = "/" + collection.format(f"namespaces/{name}")
                await client.request("DELETE", path, query={"propagationPolicy": "Background"})


async def install_custom_resources(kubeconfig: Path) -> None:
    """Apply them, and wait until they are served."""
    async with ApiClient.open(kubeconfig) as client:
        for definition in custom_resource_definitions():
            names, group = definition["spec"]["names"], definition["spec"]["group"]
            path = f"/apis/apiextensions.k8s.io/v1/customresourcedefinitions/{names['plural']}.{group}"
            query = {"fieldManager": "labrats-tests", "force": "true"}
            await client.request("PATCH", path, encode(definition), query=query, content_type=APPLY)
            async with asyncio.timeout(PATIENCE_SECONDS):
                while not await _is_served(client, f"/apis/{group}/v1alpha1/{names['plural']}"):
                    await asyncio.sleep(0.05)


async def fence_leaders(client: ApiClient) -> None:
    """Install the admission policy that keeps former leaders from writing, as an installation has it."""
    kinds = {"ValidatingAdmissionPolicy": "policies", "ValidatingAdmissionPolicyBinding": "policybindings"}
    for each in leader_policy():
        collection = f"validatingadmission{kinds[each['kind']]}"
        path = f"/apis/admissionregistration.k8s.io/v1/{collection}/{each['metadata']['name']}"
        query = {"fieldManager": "labrats-tests", "force": "true"}
        await client.request("PATCH", path, encode(each), query=query, content_type=APPLY)


def _needs(item: pytest.Item, what: str) -> bool:
    """Whether a test asks for it as a fixture, or for what is made of it, by its mark: `kubernetes(node=True)`."""
    marker = item.get_closest_marker("kubernetes")
    return what in getattr(item, "fixturenames", ()) or bool(marker and marker.kwargs.get(what))


async def _is_served(client: ApiClient, path: str) -> bool:
    try:
        await client.request("GET", path, query={"limit": "1"})
    except RetryLater:
        return False
    return True


def _stop_abandoned_clusters() -> None:
    """Stop the clusters of test runs that were killed. Several workers begin at once: one of them does it."""
    with only_one_at("abandoned.lock"):
        for folder in (cache_folder() / "clusters").glob("pytest-*"):
            if not Path("/proc", folder.name.removeprefix("pytest-")).exists():
                Cluster(folder.name).stop()
