"""A node of a cluster (kubelet, containerd), and the other programs that pods need.

These are the scheduler, kube-proxy for Services, and kube-router, of which only the part that enforces NetworkPolicies
runs.
"""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final

from tests.cluster import packages
from tests.cluster.cluster import BRIDGE, GATEWAY, PODS, SERVICES, Cluster
from tests.cluster.images import PAUSE, pause_image
from tests.cluster.programs import build_kube_router
from tests.cluster.shell import run, succeeds

_KUBELET_PORT: Final = 10250

_CONTAINERD: Final = """\
version = 2
root = "{folder}/root"
state = "{folder}/state"
[grpc]
  address = "{socket}"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "{pause}"
  netns_mounts_under_state_dir = true
  restrict_oom_score_adj = true  # without CAP_SYS_RESOURCE runc dies: "can't get final child's PID from pipe"
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "/usr/lib/cni"
    conf_dir = "{cni}"
  [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
    runtime_type = "io.containerd.runc.v2"
"""


def start_node(cluster: Cluster, images: Iterable[Path] = ()) -> Path:
    """Start the cluster with one ready node that has `images`. Return the administrator's kubeconfig. Raises Failed."""
    packages.require(packages.API, packages.NODE)
    kubeconfig = cluster.start_api(controllers="*")
    run(*cluster.inside("sysctl", "-qw", "net.ipv4.ip_forward=1"))
    _start_scheduler(cluster)
    _start_proxy(cluster)
    Node(cluster, 1).start(images)
    _start_policies(cluster)
    return kubeconfig


class Node:
    """A node of a cluster: `node-1`, `node-2` and so on, all on this machine and with the same address."""

    def __init__(self, cluster: Cluster, number: int) -> None:
        self.name = f"node-{number}"
        self.socket = cluster.folder / f"{self.name}.sock"
        self._cluster = cluster
        self._folder = cluster.folder / self.name
        self._port = _KUBELET_PORT + number
        self._cgroup = f"{cluster.cgroup}/{self.name}"

    def start(self, images: Iterable[Path] = ()) -> None:
        """Start the node with the images of these archives, and wait until it is ready."""
        self._folder.mkdir()
        self._start_containerd()
        for archive in (pause_image(), *images):
            self.load(archive)
        self._start_kubelet()
        condition = ("wait", "--for=condition=Ready", f"node/{self.name}", "--timeout=1s")
        self._cluster.wait_for(f"kubelet-{self.name}", lambda: succeeds(*self._cluster.kubectl_command, *condition))

    def kill_kubelet(self) -> None:
        """Kill the node's kubelet. Its containers keep running, but the cluster gets no more reports from the node."""
        self._cluster.kill(f"kubelet-{self.name}")

    def restart_kubelet(self) -> None:
        """Kill the node's kubelet, and start it again. Its containers keep running meanwhile."""
        self.kill_kubelet()
        self._start_kubelet()

    def load(self, archive: Path) -> None:
        """Import an image, so that the node's pods can use it."""
        run("ctr", "-a", self.socket, "-n", "k8s.io", "images", "import", archive)

    def name_image(self, image: str, name: str) -> None:
        """Add a name to an image of the node."""
        run("ctr", "-a", self.socket, "-n", "k8s.io", "images", "tag", image, name)

    def _start_containerd(self) -> None:
        cni = self._cluster.folder / "cni"
        cni.mkdir(exist_ok=True)
        (cni / "10-bridge.conflist").write_text(json.dumps(self._pod_network()))
        config = _CONTAINERD.format(folder=self._folder, socket=self.socket, pause=PAUSE, cni=cni)
        (self._folder / "containerd.toml").write_text(config)
        self._cluster.start(f"containerd-{self.name}", "containerd", "-c", self._folder / "containerd.toml")
        self._cluster.wait_for(f"containerd-{self.name}", lambda: succeeds("ctr", "-a", self.socket, "version"))

    def _pod_network(self) -> dict[str, Any]:
        addresses = {
            "type": "host-local",
            "dataDir": str(self._cluster.folder / "ipam"),
            "ranges": [[{"subnet": str(PODS)}]],
            "routes": [{"dst": "0.0.0.0/0"}],
        }
        bridge = {"type": "bridge", "bridge": BRIDGE, "isGateway": True, "hairpinMode": True, "ipam": addresses}
        return {"cniVersion": "0.4.0", "name": "pods", "plugins": [bridge]}

    def _start_kubelet(self) -> None:
        authority = self._cluster.authority
        _create_cgroup(self._cgroup)
        (self._folder / "kubelet.json").write_text(json.dumps(self._kubelet_config()))
        kubeconfig = authority.issue(
            self.name, f"/O=system:nodes/CN=system:node:{self.name}", f"DNS:{self.name},IP:{GATEWAY}"
        )
        self._cluster.start(
            f"kubelet-{self.name}",
            self._cluster.programs / "kubelet",
            f"--config={self._folder}/kubelet.json",
            f"--kubeconfig={kubeconfig}",
            f"--hostname-override={self.name}",
            f"--node-ip={GATEWAY}",
            f"--root-dir={self._folder}/kubelet",
        )

    def _kubelet_config(self) -> dict[str, Any]:
        pki = self._cluster.authority
        return {
            "apiVersion": "kubelet.config.k8s.io/v1beta1",
            "kind": "KubeletConfiguration",
            "containerRuntimeEndpoint": f"unix://{self.socket}",
            "authentication": {
                "anonymous": {"enabled": False},
                "x509": {"clientCAFile": str(pki.certificate)},
                "webhook": {"enabled": True},
            },
            "authorization": {"mode": "Webhook"},
            "address": GATEWAY,
            "port": self._port,
            "healthzPort": 0,
            "tlsCertFile": str(pki.folder / f"{self.name}.crt"),
            "tlsPrivateKeyFile": str(pki.folder / f"{self.name}.key"),
            "podLogsDir": str(self._folder / "pod-logs"),
            "cgroupDriver": "cgroupfs",
            "cgroupRoot": f"/{self._cgroup}",
            "enforceNodeAllocatable": [],
            "evictionHard": {},
            "imageGCHighThresholdPercent": 100,
            "failSwapOn": False,
            "registryPullQPS": 0,
            "eventRecordQPS": 0,
            "serializeImagePulls": False,
            "makeIPTablesUtilChains": False,
            "maxPods": 250,
        }


