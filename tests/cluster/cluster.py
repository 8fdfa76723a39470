"""One cluster: a folder, a network namespace, and the programs that run in it."""

import ctypes
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import cached_property
from ipaddress import IPv4Network
from pathlib import Path
from typing import Any, Final

from labrats.processes import send_signal
from tests.cluster import packages
from tests.cluster.certificates import Authority
from tests.cluster.programs import build_programs, cache_folder
from tests.cluster.shell import Failed, run, succeeds, until

BRIDGE: Final = "labrats0"
PODS: Final = IPv4Network("10.88.0.0/24")
SERVICES: Final = IPv4Network("10.96.0.0/16")
GATEWAY: Final = str(PODS[1])
"""The bridge's address: where pods reach the machine, and the one address of all its nodes."""

ETCD: Final = "http://127.0.0.1:12379"
_ETCD_PEERS: Final = "http://127.0.0.1:12380"
_READY: Final = ("get", "--raw", "/readyz")
_AUDIT_POLICY: Final = {
    "apiVersion": "audit.k8s.io/v1",
    "kind": "Policy",
    "omitStages": ["RequestReceived"],
    "rules": [{"level": "Metadata"}],
}
_NETWORK: Final = 0x40000000  # CLONE_NEWNET: what kind of namespace is entered
_CONTROLLERS: Final = "garbage-collector-controller,namespace-controller"
"""What makes an API server keep its word about deletion. The others come with a node."""


_GO: Final = {"GOGC": "400", "GOMEMLIMIT": "1536MiB"}
"""For its programs, all of them in Go. They would spend a fifth of their time on collecting garbage: here memory is
cheaper.
"""


