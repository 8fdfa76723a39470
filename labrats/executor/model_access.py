"""Give the agent access to its model: through a key proxy where possible, so that it never has the model's key."""

import asyncio
import secrets
import socket
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import replace
from typing import Final

import msgspec

from labrats.executor.context import RunContext
from labrats.executor.usage_limits import UsageLimits
from labrats.model.errors import GiveUp
from labrats.model.job import PAUSING, FailedCode
from labrats.model.network import limits_model_server
from labrats.model.protocol import (
    KEY_PROXY_FILE,
    KEY_PROXY_PORT,
    MODEL_REQUESTS_FILE,
    MODEL_REQUESTS_PORT,
    OVER_LIMIT,
    OVERLOADS,
    ModelRequest,
    is_for_an_answer,
)
from labrats.model.provider_spec import ACP, LOCAL_PROVIDERS, provider_spec
from labrats.sandbox.network_namespace import LOOPBACK

UNCONFIRMED_PAUSE_SECONDS: Final = 300.0
"""Longest pause of a model that its server has not asked for in a header, but the agent's program has reported."""

_JITTER_SECONDS: Final = 60.0
"""Time that a program may add to the pause for which the server has asked."""

MOST_REPORTED: Final = 10_000
"""Most requests that are reported one by one. An agent can send very many, and the output is limited."""

MOST_REFUSALS: Final = 20
"""Most reasons of refused requests, and most names of removed fields, in the log. An agent can cause any number."""

HARD_STOP_SECONDS: Final = 1.0
"""Time in which the provider may end an attempt itself that has exceeded a limit. The proxy refuses requests then."""

TOKEN_BYTES: Final = 32
_EXPOSED: Final = "[the agent can read the login of its model: this login cannot be proxied]"


@asynccontextmanager
async def model_access(context: RunContext) -> AsyncIterator[RunContext]:
    """Yield the context for the provider: with the proxy's URL and token in place of the model's key.

    Raises GiveUp once the agent's requests exceed a limit of the job.
    """
    spec = provider_spec(context.task.config.provider)
    key_name = context.task.proxied_key or spec.key_to_proxy(context.task.endpoint, context.secrets)
    token = context.secrets.get(KEY_PROXY_FILE)
    context.events.totals.is_notional = _is_subscription(context, key_name)
    if token:
        feed_token = context.secrets.get(MODEL_REQUESTS_FILE, "")
        async with _watch(context) as requests, _proxy_of_pod(context, feed_token, requests) as url:
            with _server_named(context, url):
                yield _with_proxy(context, url, spec.token_key(key_name), token)
    elif key_name or _needs_filter(context):
        token = secrets.token_urlsafe(TOKEN_BYTES)
        context.events.redact_also(token)
        async with _watch(context) as requests, _proxy(context, key_name, token, requests) as url:
            with _server_named(context, url):
                yield _with_proxy(context, url, spec.token_key(key_name), token)
    else:
        if key_is_exposed(context):
            _report_exposed_login(context)
        yield context


@contextmanager
def _server_named(context: RunContext, url: str) -> Iterator[None]:
    """Name the model's server in failures in place of the key proxy, whose address on loopback helps nobody."""
    from labrats.executor.key_proxy.model_server import ModelServer

    try:
        yield
    except GiveUp as failure:
        if url not in str(failure):
            raise
        server = ModelServer.of(context.task.config.provider or "", context.task.endpoint, None, "")
        reason = str(failure).replace(url, server.address)
        raise GiveUp(failure.code, reason, failure.retry_after_seconds) from failure


def _with_proxy(context: RunContext, url: str, name: str, token: str) -> RunContext:
    """Return the context for the provider. name: the name under which its program gets the proxy's token."""
    hidden = (*provider_spec(context.task.config.provider).keys, KEY_PROXY_FILE, MODEL_REQUESTS_FILE)
    others = {name: value for name, value in context.secrets.items() if name not in hidden}
    return replace(context, proxy_url=url, secrets={**others, name: token})


def _is_subscription(context: RunContext, proxied_key: str | None) -> bool:
    """Return whether the agent's requests are paid by a subscription, not by tokens."""
    subscription_keys = provider_spec(context.task.config.provider).subscription_keys
    if proxied_key is not None:
        return proxied_key in subscription_keys
    return not subscription_keys.isdisjoint(context.secrets) or _shares_login(context)


