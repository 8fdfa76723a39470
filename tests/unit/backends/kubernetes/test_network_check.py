"""The pod of the network check, and its program."""

import socket

from labrats.backends.kubernetes.network_check import NetworkCheck, network_check_job
from labrats.backends.kubernetes.network_probe import CLOSED, OPEN, probe
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
