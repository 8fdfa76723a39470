"""`labrats manifests`."""

from typing import Any

import pytest
import yaml

from labrats import __version__
from labrats.manifests.crds import custom_resource_definitions
from tests.unit.cli.engines import Labrats


def test_manifests_prints_all_objects_of_an_installation(labrats: Labrats) -> None:
    printed = objects(labrats("manifests").out)
    kinds = {each["kind"] for each in printed}
    assert printed[0]["kind"] == "Namespace"
    assert {"CustomResourceDefinition", "Deployment", "Role", "Service", "NetworkPolicy"} <= kinds
    assert {each["metadata"].get("namespace") for each in printed} == {None, "labrats", "kube-node-lease"}


def test_manifests_uses_the_given_namespace_and_images(labrats: Labrats) -> None:
    options = (
        "--namespace",
        "agents",
        "--image",
        "registry.example/engine:1",
        "--executor-image",
        "registry.example/ex:2",
    )
    text = labrats("manifests", *options).out
    printed = objects(text)
    containers = [each["spec"]["template"]["spec"]["containers"][0] for each in printed if each["kind"] == "Deployment"]
    assert {each["image"] for each in containers} == {"registry.example/engine:1"}
    assert {"name": "LABRATS_EXECUTOR_IMAGE", "value": "registry.example/ex:2"} in containers[0]["env"]
    assert printed[0]["metadata"]["name"] == "agents"
    assert "image.invalid" not in text
    assert "namespace-of-the-installation" not in text


def test_manifests_default_images_have_this_version(labrats: Labrats) -> None:
    assert f"/engine:{__version__}" in labrats("manifests").out


def test_manifests_crds_prints_the_definitions_of_this_version(labrats: Labrats) -> None:
    assert sorted(objects(labrats("manifests", "crds").out), key=_name) == sorted(
        custom_resource_definitions(), key=_name
    )


@pytest.mark.parametrize(
    ("option", "value"), [("--namespace", "My Team"), ("--image", "no-tag"), ("--executor-image", "a:b\nx: y")]
)
def test_manifests_refuses_invalid_options(labrats: Labrats, option: str, value: str) -> None:
    ended = labrats("manifests", option, value)
    assert (ended.code, ended.out) == (2, "")
    assert option in ended.err


def objects(text: str) -> list[dict[str, Any]]:
    return [each for each in yaml.safe_load_all(text) if each]


def _name(each: dict[str, Any]) -> str:
    return str(each["metadata"]["name"])


@pytest.mark.parametrize(("options", "required"), [((), "true"), (("--unlabelled-credentials",), "false")])
def test_manifests_can_allow_unlabelled_credentials(labrats: Labrats, options: tuple[str, ...], required: str) -> None:
    rendered = objects(labrats("manifests", *options).out)
    names = ("labrats-api", "labrats-controller")
    deployments = [each for each in rendered if each["kind"] == "Deployment" and _name(each) in names]

    for deployment in deployments:
        (container,) = deployment["spec"]["template"]["spec"]["containers"]
        settings = {each["name"]: each.get("value") for each in container["env"]}
        assert settings["LABRATS_LABELLED_CREDENTIALS"] == required
    assert len(deployments) == 2