def key_is_exposed(context: RunContext) -> bool:
    """Return whether the agent of a job without a key proxy gets credentials of its model."""
    provider = context.task.config.provider or ""
    if provider in LOCAL_PROVIDERS:  # the executor itself uses the key
        return False
    return any(name in context.secrets for name in provider_spec(provider).keys) or _shares_login(context)


def _report_exposed_login(context: RunContext) -> None:
    """Record in the job and its log that the agent can read the credentials of its model."""
    context.events.log(_EXPOSED)
    context.events.report_outputs(msgspec.structs.replace(context.events.outputs, key_exposed=True))


def _shares_login(context: RunContext) -> bool:
    from labrats.executor.providers.claude import shared_login

    return context.task.config.provider == "claude" and bool(shared_login(context))


def _needs_filter(context: RunContext) -> bool:
    """Return whether a model without a key has a proxy all the same.

    A local model's server could otherwise reach hosts that the job may not, or change what is not the job's. The usage
    of a program of the provider `acp` is known to the proxy only.
    """
    task = context.task
    if task.on_cluster or task.endpoint is None or not provider_spec(task.config.provider).is_self_hosted:
        return False
    return task.config.provider == ACP or limits_model_server(task.config.network, task.endpoint)


@asynccontextmanager
async def _proxy(
    context: RunContext, key_name: str | None, token: str, requests: "ModelRequests"
) -> AsyncIterator[str]:
    """Serve a proxy in this process. Yield its base URL."""
    # Imported here because attempts of other providers do not need them. The launcher has them loaded.
    from labrats.executor.key_proxy.model_server import ModelServer
    from labrats.executor.key_proxy.proxy import KeyProxy
    from labrats.executor.key_proxy.request_policy import RequestPolicy

    task = context.task
    key = context.secrets[key_name] if key_name else ""
    server = ModelServer.of(task.config.provider or "", task.endpoint, key_name, key)
    listener = socket.create_server((LOOPBACK, 0), backlog=128)
    port = listener.getsockname()[1]
    policy, totals = RequestPolicy(token, server, task), context.events.totals
    policy.budget.usage = totals.measured + totals.estimated  # of an earlier run of a provider in this attempt
    async with KeyProxy(policy, requests.add, on_data=context.server_activity.note).serving(listener):
        yield f"http://{LOOPBACK}:{port}{server.prefix}"


@asynccontextmanager
async def _proxy_of_pod(context: RunContext, feed_token: str, requests: "ModelRequests") -> AsyncIterator[str]:
    """Follow the proxy in another container of this pod. Yield its base URL."""
    from labrats.executor.key_proxy.model_server import ModelServer
    from labrats.executor.key_proxy.request_feed import follow_requests

    server = ModelServer.of(context.task.config.provider or "", context.task.endpoint, None, "")
    on_activity = context.server_activity.note
    address = LOOPBACK, MODEL_REQUESTS_PORT
    async with follow_requests(address, feed_token, requests.add, requests.lose_some, on_activity):
        yield f"http://{LOOPBACK}:{KEY_PROXY_PORT}{server.prefix}"


