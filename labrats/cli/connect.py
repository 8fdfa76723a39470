"""`labrats connect`: store the credentials of a provider, create its model, and run a first job."""

import getpass
import json
import os
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote

from cyclopts import App

from labrats.cli.errors import CommandError, ExitCode
from labrats.cli.jobs import follow_to_the_end
from labrats.cli.options import DEFAULTS, ApiOptions
from labrats.cli.output import Cell, Styled, print_stderr, print_table, print_text
from labrats.model.acp_programs import ACP_PROGRAMS
from labrats.model.provider_spec import ACP, LOCAL_PROVIDERS, provider_spec

if TYPE_CHECKING:
    import httpx2

    from labrats.cli.client import Client

connect_app: Final = App(
    name="connect",
    help="Connect a provider or GitHub: store the credentials, and run a first job, or read the first events.",
)

_KINDS: Final[Mapping[str, str]] = {
    "ANTHROPIC_AUTH_TOKEN": "gateway",
    "CLAUDE_CODE_OAUTH_TOKEN": "subscription",
    "auth.json": "subscription",
}
"""The kinds of credentials by their keys; others are API keys."""

_PROMPT: Final = "Say hello in one short sentence. Use no tools."
_SECONDS: Final = 10
_CHANGED: Final = ("credentialsRef", "endpoint", "command", "environment")
"""The fields of an existing AiModel that are set anew."""

_LIST_BYTES: Final = 4 * 1024 * 1024


@dataclass(frozen=True)
class Credential:
    """A credential for a provider's model.

    key: in a Secret, as ProviderSpec has it. origin: for people.
    """

    key: str
    value: str = field(repr=False)
    origin: str

    def secret_of(self, provider: str) -> str:
        """Return the name of its Secret. Each kind has one, so that an earlier credential does not take its place."""
        return f"{provider}-{_KINDS.get(self.key, 'api-key')}"


@connect_app.default
def show(*, options: ApiOptions = DEFAULTS) -> None:
    """Show which providers can run jobs, whether GitHub's events start agents, and the command that connects each."""
    with options.connect() as client:
        system = client.get("/api/system").json()
    providers, github = system["providers"], system["github"]
    if options.json:
        print_text(json.dumps({"providers": providers, "github": github}))
        return
    rows = [_row(each["name"], each, "ready") for each in providers]
    rows.append(_row("github", github, github["summary"]))
    print_table(["CONNECTION", "STATE", "COMMAND"], rows, wrap=True)


def _row(name: str, state: Mapping[str, Any], ready: str) -> list[Cell]:
    return [name, Styled(state["problem"] or ready, "yellow" if state["problem"] else "green"), state["command"] or ""]


@connect_app.command
def claude(
    *, key_file: str | None = None, model: str | None = None, slots: int = 2, options: ApiOptions = DEFAULTS
) -> int:
    """Connect Claude Code, with an API key or the token of a subscription (`claude setup-token`).

    The credential comes from --key-file, else from ANTHROPIC_API_KEY, ANTHROPIC_AUTH_TOKEN or CLAUDE_CODE_OAUTH_TOKEN,
    else from the engine if it has one, else from a question on the terminal.

    Args:
        key_file: A file with the API key or token; - for standard input.
        model: The model, by the name that Claude Code uses, such as sonnet. Default: that of Claude Code.
        slots: The number of jobs that run at once.
    """
    advice = (
        "with an API key: labrats connect claude --key-file FILE\n"
        "with a subscription: claude setup-token, then the same command with the token that it prints"
    )
    return _connect("claude", key_file, model, slots, advice, options)


@connect_app.command
def codex(
    *, key_file: str | None = None, model: str | None = None, slots: int = 2, options: ApiOptions = DEFAULTS
) -> int:
    """Connect Codex, with an API key or the login of a subscription (`auth.json`).

    The credential comes from --key-file, else from OPENAI_API_KEY or CODEX_API_KEY, else from the engine if it has one,
    else from a question on the terminal. The engine renews a login, so sign in for it alone: the same login cannot be
    used elsewhere.

    Args:
        key_file: A file with the API key, or the auth.json of a login; - for standard input.
        model: The model, by the name that Codex uses. Default: that of Codex.
        slots: The number of jobs that run at once.
    """
    advice = (
        "with an API key: labrats connect codex --key-file FILE\n"
        "with a subscription: CODEX_HOME=$PWD/codex-login codex login, then labrats connect codex "
        "--key-file codex-login/auth.json (a login for the engine alone)"
    )
    return _connect("codex", key_file, model, slots, advice, options)


