"""The profiles of the chart: what they install, and what an upgrade keeps."""

import json
from typing import Any, Final

import pytest

from labrats.backends.kubernetes.client import ApiClient
from labrats.model.record import encode
from tests.chart.installation import Helm
from tests.chart.rendering import CHART, objects
from tests.cluster.programs import build_programs
from tests.cluster.shell import Failed, run

pytestmark = pytest.mark.kubernetes

PROFILES: Final = ("small", "replicated", "production")


@pytest.mark.parametrize("profile", PROFILES)
async def test_api_server_accepts_each_profile(helm: Helm, namespace: str, profile: str) -> None:
    rendered = helm("template", "labrats", CHART, "--namespace", namespace, values={"profile": profile})
    kubectl = (build_programs() / "kubectl", "--kubeconfig", helm.kubeconfig)
    output = run(*kubectl, "apply", "--server-side", "--dry-run=server", "--filename", "-", stdin=rendered)
    assert len(output.splitlines()) == len(objects(rendered))


@pytest.mark.parametrize("profile", PROFILES)
def test_lint_accepts_each_profile(helm: Helm, profile: str) -> None:
    assert "0 chart(s) failed" in helm("lint", CHART, "--strict", values={"profile": profile})


@pytest.mark.parametrize(
    ("profile", "replicas", "mode", "fence"),
    [
        ("small", {1}, "ReadWriteOnce", False),
        ("replicated", {1, 2}, "ReadWriteMany", False),  # there is one publisher
        ("production", {1, 2}, "ReadWriteMany", True),
    ],
)
def test_profile_has_defaults_for_replicas_volumes_and_fence(
    helm: Helm, profile: str, replicas: set[int], mode: str, fence: bool
) -> None:
    rendered = objects(helm("template", "labrats", CHART, values={"profile": profile}))
    assert {each["spec"]["replicas"] for each in rendered if each["kind"] == "Deployment"} == replicas
    assert access_modes(rendered) == {"labrats-data": mode, "labrats-uploads": mode}
    assert any("namespace" not in each["metadata"] for each in rendered) == fence


def test_values_replace_the_defaults_of_the_profile(helm: Helm) -> None:
    shared = {"accessMode": "ReadWriteMany"}
    volumes = {"data": shared, "uploads": shared}
    values = {"profile": "small", "api": {"replicas": 3}, "fence": {"enabled": True}, "volumes": volumes}
    rendered = objects(helm("template", "labrats", CHART, values=values))
    api = deployment(rendered, "api")
    assert api["spec"]["replicas"] == 3
    assert "podAffinity" not in api["spec"]["template"]["spec"]["affinity"]
    assert fence_is_in(rendered)


def test_pods_are_on_the_node_of_a_volume_that_one_node_can_mount(helm: Helm) -> None:
    rendered = objects(helm("template", "labrats", CHART, values={"profile": "small"}))
    pods = [deployment(rendered, part)["spec"]["template"] for part in ("api", "controller", "publisher")]
    environment = {each["name"]: each.get("value") for each in pods[1]["spec"]["containers"][0]["env"]}
    of_jobs = json.loads(environment["LABRATS_EXECUTOR_POD"])["affinity"]

    affinities = [pod["spec"]["affinity"] for pod in pods]
    assert affinities == [of_jobs] * 3
    (term,) = of_jobs["podAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]
    assert term["topologyKey"] == "kubernetes.io/hostname"
    selector = term["labelSelector"]
    for pod in pods:  # the first pod of all may be on any node only if it matches its own term
        labels = pod["metadata"]["labels"]
        assert selector["matchLabels"].items() <= labels.items()
        assert all(labels[each["key"]] in each["values"] for each in selector["matchExpressions"])


def test_affinity_in_the_values_replaces_that_of_the_volume(helm: Helm) -> None:
    own: dict[str, Any] = {"nodeAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": []}}
    values = {"profile": "small", "api": {"affinity": own}, "executor": {"affinity": own}}
    rendered = objects(helm("template", "labrats", CHART, values=values))
    pod = deployment(rendered, "api")["spec"]["template"]["spec"]
    environment = {each["name"]: each.get("value") for each in pod["containers"][0]["env"]}
    assert pod["affinity"] == json.loads(environment["LABRATS_EXECUTOR_POD"])["affinity"] == own


