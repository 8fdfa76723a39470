"""A cluster: a folder, a network namespace, and the programs that run in it."""

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
from typing import Any, BinaryIO, Final, TypeVar

from labrats.processes import send_signal
from tests.cluster import packages
from tests.cluster.certificates import Authority
from tests.cluster.programs import build_programs, cache_folder
from tests.cluster.shell import Failed, run, succeeds, until

T = TypeVar("T")

BRIDGE: Final = "labrats0"
PODS: Final = IPv4Network("10.88.0.0/24")
SERVICES: Final = IPv4Network("10.96.0.0/16")
GATEWAY: Final = str(PODS[1])
"""The bridge's address, by which pods reach the machine. All nodes have this address."""

ETCD: Final = "http://127.0.0.1:12379"
_ETCD_PEERS: Final = "http://127.0.0.1:12380"
_READY: Final = ("get", "--raw", "/readyz")
_AUDIT_POLICY: Final = {
    "apiVersion": "audit.k8s.io/v1",
    "kind": "Policy",
    "omitStages": ["RequestReceived"],
    "rules": [{"level": "Metadata"}],
}
_NETWORK: Final = 0x40000000  # CLONE_NEWNET: the kind of namespace to enter
_CONTROLLERS: Final = "garbage-collector-controller,namespace-controller"
"""The controllers that complete deletions. The other controllers start with a node."""

_GARBAGE_COLLECTION: Final = "400"
"""Growth of the heap, in percent, after which the cluster's programs, written in Go, collect garbage. With the default
they spend a fifth of their time on it.
"""


