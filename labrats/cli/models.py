"""The commands about models (AiModel): which there are, and how many jobs run on each at once."""

import json
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import quote

from cyclopts import App, Parameter

from labrats.cli.durations import describe_time
from labrats.cli.exits import CommandError, ExitCode
from labrats.cli.options import DEFAULTS, ApiOptions
from labrats.cli.output import print_table, print_text, print_warnings, remark
from labrats.cli.submission import Words, pairs

models_app: Final = App(name="model", help="Models, and how many jobs run on each at once.")


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class ModelFields:
    """What a model may have beside its name, provider, model and slots."""

    endpoint: str | None = None
    """The base URL of the server that runs it, for local providers."""
    credentials: str | None = None
    """The secret (see `labrats secret`) that its jobs use."""
    input_price: float | None = None
    """US dollars per million input tokens."""
    output_price: float | None = None
    """US dollars per million output tokens."""
    cache_read_price: float | None = None
    """US dollars per million tokens read from a cache."""
    cache_write_price: float | None = None
    """US dollars per million tokens written to a cache. [default: the input price]"""
    sampling: Words = ()
    """Sampling settings of a local model, FIELD=VALUE, such as temperature=0.2 or seed=1. Repeatable; replaces all."""

    def request(self, **others: Any) -> dict[str, Any]:
        """These fields and `others` as the API's, without those that are None."""
        prices = {
            "input": self.input_price,
            "output": self.output_price,
            "cacheRead": self.cache_read_price,
            "cacheWrite": self.cache_write_price,
        }
        given = {name: price for name, price in prices.items() if price is not None}
        body = others | {"endpoint": self.endpoint, "credentialsRef": self.credentials, "prices": given or None}
        body["sampling"] = pairs("--sampling", self.sampling) or None
        return {name: value for name, value in body.items() if value is not None}


NO_FIELDS: Final = ModelFields()


@models_app.command(name="list")
def list_models(*, options: ApiOptions = DEFAULTS) -> None:
    """List the models, and what runs and waits on each."""
    with options.connect() as client:
        answer = client.get("/api/ai-models")
    if options.json:
        print_text(answer.text)
        return
    print_table(
        ["NAME", "PROVIDER", "MODEL", "SLOTS", "ACTIVE", "QUEUED", "PAUSED UNTIL", "ENDPOINT"],
        [
            [
                model["name"],
                model["provider"],
                model["model"],
                str(model["slots"]),
                str(model["active"]),
                str(model["queued"]),
                describe_time(model["pausedUntil"]) if model.get("pausedUntil") else "",
                model.get("endpoint") or "",
            ]
            for model in answer.json()["aiModels"]
        ],
    )


@models_app.command
def create(
    name: str,
    /,
    *,
    provider: str,
    model: str,
    slots: int | None = None,
    fields: ModelFields = NO_FIELDS,
    options: ApiOptions = DEFAULTS,
) -> None:
    """Add a model. Jobs run on it when their provider and model are its.

    Args:
        name: What it is called here.
        provider: claude, codex, vllm, gemma, qwen or mock.
        model: The provider's name for it.
        slots: How many jobs run on it at once. [default: 4]
    """
    body = fields.request(name=name, provider=provider, model=model, slots=slots)
    with options.connect() as client:
        answer = client.post("/api/ai-models", body)
    _confirm(f"{name} is added", answer.text, options)


@models_app.command(name="set")
def set_fields(
    name: str,
    /,
    *,
    provider: str | None = None,
    model: str | None = None,
    slots: int | None = None,
    fields: ModelFields = NO_FIELDS,
    options: ApiOptions = DEFAULTS,
) -> None:
    """Change a model.

    Args:
        name: Which one.
        provider: claude, codex, vllm, gemma, qwen or mock.
        model: The provider's name for it.
        slots: How many jobs run on it at once; 0 pauses it, and what runs goes on.
    """
    body = fields.request(provider=provider, model=model, slots=slots)
    if not body:
        raise CommandError("say what to change, such as --slots 2", ExitCode.USAGE)
    with options.connect() as client:
        answer = client.patch(_path(name), body)
    _confirm(f"{name} is changed", answer.text, options)


@models_app.command
def delete(name: str, /, *, options: ApiOptions = DEFAULTS) -> None:
    """Remove a model. Jobs for its provider and model then share the default number of slots.

    Args:
        name: Which one.
    """
    with options.connect() as client:
        client.delete(_path(name))
    remark(f"{name} is deleted")


def _path(name: str) -> str:
    return f"/api/ai-models/{quote(name, safe='')}"


def _confirm(sentence: str, answer: str, options: ApiOptions) -> None:
    print_warnings(json.loads(answer))
    if options.json:
        print_text(answer)
    else:
        remark(sentence)
