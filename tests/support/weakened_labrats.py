"""The program `labrats` without one of its defences, to test the tests of the defences.

LocalEngine runs it instead of `labrats` if its environment has `without(...)`. The engine's launcher lacks the same
defence, and so do the executors, which are forks of the launcher.
"""

import os
import runpy
import subprocess
import sys
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from importlib import import_module
from types import ModuleType, SimpleNamespace
from typing import Any, Final

VARIABLE: Final = "TEST_WITHOUT_DEFENCE"
NOTHING_TO_REPLACE: Final = "is missing, so that no defence can be replaced"


def without(defence: str) -> dict[str, str]:
    """Return the environment of an engine without this defence, one of WEAKENINGS."""
    assert defence in WEAKENINGS, defence
    return {VARIABLE: defence}


def _replace(owner: ModuleType | type, name: str, value: object) -> None:
    """Replace a function or a constant, which must exist."""
    if not hasattr(owner, name):
        raise SystemExit(f"{owner.__name__}.{name} {NOTHING_TO_REPLACE}")
    setattr(owner, name, value)


def _nothing(*_: Any, **__: Any) -> None:
    """Do nothing in place of a defence."""


def _always(*_: Any, **__: Any) -> bool:
    return True


# The sandbox


def _without_options(*options: str) -> Callable[[], None]:
    """Return a weakening that leaves out options of bubblewrap."""

    def weaken() -> None:
        from labrats.sandbox import bubblewrap

        assert set(options) <= set(bubblewrap._NAMESPACES)
        _replace(bubblewrap, "_NAMESPACES", tuple(each for each in bubblewrap._NAMESPACES if each not in options))

    return weaken


def _with_writable_system() -> None:
    from labrats.sandbox import bubblewrap

    _replace(bubblewrap, "_bind", lambda path: ("--bind", str(path), str(path)))


def _with_private_settings() -> None:
    from labrats.sandbox import bubblewrap, etc_snapshots

    _replace(bubblewrap, "is_private", lambda _: False)
    _replace(etc_snapshots, "is_private", lambda _: False)


def _without_covers() -> None:
    from labrats.sandbox import bubblewrap

    _replace(bubblewrap, "_places_of", lambda *_: [])


def _with_private_software() -> None:
    from labrats.sandbox import bubblewrap

    _replace(bubblewrap, "private_software", lambda: iter(()))


def _with_writable_kernel() -> None:
    from labrats.sandbox import bubblewrap

    _replace(
        bubblewrap,
        "_READ_ONLY_MOUNTS",
        [each for each in bubblewrap._READ_ONLY_MOUNTS if each != bubblewrap._PROCESSES],
    )


def _without_limit_on_core_dumps() -> None:
    from labrats.sandbox import bubblewrap

    _replace(bubblewrap, "refuse_core_dumps", _nothing)


def _without(module: str, name: str) -> Callable[[], None]:
    """Return a weakening without a function that a module of the executor calls."""

    def weaken() -> None:
        _replace(import_module(f"labrats.executor.{module}"), name, _nothing)

    return weaken


def _with_variables_of_the_loader() -> None:
    from labrats.executor import agent_sandbox, context

    for module in (agent_sandbox, context):
        _replace(module, "is_for_any_program", lambda _: False)


# Secrets


def _with_readable_processes() -> None:
    from labrats import processes

    _replace(processes, "become_unreadable", _nothing)


def _with_credential_of_the_clone() -> None:
    from labrats.executor import git

    _replace(git, "shutil", SimpleNamespace(rmtree=_nothing))


def _without_redaction() -> None:
    from labrats.executor import attempt
    from labrats.model.redaction import Redactor

    class Blind(Redactor):
        def redact(self, text: str) -> str:
            return text

        def including(self, *secrets: str) -> "Blind":
            return self

    _replace(attempt, "Redactor", Blind)


def _with_secrets_for_external_contributors() -> None:
    from labrats.files import attempt_inputs

    trusting = attempt_inputs._secrets

    def secrets(attempt: Any) -> Any:
        from dataclasses import replace

        spec = replace(attempt.job.spec, untrusted=False)
        return trusting(replace(attempt, job=replace(attempt.job, spec=spec)))

    _replace(attempt_inputs, "_secrets", secrets)


def _with_caches_for_all() -> None:
    from labrats.model import job

    _replace(job, "cache_scope", lambda job: "a" * 32)


# The network


def _with_any_host() -> None:
    from labrats.executor.egress import agent_network

    _replace(agent_network, "allows", _always)


def _with_private_addresses() -> None:
    from labrats.executor.egress import proxy
    from labrats.net.address_policy import resolve_allowed

    _replace(proxy, "resolve_allowed", lambda host, port, *_: resolve_allowed(host, port, proxy._EVERYWHERE))


class _Anything(str):
    """A text that equals every other one."""

    __slots__ = ()
    __hash__ = str.__hash__

    def __eq__(self, other: object) -> bool:
        return True


def _with_any_server_name() -> None:
    from labrats.executor.egress.server_name import ClientHello

    _replace(ClientHello, "server_name", _Anything())


def _with_any_host_header() -> None:
    from labrats.executor.egress import proxy

    _replace(proxy, "_host_of", lambda _: _Anything())


# Clones