@connect_app.command
def local(
    url: str,
    /,
    *,
    model: str | None = None,
    provider: str | None = None,
    key_file: str | None = None,
    slots: int = 2,
    options: ApiOptions = DEFAULTS,
) -> int:
    """Connect a server with the OpenAI API, such as Ollama, vLLM or llama.cpp, and list its models.

    Args:
        url: The server's address, such as http://127.0.0.1:11434/v1, as the engine reaches it.
        model: The model, by the server's name. Default: the only one, or a question on the terminal.
        provider: openai, vllm, gemma or qwen. Default: the one of an AiModel of that model, else openai.
        key_file: A file with the server's key, if it needs one; - for standard input.
        slots: The number of jobs that run at once.
    """
    if provider not in (None, *LOCAL_PROVIDERS):
        raise CommandError(f"--provider must be one of {', '.join(LOCAL_PROVIDERS)}, not {provider}", ExitCode.USAGE)
    key = Credential("OPENAI_API_KEY", read_key_file(key_file), key_file) if key_file else None
    again = f"local {url}"
    base, names = _models_of(url, key, again)
    chosen = _choose(names, model, base, f"local {base}")
    with options.connect() as client:
        provider = provider or _local_provider_of(client, chosen)
        fields = {"provider": provider, "model": chosen, "slots": slots, "endpoint": base}
        return _set_up(client, fields, key, options, again)


def _local_provider_of(client: "Client", model: str) -> str:
    """Return the provider of an AiModel of this model, which may have been made under an older name."""
    ai_models = client.get("/api/ai-models").json()["aiModels"]
    existing = {each["provider"] for each in ai_models if each["model"] == model}
    return next((name for name in LOCAL_PROVIDERS if name in existing), LOCAL_PROVIDERS[0])


@connect_app.command
def acp(
    program: str,
    /,
    *,
    endpoint: str,
    model: str | None = None,
    key_file: str | None = None,
    slots: int = 2,
    options: ApiOptions = DEFAULTS,
) -> int:
    """Connect a program that speaks the Agent Client Protocol, on a server with the OpenAI API.

    For another program, see `labrats model create --provider acp --command`.

    Args:
        program: opencode, qwen-code or goose. It is installed where the engine runs its jobs.
        endpoint: The address of the model's server, such as http://127.0.0.1:11434/v1, as the engine reaches it.
        model: The model, by the server's name. Default: the only one, or a question on the terminal.
        key_file: A file with the server's key, if it needs one; - for standard input.
        slots: The number of jobs that run at once.
    """
    if (preset := ACP_PROGRAMS.get(program)) is None:
        own = f'labrats model create NAME --provider acp --model MODEL --endpoint {endpoint} --command "{program}"'
        known = ", ".join(ACP_PROGRAMS)
        raise CommandError(f"{program} is none of {known}; for a program of your own: {own}", ExitCode.USAGE)
    again = f"acp {program} --endpoint {endpoint}"
    key = Credential("OPENAI_API_KEY", read_key_file(key_file), key_file) if key_file else None
    base, names = _models_of(endpoint, key, again)
    fields = {
        "provider": ACP,
        "model": _choose(names, model, base, again),
        "slots": slots,
        "endpoint": base,
        "command": list(preset.command),
        "environment": dict(preset.environment),
    }
    with options.connect() as client:
        return _set_up(client, fields, key, options, again)


def _connect(
    provider: str, key_file: str | None, model: str | None, slots: int, advice: str, options: ApiOptions
) -> int:
    with options.connect() as client:
        readiness = {each["name"]: each for each in client.get("/api/system").json()["providers"]}[provider]
        if readiness["missing"] == "program":
            hint = f": run `{readiness['command']}`, then this command again" if readiness["command"] else ""
            raise CommandError(f"{readiness['problem']}{hint}", ExitCode.USAGE)
        found = _credential(provider, key_file)
        if found is None and not readiness["canRun"]:
            found = _ask(provider, advice)
        if found:
            print_stderr(f"using {found.key} from {found.origin}")
        fields = {"provider": provider, "model": model or provider, "slots": slots}
        return _set_up(client, fields, found, options, provider)


