"""Messages about failures, with advice that fits the provider and settings of the job."""

import re
from collections.abc import Callable, Mapping
from typing import Final

from labrats.model.config import GLOBAL_LAYER
from labrats.model.job import FailedCode
from labrats.model.protocol import Task
from labrats.model.provider_spec import AGENT_PROGRAMS, LOCAL_PROVIDERS, provider_spec


def add_advice(code: FailedCode, sentence: str, task: Task) -> str:
    """Append advice to a sentence about a failure of the job, if there is advice for its code."""
    advice = _ADVICE.get(code)
    return f"{sentence} ({advice(task)})" if advice else sentence


def missing_credentials_message(program: str, task: Task) -> str:
    """Return the message for a job whose program has no credentials for its model."""
    return f"{program} has no credentials for {_choice(task)}: {_missing_credentials(task)}"


def missing_server_message(task: Task) -> str:
    """Return the message for a local provider that has no address of its model's server."""
    selection, config = task.selection, task.config
    sentence = f"no server is set for {config.provider}/{config.model}"
    if selection.ai_model:
        command = f"labrats model set {selection.ai_model} --endpoint http://127.0.0.1:8000/v1"
        return f"{sentence}: the AiModel {selection.ai_model!r} has no endpoint; run `{command}`"
    command = f"{_create_command(task)} --endpoint http://127.0.0.1:8000/v1"
    return f"{sentence}, for {_choice(task)}: {_no_ai_model(task)}; run `{command}`"


def missing_command_message(task: Task) -> str:
    """Return the message for a job of the provider `acp` whose program is not known."""
    selection = task.selection
    problem = f"the AiModel {selection.ai_model!r} has no command" if selection.ai_model else _no_ai_model(task)
    return (
        f"no program is set for {_choice(task)}: {problem}; "
        "run `labrats connect acp opencode --endpoint URL --model MODEL`, or set `command` in its AiModel"
    )


def invalid_endpoint_message(endpoint: str) -> str:
    """Return the message for an AiModel whose endpoint is no address of a server. It masks a password."""
    shown = re.sub(r"(?<=//).*@", "***@", endpoint, flags=re.DOTALL)
    return (
        f"the AiModel's endpoint {shown!r} is not the http or https address of a server: "
        "run `labrats model set NAME --endpoint https://HOST/v1`"
    )


def invalid_key_message(name: str) -> str:
    """Return the message for a key that cannot be sent in a header."""
    return (
        f"the key {name} is empty, or has other characters than printable ASCII: "
        f"store it again with `labrats secret set SECRET {name}`"
    )


def silence_advice(task: Task) -> str:
    """Return the advice for a model that has sent nothing for too long."""
    place = f"the server at {task.endpoint}" if task.endpoint else "the connection to the provider, and its status page"
    return f"check {place}; if the server needs more time, raise LABRATS_AGENT_IDLE_SECONDS of the engine"


def _choice(task: Task) -> str:
    """Return the provider and model, with the layers of settings that selected them."""
    config, origins = task.config, task.selection.origins
    provider = f"the provider {config.provider!r}{_from(origins.get('provider'))}"
    return f"{provider} with the model {config.model!r}{_from(origins.get('model'))}"


def _from(layer: str | None) -> str:
    return f" (from {layer})" if layer else ""


def _no_ai_model(task: Task) -> str:
    """Return the message that no AiModel fits the job, with the names of similar AiModels."""
    others = task.selection.others
    known = f"existing AiModels: {', '.join(others)}" if others else "there are no AiModels"
    return "; ".join(filter(None, ["no AiModel has this provider and model", known, _origin_advice(task)]))


def _origin_advice(task: Task) -> str:
    """Return advice if the model comes from the engine's setting for all providers, else an empty string."""
    config = task.config
    if task.selection.origins.get("model") != GLOBAL_LAYER:
        return ""
    return (
        f"the model {config.model!r} is AiConfig's global `model`, which applies to every provider: set "
        f"`providers.{config.provider}.model` in /api/config/defaults"
    )


