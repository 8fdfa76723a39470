"""The network in which an agent's programs start."""

import asyncio
import shlex
import socket
import subprocess
import traceback
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from ipaddress import ip_address
from typing import Any, Final

from labrats.executor.context import RunContext
from labrats.executor.egress.gateway import Gateway
from labrats.executor.egress.proxy import CONNECTIONS, EgressProxy, HostRule, relay_to
from labrats.files.safe_paths import write_new
from labrats.model.errors import GiveUp
from labrats.model.job import FailedCode
from labrats.model.network import PUBLIC, allows, is_restricted, limits_hosts, names
from labrats.model.protocol import EGRESS_TOKEN_FILE
from labrats.model.provider_spec import host_and_port, provider_spec
from labrats.sandbox.network_namespace import LOOPBACK, NetworkNamespace

PROXY_PORTS: Final = (3128, 3129)
"""Ports of the proxy in the agent's namespace. It takes the first that the server of the agent's model does not use."""

_NO_PROXY: Final = "localhost,127.0.0.1,::1"
_SCHEMES: Final = ("http", "https")
_JAVA_OPTIONS: Final = (
    "-Dhttp.nonProxyHosts=localhost|127.*|[::1]",
    "-Daether.connector.http.useSystemProperties=true",  # Maven
    "-Daether.transport.apache.useSystemProperties=true",  # later versions
)
_SSH_PROXY: Final = r"""#!/usr/bin/env bash
# A ProxyCommand of ssh: connects its standard streams with host $1, port $2, through the proxy of this job's network.
host=$1
case $host in *:*) host="[$host]" ;; esac
exec 3<> /dev/tcp/PROXY || exit 1
printf 'CONNECT %s HTTP/1.1\r\nHost: %s\r\n\r\n' "$host:$2" "$host:$2" >&3
IFS= read -r status <&3
while IFS= read -r line <&3 && [ "$line" != $'\r' ]; do :; done
case $status in
"HTTP/1.1 200 "*) ;;
*)
    printf '%s cannot be reached: ' "$host:$2" >&2
    head -c 1000 <&3 >&2
    exit 1
    ;;
esac
cat <&3 &
cat >&3
kill $! 2> /dev/null
"""
_ADVICE: Final = "run `labrats doctor` to see what is missing, or leave out config.network"
_REASON_SECONDS: Final = 1.0
_PAUSE_SECONDS: Final = 0.1
_BACKLOG: Final = 128

Handler = Callable[[socket.socket], Coroutine[Any, Any, None]]


@dataclass(frozen=True)
class AgentNetwork:
    """The network of a program.

    enter:     called in the program's process before it executes the program. None if the network is open.
    variables: environment variables by which programs find the proxy.
    """

    enter: Callable[[], None] | None = None
    variables: Mapping[str, str] = field(default_factory=dict)


@asynccontextmanager
async def agent_network(context: RunContext) -> AsyncIterator[AgentNetwork]:
    """Yield the network for a program of the agent, which is started once and ends before the context exits.

    With a restricted network the program reaches a proxy and the server of its model, and nothing else. Raises GiveUp
    if the network cannot be restricted.
    """
    if gateway := gateway_of(context):
        async with proxy_on_loopback(_rule_of(context, gateway)) as proxy:
            yield AgentNetwork(variables=_variables(proxy, context))
        return
    network = context.task.config.network
    if not is_restricted(network) or (network == PUBLIC and context.task.on_cluster):  # NetworkPolicies enforce it
        yield AgentNetwork()
        return
    if context.task.sandbox is None:
        raise GiveUp(FailedCode.INVALID, f"config.network cannot be enforced without a sandbox; {_ADVICE}")
    model_port = _port_on_loopback(context.endpoint)
    proxy_port = next(port for port in PROXY_PORTS if port != model_port)
    handlers: dict[int, Handler] = {proxy_port: EgressProxy(_rule_of(context)).serve}
    if model_port:
        handlers[model_port] = partial(relay_to, port=model_port)
    namespace = NetworkNamespace(list(handlers))
    serving = asyncio.create_task(_serve(namespace, list(handlers.values())), name="agent-network")
    try:
        yield AgentNetwork(namespace.enter, _variables(f"http://{LOOPBACK}:{proxy_port}", context))
    except subprocess.SubprocessError as error:
        reason = f"the network of the agent cannot be restricted here: {await _failure_of(serving)}; {_ADVICE}"
        raise GiveUp(FailedCode.INTERNAL, reason) from error
    finally:
        serving.cancel()
        await asyncio.wait([serving])
        namespace.close()


def gateway_of(context: RunContext) -> Gateway | None:
    """Return the way out of an attempt's pod with a restricted network; None where there is no such pod."""
    if (address := context.task.egress_proxy) is None:
        return None
    return Gateway(address, context.secrets.get(EGRESS_TOKEN_FILE, ""))


@asynccontextmanager
async def proxy_on_loopback(rule: HostRule) -> AsyncIterator[str]:
    """Serve a proxy on this machine's loopback address until the context exits. Yield its URL."""
    listener = socket.create_server((LOOPBACK, 0), backlog=_BACKLOG)
    serving = asyncio.create_task(_serve_listener(listener, EgressProxy(rule).serve), name="egress-proxy")
    try:
        yield f"http://{LOOPBACK}:{listener.getsockname()[1]}"
    finally:
        serving.cancel()
        await asyncio.wait([serving])
        listener.close()