class ModelRequests:
    """The agent's requests to its model's server in one run of a provider.

    timeout: expires when the attempt must end. failure: why it must. has_lost_some: whether some requests are unknown.
    """

    def __init__(self, context: RunContext) -> None:
        self.timeout = asyncio.timeout(None)
        self.failure: GiveUp | None = None
        self.has_lost_some = False
        self._context = context
        self._usage = context.events.totals.measured
        self._reported = 0
        self._refusals = set[str]()
        self._removed_fields = set[str]()
        self._paused_until: float | None = None
        self._has_seen_overload = False

    def add(self, request: ModelRequest) -> None:
        """Record a request that has ended. If it exceeds a limit, let the attempt end."""
        totals, is_answered = self._context.events.totals, False
        if request.refusal is None and is_for_an_answer(request.path, request.model):
            is_overload = request.is_overload or request.status in OVERLOADS
            self._has_seen_overload = self._has_seen_overload or is_overload
            pause = request.retry_after_seconds
            self._paused_until = None if pause is None else time.monotonic() + pause
            is_answered = 200 <= request.status < 300
        totals.estimated += request.estimated
        if is_answered:
            totals.answers += 1
        self._usage += request.usage
        totals.set_measured(self._usage)  # also if the output is full
        try:
            self._report(request)
            if request.usage.tokens > 0 or is_answered:
                self._context.set_measured_usage(self._usage)
            if request.refusal is not None and request.status == OVER_LIMIT:
                raise GiveUp(FailedCode.BUDGET, request.refusal)
            if request.refusal is None and is_for_an_answer(request.path, request.model):
                self._context.server_activity.on_request(request)
        except GiveUp as failure:
            self.end_attempt(failure)

    def lose_some(self, failure: GiveUp) -> None:
        """End the attempt with this failure, as some of its requests are unknown."""
        self.has_lost_some = True
        self.end_attempt(failure)

    def end_attempt(self, failure: GiveUp) -> None:
        """End the attempt with this failure, unless the provider ends it in the next moment."""
        if self.failure is None:
            self.failure = failure
            # The program may report more of it in the meantime, such as the cost, and ends without a signal.
            self.timeout.reschedule(asyncio.get_running_loop().time() + HARD_STOP_SECONDS)

    @property
    def is_over_budget(self) -> bool:
        """True if the attempt must end because of a limit of the job."""
        return self.failure is not None and self.failure.code is FailedCode.BUDGET

    def _report(self, request: ModelRequest) -> None:
        self._log_refusal(request)
        self._log_removed_fields(request)
        if self._reported == MOST_REPORTED:
            self._context.events.log("[further requests to the model are not reported]")
        elif self._reported < MOST_REPORTED:
            self._context.events.model_request(request)
        self._reported += 1

    def _log_refusal(self, request: ModelRequest) -> None:
        """Log a refusal by the key proxy, each reason once: it may be why the agent fails."""
        if request.refusal is None or request.refusal in self._refusals or len(self._refusals) == MOST_REFUSALS:
            return
        self._refusals.add(request.refusal)
        method, path = map(self._context.events.field, (request.method, request.path))
        self._context.events.log(f"[key proxy: {method} {path} refused: {request.refusal}]")
        if len(self._refusals) == MOST_REFUSALS:
            self._context.events.log("[key proxy: further reasons are only in the events of the requests]")

    def _log_removed_fields(self, request: ModelRequest) -> None:
        """Log each field that the key proxy does not forward, once: it may be why the model does not obey it."""
        for name in request.removed_fields:
            if name not in self._removed_fields and len(self._removed_fields) < MOST_REFUSALS:
                self._removed_fields.add(name)
                field, path = map(self._context.events.field, (name, request.path))
                self._context.events.log(f"[key proxy: the field `{field}` of {path} is not forwarded]")

    def report_estimates(self) -> None:
        """Add estimates to the usage before a pause: the attempts after it get what is left of the limits."""
        with suppress(GiveUp):  # the output is full; the end of the attempt has the usage all the same
            self._context.events.report_estimated_usage()

    def verified(self, failure: GiveUp) -> GiveUp:
        """Return the failure of the program, as far as the answers of the model's server confirm it.

        The agent can write to the output of its program, and all jobs of the model wait for the pause of an overload.
        Without an answer that reports one, the agent has failed. A pause that is longer than the server has asked for
        is limited.
        """
        if failure.code not in PAUSING:
            return failure
        if not self._has_seen_overload:
            return GiveUp(FailedCode.AGENT_ERROR, f"{failure} (but no answer of the model's server reports that)")
        reported, confirmed = failure.retry_after_seconds, None
        if self._paused_until is not None:
            confirmed = max(0.0, self._paused_until - time.monotonic())
        most = UNCONFIRMED_PAUSE_SECONDS if confirmed is None else confirmed + _JITTER_SECONDS
        return GiveUp(failure.code, str(failure), confirmed if reported is None else min(reported, most))


@asynccontextmanager
async def _watch(context: RunContext) -> AsyncIterator[ModelRequests]:
    """Yield the record of the agent's requests. Raises GiveUp when one exceeds a limit."""
    # The executor itself asks local models.
    context.events.totals.is_proxied = context.task.config.provider not in LOCAL_PROVIDERS
    requests = ModelRequests(context)
    try:
        async with requests.timeout:
            yield requests
        if requests.failure and (requests.is_over_budget or requests.has_lost_some):
            raise requests.failure
    except TimeoutError:
        if requests.failure is None or not requests.timeout.expired():
            raise
        raise requests.failure from None
    except GiveUp as failure:
        if requests.is_over_budget and requests.failure and failure.code is not FailedCode.BUDGET:
            raise requests.failure from failure  # the program has failed because its requests were refused
        verified = requests.verified(failure)
        if verified.code in PAUSING and UsageLimits.of(context.task):
            if requests.failure:  # what the agent has consumed is unknown, and so is what a further attempt may consume
                raise requests.failure from failure
            requests.report_estimates()
        raise verified from failure.__cause__
