"""The commands for models (AiModel)."""

import json
import shlex
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import quote

from cyclopts import App, Parameter

from labrats.cli.durations import describe_time
from labrats.cli.errors import CommandError, ExitCode
from labrats.cli.key_values import RepeatedOption, parse_pairs
from labrats.cli.options import DEFAULTS, ApiOptions
from labrats.cli.output import print_stderr, print_table, print_text, print_warnings

models_app: Final = App(name="model", help="List, create, change and delete models.")


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class ModelOptions:
    """The optional fields of a model."""

    endpoint: str | None = None
    """The base URL of the model's server, for local providers."""
    credentials: str | None = None
    """The name of the secret (see `labrats secret`) that its jobs use."""
    input_price: float | None = None
    """US dollars per million input tokens."""
    output_price: float | None = None
    """US dollars per million output tokens."""
    cache_read_price: float | None = None
    """US dollars per million input tokens read from a cache. [default: 0.1 of the input price]"""
    cache_write_price: float | None = None
    """US dollars per million input tokens written to a cache. [default: the input price]"""
    sampling: RepeatedOption = ()
    """A sampling setting of a local model, FIELD=VALUE, such as seed=1. Repeatable; replaces all existing settings."""

    command: str | None = None
    """The program of the provider acp with its arguments, such as "opencode acp" (see `labrats connect acp`)."""
    environment: RepeatedOption = ()
    """A variable of that program, NAME=VALUE, with {url}, {token} or {model}. Repeatable; replaces all existing."""

    def request(self, **fields: Any) -> dict[str, Any]:
        """Return the body of a request with these options and `fields`, without values that are None."""
        prices = {
            "input": self.input_price,
            "output": self.output_price,
            "cacheRead": self.cache_read_price,
            "cacheWrite": self.cache_write_price,
        }
        set_prices = {name: price for name, price in prices.items() if price is not None}
        body = fields | {"endpoint": self.endpoint, "credentialsRef": self.credentials, "prices": set_prices or None}
        body["sampling"] = parse_pairs("--sampling", self.sampling) or None
        body["command"] = shlex.split(self.command) if self.command else None
        body["environment"] = _variables(self.environment) or None
        return {name: value for name, value in body.items() if value is not None}


NO_MODEL_OPTIONS: Final = ModelOptions()


@models_app.command(name="list")
def list_models(*, options: ApiOptions = DEFAULTS) -> None:
    """List the models with the number of active and queued jobs."""
    heading = ["NAME", "PROVIDER", "MODEL", "SLOTS", "ACTIVE", "QUEUED", "PAUSED UNTIL", "ENDPOINT"]
    _print_models(heading, _load_row, options)


def _load_row(model: Mapping[str, Any]) -> list[str]:
    return [
        model["name"],
        model["provider"],
        model["model"],
        str(model["slots"]),
        str(model["active"]),
        str(model["queued"]),
        describe_time(model["pausedUntil"]) if model.get("pausedUntil") else "",
        model.get("endpoint") or "",
    ]


def _print_models(
    heading: Sequence[str], row_of: Callable[[Mapping[str, Any]], list[str]], options: ApiOptions
) -> None:
    """Print a table with a row for each model, or with --json the answer of the API."""
    with options.connect() as client:
        answer = client.get("/api/ai-models")
    if options.json:
        print_text(answer.text)
        return
    print_table(heading, [row_of(model) for model in answer.json()["aiModels"]])


@models_app.command
def prices(*, options: ApiOptions = DEFAULTS) -> None:
    """Show by which prices the cost of each model's jobs is computed, in US dollars per million tokens."""
    heading = ["NAME", "MODEL", "INPUT", "OUTPUT", "CACHE READ", "CACHE WRITE", "BY"]
    _print_models(heading, _price_row, options)


@models_app.command
def create(
    name: str,
    /,
    *,
    provider: str,
    model: str,
    slots: int | None = None,
    model_options: ModelOptions = NO_MODEL_OPTIONS,
    options: ApiOptions = DEFAULTS,
) -> None:
    """Create a model. It runs the jobs that have the same provider and model.

    Args:
        name: The name of the new AiModel.
        provider: claude, codex, acp, openai, vllm, gemma, qwen or mock.
        model: The model, by the name that the provider uses.
        slots: The number of jobs that run at once. [default: 4]
    """
    body = model_options.request(name=name, provider=provider, model=model, slots=slots)
    with options.connect() as client:
        answer = client.post("/api/ai-models", body)
    _confirm(f"{name} created", answer.text, options)


@models_app.command(name="set")
def set_fields(
    name: str,
    /,
    *,
    provider: str | None = None,
    model: str | None = None,
    slots: int | None = None,
    model_options: ModelOptions = NO_MODEL_OPTIONS,
    options: ApiOptions = DEFAULTS,
) -> None:
    """Change a model.

    Args:
        name: The AiModel's name.
        provider: claude, codex, acp, openai, vllm, gemma, qwen or mock.
        model: The model, by the name that the provider uses.
        slots: The number of jobs that run at once. 0 pauses the model; running jobs continue.
    """
    body = model_options.request(provider=provider, model=model, slots=slots)
    if not body:
        raise CommandError("nothing to change: pass at least one option, such as --slots 2", ExitCode.USAGE)
    with options.connect() as client:
        if prices := body.get("prices"):
            body["prices"] = (client.get(_path(name)).json()["prices"] or {}) | prices
        answer = client.patch(_path(name), body)
    _confirm(f"{name} changed", answer.text, options)


@models_app.command
def delete(name: str, /, *, options: ApiOptions = DEFAULTS) -> None:
    """Delete a model. Jobs for its provider and model then share the default number of slots.

    Args:
        name: The AiModel's name.
    """
    with options.connect() as client:
        client.delete(_path(name))
    print_stderr(f"{name} deleted")


_PRICE_SOURCES: Final = {"own": "its own prices", "list": "list prices", "program": "its program reports the cost"}


def _price_row(model: Mapping[str, Any]) -> list[str]:
    """Return the prices of a model as cells, and whose they are."""
    known = model["effectivePrices"] or {}
    cells = [f"{known[field]:g}" if known else "" for field in ("input", "output", "cacheRead", "cacheWrite")]
    unknown = f"unknown: labrats model set {model['name']} --input-price USD --output-price USD"
    return [model["name"], model["model"], *cells, _PRICE_SOURCES.get(model["priceSource"], unknown)]


def _variables(texts: Iterable[str]) -> dict[str, str]:
    """Return the variables of `--environment`. Raises CommandError for an invalid one."""
    found: dict[str, str] = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not (name and equals):
            raise CommandError(f"--environment {text}: write NAME=VALUE", ExitCode.USAGE)
        found[name] = value
    return found


def _path(name: str) -> str:
    return f"/api/ai-models/{quote(name, safe='')}"


def _confirm(sentence: str, answer: str, options: ApiOptions) -> None:
    print_warnings(json.loads(answer))
    if options.json:
        print_text(answer)
    else:
        print_stderr(sentence)
