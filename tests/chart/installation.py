"""An installation of the chart on the test cluster, reached through its Service."""

import json
import os
import secrets
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from itertools import product
from pathlib import Path
from typing import Any, Final, NamedTuple

from tests.chart.rendering import CHART
from tests.cluster.cluster import Cluster
from tests.cluster.shell import run

USER: Final = 10001
"""The user id of all pods."""

WAIT: Final = ("--wait", "--timeout", "300s")

VALUES: Final[dict[str, Any]] = {
    "profile": "production",
    "api": {"resources": {"requests": {"cpu": "10m"}}},
    "controller": {"resources": {"requests": {"cpu": "10m"}}},
    "executor": {
        "resources": {"requests": {"cpu": "10m", "memory": "32Mi"}, "limits": {"memory": "256Mi"}},
        "scratch": "100Mi",
        "pod": {"dnsPolicy": "Default"},  # the cluster has no name server
    },
    "settings": {
        "LABRATS_AGENT_PROCESSES": 40,
        "LABRATS_STOP_GRACE_SECONDS": 1,
        "LABRATS_RETRY_BACKOFF_SECONDS": 0.05,
        "LOCAL_REPO_ROOTS": "/nowhere",
    },
}
"""Values for an installation on a machine that runs tests."""


@dataclass(frozen=True)
class Helm:
    """Helm for the test cluster."""

    program: Path
    kubeconfig: Path

    def __call__(self, *arguments: str | Path, values: dict[str, Any] | None = None) -> str:
        """Run Helm and return its output. Raises Failed with its error message."""
        options = ("--values", "-") if values is not None else ()
        stdin = None if values is None else json.dumps(values)
        return run(self.program, "--kubeconfig", self.kubeconfig, *arguments, *options, stdin=stdin)


@dataclass(frozen=True)
class Installation:
    """A release named `labrats` in its own namespace. folder: the folder of its volumes on the single node."""

    cluster: Cluster
    helm: Helm
    namespace: str
    engine_image: str
    executor_image: str
    folder: Path

    def install(self, **values: Any) -> None:
        """Install the release and wait until it is ready."""
        for name in ("data", "uploads"):
            (self.folder / name).mkdir()
            os.chown(self.folder / name, USER, USER)
        self._apply("install", values)

    def upgrade(self, **values: Any) -> None:
        """Upgrade the release to `values` and wait until it is ready."""
        self._apply("upgrade", values)

    def uninstall(self) -> None:
        self.helm("uninstall", "labrats", "--namespace", self.namespace, *WAIT)

    def kubectl(self, *arguments: str, stdin: str | None = None) -> str:
        return self.cluster.kubectl("--namespace", self.namespace, *arguments, stdin=stdin)

    def get(self, *arguments: str) -> list[dict[str, Any]]:
        """Return the objects that `kubectl get` finds."""
        found = json.loads(self.kubectl("get", *arguments, "--output", "json"))
        return list(found["items"]) if "items" in found else [found]

    def run_labrats(self, *arguments: str) -> str:
        """Run `labrats` in a pod of the API and return its output."""
        return self.kubectl("exec", "deploy/labrats-api", "--", "labrats", *arguments)

    @cached_property
    def admin_key(self) -> str:
        """An admin's API key, created in a pod. All pods of the API learn of it soon."""
        name = f"tests {secrets.token_hex(4)}"
        return self.run_labrats("api-key", "create", name, "--scope", "admin", "--direct").strip()

    def pods(self, component: str) -> list[dict[str, Any]]:
        """Return the pods of a component, except pods that are being deleted."""
        pods = self.get("pods", f"--selector=app.kubernetes.io/name=labrats,app.kubernetes.io/component={component}")
        return [pod for pod in pods if "deletionTimestamp" not in pod["metadata"]]

    def addresses(self, component: str) -> list[str]:
        """Return the addresses of a component's pods."""
        return [pod["status"]["podIP"] for pod in self.pods(component)]

    def log(self, component: str) -> str:
        """Return the logs of all pods of a component."""
        selector = f"app.kubernetes.io/component={component},app.kubernetes.io/name=labrats"
        return self.kubectl("logs", "--selector", selector, "--tail=-1", "--prefix=false")

    def files_with(self, text: str) -> list[str]:
        """Return the files on the volumes that contain `text`."""
        files = (path for path in self.folder.rglob("*") if path.is_file())
        return sorted(str(path.relative_to(self.folder)) for path in files if text.encode() in path.read_bytes())

    def values(self, **values: Any) -> dict[str, Any]:
        """Return the Helm values: VALUES, the images and volumes, and `values`."""
        image, executor = (
            dict(zip(("repository", "tag"), each.rsplit(":", 1), strict=True))
            for each in (self.engine_image, self.executor_image)
        )
        installed = {
            "image": image,
            "executor": VALUES["executor"] | {"image": executor},
            # Not a real VM: the machine may lack KVM. The class is cluster-wide, and releases exist side by side.
            "isolation": {"vm": {"runtimeClass": f"{self.namespace}-vm", "handler": "runc"}},
            "volumes": self.volumes(),
        }
        return VALUES | installed | values

    def volumes(self, **fields: str) -> dict[str, Any]:
        """Return the value `volumes`: folders of this machine, each with `fields`."""
        return {name: {"size": "1Gi", "hostPath": str(self.folder / name)} | fields for name in ("data", "uploads")}

    def _apply(self, verb: str, values: dict[str, Any]) -> None:
        self.helm(
            verb, "labrats", CHART, "--namespace", self.namespace, *WAIT, values=self.values(**values)
        )  # fmt: skip

    @contextmanager
    def service(self) -> Iterator[str]:
        """Yield a loopback URL that leads to the Service, and so to any pod of the API."""
        service = self.get("service", "labrats")[0]["spec"]
        with self.reach(service["clusterIP"], service["ports"][0]["port"]) as url:
            yield url

    @contextmanager
    def reach(self, address: str, port: int) -> Iterator[str]:
        """Yield a loopback URL that leads to an address in the cluster's network."""
        listener = socket.create_server(("127.0.0.1", 0), backlog=512)
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        forwarder = f"forward-{self.namespace}-{secrets.token_hex(4)}"
        self.cluster.forward(forwarder, listener, address, port)
        try:
            yield url
        finally:
            self.cluster.kill(forwarder)


class Permission(NamedTuple):
    """A permission for one resource. group: the API group; empty for the core group."""

    group: str
    resource: str
    verb: str


def permissions_of(installation: Installation, account: str) -> set[Permission]:
    """Ask the API server for the permissions of a ServiceAccount in the namespace."""
    review = {"kind": "SelfSubjectRulesReview", "apiVersion": "authorization.k8s.io/v1",
              "spec": {"namespace": installation.namespace}}  # fmt: skip
    user = f"system:serviceaccount:{installation.namespace}:{account}"
    memberships = ("serviceaccounts", f"serviceaccounts:{installation.namespace}", "authenticated")
    groups = (f"--as-group=system:{name}" for name in memberships)
    answer = installation.kubectl(
        "create",
        "--validate=false",
        "--as",
        user,
        *groups,
        "--filename",
        "-",
        "--output",
        "json",
        stdin=json.dumps(review),
    )
    return {
        Permission(group, resource, verb)
        for rule in json.loads(answer)["status"]["resourceRules"]
        for group, resource, verb in product(rule["apiGroups"], rule["resources"], rule["verbs"])
    }
