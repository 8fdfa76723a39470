"""Everything of an installation as plain manifests: what the chart renders to, for who would rather not have Helm."""

from pathlib import Path
from typing import Final

INSTALL: Final = Path(__file__).with_name("install.yaml")
"""Rendered from the chart, with these marks where an installation says its own."""

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
    """The manifests of an installation in a namespace of its own, ready to be applied.

    labelled_credentials: whether jobs get only the Secrets that are labelled for them.
    """
    told = {NAMESPACE: namespace, ENGINE_IMAGE: image, EXECUTOR_IMAGE: executor_image}
    if not labelled_credentials:
        told[_LABELLED.format("true")] = _LABELLED.format("false")
    manifests = _NAMESPACE_OBJECT + INSTALL.read_text()
    for mark, text in told.items():
        manifests = manifests.replace(mark, text)
    return manifests


def custom_resources() -> str:
    """The definitions of the custom resources alone, as part of the same manifests."""
    documents = INSTALL.read_text().removeprefix("---\n").split("\n---\n")
    return "\n---\n".join(each for each in documents if "\nkind: CustomResourceDefinition\n" in each)
