"""The commands that a comment has, those it does not have, and the agents that it may start."""

from typing import Any

import pytest

from labrats.github.events.comment_commands import (
    MEMBERS_ONLY,
    Command,
    command_in,
    command_of,
    mention_in,
    runnable_agents,
)
from labrats.index.catalog import Catalog
from labrats.intake.events import IncomingEvent
from labrats.model.agent import AiAgent, AiAgentSpec, Trigger
from labrats.model.record import Metadata
from labrats.model.thread_requests import ThreadAction, ThreadAnswer
from labrats.model.webhook_source import DEFAULT_ASSOCIATIONS, RepoOverride, WebhookSource, WebhookSourceSpec
from tests.fakes.clock import NOON
from tests.support.deliveries import an_issue_event


@pytest.mark.parametrize(
    ("text", "command"),
    [
        ("/labrats cancel", Command(ThreadAction.CANCEL)),
        ("/labrats Cancel ai-developer", Command(ThreadAction.CANCEL, agent="ai-developer")),
        ("Please\r\n/labrats retry  model=opus\r\nThanks", Command(ThreadAction.RETRY, model="opus")),
        ("/labrats run ai-reviewer model=a/b=c", Command(ThreadAction.RUN, agent="ai-reviewer", model="a/b=c")),
        ("/labrats publish", Command(ThreadAction.PUBLISH)),
        ("/labrats", Command(ThreadAction.HELP)),
        ("~~~\n/labrats retry\n~~~\n/labrats cancel", Command(ThreadAction.CANCEL)),
        ("````\n```\n/labrats retry\n```\n````\n/labrats cancel", Command(ThreadAction.CANCEL)),
        ("```make``` fails\n/labrats retry", Command(ThreadAction.RETRY)),
    ],
)
def test_a_line_with_the_word_is_a_command(text: str, command: Command) -> None:
    assert command_in(text) == command


@pytest.mark.parametrize(
    "text",
    [
        "",
        "I wrote /labrats cancel",
        " /labrats cancel",
        "> /labrats cancel",
        "/labratsx cancel",
        "```sh\n/labrats cancel\n```",
        "```\n/labrats cancel",
        "````\n```\n/labrats cancel\n```\n````",
        "```\n```sh\n/labrats cancel\n```",
        "```\n    ```\n/labrats cancel\n```",
        "> please look\u2028/labrats cancel",
        "> please look\u2029/labrats cancel",
        "> please look\r/labrats cancel",
        "<!-- \n/labrats cancel\n-->",
    ],
)
def test_other_text_has_no_command(text: str) -> None:
    assert command_in(text) is None


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("/labrats dance", "`dance` is no command."),
        ("/labrats run", "`/labrats run` needs the name of an agent."),
        ("/labrats run a b", "`/labrats run` takes one agent at most, and one model."),
        ("/labrats retry model=", "`model=` is no option: there is only `model=MODEL`."),
        ("/labrats cancel model=a", "`/labrats cancel` takes no model."),
        (f"/labrats run {'a' * 201}", "`/labrats run` takes one agent at most, and one model."),
        ("/labrats da`nce", "`dance` is no command."),
    ],
)
def test_a_wrong_command_says_what_is_wrong(text: str, problem: str) -> None:
    command = command_in(text)
    assert command
    assert command.problem == problem


# Agents that a comment may start


def a_comment(text: str = "/labrats run deploy", association: str = "MEMBER", **fields: Any) -> IncomingEvent:
    payload = an_issue_event("created", association)
    payload["comment"] = {"id": 5, "body": text, "author_association": association, "user": payload["sender"]}
    return IncomingEvent("github", "issue_comment.created", payload | fields)


def a_source(**spec: Any) -> WebhookSource:
    usual: dict[str, Any] = {"type": "github", "credentials_ref": "app"}
    return WebhookSource(metadata=Metadata(name="github"), spec=WebhookSourceSpec(**usual | spec))


def a_trigger(filters: dict[str, Any], event: str = "issues.labeled", **fields: Any) -> Trigger:
    return Trigger(source="github", events=(event,), filters=filters, **fields)


def a_catalog(**agents: list[Trigger]) -> Catalog:
    catalog = Catalog()
    for name, triggers in agents.items():
        spec = AiAgentSpec(trigger_name=name, event_triggers=tuple(triggers))
        catalog.put(AiAgent(metadata=Metadata(name=name), spec=spec))
    return catalog


