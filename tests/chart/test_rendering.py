"""The rendered chart, and refused values."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from labrats.api.http.idempotency import Intent
from labrats.backends.kubernetes.client import MERGE_PATCH, ApiClient
from labrats.backends.kubernetes.codec import CREATED_AT
from labrats.backends.kubernetes.egress import PORT
from labrats.backends.kubernetes.fence import leader_policy
from labrats.backends.kubernetes.restricted_pod import CONFINED_LABELS
from labrats.executor.egress.gateway import canary_port
from labrats.index.catalog import KINDS
from labrats.intake.event_requests import AGENTS_ANNOTATION
from labrats.manifests.crds import custom_resource_definitions
from labrats.manifests.install import INSTALL, installation
from labrats.model.job import DEFAULT_BRANCH_ANNOTATION
from labrats.model.record import encode
from labrats.net.address_policy import FORBIDDEN_V4, FORBIDDEN_V6
from labrats.settings import PodExtras
from tests.chart.installation import Helm
from tests.chart.rendering import CHART, PRODUCTION, objects, plain_manifests, template
from tests.cluster.programs import build_programs
from tests.cluster.shell import Failed, run

pytestmark = pytest.mark.kubernetes

SPREAD = {
    "maxSkew": 1,
    "topologyKey": "kubernetes.io/hostname",
    "whenUnsatisfiable": "ScheduleAnyway",
    "labelSelector": {"matchLabels": {"app.kubernetes.io/component": "api"}},
}
EVERYTHING: dict[str, Any] = {
    "imagePullSecrets": ["registry"],
    "settings": {"DEFAULT_MODEL_SLOTS": 10, "PRIORITY_AGING_SECONDS": 1000000, "LABRATS_LOG_LEVEL": "debug"},
    "settingsSecret": "settings",
    "executor": {"pod": {"nodeSelector": {"pool": "agents"}}},
    "ingress": {"enabled": True, "host": "labrats.example.com", "className": "nginx", "tlsSecret": "certificate"},
    "volumes": {"data": {"hostPath": "/srv/labrats"}, "uploads": {"storageClass": "nfs"}, "models": {"enabled": True}},
    "networkPolicy": {
        "executorEgress": [{"to": [{"podSelector": {"matchLabels": {"app": "vllm"}}}]}],
        "except": ["198.41.0.0/24", "2600:1f13:abc:d00::/56", "fd00::/8"],
    },
    "api": {"topologySpreadConstraints": [SPREAD]},
    "controller": {"tolerations": [{"key": "engine", "operator": "Exists"}]},
    "serviceMonitor": {"enabled": False},
    "aiModels": [{"name": "sonnet", "provider": "claude", "model": "opus", "slots": 4, "credentialsRef": "anthropic"}],
    "aiConfig": {"providers": {"claude": {"model": "opus", "effort": "high"}}},
}


def test_plain_manifests_equal_the_rendered_chart(helm: Helm) -> None:
    assert INSTALL.read_text() == plain_manifests(), "regenerate the manifests: make manifests"


def test_plain_manifests_support_any_namespace_and_image(helm: Helm) -> None:
    manifests = installation("agents", "registry.example/engine:1", "registry.example/executor:2")
    values = ("image.repository=registry.example/engine", "image.tag=1",
              "executor.image.repository=registry.example/executor", "executor.image.tag=2")  # fmt: skip
    options = [word for value in values for word in ("--set-string", value)]
    rendered = template("--include-crds", "--namespace", "agents", *options)
    assert objects(manifests)[1:] == objects(rendered)


def test_fence_of_the_chart_equals_that_of_the_engine(helm: Helm) -> None:
    rendered = {
        each["kind"]: each
        for each in objects(template("--namespace", "agents"))
        if each["metadata"]["name"] == "labrats-leader-agents"
    }
    policy, binding = (rendered[each["kind"]]["spec"] for each in leader_policy())
    here = {"matchLabels": {"kubernetes.io/metadata.name": "agents"}}
    assert policy["matchConstraints"].pop("namespaceSelector") == here
    assert policy == leader_policy()[0]["spec"]
    assert binding == leader_policy()[1]["spec"] | {"policyName": "labrats-leader-agents"}


def test_policy_refuses_all_fields_of_a_job_that_the_engine_sets(helm: Helm) -> None:
    (policy,) = (each for each in objects(template("--namespace", "agents")) if _is_policy_of_jobs(each))
    (jobs,) = (each for each in custom_resource_definitions() if each["spec"]["names"]["kind"] == "InferenceRequest")
    fields = jobs["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]["properties"]
    rules = [each["expression"] for each in policy["spec"]["validations"]]
    always = [each for each in rules if "object.spec." in each and "authorizer" not in each]
    refused = {each.rpartition("!has(object.spec.")[2].removesuffix(")") for each in always}
    assert refused == set(_set_by_the_engine(fields)) - {"untrusted"}  # which only takes rights from a job


@pytest.mark.parametrize(
    ("resource", "written"),
    [
        ("inferencerequests", {"conditions", "outputs", "published"}),
        ("webhooksources", {"answeredRequests", "ownWrites", "threadRequests"}),
    ],
)
def test_policy_leaves_the_publisher_only_the_fields_that_it_writes(
    helm: Helm, resource: str, written: set[str]
) -> None:
    name = f"labrats-publisher-{resource}-agents"
    (policy,) = (
        each
        for each in objects(template("--namespace", "agents"))
        if (each["kind"], each["metadata"]["name"]) == ("ValidatingAdmissionPolicy", name)
    )
    (definition,) = (each for each in custom_resource_definitions() if each["spec"]["names"]["plural"] == resource)
    schema = definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    frozen = {each["expression"].rpartition("?")[2] for each in policy["spec"]["validations"]}
    assert frozen == set(schema["properties"]["status"]["properties"]) - written


def test_policy_of_receivers_allows_the_annotations_of_events_alone(helm: Helm) -> None:
    (policy,) = (
        each
        for each in objects(template("--namespace", "agents"))
        if (each["kind"], each["metadata"]["name"]) == ("ValidatingAdmissionPolicy", "labrats-receivers-agents")
    )
    rules = [each["expression"] for each in policy["spec"]["validations"]]
    (of_annotations,) = (each for each in rules if "metadata.annotations" in each)
    allowed = set(json.loads(of_annotations[of_annotations.index("[") : of_annotations.index("]") + 1]))
    of_intent = Intent("key", "request").annotations.keys()
    assert allowed == {CREATED_AT, AGENTS_ANNOTATION, DEFAULT_BRANCH_ANNOTATION, *of_intent}
    assert "has(object.spec.resolved)" in rules


def _set_by_the_engine(fields: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    """Yield the paths of the fields in a schema that the engine sets."""
    for name, field in fields.items():
        if "Set by the engine" in field.get("description", ""):
            yield prefix + name
        else:
            yield from _set_by_the_engine(field.get("properties", {}), f"{prefix}{name}.")


def _is_policy_of_jobs(each: Any) -> bool:
    return (each["kind"], each["metadata"]["name"]) == ("ValidatingAdmissionPolicy", "labrats-jobs-agents")


@pytest.mark.parametrize("values", [{}, EVERYTHING], ids=["default", "everything"])
async def test_api_server_accepts_all_objects(helm: Helm, namespace: str, values: dict[str, Any]) -> None:
    rendered = helm("template", "labrats", CHART, *PRODUCTION, "--namespace", namespace, values=values)
    kubectl = (build_programs() / "kubectl", "--kubeconfig", helm.kubeconfig)
    output = run(*kubectl, "apply", "--server-side", "--dry-run=server", "--filename", "-", stdin=rendered)
    assert len(output.splitlines()) == len(objects(rendered))


@pytest.mark.parametrize(
    ("value", "complaint"),
    [
        ({"replicas": 3}, "additional properties 'replicas' not allowed"),
        ({"api": {"replicas": 0}}, "at '/api/replicas': minimum: got 0, want 1"),
        ({"image": {"tag": 1.0}}, "at '/image/tag': got number, want string"),
        ({"ingress": {"enabled": True}}, "at '/ingress/host': minLength: got 0, want 1"),
        ({"volumes": {"data": {"accessMode": "ReadOnlyMany"}}}, "must be one of 'ReadWriteMany', 'ReadWriteOnce'"),
        ({"volumes": {"data": {"hostPath": "relative"}}}, "at '/volumes/data/hostPath'"),
        ({"volumes": {"data": {"size": "much"}}}, "at '/volumes/data/size'"),
        ({"volumes": {"models": {"size": "much"}}}, "at '/volumes/models/size'"),
        ({"settings": {"PORT": 80}}, "settings.PORT: the chart sets this itself"),
        ({"settings": {"LABRATS_NAMESPACE": "other"}}, "settings.LABRATS_NAMESPACE: the chart sets this itself"),
        ({"settings": {"lower": 1}}, "lower"),
        ({"aiModels": [{"name": "sonnet"}]}, "missing properties 'provider', 'model'"),
        ({"service": {"port": 70000}}, "at '/service/port'"),
        ({"isolation": {"vm": {"runtimeClass": "gVisor"}}}, "at '/isolation/vm/runtimeClass'"),
        ({"isolation": {"vm": {"handler": "runsc"}}}, "isolation.vm.handler needs isolation.vm.runtimeClass"),
        ({"networkPolicy": {"enabled": None}}, "at '/networkPolicy': missing property 'enabled'"),
        ({"egressProxy": {"enabled": None}}, "at '/egressProxy': missing property 'enabled'"),
        ({"volumes": {"data": None}}, "at '/volumes': missing property 'data'"),
        ({"networkPolicy": None}, "missing property 'networkPolicy'"),
    ],
    ids=json.dumps,
)
def test_invalid_values_are_refused(helm: Helm, value: dict[str, Any], complaint: str) -> None:
    with pytest.raises(Failed) as failed:
        helm("template", "labrats", CHART, *PRODUCTION, values=value)
    assert complaint in str(failed.value)


def test_names_of_all_objects_of_a_long_release_are_valid(helm: Helm) -> None:
    rendered = objects(helm("template", "a" * 42, CHART, *PRODUCTION))
    assert max(len(each["metadata"]["name"]) for each in rendered if each["kind"] == "Service") == 63


def test_a_release_name_that_is_too_long_is_refused(helm: Helm) -> None:
    with pytest.raises(Failed, match="labrats has 51 characters, and at most 50 are allowed: choose a shorter"):
        helm("template", "a" * 43, CHART, *PRODUCTION)


def test_a_release_name_of_digits_is_a_text(helm: Helm) -> None:
    rendered = objects(helm("template", "123", CHART, *PRODUCTION))
    assert {each["metadata"]["labels"]["app.kubernetes.io/instance"] for each in rendered} == {"123"}


def test_a_priority_of_zero_is_that_of_controllers(helm: Helm) -> None:
    rendered = objects(
        helm("template", "labrats", CHART, *PRODUCTION, values={"controller": {"priorityClass": {"value": 0}}})
    )
    assert [each["value"] for each in rendered if each["kind"] == "PriorityClass"] == [0]


def test_values_reach_the_engine(helm: Helm) -> None:
    rendered = objects(helm("template", "labrats", CHART, *PRODUCTION, values=EVERYTHING))
    pod = next(each for each in rendered if each["kind"] == "Deployment")["spec"]["template"]["spec"]
    container = pod["containers"][0]
    environment = {each["name"]: each.get("value") for each in container["env"]}
    assert environment["DEFAULT_MODEL_SLOTS"] == "10"
    assert environment["PRIORITY_AGING_SECONDS"] == "1000000"
    assert environment["LABRATS_PUBLIC_URL"] == "https://labrats.example.com"
    assert json.loads(environment["LABRATS_EXECUTOR_POD"] or "") == {
        "nodeSelector": {"pool": "agents"},
        "imagePullSecrets": [{"name": "registry"}],
    }
    assert container["envFrom"] == [{"secretRef": {"name": "settings"}}]
    assert pod["imagePullSecrets"] == [{"name": "registry"}]


def test_secrets_are_written_by_the_api_only_if_enabled(helm: Helm) -> None:
    plain, enabled = (
        environment_of(
            objects(helm("template", "labrats", CHART, *PRODUCTION, values={"api": {"writeSecrets": value}}))
        )
        for value in (False, True)
    )
    assert ("LABRATS_WRITE_SECRETS" in plain, enabled["LABRATS_WRITE_SECRETS"]) == (False, "true")


def test_model_files_have_a_volume_only_if_enabled(helm: Helm) -> None:
    def claims(**models: Any) -> set[str]:
        rendered = objects(helm("template", "labrats", CHART, *PRODUCTION, values={"volumes": {"models": models}}))
        return {each["metadata"]["name"] for each in rendered if each["kind"] == "PersistentVolumeClaim"}

    assert claims() == {"labrats-data", "labrats-uploads"}
    assert claims(enabled=True) == {"labrats-data", "labrats-uploads", "labrats-models"}
    assert claims(enabled=True, existingClaim="weights") == {"labrats-data", "labrats-uploads"}


def test_cluster_wide_objects_are_the_fence_and_the_priority_class(helm: Helm) -> None:
    kinds = {each["kind"] for each in objects(template()) if "namespace" not in each["metadata"]}
    assert kinds == {"PriorityClass", "ValidatingAdmissionPolicy", "ValidatingAdmissionPolicyBinding"}


def test_permissions_have_no_wildcards_and_stay_in_their_namespaces(helm: Helm) -> None:
    rendered = objects(template())
    roles = [each for each in rendered if each["kind"] == "Role"]
    assert len(roles) == 6
    assert "*" not in json.dumps([role.get("rules") for role in roles])
    assert not {"ClusterRole", "ClusterRoleBinding"} & {each["kind"] for each in rendered}


def environment_of(rendered: list[dict[str, Any]], part: str = "controller") -> dict[str, str]:
    """Return the settings that the chart passes to a component."""
    deployments = [each for each in rendered if each["kind"] == "Deployment"]
    (found,) = [each for each in deployments if each["metadata"]["labels"]["app.kubernetes.io/component"] == part]
    container = found["spec"]["template"]["spec"]["containers"][0]
    return {each["name"]: each.get("value", "") for each in container["env"]}


@pytest.mark.parametrize(
    ("installed", "values", "required"),
    [
        (None, {}, "true"),
        ({}, {}, "false"),  # installed by chart 0.1
        ({"LABRATS_LABELLED_CREDENTIALS": "true"}, {}, "true"),
        ({"LABRATS_LABELLED_CREDENTIALS": "false"}, {}, "false"),
        ({}, {"credentials": {"requireLabel": True}}, "true"),
        (None, {"credentials": {"requireLabel": False}}, "false"),
    ],
)
async def test_labelled_credentials_are_required_of_new_installations_only(
    helm: Helm, api_client: ApiClient, namespace: str, installed: dict[str, str] | None, values: Any, required: str
) -> None:
    if installed is not None:
        env = [{"name": name, "value": value} for name, value in installed.items()]
        labels = {"app": "labrats"}
        pod = {"metadata": {"labels": labels}, "spec": {"containers": [{"name": "c", "image": "none", "env": env}]}}
        spec = {"replicas": 0, "selector": {"matchLabels": labels}, "template": pod}
        deployment = {"metadata": {"name": "labrats-controller"}, "spec": spec}
        await api_client.request("POST", f"/apis/apps/v1/namespaces/{namespace}/deployments", encode(deployment))

    rendered = helm(
        "template", "labrats", CHART, *PRODUCTION, "--namespace", namespace, "--dry-run=server", values=values
    )

    assert environment_of(objects(rendered))["LABRATS_LABELLED_CREDENTIALS"] == required


def test_allowed_images_include_the_default_executor_image(helm: Helm) -> None:
    values = {
        "executor": {"images": ["example.com/special:1"], "image": {"repository": "example.com/usual", "tag": "2"}}
    }

    rendered = objects(helm("template", "labrats", CHART, *PRODUCTION, values=values))

    assert environment_of(rendered)["LABRATS_EXECUTOR_IMAGES"] == "example.com/special:1,example.com/usual:2"
    assert "LABRATS_EXECUTOR_IMAGES" not in environment_of(objects(template()))


def test_api_writes_only_to_writable_volumes(helm: Helm) -> None:
    rendered = objects(template())
    (api,) = [each for each in rendered if each["metadata"]["name"] == "labrats-api" and each["kind"] == "Deployment"]
    mounts = api["spec"]["template"]["spec"]["containers"][0]["volumeMounts"]
    writable = [mount["mountPath"] for mount in mounts if not mount.get("readOnly")]

    for name in ("UPLOADS_DIR", "WORKSPACE_DIR"):
        assert any(Path(environment_of(rendered, "api")[name]).is_relative_to(path) for path in writable)


def test_publisher_gets_neither_uploads_nor_confidential_settings(helm: Helm) -> None:
    values = {"settingsSecret": "settings", "settings": {"NO_PROXY": "10.0.0.0/8"}}
    rendered = objects(helm("template", "labrats", CHART, *PRODUCTION, values=values))
    pods = {part: find_object(rendered, "Deployment", f"labrats-{part}")["spec"]["template"]["spec"]
            for part in ("publisher", "controller")}  # fmt: skip
    publisher, controller = (pods[part]["containers"][0] for part in ("publisher", "controller"))
    secrets = [each["valueFrom"]["secretKeyRef"] for each in publisher["env"] if "secretKeyRef" in str(each)]
    assert secrets == [{"name": "settings", "key": key, "optional": True}
                       for key in ("LABRATS_GITHUB_API_URL", "HTTPS_PROXY")]  # fmt: skip
    assert environment_of(rendered, "publisher")["NO_PROXY"] == "10.0.0.0/8"
    assert {volume["name"] for volume in pods["publisher"]["volumes"]} == {"data", "tmp"}
    assert {mount["name"] for mount in publisher["volumeMounts"]} == {"data", "tmp"}
    assert "envFrom" not in publisher
    assert controller["envFrom"] == [{"secretRef": {"name": "settings"}}]


@pytest.mark.parametrize("part", ["api", "controller", "publisher", "webhook-receiver"])
def test_each_component_may_watch_what_its_catalog_holds(helm: Helm, part: str) -> None:
    plurals = {each["spec"]["names"]["kind"]: each["spec"]["names"]["plural"] for each in custom_resource_definitions()}
    rules = find_object(objects(template()), "Role", f"labrats-{part}")["rules"]
    watched = {resource for rule in rules if {"list", "watch"} <= {*rule["verbs"]} for resource in rule["resources"]}
    assert {plurals[kind.kind()] for kind in KINDS} <= watched


def test_each_component_with_a_lease_may_change_its_own_one_only(helm: Helm) -> None:
    rendered = objects(template())
    for part, lease in (("controller", "labrats-leader"), ("publisher", "labrats-publisher")):
        rules = find_object(rendered, "Role", f"labrats-{part}")["rules"]
        leases = [rule for rule in rules if "leases" in rule["resources"]]
        assert [rule["verbs"] for rule in leases if "resourceNames" not in rule] == [["create"]]
        assert [rule["resourceNames"] for rule in leases if "update" in rule["verbs"]] == [[lease]]


def test_the_controller_alone_may_read_the_leases_of_nodes(helm: Helm) -> None:
    beyond = [each for each in objects(template()) if each["metadata"].get("namespace") == "kube-node-lease"]
    role, binding = (next(each for each in beyond if each["kind"] == kind) for kind in ("Role", "RoleBinding"))
    assert role["rules"] == [{"apiGroups": ["coordination.k8s.io"], "resources": ["leases"], "verbs": ["get"]}]
    assert binding["roleRef"]["name"] == role["metadata"]["name"]
    assert [subject["name"] for subject in binding["subjects"]] == ["labrats-controller"]
    assert len(beyond) == 2


def test_every_component_accepts_connections_to_its_own_ports_only(helm: Helm) -> None:
    rendered = objects(template())
    policies = [each["spec"] for each in rendered if each["kind"] == "NetworkPolicy"]
    for pod in (each for each in rendered if each["kind"] == "Deployment"):
        labels = pod["spec"]["template"]["metadata"]["labels"].items()
        selecting = [each for each in policies if each["podSelector"]["matchLabels"].items() <= labels]
        assert ["Ingress" in each["policyTypes"] for each in selecting] == [True], pod["metadata"]["name"]


PLACEMENT: dict[str, Any] = {
    "nodeSelector": {"pool": "engine"},
    "tolerations": [{"key": "engine", "operator": "Exists"}],
    "affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": []}}},
    "topologySpreadConstraints": [{"maxSkew": 1, "topologyKey": "zone", "whenUnsatisfiable": "DoNotSchedule"}],
    "priorityClassName": "high",
}
"""Placement values of each component, by their names in a pod's spec."""