def test_unknown_profile_is_refused(helm: Helm) -> None:
    with pytest.raises(Failed, match=r"value must be one of .*'small', 'replicated', 'production'"):
        helm("template", "labrats", CHART, values={"profile": "large"})


def test_rendering_without_access_to_a_cluster_needs_the_profile(helm: Helm) -> None:
    with pytest.raises(Failed, match="name the profile, such as --set profile=production"):
        helm("template", "labrats", CHART)


async def test_new_installation_is_small(helm: Helm, namespace: str) -> None:
    rendered = objects(helm("template", "labrats", CHART, "--namespace", namespace, "--dry-run=server"))
    assert profile_of(rendered) == "small"


@pytest.mark.parametrize(
    ("labels", "fence", "mode", "profile"),
    [
        ({}, True, "ReadWriteMany", "production"),  # installed by chart 0.2
        ({}, True, "ReadWriteOnce", "production"),
        ({}, False, "ReadWriteOnce", "replicated"),
        ({"labrats.work/profile": "small"}, False, "ReadWriteOnce", "small"),
        ({"labrats.work/profile": "production"}, True, "ReadWriteOnce", "production"),
    ],
)
async def test_upgrade_keeps_profile_fence_and_access_modes(
    helm: Helm, api_client: ApiClient, namespace: str, labels: dict[str, str], fence: bool, mode: str, profile: str
) -> None:
    await create_objects_of_an_installation(api_client, namespace, labels, mode)
    policy = f"{POLICIES}/labrats-leader-{namespace}"
    if fence:
        body = {"metadata": {"name": f"labrats-leader-{namespace}"}, "spec": A_POLICY}
        await api_client.request("POST", POLICIES, encode(body))
    try:
        rendered = objects(helm("template", "labrats", CHART, "--namespace", namespace, "--dry-run=server"))
    finally:
        if fence:
            await api_client.request("DELETE", policy)

    assert (profile_of(rendered), fence_is_in(rendered)) == (profile, fence)
    assert access_modes(rendered) == {"labrats-data": mode, "labrats-uploads": mode}


POLICIES: Final = "/apis/admissionregistration.k8s.io/v1/validatingadmissionpolicies"
A_POLICY: Final[dict[str, Any]] = {
    "matchConstraints": {
        "resourceRules": [
            {"apiGroups": ["none.invalid"], "apiVersions": ["*"], "resources": ["*"], "operations": ["CREATE"]}
        ]
    },
    "validations": [{"expression": "true"}],
}


async def create_objects_of_an_installation(client: ApiClient, namespace: str, labels: Any, mode: str) -> None:
    """Create what a rendering looks up: the controller's Deployment, without pods, and the claims."""
    selected = {"app": "labrats"}
    pod = {"metadata": {"labels": selected}, "spec": {"containers": [{"name": "c", "image": "none"}]}}
    spec = {"replicas": 0, "selector": {"matchLabels": selected}, "template": pod}
    controller = {"metadata": {"name": "labrats-controller", "labels": labels}, "spec": spec}
    await client.request("POST", f"/apis/apps/v1/namespaces/{namespace}/deployments", encode(controller))
    for name in ("labrats-data", "labrats-uploads"):
        claim = {"accessModes": [mode], "resources": {"requests": {"storage": "1Gi"}}, "storageClassName": ""}
        body = {"metadata": {"name": name}, "spec": claim}
        await client.request("POST", f"/api/v1/namespaces/{namespace}/persistentvolumeclaims", encode(body))


def access_modes(rendered: list[dict[str, Any]]) -> dict[str, str]:
    claims = [each for each in rendered if each["kind"] == "PersistentVolumeClaim"]
    return {each["metadata"]["name"]: mode for each in claims for mode in each["spec"]["accessModes"]}


def deployment(rendered: list[dict[str, Any]], part: str) -> dict[str, Any]:
    (found,) = [
        each for each in rendered if each["kind"] == "Deployment" and each["metadata"]["name"] == f"labrats-{part}"
    ]
    return found


def profile_of(rendered: list[dict[str, Any]]) -> str:
    return str(deployment(rendered, "controller")["metadata"]["labels"]["labrats.work/profile"])


def fence_is_in(rendered: list[dict[str, Any]]) -> bool:
    return any(each["metadata"]["name"].startswith("labrats-leader-") for each in rendered)
