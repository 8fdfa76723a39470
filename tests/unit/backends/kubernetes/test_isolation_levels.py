"""The levels of isolation on a cluster, from the engine's settings."""

from typing import Any

import pytest

from labrats.backends.kubernetes.settings import isolation_levels, receiver_settings
from labrats.model.errors import LabratsError
from labrats.model.isolation import Isolation
from labrats.settings import EngineSettings, KubernetesSettings

CONTAINER, VM = Isolation.CONTAINER, Isolation.VM


def on_a_cluster(**fields: Any) -> KubernetesSettings:
    return KubernetesSettings(executor_image="labrats/executor:1", **fields)


@pytest.mark.parametrize(
    ("vm_class", "pod", "available", "default"),
    [
        (None, {}, (CONTAINER,), CONTAINER),
        (None, {"runtimeClassName": "gvisor"}, (CONTAINER,), CONTAINER),
        ("gvisor", {}, (CONTAINER, VM), CONTAINER),
        ("gvisor", {"runtimeClassName": "other"}, (CONTAINER, VM), CONTAINER),
        ("gvisor", {"runtimeClassName": "gvisor"}, (VM,), VM),
    ],
)
def test_the_level_vm_needs_a_runtime_class_and_is_the_only_one_if_all_pods_have_it(
    vm_class: str | None, pod: dict[str, str], available: tuple[Isolation, ...], default: Isolation
) -> None:
    levels = isolation_levels(EngineSettings(), on_a_cluster(vm_runtime_class=vm_class, executor_pod=pod))
    assert (levels.available, levels.default) == (available, default)


@pytest.mark.parametrize(("named", "default"), [("process", CONTAINER), ("container", CONTAINER), ("vm", VM)])
def test_the_engines_setting_chooses_the_default(named: str, default: Isolation) -> None:
    settings = EngineSettings(isolation=Isolation(named))
    assert isolation_levels(settings, on_a_cluster(vm_runtime_class="gvisor")).default is default


def test_a_setting_that_the_cluster_lacks_keeps_the_engine_from_starting() -> None:
    with pytest.raises(LabratsError) as refusal:
        isolation_levels(EngineSettings(isolation=VM), on_a_cluster())
    assert str(refusal.value) == (
        "LABRATS_ISOLATION cannot be vm: the levels here are container. "
        "For vm, name a runtime class in LABRATS_VM_RUNTIME_CLASS."
    )


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("LABRATS_ISOLATION", "container"),
        ("LABRATS_UNTRUSTED_ISOLATION", "vm"),
        ("LABRATS_VM_RUNTIME_CLASS", "gvisor"),
        ("LABRATS_NETWORK", "none"),
    ],
)
def test_receivers_contain_the_jobs_that_they_create_as_the_leader_does(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    monkeypatch.setenv(name, value)
    settings = receiver_settings(on_a_cluster(receiver_image="labrats/engine:1"))
    assert settings
    assert settings.environment[name] == value