def _with_clones_of_any_address() -> None:
    from labrats.executor import git
    from labrats.net import address_policy

    def resolve(host: str, port: int, _: object) -> Any:
        return address_policy.resolve_allowed(host, port, ("0.0.0.0/0", "::/0"))

    errors = {"Forbidden": address_policy.Forbidden, "Unresolvable": address_policy.Unresolvable}
    _replace(git, "address_policy", SimpleNamespace(resolve_allowed=resolve, **errors))


def _with_second_lookups_of_clones() -> None:
    from labrats.executor import git

    _replace(git, "_pinned_addresses", lambda *_: {})


def _with_redirects_of_clones() -> None:
    from labrats.executor import git

    _replace(git, "_CONFIG", {name: value for name, value in git._CONFIG.items() if name != "http.followRedirects"})


def _with_checkouts_outside_of_the_sandbox() -> None:
    from labrats.executor import git

    _replace(git, "sandboxed_tool", lambda command, *_, **__: nullcontext(command))


# The key proxy


def _of_key_proxy(module: str, rules: str, name: str, value: object) -> Callable[[], None]:
    """Return a weakening of the rules for requests to a model's server. rules: a class in `module`."""

    def weaken() -> None:
        _replace(getattr(import_module(f"labrats.executor.key_proxy.{module}"), rules), name, value)

    return weaken


def _with_reach_of_the_model_server() -> None:
    from labrats.executor.key_proxy import request_policy

    _replace(request_policy, "_without_reach", lambda body: body)


def _with_headers_of_gateways() -> None:
    from labrats.executor.key_proxy import request_policy

    _replace(request_policy, "_FORWARDED_PREFIXES", (b"",))


WEAKENINGS: Final[Mapping[str, Callable[[], None]]] = {
    "missing capabilities": _without_options("--cap-drop", "ALL"),
    "ban on new namespaces": _without_options("--disable-userns"),
    "namespace of processes": _without_options("--unshare-pid"),
    "namespace of shared memory": _without_options("--unshare-ipc"),
    "namespace of the host name": _without_options("--unshare-uts"),
    "session of its own": _without_options("--new-session"),
    "read-only system": _with_writable_system,
    "hidden private settings": _with_private_settings,
    "hidden private software": _with_private_software,
    "covers of the engine's folders": _without_covers,
    "read-only files of the kernel": _with_writable_kernel,
    "read-only devices": _without("confinement", "separate_mounts"),
    "limit on core dumps": _without_limit_on_core_dumps,
    "filter of system calls": _without("confinement", "refuse_calls"),
    "scope of sockets": _without("confinement", "scope_sockets"),
    "variables of the loader": _with_variables_of_the_loader,
    "unreadable processes": _with_readable_processes,
    "removal of the attempt's secrets": _without("attempt", "_remove_secrets"),
    "removal of the clone's credential": _with_credential_of_the_clone,
    "redaction": _without_redaction,
    "secrets for trusted jobs only": _with_secrets_for_external_contributors,
    "caches by trust": _with_caches_for_all,
    "rule of the proxy": _with_any_host,
    "refusal of private addresses": _with_private_addresses,
    "comparison of the server's name": _with_any_server_name,
    "comparison of the Host header": _with_any_host_header,
    "addresses of clones": _with_clones_of_any_address,
    "one lookup for a clone": _with_second_lookups_of_clones,
    "refusal of redirects of clones": _with_redirects_of_clones,
    "checkout in the sandbox": _with_checkouts_outside_of_the_sandbox,
    "models of the key proxy": _of_key_proxy("request_policy", "BodyRules", "_check_model", _nothing),
    "paths of the key proxy": _of_key_proxy("request_policy", "RequestPolicy", "_allows", _always),
    "token of the key proxy": _of_key_proxy("request_policy", "RequestPolicy", "has_token", _always),
    "budget of the key proxy": _of_key_proxy("budget", "Budget", "check", _nothing),
    "room for requests at once": _of_key_proxy("budget", "Budget", "has_room_for", _always),
    "reach of the model's server": _with_reach_of_the_model_server,
    "headers of gateways": _with_headers_of_gateways,
}
"""Defences, each with the function that switches it off in the process that calls it."""

OF_THE_ENGINE: Final = ("unreadable processes",)
"""Defences that the engine itself lacks, too. With the others, its tests of the sandbox at its start would fail."""


def weaken(defence: str) -> None:
    """Switch off a defence in this process."""
    WEAKENINGS[defence]()


def _weaken_launcher(defence: str) -> None:
    """Let the engine of this process start a launcher without the defence."""
    from labrats.backends.embedded import launcher_client

    def start(command: list[str], **options: Any) -> "subprocess.Popen[bytes]":
        options["env"] = options["env"] | {VARIABLE: defence}
        return subprocess.Popen([sys.executable, "-P", __file__, *command[2:]], **options)

    _replace(launcher_client, "subprocess", SimpleNamespace(Popen=start, DEVNULL=subprocess.DEVNULL))


def _main() -> None:
    defence = os.environ.pop(VARIABLE)
    if sys.argv[1:2] == ["-m"]:
        weaken(defence)
        _, _, module, *arguments = sys.argv
        sys.argv = [module, *arguments]
        runpy.run_module(module, run_name="__main__", alter_sys=True)
        return
    if defence in OF_THE_ENGINE:
        weaken(defence)
    _weaken_launcher(defence)
    from labrats.main import main

    main()


if __name__ == "__main__":
    _main()
