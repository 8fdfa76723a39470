"""Rules for the network of agents where they are not enforced, and the leader's check of the cluster's network."""

import pytest

from labrats.backends.kubernetes.batch_client import BatchClient
from labrats.backends.kubernetes.client import ApiClient
from labrats.backends.kubernetes.network_check import NetworkCheck, network_is_closed
from labrats.backends.kubernetes.restricted_pod import EXECUTOR_LABELS
from labrats.model.record import encode
from tests.acceptance.engine import User, a_submission
from tests.cluster.cluster import GATEWAY, Cluster

pytestmark = [pytest.mark.kubernetes(node=True), pytest.mark.anyio]

POLICY = {
    "metadata": {"name": "closed"},
    "spec": {"podSelector": {"matchLabels": EXECUTOR_LABELS}, "policyTypes": ["Egress"]},
}


@pytest.mark.parametrize("has_policy", [True, False])
async def test_pods_of_jobs_reach_the_leader_unless_a_policy_forbids_it(
    cluster: Cluster | None, api_client: ApiClient, jobs_namespace: str, executor_image: str, *, has_policy: bool
) -> None:
    if cluster is None:
        pytest.skip("needs the tests' own cluster, whose pods can reach this machine")
    if has_policy:
        path = f"/apis/networking.k8s.io/v1/namespaces/{jobs_namespace}/networkpolicies"
        await api_client.request("POST", path, encode(POLICY))
    with cluster.listen() as leader:
        check = NetworkCheck("check", executor_image, GATEWAY, leader.getsockname()[1], {})
        assert await network_is_closed(BatchClient(api_client, jobs_namespace), check) is has_policy


async def test_job_with_a_rule_is_refused_by_an_engine_without_an_egress_proxy(user: User) -> None:
    refused = await user.post("/api/jobs/submit", a_submission(config={"network": "none"}))
    assert refused.status_code == 422
    assert refused.json()["details"][0]["field"] == "config.network"
    assert "has no egress proxy, which enforces rules; set `egressProxy.enabled`" in refused.json()["error"]
