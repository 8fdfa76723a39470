"""The pages on which a person creates an App from a manifest, as GitHub documents its form, and installs it.

A test sends the form of an App as a browser does, and so confirms it. Its fields are documented at
https://docs.github.com/en/apps/sharing-github-apps/registering-a-github-app-from-a-manifest.
"""

import json
import re
import secrets
from collections.abc import Iterable, Iterator
from typing import Final
from urllib.parse import parse_qs, urlencode, urlsplit

from tests.support.github.access import GRANTED, Access
from tests.support.github.calls import Json

PAGE: Final = re.compile(r"(/organizations/[^/]+)?/settings/apps/new")

INSTALL_PAGE: Final = re.compile(r"/apps/[^/]+/installations/new")

_FIELDS: Final = {
    "name": str,
    "url": str,
    "hook_attributes": dict,
    "redirect_url": str,
    "callback_urls": list,
    "setup_url": str,
    "description": str,
    "public": bool,
    "default_events": list,
    "default_permissions": dict,
    "request_oauth_on_install": bool,
    "setup_on_update": bool,
}
_PERMISSIONS: Final = {*GRANTED, "workflows"}


def submit_form(access: Access, state: str, body: bytes) -> tuple[int, str]:
    """Return the status and the text of the answer, or with 302 the address to which the browser is sent."""
    manifest = json.loads(parse_qs(body.decode())["manifest"][0])
    if problems := list(_problems(manifest)):
        return 422, f"Invalid GitHub App configuration: {'; '.join(problems)}"
    code = secrets.token_hex(20)
    access.codes[code] = manifest
    return 302, f"{manifest['redirect_url']}?{urlencode({'code': code, 'state': state})}"


def install(access: Access, names: Iterable[str], method: str, body: bytes) -> str:
    """Return the page that installs the App. names: of all repositories. A form that is sent chooses among them."""
    if method == "POST":
        access.installed = {*(access.installed or ()), *parse_qs(body.decode())["repository"]}
        return "The App is installed."
    boxes = (f'<label><input type="checkbox" name="repository" value="{name}">{name}</label>' for name in names)
    return f'<!doctype html><title>Install</title><form method="post">{"".join(boxes)}<button>Install</button></form>'


def _problems(manifest: Json) -> Iterator[str]:
    for name, value in manifest.items():
        if not isinstance(value, _FIELDS.get(name, type(None))):
            yield f'"{name}" is unknown or has the wrong type'
    if not manifest.get("url") or not manifest.get("redirect_url"):
        yield 'Error "url" wasn\'t supplied.'
    if len(manifest.get("name", "")) > 34:
        yield "Name is too long"
    for name, level in manifest.get("default_permissions", {}).items():
        if name not in _PERMISSIONS or level not in ("read", "write"):
            yield f"Default permission {name} is unknown"
    hook = manifest.get("hook_attributes")
    if hook is not None:
        if not hook.get("url"):
            yield 'Error "url" wasn\'t supplied.'
        elif urlsplit(hook["url"]).hostname in ("localhost", "127.0.0.1"):
            yield "Hook url is not supported because it isn't reachable over the public Internet (localhost)"
    elif manifest.get("default_events"):
        yield "Default events need a webhook"
