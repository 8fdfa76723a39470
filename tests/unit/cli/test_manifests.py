"""`labrats manifests`."""

from typing import Any

import pytest
import yaml

from labrats import __version__
from labrats.manifests.crds import custom_resource_definitions
from tests.unit.cli.engines import Labrats


def test_everything_of_an_installation_is_printed(labrats: Labrats) -> None:
    printed = objects(labrats("manifests").out)
    kinds = {each["kind"] for each in printed}
    assert printed[0]["kind"] == "Namespace"
    assert {"CustomResourceDefinition", "Deployment", "Role", "Service", "NetworkPolicy"} <= kinds
    assert {each["metadata"].get("namespace") for each in printed} == {None, "labrats"}


def test_namespace_and_images_are_as_they_are_told(labrats: Labrats) -> None:
    told = (
        "--namespace",
        "agents",
        "--image",
        "registry.example/engine:1",
        "--executor-image",
        "registry.example/ex:2",
    )
    text = labrats("manifests", *told).out
    printed = objects(text)
    containers = [each["spec"]["template"]["spec"]["containers"][0] for each in printed if each["kind"] == "Deployment"]
    assert {each["image"] for each in containers} == {"registry.example/engine:1"}
    assert {"name": "LABRATS_EXECUTOR_IMAGE", "value": "registry.example/ex:2"} in containers[0]["env"]
    assert printed[0]["metadata"]["name"] == "agents"
    assert "image.invalid" not in text
    assert "namespace-of-the-installation" not in text


def test_the_images_are_of_this_version(labrats: Labrats) -> None:
    assert f"/engine:{__version__}" in labrats("manifests").out


def test_the_custom_resources_are_those_of_this_version(labrats: Labrats) -> None:
    assert sorted(objects(labrats("manifests", "crds").out), key=_name) == sorted(
        custom_resource_definitions(), key=_name
    )


@pytest.mark.parametrize(
    ("option", "value"), [("--namespace", "My Team"), ("--image", "no-tag"), ("--executor-image", "a:b\nx: y")]
)
def test_what_would_make_no_manifest_is_refused(labrats: Labrats, option: str, value: str) -> None:
    ended = labrats("manifests", option, value)
    assert (ended.code, ended.out) == (2, "")
    assert option in ended.err


def objects(text: str) -> list[dict[str, Any]]:
    return [each for each in yaml.safe_load_all(text) if each]


def _name(each: dict[str, Any]) -> str:
    return str(each["metadata"]["name"])


@pytest.mark.parametrize(("options", "required"), [((), "true"), (("--unlabelled-credentials",), "false")])
def test_an_upgraded_installation_may_go_on_without_labels(
    labrats: Labrats, options: tuple[str, ...], required: str
) -> None:
    deployments = [each for each in objects(labrats("manifests", *options).out) if each["kind"] == "Deployment"]

    for deployment in deployments:
        (container,) = deployment["spec"]["template"]["spec"]["containers"]
        settings = {each["name"]: each.get("value") for each in container["env"]}
        assert settings["LABRATS_LABELLED_CREDENTIALS"] == required
    assert len(deployments) == 2
