"""The plain manifests of an installation: the rendered chart, for use without Helm."""

from pathlib import Path
from typing import Final

INSTALL: Final = Path(__file__).with_name("install.yaml")
"""The rendered chart. The placeholders below stand for the namespace and the images of an installation."""

NAMESPACE: Final = "namespace-of-the-installation"
ENGINE_IMAGE: Final = "image.invalid/engine:tag"
EXECUTOR_IMAGE: Final = "image.invalid/executor:tag"

_NAMESPACE_OBJECT: Final = f"""\
apiVersion: v1
kind: Namespace
metadata:
  name: {NAMESPACE}
  labels:
    pod-security.kubernetes.io/enforce: restricted
---
"""


_LABELLED: Final = 'name: LABRATS_LABELLED_CREDENTIALS\n              value: "{}"'


def installation(namespace: str, image: str, executor_image: str, *, labelled_credentials: bool = True) -> str:
    """Return the manifests of an installation, including its namespace.

    labelled_credentials: True if jobs may use only Secrets with the label for jobs.
    """
    replacements = {NAMESPACE: namespace, ENGINE_IMAGE: image, EXECUTOR_IMAGE: executor_image}
    if not labelled_credentials:
        replacements[_LABELLED.format("true")] = _LABELLED.format("false")
    manifests = _NAMESPACE_OBJECT + INSTALL.read_text()
    for placeholder, text in replacements.items():
        manifests = manifests.replace(placeholder, text)
    return manifests


def custom_resources() -> str:
    """Return only the custom resource definitions among the manifests."""
    documents = INSTALL.read_text().removeprefix("---\n").split("\n---\n")
    return "\n---\n".join(each for each in documents if "\nkind: CustomResourceDefinition\n" in each)