EXTRAS: dict[str, Any] = {
    "podAnnotations": {"example.com/team": "core"},
    "podLabels": {"team": "core"},
    "extraVolumes": [{"name": "ca", "configMap": {"name": "ca"}}],
    "extraVolumeMounts": [{"name": "ca", "mountPath": "/etc/ca"}],
}
"""Further values of each component."""

VALUES_OF = {"egress-proxy": "egressProxy"}
"""The names of components' values, where they differ from those of the components."""


def rendered_with(helm: Helm, **values: Any) -> list[dict[str, Any]]:
    return objects(helm("template", "labrats", CHART, *PRODUCTION, values=values))


def find_object(rendered: list[dict[str, Any]], kind: str, name: str) -> dict[str, Any]:
    (found,) = [each for each in rendered if (each["kind"], each["metadata"]["name"]) == (kind, name)]
    return found


def test_jobs_without_a_rule_reach_the_addresses_that_are_public(helm: Helm) -> None:
    policy = find_object(rendered_with(helm), "NetworkPolicy", "labrats-executor")
    blocks = [
        to["ipBlock"] for rule in policy["spec"]["egress"] for to in rule["to"] if "except" in to.get("ipBlock", {})
    ]
    excluded = {block["cidr"]: set(block["except"]) for block in blocks}
    assert excluded == {"0.0.0.0/0": set(map(str, FORBIDDEN_V4)), "2000::/3": set(map(str, FORBIDDEN_V6))}


