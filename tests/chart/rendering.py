"""What is made from the chart, or for it, and committed: `python -m tests.chart` writes it anew."""

from pathlib import Path
from typing import Any, Final

import yaml

from labrats.manifests.crds import custom_resource_definitions
from labrats.manifests.install import ENGINE_IMAGE, EXECUTOR_IMAGE, INSTALL, NAMESPACE
from tests.cluster.programs import build_helm
from tests.cluster.shell import run

CHART: Final = Path(__file__).parents[2] / "charts" / "labrats"
CRDS: Final = CHART / "crds"


def write() -> None:
    """Write all of it."""
    for file in CRDS.glob("*.yaml"):
        file.unlink()
    for name, text in custom_resource_files().items():
        (CRDS / name).write_text(text)
    INSTALL.write_text(plain_manifests())


def custom_resource_files() -> dict[str, str]:
    """The files of the chart's custom resources, by name."""
    return {
        f"{definition['spec']['names']['plural']}.yaml": yaml.safe_dump(definition, sort_keys=False, width=120)
        for definition in custom_resource_definitions()
    }


def plain_manifests() -> str:
    """The chart with its default values, and marks in the places of what `labrats manifests` is told."""
    images = {"image": ENGINE_IMAGE, "executor.image": EXECUTOR_IMAGE}
    named = [f"{value}.{part}={text}" for value, image in images.items()
             for part, text in zip(("repository", "tag"), image.split(":"), strict=True)]  # fmt: skip
    return template("--include-crds", "--namespace", NAMESPACE, *(word for each in named for word in ("--set", each)))


def template(*options: str | Path) -> str:
    """What `helm template` makes of the chart. Raises Failed with its complaint."""
    return run(build_helm(), "template", "labrats", CHART, *options)


def objects(rendered: str) -> list[dict[str, Any]]:
    """The objects in a rendered chart."""
    return [each for each in yaml.safe_load_all(rendered) if each]
