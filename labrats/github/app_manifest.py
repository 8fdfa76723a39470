"""The manifest of a GitHub App: the rights and events that the engine and its agents need, and no others.

GitHub's page for a new App takes it as a form field, so that a person only confirms it.
"""

import secrets
from collections.abc import Iterable, Mapping
from typing import Any, Final

from labrats.github.report_rights import events_of, needed_rights
from labrats.model.agent import AiAgent

_RIGHTS: Final = {
    "metadata": "read",
    "contents": "read",
    "issues": "write",
    "pull_requests": "write",
    "checks": "read",
}
"""The rights to clone, to read events, and to answer commands and replies."""

_EVENTS: Final = ("check_run", "issue_comment", "issues", "pull_request", "pull_request_review")
"""The events that commands, replies and buttons need."""

_RIGHTS_OF_EVENTS: Final[Mapping[str, str]] = {
    "check_suite": "checks",
    "create": "contents",
    "delete": "contents",
    "pull_request_review_comment": "pull_requests",
    "push": "contents",
    "release": "contents",
    "workflow_job": "actions",
    "workflow_run": "actions",
}
"""The right to read that each further event needs. Others are added on GitHub by hand."""


def app_manifest(agents: Iterable[AiAgent], home: str, redirect_url: str, hook_url: str | None) -> dict[str, Any]:
    """Return the manifest of an App for the agents.

    home: a page about the App. redirect_url: of the page that gets the code. hook_url: None for an App whose events are
    read.
    """
    listening = list(agents)
    rights = _RIGHTS | dict(needed_rights(listening))
    manifest: dict[str, Any] = {
        "name": f"labrats-{secrets.token_hex(3)}",  # unique on GitHub; its page lets the person change it
        "url": home,
        "redirect_url": redirect_url,
        "public": False,  # others could install it on repositories of their own, and start agents there
        "default_permissions": rights,
    }
    if hook_url:  # without a webhook, GitHub refuses `hook_attributes`, even inactive ones
        further = events_of(listening) & _RIGHTS_OF_EVENTS.keys()
        for event in further:
            rights.setdefault(_RIGHTS_OF_EVENTS[event], "read")
        manifest["hook_attributes"] = {"url": hook_url, "active": True}
        manifest["default_events"] = sorted({*_EVENTS, *further})
    return manifest
