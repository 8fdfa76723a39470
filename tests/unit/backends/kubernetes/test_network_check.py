"""The pod of the network check, and its program."""

import socket
from pathlib import Path
from typing import Any, cast

import pytest

from labrats.backends.kubernetes import network_check as network_check_module
from labrats.backends.kubernetes.batch_client import BatchClient
from labrats.backends.kubernetes.batch_objects import JobObject, PodObject
from labrats.backends.kubernetes.egress import OPEN_CHECK, RULES_CHECK
from labrats.backends.kubernetes.network_check import NetworkCheck, check_network, check_rules, network_check_job
from labrats.backends.kubernetes.network_probe import CLOSED, OPEN, probe
from labrats.metrics import Metrics
from labrats.model.errors import RetryLater
from tests.unit.backends.kubernetes.objects import a_job_object, a_pod_object
from tests.unit.backends.kubernetes.test_pod import an_owned_attempt, pod_of

CHECK = NetworkCheck("labrats-canary-7", "labrats/engine:1", "10.0.0.7", 3001, {"nodeSelector": {"pool": "agents"}})


def test_probe_of_a_listening_address_is_open() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        assert probe(*listener.getsockname()) == OPEN


def test_probe_of_an_address_without_a_listener_is_closed() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        address = listener.getsockname()
    assert probe(*address) == CLOSED


def test_the_pod_of_the_check_has_the_labels_and_fields_of_a_jobs_pod() -> None:
    template = network_check_job(CHECK)["spec"]["template"]
    labels = pod_of(an_owned_attempt())["metadata"]["labels"]
    assert template["metadata"]["labels"].items() <= labels.items()
    assert template["spec"]["nodeSelector"] == {"pool": "agents"}


def test_the_check_connects_to_its_leader() -> None:
    container = network_check_job(CHECK)["spec"]["template"]["spec"]["containers"][0]
    assert container["image"] == "labrats/engine:1"
    assert container["command"][-2:] == ["10.0.0.7", "3001"]


def test_the_check_is_not_observed_as_an_attempt() -> None:
    assert not any(label.startswith("labrats.work/") for label in network_check_job(CHECK)["metadata"]["labels"])


class Jobs:
    """A stand-in for the requests of BatchClient for Jobs. The first one has no room, and the pod of the next ends."""

    def __init__(self, exit_code: int) -> None:
        self._exit_code = exit_code
        self.created: list[str] = []

    async def create_job(self, manifest: dict[str, Any]) -> JobObject:
        self.created.append(manifest["metadata"]["name"])
        if len(self.created) == 1:
            raise RetryLater("exceeded quota")
        return a_job_object()

    async def pods_of(self, _: str) -> list[PodObject]:
        return [a_pod_object({"terminated": {"exitCode": self._exit_code}})]

    async def delete_job(self, _: JobObject) -> bool:
        return True


@pytest.mark.parametrize(("exit_code", "result"), [(CLOSED, "enforced"), (OPEN, "not enforced")])
async def test_check_is_repeated_until_its_result_is_known(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, exit_code: int, result: str
) -> None:
    monkeypatch.setattr(network_check_module, "RECHECK_SECONDS", 0.0)
    of_open_jobs, of_rules = Jobs(exit_code), Jobs(exit_code)
    await check_network(cast("BatchClient", of_open_jobs), CHECK, Metrics(), tmp_path)
    await check_rules(cast("BatchClient", of_rules), CHECK, tmp_path)
    assert [(tmp_path / check).read_text() for check in (OPEN_CHECK, RULES_CHECK)] == [result, result]
    assert of_open_jobs.created == ["labrats-canary-7-open"] * 2
    assert of_rules.created == ["labrats-canary-7-rules"] * 2
