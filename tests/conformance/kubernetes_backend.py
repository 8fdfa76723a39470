"""Attempts in pods of a real cluster whose node is this machine, so that tests can see and kill their processes."""

import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Self

from labrats.backends.kubernetes.batch_client import BatchClient
from labrats.backends.kubernetes.client import ApiClient
from labrats.backends.kubernetes.pod_settings import PodSettings
from labrats.backends.kubernetes.runner import KubernetesRunner, KubernetesRunnerSettings
from labrats.model.attempt_name import AttemptName
from labrats.model.record import encode
from labrats.ports import Runner, Store
from labrats.processes import send_signal, with_environment
from tests.cluster.fixture import new_namespace
from tests.fakes.store import MemoryStore
from tests.support.background import run_in_background


class KubernetesBackend:
    """Pods in one namespace. folder: stand-in for the shared volume."""

    def __init__(self, kubeconfig: Path, namespace: str, image: str, folder: Path) -> None:
        self.store: Store = MemoryStore()
        self.keeps_workspaces = False
        self._kubeconfig = kubeconfig
        self._settings = KubernetesRunnerSettings(namespace, folder / "attempts", a_pod_settings(image))

    @classmethod
    @asynccontextmanager
    async def open(cls, kubeconfig: Path, image: str, folder: Path) -> AsyncIterator[Self]:
        """Open a backend in a new namespace with Pod Security `restricted`. Its pods are deleted with the namespace."""
        labels = {"pod-security.kubernetes.io/enforce": "restricted"}
        async with ApiClient.open(kubeconfig) as client, new_namespace(client, labels) as namespace:
            yield cls(kubeconfig, namespace, image, folder)

    @asynccontextmanager
    async def open_runner(self) -> AsyncIterator[Runner]:
        async with ApiClient.open(self._kubeconfig) as client:
            runner = KubernetesRunner(client, self.store, self._settings)
            async with run_in_background(runner.run()):
                yield runner

    def living_processes(self, name: AttemptName) -> int:
        return len({*_processes_in_pod(name), *with_environment("LABRATS_ATTEMPT", str(name))})

    def crash(self, name: AttemptName) -> None:
        for pid in executors_of(name):
            send_signal(pid, signal.SIGKILL)

    async def crash_unseen(self, name: AttemptName) -> None:
        executors = executors_of(name)
        for pid in executors:
            send_signal(pid, signal.SIGSTOP)  # so that it cannot report that it is stopped
        async with ApiClient.open(self._kubeconfig) as client:
            api = BatchClient(client, self._settings.namespace)
            pods = await api.pods_of(str(name))
            await api.delete_job(await api.get_job(name))
            for pod in pods:
                path = f"/api/v1/namespaces/{self._settings.namespace}/pods/{pod.name}"
                await client.request("DELETE", path, encode({"gracePeriodSeconds": 0}))
        for pid in executors:
            send_signal(pid, signal.SIGKILL)

    def kill_helpers(self) -> None:
        """Do nothing: the only helper is the cluster itself."""


def a_pod_settings(executor: str, **fields: object) -> PodSettings:
    """Return settings of small pods. The test cluster has no DNS server, so pods use that of the machine."""
    defaults: dict[str, object] = {
        "image": executor,
        "resources": {"requests": {"cpu": "10m"}, "limits": {"memory": "256Mi"}},
        "scratch_size": "100Mi",
        "pod_fields": {"dnsPolicy": "Default"},
        "grace_seconds": 5.0,
    }
    return PodSettings(**defaults | fields)  # type: ignore[arg-type]


def executors_of(name: AttemptName) -> list[int]:
    """Return the pids of the attempt's executor on this machine."""
    return [pid for pid in _processes_in_pod(name) if b"labrats.executor" in _read(pid, "cmdline")]


def _processes_in_pod(name: AttemptName) -> list[int]:
    """Return the living processes with the attempt's pod in HOSTNAME: its name begins with that of the attempt."""
    mark = f"HOSTNAME={name}-".encode()
    pids = [int(entry) for entry in os.listdir("/proc") if entry.isdecimal()]
    return [pid for pid in pids if any(each.startswith(mark) for each in _read(pid, "environ").split(b"\0"))]


def _read(pid: int, file: str) -> bytes:
    """Return the content of a file of a process; empty if the process has ended."""
    with suppress(OSError):
        return Path(f"/proc/{pid}/{file}").read_bytes()
    return b""