def test_jobs_do_not_reach_further_networks_that_are_excepted(helm: Helm) -> None:
    networks = ["198.41.0.0/24", "2600:1f13:abc:d00::/56", "fd00::/8"]
    rendered = rendered_with(helm, networkPolicy={"except": networks})
    policy = find_object(rendered, "NetworkPolicy", "labrats-executor")["spec"]
    excluded = [
        each["ipBlock"] for rule in policy["egress"] for each in rule["to"] if "except" in each.get("ipBlock", {})
    ]
    # A policy must not except what its network does not contain.
    assert [block["except"][-1] for block in excluded] == networks[:2]
    proxy = find_object(rendered, "Deployment", "labrats-egress-proxy")["spec"]["template"]["spec"]["containers"][0]
    assert proxy["command"][-3:] == networks
    assert find_object(rendered, "Service", "labrats-egress-proxy")["spec"]["ipFamilyPolicy"] == "PreferDualStack"


@pytest.mark.parametrize("part", ["api", "controller", "egress-proxy"])
@pytest.mark.parametrize("name", PLACEMENT)
def test_placement_of_each_component_can_be_set(helm: Helm, part: str, name: str) -> None:
    rendered = rendered_with(helm, **{VALUES_OF.get(part, part): {name: PLACEMENT[name]}})
    pod = find_object(rendered, "Deployment", f"labrats-{part}")["spec"]["template"]

    assert pod["spec"][name] == PLACEMENT[name]