def _start_scheduler(cluster: Cluster) -> None:
    kubeconfig = cluster.authority.issue("scheduler", "/CN=system:kube-scheduler")
    cluster.start(
        "kube-scheduler",
        cluster.programs / "kube-scheduler",
        f"--kubeconfig={kubeconfig}",
        f"--authentication-kubeconfig={kubeconfig}",
        f"--authorization-kubeconfig={kubeconfig}",
        "--leader-elect=false",
        "--bind-address=127.0.0.1",
    )


def _start_proxy(cluster: Cluster) -> None:
    kubeconfig = cluster.authority.issue("proxy", "/CN=system:kube-proxy")
    cluster.start(
        "kube-proxy",
        cluster.programs / "kube-proxy",
        f"--kubeconfig={kubeconfig}",
        "--proxy-mode=iptables",
        f"--cluster-cidr={PODS}",
        "--hostname-override=node-1",
        # Connection tracking has no limits of its own in a network namespace, and may not be set there.
        *(f"--conntrack-{limit}=0" for limit in ("max-per-core", "tcp-timeout-established", "tcp-timeout-close-wait")),
    )


def _start_policies(cluster: Cluster) -> None:
    """Start the enforcement of NetworkPolicies, and wait until it is in force. It needs the Node object."""
    kubeconfig = cluster.authority.issue("policies", "/O=system:masters/CN=kube-router")
    cluster.start(
        "kube-router",
        build_kube_router(),
        f"--kubeconfig={kubeconfig}",
        "--run-firewall",
        "--run-router=false",
        "--run-service-proxy=false",
        f"--service-cluster-ip-range={SERVICES}",
        "--hostname-override=node-1",
        "--health-port=0",
    )
    rules = cluster.inside("iptables", "-S", "KUBE-ROUTER-FORWARD")
    cluster.wait_for("kube-router", lambda: succeeds(*rules))


def _create_cgroup(path: str) -> None:
    """Create the cgroup in each hierarchy: the kubelet requires that its root exists."""
    hierarchies = Path("/sys/fs/cgroup")
    if (hierarchies / "cgroup.controllers").exists():
        (hierarchies / path).mkdir(parents=True, exist_ok=True)
        return
    for hierarchy in hierarchies.iterdir():
        if hierarchy.is_dir() and not hierarchy.is_symlink():
            (hierarchy / path).mkdir(parents=True, exist_ok=True)
    _share_cpus(hierarchies / "cpuset", path)


def _share_cpus(cpuset: Path, path: str) -> None:
    """Copy the processors and memory nodes of a cgroup of version 1 to its children, which start without any."""
    folder = cpuset
    for name in Path(path).parts:
        for setting in ("cpuset.cpus", "cpuset.mems"):
            (folder / name / setting).write_text((folder / setting).read_text())
        folder /= name
