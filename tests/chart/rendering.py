"""The files generated from or for the chart, and committed: `python -m tests.chart` regenerates them."""

from functools import cache
from pathlib import Path
from typing import Any, Final

import yaml

from labrats.manifests.crds import custom_resource_definitions
from labrats.manifests.install import ENGINE_IMAGE, EXECUTOR_IMAGE, INSTALL, NAMESPACE
from tests.cluster.programs import build_helm
from tests.cluster.shell import run

CHART: Final = Path(__file__).parents[2] / "charts" / "labrats"
PRODUCTION: Final = ("--set", "profile=production")
"""The profile of a rendering without access to a cluster."""

CRDS: Final = CHART / "crds"


def write() -> None:
    """Write all generated files."""
    for file in CRDS.glob("*.yaml"):
        file.unlink()
    for name, text in custom_resource_files().items():
        (CRDS / name).write_text(text)
    INSTALL.write_text(plain_manifests())


def custom_resource_files() -> dict[str, str]:
    """Return the content of the chart's custom resource definitions by file name."""
    return {
        f"{definition['spec']['names']['plural']}.yaml": yaml.safe_dump(definition, sort_keys=False, width=120)
        for definition in custom_resource_definitions()
    }


def plain_manifests() -> str:
    """Render the profile `production`, with placeholders for the options of `labrats manifests`."""
    images = {"image": ENGINE_IMAGE, "executor.image": EXECUTOR_IMAGE}
    settings = [f"{value}.{part}={text}" for value, image in images.items()
             for part, text in zip(("repository", "tag"), image.split(":"), strict=True)]  # fmt: skip
    return template(
        "--include-crds", "--namespace", NAMESPACE, *(word for each in settings for word in ("--set", each))
    )


@cache
def template(*options: str | Path) -> str:
    """Render the chart with `helm template`, by default the profile `production`. Raises Failed with its message."""
    return run(build_helm(), "template", "labrats", CHART, *PRODUCTION, *options)


def objects(rendered: str) -> list[dict[str, Any]]:
    """Return the objects in a rendered chart."""
    return [each for each in yaml.load_all(rendered, yaml.CSafeLoader) if each]