def _set_up(
    client: "Client", fields: dict[str, Any], credential: Credential | None, options: ApiOptions, again: str
) -> int:
    """Store the credential and the model, and run a job on it. Return the exit code of the job.

    fields: of the AiModel. Without a new credential, it gets that of another AiModel of the provider.
    again:  the words after `labrats connect` that do all of it again.
    """
    provider, models = fields["provider"], client.get("/api/ai-models").json()["aiModels"]
    if credential:
        secret = credential.secret_of(provider)
        client.put(f"/api/secrets/{secret}", {"values": {credential.key: credential.value}})
        print_stderr(f"secret {secret}: {credential.key} set")
        fields["credentialsRef"] = secret
    elif "endpoint" not in fields:
        others = (each for each in models if each["provider"] == provider and not each["endpoint"])
        fields |= next(({"credentialsRef": each["credentialsRef"]} for each in others if each["credentialsRef"]), {})
    name = _store_model(client, fields, models)
    body = {
        "source": "connect",
        "type": "hello",
        "prompt": _PROMPT,
        "config": {"provider": provider, "model": fields["model"]},
    }
    job_id = client.post("/api/jobs/submit", body).json()["jobId"]
    if not options.json:
        print_stderr(f"{job_id} submitted, on the model {name}")
    code = follow_to_the_end(client, job_id, options)
    if not options.json:
        _print_next(client.get(f"/api/jobs/{job_id}").json(), fields, f"labrats connect {again}")
    return code


def _store_model(client: "Client", fields: Mapping[str, Any], models: Sequence[Mapping[str, Any]]) -> str:
    """Create the AiModel, or change the one of `models` that has the provider and model. Return its name."""
    for each in models:
        if (each["provider"], each["model"]) == (fields["provider"], fields["model"]):
            changes = {name: fields[name] for name in _CHANGED if name in fields}
            if any(each[name] != value for name, value in changes.items()):
                client.patch(f"/api/ai-models/{quote(each['name'], safe='')}", changes)
                print_stderr(f"model {each['name']} changed")
            return str(each["name"])
    is_default = fields["model"] == fields["provider"]
    name = _name_of(fields["model"] if is_default else f"{fields['provider']}-{fields['model']}")
    taken = {each["name"] for each in models}
    name = next(each for each in (name, *(f"{name}-{number}" for number in range(2, 1000))) if each not in taken)
    client.post("/api/ai-models", {"name": name, **fields})
    print_stderr(f"model {name} created, with {fields['slots']} slots")
    return name


def _name_of(text: str) -> str:
    """Return a name for a resource, with the letters and digits of the text."""
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")[:60].strip("-") or "model"


def _print_next(job: Mapping[str, Any], fields: Mapping[str, Any], again: str) -> None:
    """Print the cost of the first job and a next command, or the command that helps after a failure."""
    provider, model = fields["provider"], fields["model"]
    if job["status"] != "completed":
        is_refused = job.get("failedCode") == "auth"
        advice = f"with another key: {again} --key-file FILE" if is_refused else f"then again: {again}"
        print_stderr(f"details: labrats job {job['id']}\n{advice}")
        return
    print_stderr(_cost_sentence(job["usage"]))
    choice = "" if provider == "claude" else f" --provider {provider}"
    choice += "" if model == provider else f" --model {model}"
    print_stderr(f'next: labrats submit -p "What does this project do?" --repo URL{choice} --follow')


def _cost_sentence(usage: Mapping[str, Any]) -> str:
    cost = usage["costUsd"]
    if usage.get("costKind") == "notional":
        return "the subscription paid for it" + (f"; at list prices it is ${cost:.4f}" if cost else "")
    if cost is None:
        return "its cost is unknown: neither the provider nor the model's prices say it (labrats model set --help)"
    return f"it cost ${cost:.4f}"


def _credential(provider: str, key_file: str | None) -> Credential | None:
    """Return the credential in the file or in the environment; None without one."""
    if key_file:
        return _classified(provider, read_key_file(key_file), "standard input" if key_file == "-" else key_file)
    for name in provider_spec(provider).keys:
        if value := os.environ.get(name):
            return Credential(name, value, "the environment")
    return None


def _ask(provider: str, advice: str) -> Credential:
    """Return the credential that the person enters. Raises CommandError where nobody can be asked."""
    if not sys.stdin.isatty():
        raise CommandError(f"no credentials for {provider} were found\n{advice}", ExitCode.USAGE)
    print_stderr(advice)
    value = getpass.getpass(f"API key or token for {provider}: ").strip()
    if not value:
        raise CommandError(f"nothing was entered\n{advice}", ExitCode.USAGE)
    return _classified(provider, value, "the terminal")