@pytest.mark.parametrize("part", ["api", "controller", "egress-proxy"])
def test_components_accept_labels_annotations_volumes_and_resources(helm: Helm, part: str) -> None:
    resources = {"requests": {"cpu": "1"}, "limits": {"memory": "2Gi"}}
    rendered = rendered_with(helm, **{VALUES_OF.get(part, part): EXTRAS | {"resources": resources}})
    pod = find_object(rendered, "Deployment", f"labrats-{part}")["spec"]["template"]
    (container,) = pod["spec"]["containers"]

    assert pod["metadata"]["annotations"] == EXTRAS["podAnnotations"]
    assert pod["metadata"]["labels"]["team"] == "core"
    assert EXTRAS["extraVolumes"][0] in pod["spec"]["volumes"]
    assert EXTRAS["extraVolumeMounts"][0] in container["volumeMounts"]
    assert container["resources"]["requests"]["cpu"] == "1"


@pytest.mark.parametrize(("part", "prefix"), [("executor", "LABRATS_EXECUTOR"), ("receiver", "LABRATS_RECEIVER")])
def test_pods_created_by_the_engine_accept_the_same_values(helm: Helm, part: str, prefix: str) -> None:
    resources = {"limits": {"memory": "3Gi"}}
    environment = environment_of(rendered_with(helm, **{part: PLACEMENT | EXTRAS | {"resources": resources}}))

    assert json.loads(environment[f"{prefix}_POD"]) == PLACEMENT
    extras = json.loads(environment[f"{prefix}_EXTRAS"])
    assert extras["annotations"] == EXTRAS["podAnnotations"]
    assert extras["labels"] == EXTRAS["podLabels"]
    assert (extras["volumes"], extras["volumeMounts"]) == (EXTRAS["extraVolumes"], EXTRAS["extraVolumeMounts"])
    assert PodExtras.model_validate(extras)
    assert json.loads(environment[f"{prefix}_RESOURCES"])["limits"]["memory"] == "3Gi"


