"""The key proxy as a program: it runs in a container of its own beside the executor, as another user."""

import asyncio
import socket
import sys
from pathlib import Path
from typing import Final

from labrats.executor.egress.gateway import Gateway
from labrats.executor.inputs import read_task
from labrats.executor.key_proxy.model_server import ModelServer
from labrats.executor.key_proxy.proxy import KeyProxy
from labrats.executor.key_proxy.request_feed import RequestFeed
from labrats.executor.key_proxy.request_policy import RequestPolicy
from labrats.executor.secret_files import read_secrets
from labrats.executor.stop_signals import stop_event
from labrats.model.errors import GiveUp
from labrats.model.protocol import (
    EGRESS_TOKEN_FILE,
    KEY_PROXY_FILE,
    KEY_PROXY_PORT,
    MODEL_REQUESTS_FILE,
    MODEL_REQUESTS_PORT,
)
from labrats.model.provider_spec import provider_spec
from labrats.processes import become_unreadable
from labrats.sandbox.network_namespace import LOOPBACK

_BACKLOG: Final = 128
_STARTED: Final = "started"
"""File beside the token, which remains while the pod exists."""


def run_proxy(source: Path, token_folder: Path) -> int:
    """Serve the attempt whose task and secrets are in `source` until SIGTERM. Return the exit status.

    The node starts it again after it has ended. Then it does not serve: it would not know what the attempt has used.
    """
    become_unreadable()
    task = read_task(source)
    secrets = read_secrets(source / "secrets")
    token, feed_token = ((token_folder / file).read_text() for file in (KEY_PROXY_FILE, MODEL_REQUESTS_FILE))
    try:
        (token_folder / _STARTED).touch(exist_ok=False)
    except FileExistsError:
        sys.stderr.write("the key proxy has run before: it does not start again, as it has lost the attempt's usage\n")
        return 1
    provider = task.config.provider or ""
    name = provider_spec(provider).key_to_proxy(task.endpoint, secrets)
    try:
        server = ModelServer.of(provider, task.endpoint, name, secrets[name] if name else "")
    except GiveUp as malformed:
        sys.stderr.write(f"{malformed}\n")
        return 1
    gateway = Gateway(task.egress_proxy, secrets[EGRESS_TOKEN_FILE]) if task.egress_proxy else None
    asyncio.run(_serve(RequestPolicy(token, server, task), feed_token, gateway))
    return 0


async def _serve(policy: RequestPolicy, feed_token: str, gateway: Gateway | None) -> None:
    stopped = stop_event()
    feed = RequestFeed(feed_token)
    proxy = KeyProxy(policy, feed.report, gateway, on_data=feed.report_activity, is_open=False)
    async with (
        proxy.serving(socket.create_server((LOOPBACK, KEY_PROXY_PORT), backlog=_BACKLOG)),
        await feed.serve(socket.create_server((LOOPBACK, MODEL_REQUESTS_PORT)), proxy),
    ):
        await stopped.wait()