def _classified(provider: str, value: str, origin: str) -> Credential:
    """Return the credential of the kind that its text shows."""
    if value.startswith("{"):
        if provider != "codex":
            advice = "print a token for jobs with `claude setup-token`, and pass that"
            raise CommandError(f"{origin} has a login, which Claude Code renews for itself: {advice}", ExitCode.USAGE)
        return Credential("auth.json", value, origin)
    if any(character.isspace() for character in value):
        raise CommandError(f"{origin} has more than a key: it must be one line without spaces", ExitCode.USAGE)
    key = "CLAUDE_CODE_OAUTH_TOKEN" if value.startswith("sk-ant-oat") else provider_spec(provider).keys[0]
    return Credential(key, value, origin)


def read_key_file(key_file: str) -> str:
    """Return the text of the file, without spaces around it. Raises CommandError."""
    try:
        value = (sys.stdin.read() if key_file == "-" else Path(key_file).read_text(encoding="utf-8")).strip()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is no text"
        raise CommandError(f"cannot read the key file {key_file}: {reason}", ExitCode.USAGE) from error
    if not value:
        raise CommandError(f"the key file {key_file} is empty", ExitCode.USAGE)
    return value


def _models_of(url: str, key: Credential | None, again: str) -> tuple[str, list[str]]:
    """Return the base URL of the server's API, and the names of its models. Raises CommandError.

    again: the words after `labrats connect` of the command.
    """
    import httpx2  # takes 0.1 s to import

    from labrats.cli.credentials import is_this_machine

    base = (url if "://" in url else f"http://{url}").rstrip("/")
    headers = {"Authorization": f"Bearer {key.value}"} if key else {}
    answer: httpx2.Response | None = None
    for candidate in dict.fromkeys([base if base.endswith("/v1") else f"{base}/v1", base]):
        try:
            is_direct = is_this_machine(candidate)  # a proxy cannot reach this machine's loopback
            answer = httpx2.get(f"{candidate}/models", headers=headers, timeout=_SECONDS, trust_env=not is_direct)
        except (httpx2.HTTPError, httpx2.InvalidURL) as error:
            start = "start it, for example with `ollama serve`, or check the address"
            sentence = f"no server answers at {candidate}/models ({error}): {start}"
            raise CommandError(sentence, ExitCode.UNREACHABLE) from error
        if answer.status_code in (401, 403):
            sentence = f"the server at {candidate} wants {'another' if key else 'a'} key"
            raise CommandError(f"{sentence}: labrats connect {again} --key-file FILE", ExitCode.REFUSED)
        if answer.is_success and (names := _names_in(answer)) is not None:
            return candidate, names
    status = answer.status_code if answer is not None else 0
    raise CommandError(
        f"{base} answered {status} for its models, so it has no OpenAI API there; "
        "its address mostly ends with /v1, such as http://127.0.0.1:11434/v1",
        ExitCode.USAGE,
    )


def _names_in(answer: "httpx2.Response") -> list[str] | None:
    """Return the names of the models in an answer; None if it is none of the OpenAI API."""
    try:
        models = answer.json()["data"] if len(answer.content) <= _LIST_BYTES else None
        return [str(each["id"]) for each in models or []] if isinstance(models, list) or models is None else None
    except (ValueError, TypeError, KeyError):
        return None


def _choose(names: list[str], wanted: str | None, base: str, again: str) -> str:
    """Return the wanted model, the only one, or the one that the person chooses. Raises CommandError."""
    listed = "\n".join(f"  {number}. {name}" for number, name in enumerate(names, start=1))
    if wanted is not None:
        if wanted in names:
            return wanted
        raise CommandError(f"the server has no model {wanted!r}; it has\n{listed}", ExitCode.USAGE)
    if not names:
        advice = "load one, for example with `ollama pull qwen3`"
        raise CommandError(f"the server at {base} has no model: {advice}", ExitCode.USAGE)
    if len(names) == 1:
        print_stderr(f"the server's model is {names[0]}")
        return names[0]
    if not sys.stdin.isatty():
        command = f"labrats connect {again} --model {names[0]}"
        raise CommandError(f"the server has several models; choose one: {command}\n{listed}", ExitCode.USAGE)
    print_stderr(listed)
    answer = input("model (its number): ").strip()
    if answer.isdecimal() and 1 <= int(answer) <= len(names):
        return names[int(answer) - 1]
    raise CommandError(f"{answer!r} is no number of the list", ExitCode.USAGE)