def test_receiver_ingresses_allow_25_mib_and_accept_annotations(helm: Helm) -> None:
    issuer = {"cert-manager.io/cluster-issuer": "letsencrypt"}
    environment = environment_of(rendered_with(helm, receiver={"ingressAnnotations": issuer}))

    annotations = json.loads(environment["LABRATS_RECEIVER_EXTRAS"])["ingressAnnotations"]
    assert annotations == issuer | {"nginx.ingress.kubernetes.io/proxy-body-size": "26m"}


def test_jobs_may_reach_the_configured_name_servers(helm: Helm) -> None:
    def ports(rendered: list[dict[str, Any]]) -> set[int]:
        rules = find_object(rendered, "NetworkPolicy", "labrats-executor")["spec"]["egress"]
        return {port["port"] for rule in rules for port in rule["ports"] if port["protocol"] == "UDP"}

    assert ports(objects(template())) == {53, 5353}
    custom = [{"to": [{"ipBlock": {"cidr": "10.0.0.10/32"}}], "ports": [{"protocol": "UDP", "port": 1053}]}]
    assert ports(rendered_with(helm, networkPolicy={"dns": custom})) == {1053}


def test_jobs_with_a_network_rule_reach_only_the_egress_proxy(helm: Helm) -> None:
    rendered = rendered_with(helm, networkPolicy={"executorEgress": [{"to": [{"ipBlock": {"cidr": "0.0.0.0/0"}}]}]})
    policies = [each["spec"] for each in rendered if each["kind"] == "NetworkPolicy"]
    selecting = [each for each in policies if each["podSelector"]["matchLabels"].items() <= CONFINED_LABELS.items()]
    (policy,) = selecting  # policies add up
    proxy = find_object(rendered, "Deployment", "labrats-egress-proxy")["spec"]

    assert (policy["podSelector"]["matchLabels"], policy["policyTypes"]) == (CONFINED_LABELS, ["Ingress", "Egress"])
    assert "ingress" not in policy
    to = [{"podSelector": proxy["selector"]}]
    assert policy["egress"] == [{"to": to, "ports": [{"protocol": "TCP", "port": PORT}]}]
    assert environment_of(rendered)["LABRATS_EGRESS_PROXY"] == "labrats-egress-proxy"