async def _serve_listener(listener: socket.socket, handler: Handler) -> None:
    async with asyncio.TaskGroup() as tasks:
        await _accept(listener, handler, tasks)


def _rule_of(context: RunContext, gateway: Gateway | None = None) -> HostRule:
    """Return the rule of the agent. With a gateway, its grant allows the same hosts."""
    config, model_server = context.task.config, host_and_port(context.endpoint)
    logins = () if model_server else provider_spec(config.provider or "").login_servers

    def is_allowed(host: str, port: int) -> bool:
        return (host, port) in logins or allows(config.network, host, port)

    def is_named(host: str, port: int) -> bool:
        return (host, port) in logins or names(config.network, host, port)

    return HostRule(
        is_allowed,
        context.task.git_addresses,
        context.report_refused_host,
        model_server,
        gateway,
        is_named,
        inspects=limits_hosts(config.network),
    )


def _port_on_loopback(endpoint: str | None) -> int | None:
    """Return the port of the model's server if it runs on this machine."""
    if (server := host_and_port(endpoint)) is None:
        return None
    host, port = server
    try:
        return port if host == "localhost" or ip_address(host).is_loopback else None
    except ValueError:
        return None


def _variables(proxy: str, context: RunContext | None = None) -> dict[str, str]:
    """Return the variables by which programs find the proxy. context: None for their names alone."""
    host, _, port = proxy.removeprefix("http://").rpartition(":")
    names = {"HTTP_PROXY": proxy, "HTTPS_PROXY": proxy, "NO_PROXY": _NO_PROXY}
    variables = names | {name.lower(): value for name, value in names.items()}
    variables |= {"NODE_USE_ENV_PROXY": "1", "PIP_PROXY": proxy, "CARGO_HTTP_PROXY": proxy}
    variables |= {"npm_config_proxy": proxy, "npm_config_https_proxy": proxy, "npm_config_noproxy": _NO_PROXY}
    variables |= {"YARN_HTTP_PROXY": proxy, "YARN_HTTPS_PROXY": proxy}
    own = context.variables() if context else {}
    java = [f"-D{scheme}.proxyHost={host} -D{scheme}.proxyPort={port}" for scheme in _SCHEMES]
    variables["JAVA_TOOL_OPTIONS"] = " ".join(filter(None, [own.get("JAVA_TOOL_OPTIONS"), *java, *_JAVA_OPTIONS]))
    if "GIT_SSH_COMMAND" not in own:
        variables["GIT_SSH_COMMAND"] = _ssh_command(context, host, port) if context else ""
    return variables


def _ssh_command(context: RunContext, host: str, port: str) -> str:
    """Return the command of git for ssh, with a program that connects through the proxy."""
    context.create_folders()
    program = context.home / ".ssh-through-proxy"
    write_new(program, _SSH_PROXY.replace("PROXY", f"{host}/{port}").encode())
    program.chmod(0o700)
    command = f"{shlex.quote(str(program))} %h %p".replace("%", "%%").replace("%%h %%p", "%h %p")
    return shlex.join(["ssh", "-o", f"ProxyCommand={command}"])


NETWORK_VARIABLES: Final = tuple(_variables("http://:"))
"""Names of the environment variables by which programs find the proxy."""


async def _failure_of(serving: "asyncio.Task[None]") -> str:
    """Return the reason for which the child could not enter its namespace."""
    await asyncio.wait([serving], timeout=_REASON_SECONDS)
    error = serving.exception() if serving.done() and not serving.cancelled() else None
    return str(error or "unknown reason")


async def _serve(namespace: NetworkNamespace, handlers: Sequence[Handler]) -> None:
    """Serve the connections to the namespace's sockets until cancelled. Raises OSError if the child has none."""
    await _until_readable(namespace)
    listeners = namespace.listeners()  # outside of the group, which would wrap its error
    async with asyncio.TaskGroup() as tasks:
        for listener, handler in zip(listeners, handlers, strict=True):
            tasks.create_task(_accept(listener, handler, tasks))


async def _until_readable(namespace: NetworkNamespace) -> None:
    loop = asyncio.get_running_loop()
    readable = asyncio.Event()
    loop.add_reader(namespace, readable.set)
    try:
        await readable.wait()
    finally:
        loop.remove_reader(namespace)


async def _accept(listener: socket.socket, handler: Handler, tasks: asyncio.TaskGroup) -> None:
    """Accept connections. Further ones wait in the kernel: this process needs descriptors to measure the agent."""
    listener.setblocking(False)
    slots = asyncio.Semaphore(CONNECTIONS)
    with listener:
        while True:
            await slots.acquire()
            try:
                client, _ = await asyncio.get_running_loop().sock_accept(listener)
            except OSError:  # too many open files
                slots.release()
                await asyncio.sleep(_PAUSE_SECONDS)
                continue
            tasks.create_task(_serve_client(handler, client)).add_done_callback(lambda _: slots.release())


async def _serve_client(handler: Handler, client: socket.socket) -> None:
    try:
        await handler(client)
    except Exception:  # noqa: BLE001 - a defect that one connection triggers must not end the others
        traceback.print_exc()