class Cluster:
    """A cluster by name. Several live side by side, since each has a network of its own."""

    def __init__(self, name: str) -> None:
        self.folder = cache_folder() / "clusters" / name
        self.network = f"labrats-{name}"
        self.cgroup = f"labrats-{name}"
        self._started: dict[str, subprocess.Popen[bytes]] = {}

    @property
    def kubeconfig(self) -> Path:
        """The administrator's. It works inside and outside of the cluster's network."""
        return self.authority.folder / "admin.kubeconfig"

    @cached_property
    def programs(self) -> Path:
        return build_programs()

    @cached_property
    def port(self) -> int:
        """The API server's, both on the machine's loopback and in the cluster's network."""
        return int((self.folder / "port").read_text())

    @cached_property
    def authority(self) -> Authority:
        return Authority(self.folder / "pki", f"https://127.0.0.1:{self.port}")

    def start_api(self, controllers: str = _CONTROLLERS) -> Path:
        """Start etcd, the API server and `controllers`; the administrator's kubeconfig. Raises Failed."""
        packages.require(packages.API)
        programs = self.programs
        if self.folder.exists():
            raise Failed(f"the cluster is up, or was not cleaned up: {self.folder}")
        (self.folder / "log").mkdir(parents=True)
        listener = socket.create_server(("127.0.0.1", 0), backlog=512)
        (self.folder / "port").write_text(str(listener.getsockname()[1]))
        self._create_network()
        self.forward("forward", listener, "127.0.0.1", self.port)
        self._start_etcd(programs)
        self._start_api_server(programs)
        self.wait_for("kube-apiserver", lambda: succeeds(*self.kubectl_command, *_READY))
        self._publish_api_server()
        self._start_controllers(programs, controllers)
        return self.kubeconfig

    def kubectl(self, *arguments: str, stdin: str | None = None) -> str:
        """What kubectl prints. Raises Failed with its complaint."""
        return run(*self.kubectl_command, *arguments, stdin=stdin)

    @property
    def kubectl_command(self) -> tuple[str | Path, ...]:
        """What kubectl is called by."""
        return (self.programs / "kubectl", "--kubeconfig", self.kubeconfig)

    def apply(self, *objects: dict[str, Any]) -> None:
        """Create or change objects."""
        self.kubectl(
            "apply",
            "--validate=false",
            "-f",
            "-",
            stdin=json.dumps({"apiVersion": "v1", "kind": "List", "items": objects}),
        )

    def start(self, program: str, *command: str | Path, descriptors: Sequence[int] = ()) -> None:
        """Run a program of the cluster in the background, in its network, until the cluster is stopped."""
        with open(self.folder / "log" / program, "ab") as log:
            self._started[program] = subprocess.Popen(
                self.inside(*command),
                cwd=self.folder,
                env=os.environ | _GO,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                pass_fds=descriptors,
                start_new_session=True,
            )

    def wait_for(self, program: str, is_up: Callable[[], bool]) -> None:
        """Wait until a program that was started is up. Raises Failed with its last words when it ended instead."""

        def is_up_or_ended() -> bool:
            return is_up() or self._started[program].poll() is not None

        until(program, is_up_or_ended)
        if self._started[program].returncode is not None:
            log = (self.folder / "log" / program).read_text(errors="replace")
            raise Failed(f"{program} ended: {log.strip().splitlines()[-1:]}")

    def forward(self, program: str, listener: socket.socket, address: str, port: int) -> None:
        """Lead a socket that listens on this machine to an address in the cluster's network, as `start` starts it."""
        script = Path(__file__).with_name("forward.py")
        descriptor = listener.fileno()
        with listener:
            self.start(program, sys.executable, script, str(descriptor), address, str(port), descriptors=[descriptor])

    def listen(self) -> socket.socket:
        """A socket of this process that listens in the cluster's network, at GATEWAY, where pods reach it."""
        with ThreadPoolExecutor(max_workers=1) as another:  # a thread has a network of its own, and then ends
            return another.submit(_listen_in, Path("/run/netns", self.network), GATEWAY).result()

    def kill(self, program: str) -> None:
        """Have a program die that `start` has started."""
        self._started[program].kill()

    def inside(self, *command: str | Path) -> list[str | Path]:
        """The command that runs `command` in the cluster's network. `ip netns exec` would hide the cgroups."""
        return ["nsenter", f"--net=/run/netns/{self.network}", "--", *command]

    def enter(self, command: Sequence[str]) -> None:
        """Become `command` in the cluster's network, with its kubeconfig and its programs. Does not return."""
        path = f"{self.programs}{os.pathsep}{os.environ['PATH']}"
        environment = {**os.environ, "KUBECONFIG": str(self.kubeconfig), "PATH": path}
        os.execvpe("nsenter", [str(word) for word in self.inside(*command)], environment)

    def stop(self) -> None:
        """End every process of the cluster and of its pods, and remove what it made. Harmless when there is none."""
        _kill_all(lambda: [*self._processes_in_network(), *self._processes_in_cgroups()])
        for process in self._started.values():
            process.wait()
        for cgroup in self.cgroups():
            for folder in sorted((folder for folder in cgroup.rglob("*") if folder.is_dir()), reverse=True):
                folder.rmdir()
            cgroup.rmdir()
        for mount in reversed(_mounts_below(self.folder)):
            run("umount", mount)
        if Path("/run/netns", self.network).exists():
            run("ip", "netns", "delete", self.network)
        shutil.rmtree(self.folder, ignore_errors=True)

    def cgroups(self) -> list[Path]:
        """The cgroup that all its pods are in: one folder in each hierarchy of version 1, one in all of version 2."""
        return [*Path("/sys/fs/cgroup").glob(f"*/{self.cgroup}"), *Path("/sys/fs/cgroup").glob(self.cgroup)]

    def _create_network(self) -> None:
        run("ip", "netns", "add", self.network)
        for command in (
            "ip link set lo up",
            f"ip link add {BRIDGE} type bridge",
            f"ip addr add {GATEWAY}/{PODS.prefixlen} dev {BRIDGE}",
            f"ip link set {BRIDGE} up",
            f"ip route add {SERVICES} dev {BRIDGE}",  # so that there is a way at all, which kube-proxy then changes
        ):
            run(*self.inside(*command.split()))

    def _start_etcd(self, programs: Path) -> None:
        self.start(
            "etcd",
            programs / "etcd",
            *("--data-dir", "etcd"),
            *("--listen-client-urls", ETCD, "--advertise-client-urls", ETCD),
            *("--listen-peer-urls", _ETCD_PEERS, "--initial-advertise-peer-urls", _ETCD_PEERS),
            *("--initial-cluster", f"default={_ETCD_PEERS}"),
        )

    def _start_api_server(self, programs: Path) -> None:
        self.authority.create()
        (self.folder / "audit-policy.json").write_text(json.dumps(_AUDIT_POLICY))
        pki = self.authority.folder
        addresses = f"IP:127.0.0.1,IP:{GATEWAY},IP:{SERVICES[1]},DNS:localhost,DNS:kubernetes.default.svc"
        self.authority.issue("api-server", "/CN=kube-apiserver", addresses)
        self.authority.issue("admin", "/O=system:masters/CN=admin")
        self.start(
            "kube-apiserver",
            programs / "kube-apiserver",
            f"--etcd-servers={ETCD}",
            f"--advertise-address={GATEWAY}",
            f"--secure-port={self.port}",
            f"--tls-cert-file={pki}/api-server.crt",
            f"--tls-private-key-file={pki}/api-server.key",
            f"--client-ca-file={self.authority.certificate}",
            f"--service-account-key-file={self.authority.service_account_key}",
            f"--service-account-signing-key-file={self.authority.service_account_key}",
            "--service-account-issuer=https://kubernetes.default.svc",
            f"--service-cluster-ip-range={SERVICES}",
            "--authorization-mode=Node,RBAC",
            "--enable-admission-plugins=NodeRestriction",
            "--allow-privileged=true",
            f"--kubelet-client-certificate={pki}/admin.crt",
            f"--kubelet-client-key={pki}/admin.key",
            f"--kubelet-certificate-authority={self.authority.certificate}",
            "--kubelet-preferred-address-types=InternalIP",
            "--endpoint-reconciler-type=none",  # it would refuse an address of loopback; see _publish_api_server
            "--audit-policy-file=audit-policy.json",
            "--audit-log-path=audit.jsonl",
        )

    def _publish_api_server(self) -> None:
        """Tell the Service `kubernetes`, by which pods reach the API server, where that is."""
        self.apply(
            {
                "apiVersion": "discovery.k8s.io/v1",
                "kind": "EndpointSlice",
                "metadata": {
                    "name": "kubernetes",
                    "namespace": "default",
                    "labels": {"kubernetes.io/service-name": "kubernetes"},
                },
                "addressType": "IPv4",
                "endpoints": [{"addresses": [GATEWAY]}],
                "ports": [{"name": "https", "port": self.port, "protocol": "TCP"}],
            }
        )

    @contextmanager
    def controllers_behind(self, kubeconfig: Path) -> Iterator[None]:
        """Have the controllers of a cluster with nodes ask another API server while the block runs, such as a proxy."""
        self._restart_controllers(kubeconfig)
        try:
            yield
        finally:
            self._restart_controllers(None)

    def _restart_controllers(self, kubeconfig: Path | None) -> None:
        self.kill("kube-controller-manager")
        self._started["kube-controller-manager"].wait()
        self._start_controllers(self.programs, "*", kubeconfig)

    def _start_controllers(self, programs: Path, controllers: str, server: Path | None = None) -> None:
        """server: a kubeconfig with the API server to ask, where that is another."""
        kubeconfig = self.authority.issue("controllers", "/CN=system:kube-controller-manager")
        self.start(
            "kube-controller-manager",
            programs / "kube-controller-manager",
            f"--controllers={controllers}",
            f"--kubeconfig={server or kubeconfig}",
            f"--authentication-kubeconfig={kubeconfig}",
            f"--authorization-kubeconfig={kubeconfig}",
            f"--service-account-private-key-file={self.authority.service_account_key}",
            f"--root-ca-file={self.authority.certificate}",
            "--use-service-account-credentials",
            "--leader-elect=false",
            "--bind-address=127.0.0.1",
        )

    def _processes_in_network(self) -> list[int]:
        if not Path("/run/netns", self.network).exists():
            return []
        return [int(pid) for pid in run("ip", "netns", "pids", self.network).split()]

    def _processes_in_cgroups(self) -> list[int]:
        lists = [members for cgroup in self.cgroups() for members in cgroup.rglob("cgroup.procs")]
        return [int(pid) for members in lists for pid in members.read_text().split()]


def _listen_in(network: Path, address: str) -> socket.socket:
    """A socket stays in the network that it was made in. Python 3.12 has `os.setns`."""
    with open(network) as entered:
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.setns(entered.fileno(), _NETWORK) != 0:
            raise OSError(ctypes.get_errno(), f"{network} cannot be entered")
    return socket.create_server((address, 0))


def _kill_all(remaining: Callable[[], list[int]]) -> None:
    """SIGKILL until none remains: what is being killed may still start others. All state is thrown away anyway."""

    def none_remain() -> bool:
        try:
            pids = remaining()
        except OSError:  # what is looked at goes away meanwhile: look again
            return False
        for pid in pids:
            send_signal(pid, signal.SIGKILL)
        return not pids

    until("the cluster's processes to end", none_remain)


def _mounts_below(folder: Path) -> list[str]:
    """The mount points below `folder`, outer ones first."""
    points = [line.split()[1] for line in Path("/proc/mounts").read_text().splitlines()]
    return sorted(point for point in points if point.startswith(f"{folder}/"))