def test_egress_proxy_accepts_only_jobs_with_a_network_rule_and_has_no_account(helm: Helm) -> None:
    rendered = objects(template())
    pod = find_object(rendered, "Deployment", "labrats-egress-proxy")["spec"]["template"]["spec"]
    rules = find_object(rendered, "NetworkPolicy", "labrats-egress-proxy")["spec"]["ingress"]
    controllers = find_object(rendered, "Deployment", "labrats-controller")["spec"]["selector"]

    def admitted(port: int) -> list[Any]:
        return [rule.get("from") for rule in rules if {"protocol": "TCP", "port": port} in rule["ports"]]

    assert admitted(PORT) == [[{"podSelector": {"matchLabels": CONFINED_LABELS}}], [{"podSelector": controllers}]]
    assert admitted(canary_port(PORT)) == [None]  # from anywhere: pods test their own policy by it
    assert pod["automountServiceAccountToken"] is False
    assert pod["volumes"][0]["secret"]["secretName"] == "labrats-egress-proxy-key"
    assert "serviceAccountName" not in pod


@pytest.mark.parametrize(
    "values", [{"egressProxy": {"enabled": False}}, {"networkPolicy": {"enabled": False}}], ids=str
)
def test_without_egress_proxy_or_policies_nothing_of_it_is_installed(helm: Helm, values: Any) -> None:
    rendered = rendered_with(helm, **values)

    assert "LABRATS_EGRESS_PROXY" not in environment_of(rendered)
    assert not [each for each in rendered if "egress-proxy" in each["metadata"]["name"]]


