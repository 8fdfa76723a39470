"""Sentences that tell a person what failed and what to do about it, given the provider and settings of the job."""

import re
from collections.abc import Callable, Mapping
from typing import Final

from labrats.model.config import CREDENTIAL_NAMES, GLOBAL_LAYER, LOCAL_PROVIDERS
from labrats.model.job import FailedCode
from labrats.model.protocol import Task


def add_advice(code: FailedCode, sentence: str, task: Task) -> str:
    """Return the sentence with what a person can do about a failure of the job, where there is something."""
    advice = _ADVICE.get(code)
    return f"{sentence} ({advice(task)})" if advice else sentence


def missing_credentials_message(program: str, task: Task) -> str:
    """Return the sentence for a job whose program was given no credentials for its model."""
    return f"{program} has no credentials for {_choice(task)}: {_missing_credentials(task)}"


def missing_server_message(task: Task) -> str:
    """Return the sentence for a local provider that does not know where its model's server is."""
    selection, config = task.selection, task.config
    sentence = f"there is no server for {config.provider}/{config.model}"
    if selection.ai_model:
        command = f"labrats model set {selection.ai_model} --endpoint http://127.0.0.1:8000/v1"
        return f"{sentence}: the AiModel {selection.ai_model!r} names none; run `{command}`"
    command = f"{_create_command(task)} --endpoint http://127.0.0.1:8000/v1"
    return f"{sentence}, for {_choice(task)}: {_no_ai_model(task)}; run `{command}`"


def silence_advice(task: Task) -> str:
    """Return the advice for a model that says nothing."""
    where = f"the server at {task.endpoint}" if task.endpoint else "the way to the provider, and its status page"
    return f"check {where}; a server that needs more time than that gets it by LABRATS_AGENT_IDLE_SECONDS of the engine"


def _choice(task: Task) -> str:
    """The provider and model, and the layers of settings that named them."""
    config, origins = task.config, task.selection.origins
    provider = f"the provider {config.provider!r}{_from(origins.get('provider'))}"
    return f"{provider} with the model {config.model!r}{_from(origins.get('model'))}"


def _from(layer: str | None) -> str:
    return f" (from {layer})" if layer else ""


def _no_ai_model(task: Task) -> str:
    """No AiModel has the provider and model of the job, the names of others that might have been meant, and why not."""
    others = task.selection.others
    known = f"there are {', '.join(others)}" if others else "there is none at all"
    return "; ".join(filter(None, [f"no AiModel has this provider and model, {known}", _origin_advice(task)]))


def _origin_advice(task: Task) -> str:
    """The advice for a model that the whole engine's setting for all providers has named; empty for any other."""
    config = task.config
    if task.selection.origins.get("model") != GLOBAL_LAYER:
        return ""
    return (
        f"the model {config.model!r} is AiConfig's global `model`, which reaches every provider: set "
        f"`providers.{config.provider}.model` in /api/config/defaults for this one"
    )


def _missing_credentials(task: Task) -> str:
    selection, provider = task.selection, task.config.provider or ""
    keys = CREDENTIAL_NAMES[provider]
    secret = selection.credentials_ref or provider
    if selection.credentials_ref:
        problem = f"the Secret {secret!r} of the AiModel {selection.ai_model!r} has none of {', '.join(keys)}"
        return f"{problem}; {_secret_advice(task, secret)}"
    if selection.ai_model:
        command = f"labrats model set {selection.ai_model} --credentials {secret}"
        problem = f"the AiModel {selection.ai_model!r} names no credentials"
    else:
        command = f"{_create_command(task)} --credentials {secret}"
        problem = _no_ai_model(task)
    return f"{problem}; {_secret_advice(task, secret)}, then `{command}`"


def _secret_advice(task: Task, secret: str) -> str:
    key = CREDENTIAL_NAMES[task.config.provider or ""][0]
    if task.on_cluster:
        return f"put {key} into the Secret {secret!r} (`kubectl create secret generic {secret} --from-file={key}=FILE`)"
    return f"run `labrats secret set {secret} {key}`"


def _create_command(task: Task) -> str:
    config = task.config
    name = re.sub(r"[^a-z0-9]+", "-", (config.model or "").lower()).strip("-")[:63] or config.provider
    return f"labrats model create {name} --provider {config.provider} --model {config.model}"


def _on_auth(task: Task) -> str:
    if task.config.provider in LOCAL_PROVIDERS:
        return "check OPENAI_API_KEY in the secret that the AiModel's credentialsRef names"
    return "check the credentials that the AiModel's credentialsRef names, or the engine's own"


def _on_unknown_model(task: Task) -> str:
    config, selection = task.config, task.selection
    layer = selection.origins.get("model", "the job's settings")
    named = _origin_advice(task) or f"the model {config.model!r} is from {layer}"
    others = f"; AiModels: {', '.join(selection.others)}" if selection.others else ""
    return f"{named}; name one that the provider has, in config.model{others}"


def _on_rate_limit(task: Task) -> str:
    if task.selection.ai_model:
        return f"try later, or lower the slots of the AiModel {task.selection.ai_model!r}"
    return "try later, or give the model an AiModel with fewer slots"


def _on_overload(task: Task) -> str:
    if task.config.provider == "claude" and not task.config.fallback_model:
        return "try later, or name a config.fallbackModel"
    if task.config.provider in LOCAL_PROVIDERS:
        return _on_rate_limit(task)
    return "try later, or choose another model"


def _on_long_context(task: Task) -> str:
    if task.config.provider in LOCAL_PROVIDERS:
        return "shorten the prompt, or give the server a longer context"
    return "shorten the prompt, or choose a model that reads more"


_ADVICE: Final[Mapping[FailedCode, Callable[[Task], str]]] = {
    FailedCode.AUTH: _on_auth,
    FailedCode.QUOTA: lambda _: "no waiting helps: add credit or raise the limit at the model's provider, then retry",
    FailedCode.MODEL_NOT_FOUND: _on_unknown_model,
    FailedCode.RATE_LIMITED: _on_rate_limit,
    FailedCode.OVERLOADED: _on_overload,
    FailedCode.CONTEXT_TOO_LONG: _on_long_context,
    FailedCode.MAX_TURNS: lambda _: "raise config.maxTurns, or give it a smaller task",
    FailedCode.BUDGET: lambda _: "raise config.maxCostUsd, or give it a smaller task",
}
