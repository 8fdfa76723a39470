"""The commands for events."""

import json
from pathlib import Path
from typing import Any, Final

from cyclopts import App

from labrats.cli.errors import CommandError, ExitCode
from labrats.cli.job_view import preview_facts, report_sentence
from labrats.cli.options import DEFAULTS, ApiOptions
from labrats.cli.output import print_stderr, print_table, print_text

events_app: Final = App(name="event", help="Test events.")

_SENTENCES: Final = {
    "source": "listens to another source",
    "event": "listens to other events",
    "trigger_disabled": "would match, but is disabled",
    "agent_disabled": "would match, but its agent is disabled",
    "ci_loop": "starts the agent only for failed checks of a pull request that the engine has opened",
    "earlier_trigger": "would match, but an earlier trigger starts the agent",
}


@events_app.command(name="test")
def try_event(
    file: Path,
    /,
    *,
    source: str = "github",
    event: str | None = None,
    agent: str | None = None,
    webhook_source: str | None = None,
    options: ApiOptions = DEFAULTS,
) -> None:
    """Tell which agents an event would start, and why others would not start. Nothing is created.

    Args:
        file: The event: JSON with source, event and payload; with --event, the payload alone.
        source: The origin of the event, unless the file has it.
        event: The name of the event, such as issues.labeled.
        agent: Test only this agent.
        webhook_source: The webhook source whose conditions and settings apply.
    """
    body = _event(file, source, event) | {"agent": agent, "webhookSource": webhook_source}
    with options.connect() as client:
        answer = client.post("/api/events/test", {name: value for name, value in body.items() if value is not None})
    if options.json:
        print_text(answer.text)
    else:
        print_verdicts(answer.json())


def _event(file: Path, source: str, event: str | None) -> dict[str, Any]:
    try:
        content = json.loads(file.read_text("utf-8"))
    except OSError as error:
        raise CommandError(f"{file}: {error.strerror}", ExitCode.USAGE) from error
    except ValueError as error:
        raise CommandError(f"{file}: not JSON: {error}", ExitCode.USAGE) from error
    except RecursionError as error:
        raise CommandError(f"{file}: nested too deeply", ExitCode.USAGE) from error
    if event is not None:
        return {"source": source, "event": event, "payload": content}
    if not isinstance(content, dict) or "event" not in content:
        raise CommandError(f"{file}: has no field `event`; name the event with --event", ExitCode.USAGE)
    return {"source": source, **content}


def print_verdicts(tested: dict[str, Any]) -> None:
    """Print a row for each trigger, then each job that would start."""
    print_table(
        ["AGENT", "TRIGGER", "STARTS", "REASON"],
        [
            [
                each["agent"],
                str(number),
                "yes" if each["starts"] and trigger["matches"] else "no",
                _reason(each, trigger),
            ]
            for each in tested["agents"]
            for number, trigger in enumerate(each["triggers"], start=1)
        ],
    )
    if tested["ignored"]:
        print_stderr(f"the webhook source would ignore this event: {tested['ignored']}")
    for each in tested.get("requests", []):
        print_text(f"the engine would {_request_sentence(each)}")
    for each in tested["agents"]:
        if each["refused"]:
            print_stderr(f"{each['agent']}: the job would be refused: {each['refused']}")
        if job := each["job"]:
            config, setup = job["config"], job["workspaceSetup"]
            place = f" in {setup['gitRepo']} @ {setup['gitRef']}" if setup else ""
            following = f", then {job['chainNext']['agent']}" if job["chainNext"] else ""
            print_text(f"\n{each['agent']}: {job['type']} on {config['provider']}/{config['model']}{place}{following}")
            for name, value in preview_facts(job):
                if value:
                    print_text(f"{name}: {value}")
            if report := report_sentence(job.get("report") or {}):
                print_text(f"reports: {report}")
            if concurrency := job.get("concurrency"):
                print_text(f"concurrency key: {concurrency['key']} ({concurrency['onNew']})")
            print_text(job["prompt"])
    print_stderr(f"{tested['matched']} {'agent' if tested['matched'] == 1 else 'agents'} would start")
    for each in tested["agents"]:
        if failure := (each["job"] or {}).get("failure"):
            print_stderr(f"{each['agent']}: the job would fail: {failure}")


def _request_sentence(request: dict[str, Any]) -> str:
    agent, model = request["agent"], request["model"]
    of_agent, on_model = f" of {agent}" if agent else "", f" on {model}" if model else ""
    if answer := request["answer"]:
        return f"answer:\n{answer}"
    match request["action"]:
        case "cancel":
            return f"cancel the jobs{of_agent} of the thread"
        case "retry" if model:
            return f"run the last job{of_agent} of the thread again{on_model}"
        case "retry":
            return f"retry the last job{of_agent} of the thread"
        case "publish":
            return f"write the report of the last job{of_agent} of the thread again"
        case "run":
            return f"start {agent}{on_model}"
        case "reply":
            return "start a follow-up, if a job made the pull request"
        case "mention":
            return "start a follow-up, if a job made the pull request, or else an agent"
        case "repair":
            return f"let {agent} repair the checks, if a job made the pull request"
        case action:
            return str(action)


def _reason(agent: dict[str, Any], trigger: dict[str, Any]) -> str:
    """Return why the trigger does not start the agent; empty if it does, or if the whole event starts no agent."""
    if trigger["matches"] and agent["refused"]:
        return "matches, but the job would be refused"
    if failed := trigger["failedFilter"]:
        found = ", ".join(json.dumps(value, ensure_ascii=False) for value in failed["found"]) or "nothing"
        return f"{failed['path']} is {found}, not {json.dumps(failed['wanted'], ensure_ascii=False)}"
    return _SENTENCES.get(trigger["mismatch"], "")
