"""The commands for agents and their instructions."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Final, Literal
from urllib.parse import quote

from cyclopts import App, Parameter

from labrats.cli.client import Client
from labrats.cli.errors import CommandError, ExitCode
from labrats.cli.job_view import caches_sentence, env_sentence, network_text, setup_sentence
from labrats.cli.key_values import RepeatedOption
from labrats.cli.options import DEFAULTS, ApiOptions
from labrats.cli.output import one_line, print_stderr, print_table, print_text
from labrats.cli.submit_options import SetupOptions, network_rule, read_schema, variables
from labrats.model.effort import Effort

agents_app: Final = App(name="agent", help="List, show, create, change, delete and seed agents.")
_SEEDED_FIELDS: Final = {
    "triggerName": "trigger_name",
    "eventTriggers": "event_triggers",
    "instructions": "instructions",
    "report": "report",
}
"""The fields that default agents set, by their names in the API."""

_LABEL_WIDTH: Final = 12

_UNSET: Final = {
    "provider": "defaultProvider",
    "model": "defaultModel",
    "effort": "defaultEffort",
    "network": "defaultNetwork",
    "isolation": "defaultIsolation",
    "env": "env",
    "mcp-servers": "mcpServers",
    "report": "report",
    "result-schema": "resultSchema",
}
"""The fields of the API that `--unset` removes, by the names that it takes."""

_UNSET_SETUP: Final = {
    "setup": "setup",
    "setup-network": "setupNetwork",
    "setup-timeout": "setupTimeoutMs",
    "cache": "cache",
}
"""The same for the fields of `workspaceSetup`."""

instructions_app: Final = App(name="instruction", help="List and show the instructions of agents.")


@agents_app.command(name="list")
def list_agents(*, options: ApiOptions = DEFAULTS) -> None:
    """List the agents, the network and the isolation of their jobs, and the events that start them."""
    with options.connect() as client:
        answer = client.get("/api/agents")
    if options.json:
        print_text(answer.text)
        return
    print_table(
        ["NAME", "TRIGGER NAME", "ENABLED", "PROVIDER", "MODEL", "NETWORK", "ISOLATION", "EVENTS"],
        [
            [
                agent["name"],
                agent["triggerName"],
                "yes" if agent["enabled"] else "no",
                agent.get("defaultProvider") or "",
                agent.get("defaultModel") or "",
                network_text(agent.get("defaultNetwork", "")),
                agent.get("defaultIsolation", ""),
                " ".join(map(_trigger, agent["eventTriggers"])),
            ]
            for agent in answer.json()["agents"]
        ],
    )


@agents_app.command(name="show")
def show_agent(name: str, /, *, options: ApiOptions = DEFAULTS) -> None:
    """Print the settings of an agent, and its instructions: first the global ones, then its own.

    Args:
        name: The agent's name.
    """
    with options.connect() as client:
        agent = client.get(_path("agents", name))
        if options.json:
            print_text(agent.text)
            return
        answer = client.get(f"{_path('agents', name)}/instructions")
    for label, value in _settings(agent.json()):
        if value:
            print_text(f"{label:<{_LABEL_WIDTH}} {one_line(value)}")
    for instruction in answer.json()["instructions"]:
        print_stderr(f"\n--- {instruction['name']} ({instruction['scope']})")
        print_text(instruction["content"])


def _settings(agent: dict[str, Any]) -> Iterator[tuple[str, str]]:
    setup = agent.get("workspaceSetup", {})
    yield "trigger name", agent["triggerName"]
    yield "enabled", "yes" if agent["enabled"] else "no"
    yield "provider", agent.get("defaultProvider") or ""
    yield "model", agent.get("defaultModel") or ""
    yield "effort", agent.get("defaultEffort") or ""
    yield "network", network_text(agent.get("defaultNetwork", ""))
    yield "isolation", agent.get("defaultIsolation", "")
    yield "env", env_sentence(agent.get("env", {}))
    yield "setup", setup_sentence(setup)
    yield "caches", caches_sentence(setup)
    yield "MCP servers", " ".join(agent.get("mcpServers", {}))
    yield "report", " ".join(agent.get("report", {}))
    yield "schema", "of the result" if "resultSchema" in agent else ""
    for trigger in agent["eventTriggers"]:
        yield "trigger", _trigger(trigger)


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class AgentOptions(SetupOptions):
    """The optional fields of an agent. Triggers and MCP servers are in files: see `labrats apply`."""

    trigger_name: str | None = None
    """The name by which jobs and chains refer to the agent. [default: its name]"""
    enabled: bool | None = None
    """Let the agent start jobs, or not."""
    provider: str | None = None
    """The provider of its jobs: claude, codex, acp, openai, vllm, gemma, qwen or mock."""
    model: str | None = None
    """The model of its jobs, by the name that the provider uses."""
    effort: Effort | None = None
    """The reasoning effort of its jobs."""
    network: str | None = None
    """The hosts that its jobs may reach: open, public, none, or names and presets with commas (npm,*.example.com)."""
    isolation: Literal["process", "sandbox", "container", "vm"] | None = None
    """The least isolation of its jobs."""
    env: RepeatedOption = ()
    """A variable of its jobs, NAME=VALUE or NAME=secret:SECRET/KEY. Repeatable; replaces all existing ones."""
    instruction: RepeatedOption = ()
    """The name of an instruction. Repeatable, in order; replaces all existing ones."""
    result_schema: Path | None = None
    """A file with the JSON Schema of the results of its jobs."""

    def body(self) -> dict[str, Any]:
        """Return the fields of a request. Raises CommandError that names the invalid option."""
        fields = {
            "triggerName": self.trigger_name,
            "enabled": self.enabled,
            "defaultProvider": self.provider,
            "defaultModel": self.model,
            "defaultEffort": self.effort,
            "defaultNetwork": network_rule("--network", self.network),
            "defaultIsolation": self.isolation,
            "env": variables(self.env) or None,
            "instructions": list(self.instruction) or None,
            "workspaceSetup": self.setup_body() or None,
            "resultSchema": read_schema(self.result_schema),
        }
        return {name: value for name, value in fields.items() if value is not None}


NO_AGENT_OPTIONS: Final = AgentOptions()


@agents_app.command(name="create")
def create_agent(
    name: str | None = None,
    /,
    *,
    template: str | None = None,
    agent_options: AgentOptions = NO_AGENT_OPTIONS,
    options: ApiOptions = DEFAULTS,
) -> None:
    """Create an agent without triggers, for `labrats submit --agent` and chains, or one from a template.

    Args:
        name: The agent's name. [default: that of the template]
        template: The template: ci-fixer, which repairs failed checks of pull requests that the engine has opened.
    """
    if (name := name or template) is None:
        raise CommandError("name the agent, or pass --template ci-fixer", ExitCode.USAGE)
    with options.connect() as client:
        fields = _fields_of_template(client, template) if template else {}
        answer = client.post("/api/agents", fields | {"name": name} | agent_options.body())
    _confirm(f"{name} created", answer.text, options)


def _fields_of_template(client: Client, name: str) -> dict[str, Any]:
    """Return the fields of a template, after adding the instructions that it needs. Existing ones are not changed."""
    from msgspec import to_builtins

    from labrats.seeds import templates

    if name not in templates():
        known = ", ".join(sorted(templates()))
        raise CommandError(f"there is no template {name!r}: pass one of {known}", ExitCode.USAGE)
    agent, instructions = templates()[name]
    present = {each["name"] for each in client.get("/api/instructions").json()["instructions"]}
    for each in instructions:
        if each.name not in present:
            client.post("/api/instructions", {"name": each.name} | to_builtins(each.spec))
    fields: dict[str, Any] = to_builtins(agent.spec)
    return {key: value for key, value in fields.items() if key != "triggerName"}


@agents_app.command(name="set")
def set_agent_fields(
    name: str,
    /,
    *,
    unset: RepeatedOption = (),
    default_triggers: Annotated[bool, Parameter(negative=(), show_default=False)] = False,
    agent_options: AgentOptions = NO_AGENT_OPTIONS,
    options: ApiOptions = DEFAULTS,
) -> None:
    """Change an agent. Its existing jobs keep their settings.

    Args:
        name: The agent's name.
        default_triggers: Replace its triggers by those of the default agent of this name.
        unset: A setting to remove: provider, model, effort, network, isolation, env, mcp-servers, report,
            result-schema, setup, setup-network, setup-timeout or cache. Repeatable.
    """
    body = agent_options.body() | (_default_triggers(name) if default_triggers else {})
    _check_unset(unset, body)
    if not body and not unset:
        raise CommandError("nothing to change: pass at least one option, such as --network none", ExitCode.USAGE)
    removed = {_UNSET_SETUP[each] for each in unset if each in _UNSET_SETUP}
    prepared = body.pop("workspaceSetup", {})
    body |= {_UNSET[each]: None for each in unset if each in _UNSET}
    with options.connect() as client:
        if prepared or removed:  # the API replaces it as a whole
            setup = client.get(_path("agents", name)).json().get("workspaceSetup", {}) | prepared
            left = {field: value for field, value in setup.items() if field not in removed}
            if "setup" in removed and "cache" in left:
                message = "--unset setup: the agent has caches, which these commands fill; pass --unset cache, too"
                raise CommandError(message, ExitCode.USAGE)
            body["workspaceSetup"] = left or None
        answer = client.patch(_path("agents", name), body)
    _confirm(f"{name} changed", answer.text, options)


def _default_triggers(name: str) -> dict[str, Any]:
    """Return the field with the triggers of a default agent. Raises CommandError if there is none of this name."""
    from msgspec import to_builtins

    from labrats.seeds import default_agents

    triggers = {agent.name: agent.spec.event_triggers for agent, _ in default_agents()}
    if name not in triggers:
        known = ", ".join(sorted(triggers))
        message = f"--default-triggers: no default agent has the name {name!r}; these are {known}"
        raise CommandError(message, ExitCode.USAGE)
    return {"eventTriggers": to_builtins(triggers[name])}


def _check_unset(unset: Sequence[str], body: dict[str, Any]) -> None:
    """Raise CommandError for a name that `--unset` does not take, and for a setting that the body sets."""
    fields = _UNSET | _UNSET_SETUP
    for each in unset:
        if each not in fields:
            raise CommandError(f"--unset {each}: pass one of {', '.join(fields)}", ExitCode.USAGE)
        if fields[each] in body | body.get("workspaceSetup", {}):
            raise CommandError(f"--unset {each} and --{each} exclude each other", ExitCode.USAGE)


@agents_app.command(name="delete")
def delete_agent(name: str, /, *, options: ApiOptions = DEFAULTS) -> None:
    """Delete an agent. Its jobs continue, and its instructions stay.

    Args:
        name: The agent's name.
    """
    with options.connect() as client:
        client.delete(_path("agents", name))
    print_stderr(f"{name} deleted")


@agents_app.command
def seed(
    *,
    diff: Annotated[bool, Parameter(negative=(), show_default=False)] = False,
    options: ApiOptions = DEFAULTS,
) -> None:
    """Add the default agents that are missing, with their instructions. Existing ones stay unchanged.

    Args:
        diff: Add nothing, and show how the existing agents and instructions differ from the default ones.
    """
    if diff:
        _print_differences(options)
        return
    with options.connect() as client:
        answer = client.post("/api/agents/seed")
    if options.json:
        print_text(answer.text)
        return
    print_stderr(f"{answer.json()['seeded']} agents added")


def _print_differences(options: ApiOptions) -> None:
    """Print a line for each difference to the default agents of this version."""
    from msgspec import convert, to_builtins

    from labrats.model.agent import AiAgentSpec
    from labrats.seeds import default_agents

    with options.connect() as client:
        agents = {each["name"]: each for each in client.get("/api/agents").json()["agents"]}
        listed = client.get("/api/instructions").json()["instructions"]
    texts = {each["name"]: each["content"] for each in listed}
    lines: list[str] = []
    for agent, instructions in default_agents():
        if (found := agents.get(agent.name)) is None:
            lines.append(f"{agent.name} is missing")
            continue
        present = convert(found, AiAgentSpec)
        for name, field in _SEEDED_FIELDS.items():
            value, default = getattr(present, field), getattr(agent.spec, field)
            if value != default:
                shown = "not set" if value is None else json.dumps(to_builtins(value), ensure_ascii=False)
                lines.append(f"{agent.name}: {name} is {shown}; the default is {json.dumps(to_builtins(default))}")
        for each in instructions:
            if (text := texts.get(each.name)) != each.spec.content:
                state = "is missing" if text is None else "has another text than the default"
                lines.append(f"{agent.name}: the instruction {each.name} {state}")
    for line in lines:
        print_text(line)
    print_stderr(f"{len(lines)} {'difference' if len(lines) == 1 else 'differences'} to the default agents")


@instructions_app.command(name="list")
def list_instructions(*, scope: Literal["global", "local"] | None = None, options: ApiOptions = DEFAULTS) -> None:
    """List the instructions.

    Args:
        scope: Only instructions for all agents (global), or for agents that name them (local).
    """
    with options.connect() as client:
        answer = client.get("/api/instructions", {"scope": scope} if scope else None)
    if options.json:
        print_text(answer.text)
        return
    print_table(
        ["NAME", "SCOPE", "PRIORITY", "TITLE"],
        [
            [each["name"], each["scope"], str(each["priority"]), each["displayName"]]
            for each in answer.json()["instructions"]
        ],
    )


@instructions_app.command(name="show")
def show_instruction(name: str, /, *, options: ApiOptions = DEFAULTS) -> None:
    """Print the text of an instruction.

    Args:
        name: The instruction's name.
    """
    with options.connect() as client:
        answer = client.get(_path("instructions", name))
    print_text(answer.text if options.json else answer.json()["content"])


def _path(plural: str, name: str) -> str:
    return f"/api/{plural}/{quote(name, safe='')}"


def _confirm(sentence: str, answer: str, options: ApiOptions) -> None:
    if options.json:
        print_text(answer)
    else:
        print_stderr(sentence)


def _trigger(trigger: dict[str, Any]) -> str:
    """Return the events of the trigger, with the network and the isolation of its jobs if it sets them."""
    events = ",".join(f"{trigger['source']}:{event}" for event in trigger["events"])
    config = trigger.get("config") or {}
    network = f"network {network_text(config['network'])}" if config.get("network") else ""
    isolation = f"isolation {config['isolation']}" if config.get("isolation") else ""
    settings = ", ".join(filter(None, (network, isolation)))
    return f"{events} ({settings})" if settings else events
