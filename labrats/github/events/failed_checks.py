"""Failed checks of pull requests, which a trigger with a `ciLoop` lets an agent repair."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final

from labrats.index.catalog import Catalog
from labrats.intake.events import IncomingEvent, failed_filter, listens_to
from labrats.intake.report_targets import target_of
from labrats.model.agent import AiAgent, Trigger
from labrats.model.thread_requests import ThreadAction, ThreadRequest
from labrats.model.webhook_source import GITHUB, WebhookSource

_SUBJECTS: Final = ("check_run", "workflow_run", "check_suite")
FAILURES: Final = ("failure", "timed_out")
"""GitHub's names for the conclusions that count as failures."""


def failed_checks_of(
    event: IncomingEvent, source: WebhookSource, catalog: Catalog, now: datetime
) -> list[ThreadRequest]:
    """Return a request for each agent that repairs the failed checks in an event; none for another event.

    Whoever sends it, often a program: what is repaired is a commit that the engine has published. A receiver reads no
    jobs, so it does not know whether one made the pull request.
    """
    subject = next((found for key in _SUBJECTS if isinstance(found := event.find(key), Mapping)), None)
    if subject is None or source.spec.credentials_ref is None:
        return []
    if event.find("action") != "completed" or subject.get("conclusion") not in FAILURES:
        return []
    target, page = target_of(event, source), event.text("repository", "html_url")
    override = source.spec.override_of(event.text("repository", "full_name"))
    if (override and not override.enabled) or target is None or target.pull_request is None or page is None:
        return []
    if target.head_sha is None or target.head_sha != _head_of_pull_request(subject):
        return []
    return [
        ThreadRequest(
            id=f"checks-{target.head_sha}-{agent.spec.trigger_name}",
            action=ThreadAction.REPAIR,
            event=event.name,
            target=target,
            received_at=now,
            url=f"{page}/pull/{target.pull_request}",
            agent=agent.spec.trigger_name,
        )
        for agent in catalog.agents_by_trigger_name.values()
        if agent.spec.enabled and any(_repairs(trigger, event) for trigger in agent.spec.event_triggers)
    ]


def _head_of_pull_request(subject: Mapping[str, Any]) -> Any:
    """Return the head of the first pull request of a check, as it was when the check ended."""
    pull_requests = subject.get("pull_requests")
    first = pull_requests[0] if isinstance(pull_requests, list) and pull_requests else None
    head = first.get("head") if isinstance(first, Mapping) else None
    return head.get("sha") if isinstance(head, Mapping) else None


def _repairs(trigger: Trigger, event: IncomingEvent) -> bool:
    is_for_it = trigger.ci_loop is not None and listens_to(trigger, event.source, event.name)
    return is_for_it and failed_filter(trigger, event) is None


def repairing_trigger(agent: AiAgent, event_name: str) -> Trigger | None:
    """Return the enabled trigger by which an agent repairs the checks of an event; None if it has none any more."""
    triggers = (each for each in agent.spec.event_triggers if each.ci_loop is not None)
    return next((each for each in triggers if listens_to(each, GITHUB, event_name)), None)
