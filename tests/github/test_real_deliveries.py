"""Real deliveries of GitHub: its own examples of every event, and signatures of its own library."""

import json
import re
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from functools import cache
from pathlib import Path
from typing import Any, Final

import pytest
from starlette.datastructures import Headers

from labrats.intake.deliveries import is_body_of
from labrats.intake.signatures import hub_signature
from labrats.model.job import Job
from tests.api.conftest import Api, api_in_memory
from tests.api.test_agent_roles import stored
from tests.api.test_webhooks import GITHUB, add_source
from tests.support.builders import a_trigger, an_agent
from tests.support.deliveries import SECRET, github_headers, json_body

FOLDER: Final = Path(__file__).parent
PACKAGES: Final = FOLDER / "node_modules" / "@octokit"


_CLONE_URL: Final = re.compile(rb'("clone_url": ")https?://[^/"]+/')


@cache
def examples() -> tuple[tuple[str, dict[str, Any]], ...]:
    """Return the event name and payload of each example."""
    return tuple(_read_examples())


def _read_examples() -> Iterator[tuple[str, dict[str, Any]]]:
    for index in sorted((PACKAGES / "webhooks-examples").glob("*/index.json")):
        for event in json.loads(index.read_text()):
            yield from ((event["name"], payload) for payload in event["examples"])


@pytest.fixture(autouse=True)
def _require_examples() -> None:
    """Fail without the examples. A skipped test would hide that nothing was tested."""
    if not PACKAGES.exists():
        pytest.fail("GitHub's examples are missing; run `make setup`", pytrace=False)


@pytest.fixture
async def api(tmp_path: Path) -> AsyncIterator[Api]:
    async with api_in_memory(tmp_path) as api:
        yield api


def test_githubs_examples_match_their_own_event_and_no_other_with_an_author() -> None:
    written = {"issues", "issue_comment", "pull_request", "pull_request_review", "commit_comment", "discussion", "push"}
    for name, payload in examples():
        assert is_body_of(name, payload), name
        assert not [other for other in written - {name} if is_body_of(other, payload)], name


async def test_each_of_githubs_examples_is_received_and_matched(api: Api) -> None:
    await add_source(api, allowedAssociations=["OWNER", "NONE"], allowForks=True, defaults={"provider": "mock"})
    await stored(api, an_agent("a", a_trigger("*")))
    async with api.client(None) as nobody:
        for event, payload in examples():
            body = _CLONE_URL.sub(rb"\g<1>https://1.1.1.1/", json_body(payload))  # no name server is asked
            answer = await nobody.post(GITHUB, content=body, headers=github_headers(event, body))
            assert answer.status_code == 200, (event, answer.text)
            expected = 0 if event == "ping" or "ignored" in answer.json() else 1
            assert answer.json().get("matched", 0) == expected, event
    jobs = await api.store.list(Job)
    assert len({job.spec.metadata["event"].partition(".")[0] for job in jobs}) > 50


def test_a_signature_from_githubs_library_is_accepted() -> None:
    body = json.dumps({"text": "Grüße 🧪"}, ensure_ascii=False)
    script = (
        "import {sign} from '@octokit/webhooks-methods'; const [secret, body] = JSON.parse(process.argv[1]);"
        "console.log(await sign(secret, body))"
    )
    node = [
        str(Path(sys.executable).with_name("node")),
        "--input-type=module",
        "--eval",
        script,
        json.dumps([SECRET, body]),
    ]
    signed = subprocess.run(node, cwd=FOLDER, capture_output=True, text=True, check=True).stdout.strip()
    found = hub_signature(Headers({"X-Hub-Signature-256": signed}))
    assert found
    verifier = found.verifier(SECRET)
    verifier.update(body.encode())
    assert verifier.matches()