def test_ingress_does_not_publish_metrics(helm: Helm) -> None:
    rendered = rendered_with(helm, ingress={"enabled": True, "host": "labrats.example.com"})
    ingress = find_object(rendered, "Ingress", "labrats")
    first, last = ingress["spec"]["rules"][0]["http"]["paths"]

    assert (first["path"], first["pathType"], last["path"]) == ("/metrics", "Prefix", "/")
    assert "selector" not in find_object(rendered, "Service", first["backend"]["service"]["name"])["spec"]
    assert ingress["metadata"]["annotations"] == {"nginx.ingress.kubernetes.io/proxy-body-size": "101m"}


async def test_changed_settings_secret_rolls_out(helm: Helm, api_client: ApiClient, namespace: str) -> None:
    def checksums() -> set[str]:
        options = ("--namespace", namespace, "--dry-run=server")
        rendered = objects(
            helm("template", "labrats", CHART, *PRODUCTION, *options, values={"settingsSecret": "settings"})
        )
        pods = [each["spec"]["template"] for each in rendered if each["kind"] == "Deployment"]
        settings = [pod["metadata"].get("annotations", {}).get("checksum/settings") for pod in pods]
        assert len(settings) - settings.count(None) == 3  # the egress proxy has no settings
        return {each for each in settings if each}

    secret = {"metadata": {"name": "settings"}, "stringData": {"SUBMIT_API_KEYS": "one"}}
    path = f"/api/v1/namespaces/{namespace}/secrets"
    await api_client.request("POST", path, encode(secret))
    before = checksums()
    assert checksums() == before
    await api_client.request("PATCH", f"{path}/settings", encode({"stringData": {"A": "b"}}), content_type=MERGE_PATCH)
    assert checksums() != before


