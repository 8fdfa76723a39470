"""A refused submission names all of its invalid fields at once, the first one first."""

from typing import Any

import httpx2
import pytest

from tests.api.conftest import Api, a_submission

PRIVATE_REPO = {"gitRepo": "https://127.0.0.1/a/b.git"}
PRIVATE_CALLBACK = "http://127.0.0.1/hook"
NO_SCHEMA = {"type": "nothing"}


@pytest.mark.parametrize(
    ("fields", "invalid"),
    [
        pytest.param(
            {
                "config": {"maxTurns": 0},
                "workspaceSetup": {"gitRepo": "no repository"},
                "callbackUrl": "ftp://example.com",
                "resultSchema": NO_SCHEMA,
            },
            ["workspaceSetup.gitRepo", "config.maxTurns", "callbackUrl", "resultSchema"],
            id="each field by itself",
        ),
        pytest.param(
            {
                "workspaceSetup": PRIVATE_REPO,
                "callbackUrl": PRIVATE_CALLBACK,
                "workspaceUploads": [{"id": "up-0123456789abcdef", "name": "a"}],
                "agentRole": "nobody",
            },
            ["workspaceSetup.gitRepo", "callbackUrl", "workspaceUploads[0]", "agentRole"],
            id="everything that does not depend on the agent",
        ),
        pytest.param(
            {
                "workspaceSetup": PRIVATE_REPO,
                "callbackUrl": PRIVATE_CALLBACK,
                "config": {"provider": "mock", "executorImage": "Not an image"},
                "metadata": {"mock": {"steps": [{"log": 1}, {"leap": 2}]}},
                "concurrency": {"key": "{{ repo }}"},
            },
            [
                "workspaceSetup.gitRepo",
                "callbackUrl",
                "config.executorImage",
                "metadata.mock.steps[0].log",
                "metadata.mock.steps[1]",
                "concurrency.key",
            ],
            id="settings",
        ),
        pytest.param(
            {
                "type": "error-reporting",
                "prompt": None,
                "workspaceFiles": [{"name": "a", "data": ""}, {"name": "a", "data": ""}],
                "workspaceSetup": {"gitRef": "main"},
            },
            ["errors", "workspaceFiles[1].name", "workspaceSetup.gitRepo"],
            id="fields together",
        ),
    ],
)
async def test_all_invalid_fields_are_named(
    api: Api, user: httpx2.AsyncClient, fields: dict[str, Any], invalid: list[str]
) -> None:
    answer = await user.post("/api/jobs/submit", json=a_submission(**fields))

    assert answer.status_code == 422, answer.text
    assert [detail["field"] for detail in answer.json()["details"]] == invalid
    assert answer.json()["error"] == f"these fields are not valid: {', '.join(invalid)}"


async def test_single_invalid_field_is_named_in_the_message(user: httpx2.AsyncClient) -> None:
    answer = await user.post("/api/jobs/submit", json=a_submission(workspaceSetup={"gitRepo": "no repository"}))

    message = "must not contain spaces or control characters"
    assert answer.json()["error"] == f"workspaceSetup.gitRepo: {message}"
    assert answer.json()["details"] == [{"field": "workspaceSetup.gitRepo", "message": message}]


async def test_invalid_field_comes_before_a_text_that_is_too_large(user: httpx2.AsyncClient) -> None:
    large = {"prompt": "x" * 2**20}
    both = await user.post("/api/jobs/submit", json=a_submission(**large, callbackUrl="ftp://example.com"))
    alone = await user.post("/api/jobs/submit", json=a_submission(**large))
    assert (both.status_code, alone.status_code) == (422, 413)
