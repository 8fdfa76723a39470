"""Webhook deliveries with GitHub's signature."""

import hashlib
import hmac
import json
from typing import Any, Final

SECRET: Final = "test-secret-of-a-webhook"


def hub_signature(body: bytes, secret: str = SECRET) -> str:
    """Return the value of the header X-Hub-Signature-256."""
    return f"sha256={hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()}"


def github_headers(event: str, body: bytes, secret: str = SECRET, delivery: str | None = None) -> dict[str, str]:
    """Return the headers that GitHub sends with `body`. delivery: the delivery's id, by default derived from `body`."""
    return {
        "Content-Type": "application/json",
        "X-GitHub-Event": event,
        "X-GitHub-Delivery": delivery or hashlib.sha256(body).hexdigest()[:36],
        "X-Hub-Signature-256": hub_signature(body, secret),
    }


def json_body(payload: Any) -> bytes:
    return json.dumps(payload).encode()


def an_issue_event(action: str = "labeled", association: str = "NONE", **fields: Any) -> dict[str, Any]:
    """Return a payload of the event `issues`: the owner acts on a stranger's issue. fields: of the payload."""
    usual = {
        "action": action,
        "issue": {
            "number": 7,
            "title": "It crashes",
            "body": "When I start it.",
            "html_url": "https://github.com/octo/demo/issues/7",
            "user": {"id": 2, "login": "stranger"},
            "author_association": association,
        },
        "label": {"name": "ai"},
        "repository": {
            "id": 100,
            "full_name": "octo/demo",
            "default_branch": "main",
            "clone_url": "https://1.1.1.1/octo/demo.git",
        },
        "sender": {"id": 1, "login": "octo", "type": "User"},
    }
    return usual | fields


def a_pull_request_event(action: str = "opened", *, head: int = 100, author: int = 1, **fields: Any) -> dict[str, Any]:
    """Return a payload of the event `pull_request`, by a member. head: id of the source repository. author: user id."""
    issue = an_issue_event(action)
    pull_request = {
        "number": 8,
        "title": "Mend it",
        "body": "It was broken.",
        "state": "open",
        "user": {"id": author, "login": "author"},
        "author_association": "MEMBER",
        "head": {"ref": "mend", "repo": {"id": head, "full_name": "octo/demo" if head == 100 else "fork/demo"}},
    }
    return {key: issue[key] for key in ("action", "repository", "sender")} | {"pull_request": pull_request} | fields
