"""The objects of the receiver of a webhook source."""

from dataclasses import replace
from typing import Any

import pytest

from labrats.backends.kubernetes.receiver_manifests import (
    SECRET_ANNOTATION,
    SOURCE_LABEL,
    ReceiverSettings,
    deployment,
    ingress,
    receiver_name,
    receiver_url,
    service,
)
from labrats.model.job import KeyReference
from labrats.model.record import Metadata
from labrats.model.webhook_source import WebhookSource, WebhookSourceSpec
from labrats.settings import PodExtras

SETTINGS = ReceiverSettings("agents", "engine:1", "receiver", {"imagePullSecrets": [{"name": "registry"}]}, {"A": "b"})


def a_source(name: str = "github", **fields: Any) -> WebhookSource:
    reference = KeyReference(name="hook", key="token")
    spec = WebhookSourceSpec(type="github", secret_ref=reference, **fields)
    return WebhookSource(metadata=Metadata(name=name, uid="uid-1"), spec=spec)


def test_all_objects_are_owned_by_the_source() -> None:
    for manifest in (deployment(a_source(), "1", SETTINGS), service(a_source()), ingress(a_source(), SETTINGS)):
        assert manifest["metadata"]["ownerReferences"] == [
            {"apiVersion": "labrats.work/v1alpha1", "kind": "WebhookSource", "name": "github", "uid": "uid-1"}
        ]


@pytest.mark.parametrize("name", ["github", "a" * 40, "a" * 63, "dotted.name", "a-"])
def test_the_name_of_a_receiver_is_valid_for_a_service(name: str) -> None:
    receiver = receiver_name(name)
    assert len(receiver) <= 63
    assert "." not in receiver
    assert receiver[-1] != "-"


def test_hashed_names_do_not_collide() -> None:
    assert len({receiver_name(name) for name in ("a.b", "a.c", "a" * 62, "a" * 63)}) == 4


@pytest.mark.parametrize(
    ("fields", "url"),
    [
        ({}, "http://labrats-webhook-github.agents.svc/webhooks/github"),
        ({"host": "h.example"}, "http://h.example/webhooks/github"),
        ({"host": "h.example", "path": "/x", "tls_secret_name": "tls"}, "https://h.example/x"),
    ],
)
def test_the_url_of_a_receiver_has_the_host_of_the_source_or_of_the_service(fields: dict[str, Any], url: str) -> None:
    assert receiver_url(a_source(**fields), SETTINGS) == url


def test_the_pod_mounts_one_key_of_the_secret_and_has_no_secret_in_its_environment() -> None:
    pod = deployment(a_source(), "1", SETTINGS)["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    assert [each["secret"] for each in pod["volumes"] if "secret" in each] == [
        {"secretName": "hook", "items": [{"key": "token", "path": "secret"}]}
    ]
    assert all("value" in each for each in container["env"])
    assert "envFrom" not in container
    assert (pod["serviceAccountName"], pod["imagePullSecrets"]) == ("receiver", [{"name": "registry"}])


def test_a_new_version_of_the_secret_changes_the_pods_annotation() -> None:
    first, second = (deployment(a_source(), version, SETTINGS)["spec"]["template"] for version in ("1", "2"))
    assert first != second
    assert first["spec"] == second["spec"]


def test_an_operator_can_add_to_receivers_and_to_their_ingresses() -> None:
    extras = PodExtras(
        annotations={"team": "core"},
        labels={"team": "core", SOURCE_LABEL: "another"},
        volumes=({"name": "ca", "configMap": {"name": "ca"}},),
        volumeMounts=({"name": "ca", "mountPath": "/etc/ca"},),
        ingressAnnotations={"cert-manager.io/cluster-issuer": "letsencrypt"},
    )
    resources = {"limits": {"memory": "1Gi"}}
    settings = replace(SETTINGS, extras=extras, resources=resources, pod_fields={"priorityClassName": "high"})

    template = deployment(a_source(), "1", settings)["spec"]["template"]
    container = template["spec"]["containers"][0]

    assert template["metadata"]["annotations"] == {"team": "core", SECRET_ANNOTATION: "1"}
    assert template["metadata"]["labels"]["team"] == "core"
    assert template["metadata"]["labels"][SOURCE_LABEL] != "another"
    assert template["spec"]["priorityClassName"] == "high"
    assert template["spec"]["volumes"][-1]["name"] == container["volumeMounts"][-1]["name"] == "ca"
    assert container["resources"] == resources
    annotations = ingress(a_source(), settings)["metadata"]["annotations"]
    assert annotations == {"cert-manager.io/cluster-issuer": "letsencrypt"}