class Cluster:
    """A cluster, identified by its name. Several can run at once, each in its own network namespace.

    memory: above it, each of the cluster's programs collects garbage all the time.
    """

    def __init__(self, name: str, memory: str = "1536MiB") -> None:
        self.memory = memory
        self.folder = cache_folder() / "clusters" / name
        self.network = f"labrats-{name}"
        self.cgroup = f"labrats-{name}"
        self._started: dict[str, subprocess.Popen[bytes]] = {}

    @property
    def kubeconfig(self) -> Path:
        """The administrator's kubeconfig. It works inside and outside of the cluster's network."""
        return self.authority.folder / "admin.kubeconfig"

    @cached_property
    def programs(self) -> Path:
        return build_programs()

    @cached_property
    def port(self) -> int:
        """The API server's port, both on the machine's loopback and in the cluster's network."""
        return int((self.folder / "port").read_text())

    @cached_property
    def authority(self) -> Authority:
        return Authority(self.folder / "pki", f"https://127.0.0.1:{self.port}")

    def start_api(self, controllers: str = _CONTROLLERS) -> Path:
        """Start etcd, the API server and `controllers`. Return the administrator's kubeconfig. Raises Failed."""
        packages.require(packages.API)
        programs = self.programs
        if self.folder.exists():
            raise Failed(f"the cluster is already running, or was not cleaned up: {self.folder}")
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
        """Run kubectl and return its output. Raises Failed with its error message."""
        return run(*self.kubectl_command, *arguments, stdin=stdin)

    @property
    def kubectl_command(self) -> tuple[str | Path, ...]:
        """The program kubectl with the options to reach this cluster."""
        return (self.programs / "kubectl", "--kubeconfig", self.kubeconfig)

    def apply(self, *objects: dict[str, Any]) -> None:
        """Create or change objects by `kubectl apply`."""
        self.kubectl(
            "apply",
            "--validate=false",
            "-f",
            "-",
            stdin=json.dumps({"apiVersion": "v1", "kind": "List", "items": objects}),
        )

    def start(self, program: str, *command: str | Path, descriptors: Sequence[int] = ()) -> None:
        """Run a program in the cluster's network, in the background, until the cluster is stopped."""
        with open(self.folder / "log" / program, "ab") as log:
            self._started[program] = self._spawn(self.inside(*command), log, descriptors)

    def _spawn(self, command: Any, log: BinaryIO, descriptors: Sequence[int] = ()) -> "subprocess.Popen[bytes]":
        return subprocess.Popen(
            command,
            cwd=self.folder,
            env=os.environ | {"GOGC": _GARBAGE_COLLECTION, "GOMEMLIMIT": self.memory},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            pass_fds=descriptors,
            start_new_session=True,
        )

    def wait_for(self, program: str, is_up: Callable[[], bool]) -> None:
        """Wait until a started program is up. Raises Failed with the last line of its log if the program ended."""

        def is_up_or_ended() -> bool:
            return is_up() or self._started[program].poll() is not None

        until(program, is_up_or_ended)
        if self._started[program].returncode is not None:
            log = (self.folder / "log" / program).read_text(errors="replace")
            raise Failed(f"{program} ended: {log.strip().splitlines()[-1:]}")

    def forward(self, program: str, listener: socket.socket, address: str, port: int) -> None:
        """Forward a listening socket of this machine to an address in the cluster's network."""
        script = Path(__file__).with_name("forward.py")
        descriptor = listener.fileno()
        with listener:
            self.start(program, sys.executable, script, str(descriptor), address, str(port), descriptors=[descriptor])

    def listen(self) -> socket.socket:
        """Return a socket of this process that listens at GATEWAY in the cluster's network, for pods to connect to."""
        return self.call_inside(lambda: socket.create_server((GATEWAY, 0)))

    def call_inside(self, function: Callable[[], T]) -> T:
        """Call a function in the cluster's network. Sockets that it opens stay there."""

        def enter_and_call() -> T:
            with open(Path("/run/netns", self.network)) as entered:
                libc = ctypes.CDLL(None, use_errno=True)  # Python 3.12 has os.setns
                if libc.setns(entered.fileno(), _NETWORK) != 0:
                    raise OSError(ctypes.get_errno(), f"cannot enter {self.network}")
            return function()

        with ThreadPoolExecutor(max_workers=1) as executor:  # only this thread enters the network namespace, and ends
            return executor.submit(enter_and_call).result()

    def kill(self, program: str) -> None:
        """Kill a program that `start` has started, and wait for its end."""
        self._started[program].kill()
        self._started[program].wait()

    def start_again(self, program: str) -> None:
        """Start a program that `kill` has ended, with the command of its first start. Does not wait until it is up."""
        ended = self._started[program]
        with open(self.folder / "log" / program, "ab") as log:
            self._started[program] = self._spawn(ended.args, log)

    def inside(self, *command: str | Path) -> list[str | Path]:
        """Return a command that runs `command` in the cluster's network. `ip netns exec` would hide the cgroups."""
        return ["nsenter", f"--net=/run/netns/{self.network}", "--", *command]

    def enter(self, command: Sequence[str]) -> None:
        """Replace this process by `command` in the cluster's network, with its kubeconfig and programs."""
        path = f"{self.programs}{os.pathsep}{os.environ['PATH']}"
        environment = {**os.environ, "KUBECONFIG": str(self.kubeconfig), "PATH": path}
        os.execvpe("nsenter", [str(word) for word in self.inside(*command)], environment)

    def stop(self) -> None:
        """Kill every process of the cluster and its pods, and remove its files. Does nothing if there is no cluster."""
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
        """Return the folders of the pods' cgroup: one per hierarchy in version 1, a single one in version 2."""
        return [*Path("/sys/fs/cgroup").glob(f"*/{self.cgroup}"), *Path("/sys/fs/cgroup").glob(self.cgroup)]

    def _create_network(self) -> None:
        run("ip", "netns", "add", self.network)
        for command in (
            "ip link set lo up",
            f"ip link add {BRIDGE} type bridge",
            f"ip addr add {GATEWAY}/{PODS.prefixlen} dev {BRIDGE}",
            f"ip link set {BRIDGE} up",
            f"ip route add {SERVICES} dev {BRIDGE}",  # any route will do: kube-proxy rewrites the destination
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
            "--endpoint-reconciler-type=none",  # it would refuse a loopback address; see _publish_api_server
            "--audit-policy-file=audit-policy.json",
            "--audit-log-path=audit.jsonl",
        )

    def _publish_api_server(self) -> None:
        """Create the endpoint of the Service `kubernetes`, by which pods reach the API server."""
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
        """Have the controllers use another API server during the block, such as a proxy. The cluster needs a node."""
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
        """Start the controllers. server: the kubeconfig of another API server for them, such as a proxy."""
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
            # A claim that was created before its volume is bound in the next period: by default after 15 s.
            "--pvclaimbinder-sync-period=500ms",
        )

    def _processes_in_network(self) -> list[int]:
        if not Path("/run/netns", self.network).exists():
            return []
        return [int(pid) for pid in run("ip", "netns", "pids", self.network).split()]

    def _processes_in_cgroups(self) -> list[int]:
        lists = [members for cgroup in self.cgroups() for members in cgroup.rglob("cgroup.procs")]
        return [int(pid) for members in lists for pid in members.read_text().split()]


def _kill_all(remaining: Callable[[], list[int]]) -> None:
    """Send SIGKILL until no process remains: a process may start others before it dies."""

    def none_remain() -> bool:
        try:
            pids = remaining()
        except OSError:  # a process or cgroup has disappeared meanwhile: try again
            return False
        for pid in pids:
            send_signal(pid, signal.SIGKILL)
        return not pids

    until("the cluster's processes to end", none_remain)


def _mounts_below(folder: Path) -> list[str]:
    """Return the mount points below `folder`, outer ones first."""
    points = [line.split()[1] for line in Path("/proc/mounts").read_text().splitlines()]
    return sorted(point for point in points if point.startswith(f"{folder}/"))