def test_an_external_contributor_runs_no_agent() -> None:
    catalog = a_catalog(deploy=[a_trigger({})])
    source = a_source(allowed_associations=(*DEFAULT_ASSOCIATIONS, "NONE"))
    refused = command_of(a_comment(association="NONE"), source, catalog, NOON)
    by_member = command_of(a_comment(), source, catalog, NOON)
    assert refused
    assert refused.answer == ThreadAnswer(reaction="confused", text=MEMBERS_ONLY)
    assert by_member
    assert by_member.answer is None


@pytest.mark.parametrize(("association", "names"), [("NONE", False), ("MEMBER", True)])
def test_help_names_only_agents_that_the_author_may_start(association: str, names: bool) -> None:
    source = a_source(allowed_associations=(*DEFAULT_ASSOCIATIONS, "NONE"))
    comment = a_comment("/labrats help", association)
    found = command_of(comment, source, a_catalog(deploy=[a_trigger({})]), NOON)
    assert found
    assert found.answer
    assert ("`deploy`" in (found.answer.text or "")) is names


@pytest.mark.parametrize(
    ("filters", "may"),
    [
        ({"label.name": "ai-implement"}, True),
        ({"repository.full_name": "octo/*", "label.name": "ai-implement"}, True),
        ({"sender.login": ["octo", "ada"]}, True),
        ({"organization.login": "octo-org"}, True),
        ({"repository.full_name": "octo/other"}, False),
        ({"repository.topics": "deployed"}, False),
        ({"sender.login": "ada"}, False),
        ({"organization.login": "another"}, False),
    ],
)
def test_filters_on_the_repository_and_the_sender_apply_to_a_run(filters: dict[str, Any], may: bool) -> None:
    catalog, event = a_catalog(deploy=[a_trigger(filters)]), a_comment(organization={"login": "octo-org"})
    assert ("deploy" in runnable_agents(event, a_source(), catalog)) == may
    request = command_of(event, a_source(), catalog, NOON)
    assert request
    assert (request.answer is None) == may


def test_a_run_has_the_first_fitting_trigger_whose_filters_hold() -> None:
    elsewhere = a_trigger({"repository.full_name": "octo/other"}, instruction="elsewhere")
    disabled = a_trigger({}, instruction="disabled", enabled=False)
    on_pulls = a_trigger({}, "pull_request.opened", instruction="on-pulls")
    on_issues = a_trigger({"label.name": "x"}, instruction="on-issues")
    catalog, event = a_catalog(deploy=[elsewhere, disabled, on_pulls, on_issues]), a_comment()
    _, on_issue = runnable_agents(event, a_source(), catalog)["deploy"]
    of_pull = a_comment(issue={**event.payload["issue"], "pull_request": {}})
    _, on_pull = runnable_agents(of_pull, a_source(), catalog)["deploy"]
    assert on_issue == on_issues
    assert on_pull == on_pulls


def test_only_the_agent_that_the_source_names_for_a_repository_runs_there() -> None:
    catalog = a_catalog(deploy=[a_trigger({})], other=[a_trigger({})], manual=[])
    for name, agents in (("deploy", {"deploy"}), ("manual", {"manual"}), ("missing", set())):
        here = a_source(repo_overrides={"OCTO/demo": RepoOverride(agent_trigger_name=name)})
        elsewhere = a_source(repo_overrides={"octo/other": RepoOverride(agent_trigger_name=name)})
        assert runnable_agents(a_comment(), here, catalog).keys() == agents
        assert runnable_agents(a_comment(), elsewhere, catalog).keys() == {"deploy", "other"}


@pytest.mark.parametrize(
    ("text", "command"),
    [
        ("@labrats-bot please add a test", Command(ThreadAction.MENTION)),
        ("Thanks!\r\n@Labrats-Bot[bot], please add a test", Command(ThreadAction.MENTION)),
        ("@labrats-bot", Command(ThreadAction.MENTION)),
        ("@labrats-bot: retry model=opus", Command(ThreadAction.RETRY, model="opus")),
        ("@labrats-bot run ai-reviewer", Command(ThreadAction.RUN, agent="ai-reviewer")),
        ("cc @labrats-bot", None),
        (" @labrats-bot x", None),
        ("> @labrats-bot x", None),
        ("```\n@labrats-bot x\n```", None),
        ("@labrats-bots x", None),
        ("@labrats-bot-2 x", None),
        ("@labrats-bot/team x", None),
        ("<!-- \n@labrats-bot x\n-->", None),
    ],
)
@pytest.mark.parametrize("login", ["labrats-bot[bot]", "labrats-bot"])
def test_a_line_that_begins_with_the_login_is_a_mention(login: str, text: str, command: Command | None) -> None:
    assert mention_in(text, login) == command


def test_no_login_is_no_mention() -> None:
    assert mention_in("@ please", None) is None