def _missing_credentials(task: Task) -> str:
    selection, provider = task.selection, task.config.provider or ""
    keys = provider_spec(provider).keys
    secret = selection.credentials_ref or provider
    if selection.credentials_ref:
        problem = f"the Secret {secret!r} of the AiModel {selection.ai_model!r} has none of {', '.join(keys)}"
    elif selection.ai_model:
        problem = f"the AiModel {selection.ai_model!r} has no credentials"
    else:
        problem = _no_ai_model(task)
    if provider in AGENT_PROGRAMS and not task.on_cluster:
        model = f" --model {task.config.model}" if task.config.model not in (None, provider) else ""
        return f"{problem}; run `labrats connect {provider}{model}`"
    if selection.credentials_ref:
        return f"{problem}; {_secret_advice(task, secret)}"
    use = f"labrats model set {selection.ai_model}" if selection.ai_model else _create_command(task)
    return f"{problem}; {_secret_advice(task, secret)}, then `{use} --credentials {secret}`"


def _secret_advice(task: Task, secret: str) -> str:
    key = provider_spec(task.config.provider or "").keys[0]
    if task.on_cluster:
        return f"put {key} into the Secret {secret!r} (`kubectl create secret generic {secret} --from-file={key}=FILE`)"
    return f"run `labrats secret set {secret} {key}`"


def _create_command(task: Task) -> str:
    config = task.config
    name = re.sub(r"[^a-z0-9]+", "-", (config.model or "").lower()).strip("-")[:63] or config.provider
    return f"labrats model create {name} --provider {config.provider} --model {config.model}"


def _on_auth(task: Task) -> str:
    if task.config.provider in LOCAL_PROVIDERS:
        return "check OPENAI_API_KEY in the Secret that the AiModel's credentialsRef names"
    return "check the credentials that the AiModel's credentialsRef names, or those of the engine"


def _on_unknown_model(task: Task) -> str:
    config, selection = task.config, task.selection
    layer = selection.origins.get("model", "the job's settings")
    named = _origin_advice(task) or f"the model {config.model!r} is from {layer}"
    others = f"; AiModels: {', '.join(selection.others)}" if selection.others else ""
    return f"{named}; set config.model to one that the provider offers{others}"


def _on_rate_limit(task: Task) -> str:
    if task.selection.ai_model:
        return f"try later, or lower the slots of the AiModel {task.selection.ai_model!r}"
    return "try later, or create an AiModel with fewer slots for this model"


def _on_overload(task: Task) -> str:
    if "fallback_model" in provider_spec(task.config.provider).settings and not task.config.fallback_model:
        return "try later, or set config.fallbackModel"
    if task.config.provider in LOCAL_PROVIDERS:
        return _on_rate_limit(task)
    return "try later, or choose another model"


def _on_long_context(task: Task) -> str:
    if task.config.provider in LOCAL_PROVIDERS:
        return "shorten the prompt, or configure a longer context on the server"
    return "shorten the prompt, or choose a model with a longer context"


_ADVICE: Final[Mapping[FailedCode, Callable[[Task], str]]] = {
    FailedCode.AUTH: _on_auth,
    FailedCode.QUOTA: lambda _: "waiting does not help: add credit or raise the limit at the provider, then retry",
    FailedCode.MODEL_NOT_FOUND: _on_unknown_model,
    FailedCode.RATE_LIMITED: _on_rate_limit,
    FailedCode.OVERLOADED: _on_overload,
    FailedCode.CONTEXT_TOO_LONG: _on_long_context,
    FailedCode.MAX_TURNS: lambda _: "raise config.maxTurns, or give the agent a smaller task",
    FailedCode.BUDGET: lambda _: "raise config.maxCostUsd, or give the agent a smaller task",
}
