"""Confine this process and its descendants, before it runs an agent, by rules that none of them can remove."""

import os
from dataclasses import replace

from labrats.executor.context import RunContext
from labrats.model.protocol import Sandbox, Task
from labrats.sandbox.bubblewrap import refuse_core_dumps, separate_mounts
from labrats.sandbox.landlock import scope_sockets
from labrats.sandbox.seccomp import IN_POD, CallRules, refuse_calls


def confine_to_sandbox(sandbox: Sandbox, cpus: int | None) -> None:
    """Confine the agent where bubblewrap cannot. Call this after `share_processors`, which the filter may refuse.

    cpus: the limit on the number of processors; None without one.
    """
    separate_mounts()
    refuse_core_dumps()
    scope_sockets()
    refuse_calls(CallRules(may_debug=sandbox.may_debug, may_choose_processors=cpus is None))


def confine_in_pod(context: RunContext) -> None:
    """Refuse to the agent what the default filters of some container runtimes allow, such as io_uring and vsock."""
    refuse_core_dumps()
    try:
        refuse_calls(rules_in_pod(context.task))
    except OSError as error:  # the pod has the filter of its runtime all the same
        context.events.log(
            f"[no filter of system calls besides that of the container runtime: {os.strerror(error.errno or 0)}]"
        )


def rules_in_pod(task: Task) -> CallRules:
    """Return the rules in a pod. A network rule leaves the agent only what network policies surely cover.

    A cluster without IPv6 has no policy for the link-local addresses of its nodes and pods.
    """
    if task.egress_proxy is None:
        return IN_POD
    has_ipv6 = any(":" in host for host, _ in (task.egress_proxy, *task.policy_tests))
    return replace(IN_POD, only_tcp_and_udp=True, may_use_ipv6=has_ipv6)
