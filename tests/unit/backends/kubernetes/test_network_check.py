"""What a canary's pod is, and what its program finds."""

import socket

from labrats.backends.kubernetes.network_check import NetworkCheck, network_check_job
from labrats.backends.kubernetes.network_probe import CLOSED, OPEN, probe
from tests.unit.backends.kubernetes.test_pod import an_owned_attempt, pod_of

CANARY = NetworkCheck("labrats-canary-7", "labrats/engine:1", "10.0.0.7", 3001, {"nodeSelector": {"pool": "agents"}})


def test_a_door_that_opens_is_open() -> None:
    with socket.create_server(("127.0.0.1", 0)) as door:
        assert probe(*door.getsockname()) == OPEN


def test_a_door_behind_which_nobody_is_is_closed() -> None:
    with socket.create_server(("127.0.0.1", 0)) as door:
        address = door.getsockname()
    assert probe(*address) == CLOSED


def test_the_networks_policies_take_a_canary_for_a_job() -> None:
    network_check = network_check_job(CANARY)["spec"]["template"]
    labels = pod_of(an_owned_attempt())["metadata"]["labels"]
    assert network_check["metadata"]["labels"].items() <= labels.items()
    assert network_check["spec"]["nodeSelector"] == {"pool": "agents"}


def test_a_canary_knocks_at_its_leaders_door() -> None:
    container = network_check_job(CANARY)["spec"]["template"]["spec"]["containers"][0]
    assert container["image"] == "labrats/engine:1"
    assert container["command"][-2:] == ["10.0.0.7", "3001"]


def test_no_attempt_is_seen_in_a_canary() -> None:
    assert not any(label.startswith("labrats.work/") for label in network_check_job(CANARY)["metadata"]["labels"])