@pytest.mark.parametrize(("value", "kind"), [("podMonitor", "PodMonitor"), ("serviceMonitor", "ServiceMonitor")])
def test_monitors_select_every_pod_if_enabled(helm: Helm, value: str, kind: str) -> None:
    rendered = rendered_with(helm, **{value: {"enabled": True, "labels": {"release": "prometheus"}}})
    monitor = find_object(rendered, kind, "labrats")

    assert monitor["metadata"]["labels"]["release"] == "prometheus"
    assert kind not in {each["kind"] for each in objects(template())}
    if kind == "ServiceMonitor":
        service = find_object(rendered, "Service", "labrats-metrics")
        assert monitor["spec"]["selector"]["matchLabels"].items() <= service["metadata"]["labels"].items()
        for part in ("api", "controller"):
            labels = find_object(rendered, "Deployment", f"labrats-{part}")["spec"]["template"]["metadata"]["labels"]
            assert service["spec"]["selector"].items() <= labels.items()


@pytest.mark.parametrize("part", ["api", "controller", "egress-proxy"])
def test_disruption_budgets_allow_one_replica_at_a_time(helm: Helm, part: str) -> None:
    rendered = objects(template())
    budget = find_object(rendered, "PodDisruptionBudget", f"labrats-{part}")["spec"]

    assert budget["maxUnavailable"] == 1
    assert budget["selector"] == find_object(rendered, "Deployment", f"labrats-{part}")["spec"]["selector"]


def test_controllers_have_their_own_priority_class_unless_another_is_set(helm: Helm) -> None:
    def class_of(rendered: list[dict[str, Any]]) -> str | None:
        pod = find_object(rendered, "Deployment", "labrats-controller")["spec"]["template"]["spec"]
        return str(pod["priorityClassName"]) if "priorityClassName" in pod else None

    default = objects(template("--namespace", "agents"))
    assert class_of(default) == "labrats-controller-agents"
    assert find_object(default, "PriorityClass", "labrats-controller-agents")["value"] == 1_000_000
    for values, expected in (
        ({"controller": {"priorityClassName": "system-cluster-critical"}}, "system-cluster-critical"),
        ({"controller": {"priorityClass": {"create": False}}}, None),
        ({"fence": {"enabled": False}}, None),
    ):
        rendered = rendered_with(helm, **values)
        assert class_of(rendered) == expected
        assert "PriorityClass" not in {each["kind"] for each in rendered}


def test_vms_have_the_named_runtime_class_which_is_created_for_a_handler(helm: Helm) -> None:
    def environment(rendered: list[dict[str, Any]]) -> dict[str, Any]:
        pod = find_object(rendered, "Deployment", "labrats-controller")["spec"]["template"]["spec"]
        return {each["name"]: each.get("value") for each in pod["containers"][0]["env"]}

    existing = rendered_with(helm, isolation={"vm": {"runtimeClass": "kata-qemu"}})
    created = rendered_with(helm, isolation={"vm": {"runtimeClass": "gvisor", "handler": "runsc"}})

    assert "LABRATS_VM_RUNTIME_CLASS" not in environment(objects(template()))
    assert environment(existing)["LABRATS_VM_RUNTIME_CLASS"] == "kata-qemu"
    assert "RuntimeClass" not in {each["kind"] for each in existing}
    assert environment(created)["LABRATS_VM_RUNTIME_CLASS"] == "gvisor"
    assert find_object(created, "RuntimeClass", "gvisor")["handler"] == "runsc"
