"""The commands for agents and their instructions."""

from typing import Any, Final, Literal
from urllib.parse import quote

from cyclopts import App

from labrats.cli.options import DEFAULTS, ApiOptions
from labrats.cli.output import print_stderr, print_table, print_text

agents_app: Final = App(name="agent", help="List, show and seed agents.")
instructions_app: Final = App(name="instruction", help="List and show the instructions of agents.")


@agents_app.command(name="list")
def list_agents(*, options: ApiOptions = DEFAULTS) -> None:
    """List the agents and the events that start them."""
    with options.connect() as client:
        answer = client.get("/api/agents")
    if options.json:
        print_text(answer.text)
        return
    print_table(
        ["NAME", "TRIGGER NAME", "ENABLED", "PROVIDER", "MODEL", "EVENTS"],
        [
            [
                agent["name"],
                agent["triggerName"],
                "yes" if agent["enabled"] else "no",
                agent.get("defaultProvider") or "",
                agent.get("defaultModel") or "",
                " ".join(map(_events, agent["eventTriggers"])),
            ]
            for agent in answer.json()["agents"]
        ],
    )


@agents_app.command(name="show")
def show_agent(name: str, /, *, options: ApiOptions = DEFAULTS) -> None:
    """Print the instructions of an agent: first the global ones, then its own.

    Args:
        name: The agent's name.
    """
    with options.connect() as client:
        if options.json:
            print_text(client.get(_path("agents", name)).text)
            return
        answer = client.get(f"{_path('agents', name)}/instructions")
    for instruction in answer.json()["instructions"]:
        print_stderr(f"--- {instruction['name']} ({instruction['scope']})")
        print_text(instruction["content"])


@agents_app.command
def seed(*, options: ApiOptions = DEFAULTS) -> None:
    """Add the default agents that are missing, with their instructions. Existing ones stay unchanged."""
    with options.connect() as client:
        answer = client.post("/api/agents/seed")
    if options.json:
        print_text(answer.text)
        return
    print_stderr(f"{answer.json()['seeded']} agents added")


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


def _events(trigger: dict[str, Any]) -> str:
    return ",".join(f"{trigger['source']}:{event}" for event in trigger["events"])
