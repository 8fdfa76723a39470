"""A cluster for the tests marked `kubernetes`: the one of LABRATS_TEST_KUBECONFIG, or else a new one."""

import asyncio
import os
import secrets
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

import pytest

from labrats.backends.kubernetes.client import APPLY, ApiClient
from labrats.backends.kubernetes.fence import leader_policy
from labrats.manifests.crds import custom_resource_definitions
from labrats.model.errors import RetryLater
from labrats.model.record import encode
from tests.cluster.cluster import Cluster
from tests.cluster.node import start_node
from tests.cluster.prepare import prepare
from tests.cluster.programs import cache_folder, exclusive_lock
from tests.cluster.shell import PATIENCE_SECONDS, Failed
from tests.support.workers import CLUSTER_FAILURE, group_on_a_cluster, is_parallel

KUBECONFIG_VARIABLE: Final = "LABRATS_TEST_KUBECONFIG"

REQUIREMENT_VARIABLE: Final = "LABRATS_TEST_CLUSTER"
"""With the value `required`, a run whose tests on a cluster are skipped fails at its end: `make test-extended`."""

_CLUSTER: Final = pytest.StashKey[Any]()
"""The request of the fixture of the cluster that runs."""

_WORKLOADS: Final = ("apis/apps/v1/{}/deployments", "apis/batch/v1/{}/jobs", "api/v1/{}/pods")
"""Paths of the collections whose objects run pods, with a placeholder for the namespace."""

_FIXTURES: Final = {"node": "node", "helm": "helm", "engine": "engine_image", "agents": "agents_image"}
"""The fixture, or argument of the mark, that needs each optional part of `prepare`."""


def pytest_collection_finish(session: pytest.Session) -> None:
    """Build the cluster's programs and images before the first test, if any needs a cluster. This may take minutes."""
    config = session.config
    if config.option.collectonly or not any(item.get_closest_marker("kubernetes") for item in session.items):
        return
    if os.environ.get(KUBECONFIG_VARIABLE):
        return
    capture = config.pluginmanager.getplugin("capturemanager")
    with capture.global_and_fixture_disabled():
        try:
            prepare(**{part: any(_needs(item, name) for item in session.items) for part, name in _FIXTURES.items()})
        except Failed as failure:
            config.stash[CLUSTER_FAILURE] = str(failure)


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Stop the cluster of a worker once it runs other groups of tests: an idle cluster uses a fifth of a processor."""
    if is_parallel(item.config) and group_on_a_cluster(item.nodeid) is None and _CLUSTER in item.config.stash:
        request = item.config.stash[_CLUSTER]
        del item.config.stash[_CLUSTER]
        request._fixturedef.finish(request)  # there is no public way; this also ends all that depends on it


def fail_without_cluster(session: pytest.Session) -> None:
    """Fail a run that LABRATS_TEST_CLUSTER=required demands a cluster for, if there was none."""
    if CLUSTER_FAILURE in session.config.stash and _is_required() and not is_parallel(session.config):
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def write_cluster_failure(terminalreporter: pytest.TerminalReporter) -> None:
    """Print why the Kubernetes tests did not run, if they did not."""
    if reason := terminalreporter.config.stash.get(CLUSTER_FAILURE, None):
        is_required = _is_required()
        if is_required:
            terminalreporter.section("NO TEST RAN ON A CLUSTER, so this run has failed", red=True, bold=True)
        terminalreporter.write_line(
            f"The Kubernetes tests did not run: {reason}. To run them, set {KUBECONFIG_VARIABLE} to the kubeconfig of "
            "a cluster for tests, or run them as root on Linux, where they start a cluster themselves.",
            red=is_required,
            yellow=not is_required,
        )


def _is_required() -> bool:
    return os.environ.get(REQUIREMENT_VARIABLE) == "required"


@pytest.fixture(scope="session")
def cluster(request: pytest.FixtureRequest, kubectl_cache: None) -> Iterator[Cluster | None]:
    """The cluster started for the tests; None when LABRATS_TEST_KUBECONFIG names another one.

    It has a node if any selected test uses the fixture `node` or is marked `kubernetes(node=True)`.
    """
    if os.environ.get(KUBECONFIG_VARIABLE):
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
        request.config.stash[_CLUSTER] = request
        yield cluster
    finally:
        cluster.stop()


@pytest.fixture(scope="session")
def kubectl_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """A cache folder for kubectl and helm, so that they do not write to the user's home."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("KUBECACHEDIR", str(tmp_path_factory.mktemp("kubectl")))
        patch.setenv("GOGC", "off")  # they run too briefly for garbage collection to pay off
        yield


@pytest.fixture(scope="session")
def kubeconfig(cluster: Cluster | None) -> Path:
    """An administrator's kubeconfig of the cluster, in which Labrats' custom resources are installed."""
    kubeconfig = cluster.kubeconfig if cluster else Path(os.environ[KUBECONFIG_VARIABLE])
    asyncio.run(install_custom_resources(kubeconfig))
    return kubeconfig


@pytest.fixture
def node(cluster: Cluster | None) -> None:
    """A request for a cluster that can run pods."""


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
    """Create an empty namespace, and delete its workloads at the end of the block without waiting for them.

    The namespace itself stays, unless LABRATS_TEST_KUBECONFIG names the cluster: to delete a namespace, its controller
    goes through all kinds of objects, which costs more than many a test.
    """
    name = f"labrats-test-{secrets.token_hex(4)}"
    await client.request("POST", "/api/v1/namespaces", encode({"metadata": {"name": name, "labels": labels or {}}}))
    try:
        yield name
    finally:
        if os.environ.get(KUBECONFIG_VARIABLE):
            await client.request("DELETE", f"/api/v1/namespaces/{name}")
        else:
            for collection in _WORKLOADS:
                path = "/" + collection.format(f"namespaces/{name}")
                await client.request("DELETE", path, query={"propagationPolicy": "Background"})


async def install_custom_resources(kubeconfig: Path) -> None:
    """Apply the custom resource definitions, and wait until the API server serves them."""
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
    """Install the admission policy that keeps former leaders from writing, as every installation does."""
    kinds = {"ValidatingAdmissionPolicy": "policies", "ValidatingAdmissionPolicyBinding": "policybindings"}
    for each in leader_policy():
        collection = f"validatingadmission{kinds[each['kind']]}"
        path = f"/apis/admissionregistration.k8s.io/v1/{collection}/{each['metadata']['name']}"
        query = {"fieldManager": "labrats-tests", "force": "true"}
        await client.request("PATCH", path, encode(each), query=query, content_type=APPLY)


def _needs(item: pytest.Item, what: str) -> bool:
    """Return whether a test uses the fixture `what`, or names it in its mark, as in `kubernetes(node=True)`."""
    marker = item.get_closest_marker("kubernetes")
    return what in getattr(item, "fixturenames", ()) or bool(marker and marker.kwargs.get(what))


async def _is_served(client: ApiClient, path: str) -> bool:
    try:
        await client.request("GET", path, query={"limit": "1"})
    except RetryLater:
        return False
    return True


def _stop_abandoned_clusters() -> None:
    """Stop the clusters of killed test runs. The lock is for workers that start at the same time."""
    with exclusive_lock("abandoned.lock"):
        for folder in (cache_folder() / "clusters").glob("pytest-*"):
            if not Path("/proc", folder.name.removeprefix("pytest-")).exists():
                Cluster(folder.name).stop()
