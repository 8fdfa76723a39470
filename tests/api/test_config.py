"""The default settings for jobs, and the stubs."""

import asyncio
from typing import Any

import httpx2
import pytest

from tests.api.conftest import Api, a_submission

NOTHING: dict[str, Any] = {
    "model": None,
    "effort": None,
    "executorImage": None,
    "executorResources": {},
    "providers": {},
    "resourceVersion": None,
}


async def put(admin: httpx2.AsyncClient, **body: Any) -> dict[str, Any]:
    """Change the settings. Return the response without its version."""
    answer = await admin.put("/api/config/defaults", json=body)
    assert answer.status_code == 200, answer.text
    settings: dict[str, Any] = answer.json()
    assert settings.pop("resourceVersion")
    return settings


async def test_a_new_engine_has_no_settings(admin: httpx2.AsyncClient) -> None:
    assert (await admin.get("/api/config/defaults")).json() == NOTHING


async def test_a_put_merges_at_every_depth(admin: httpx2.AsyncClient) -> None:
    await put(
        admin,
        model="sonnet",
        executorResources={"requests": {"cpu": "500m"}, "limits": {"memory": "4Gi", "cpu": "2"}},
        providers={"claude": {"model": "opus", "effort": "high"}, "codex": {"model": "o3"}},
    )
    settings = await put(
        admin,
        effort="low",
        executorResources={"limits": {"cpu": None}},
        providers={
            "claude": {"effort": None},
            "codex": None,
            "qwen": {"files": [{"filename": "a.gguf", "url": "https://models.test/a"}]},
        },
    )
    assert settings == {
        "model": "sonnet",
        "effort": "low",
        "executorImage": None,
        "executorResources": {"requests": {"cpu": "500m"}, "limits": {"memory": "4Gi"}},
        "providers": {
            "claude": {"model": "opus"},
            "qwen": {"files": [{"filename": "a.gguf", "url": "https://models.test/a"}]},
        },
    }


async def test_the_response_of_a_get_can_be_sent_back(admin: httpx2.AsyncClient) -> None:
    await put(admin, model="sonnet", providers={"codex": {"model": "o3"}})
    read = (await admin.get("/api/config/defaults")).json()
    answer = await admin.put("/api/config/defaults", json=read)
    assert answer.status_code == 200, answer.text
    assert answer.json() | {"resourceVersion": ""} == read | {"resourceVersion": ""}


async def test_the_response_of_a_get_without_settings_can_be_sent_back_until_some_are_set(
    admin: httpx2.AsyncClient,
) -> None:
    read = (await admin.get("/api/config/defaults")).json() | {"model": "sonnet"}
    first, late = [await admin.put("/api/config/defaults", json=read) for _ in range(2)]
    assert (first.status_code, first.json()["model"]) == (200, "sonnet")
    assert (late.status_code, late.json()["error"]) == (
        409,
        "the settings exist already; read them again",
    )


async def test_a_stale_version_is_refused(admin: httpx2.AsyncClient) -> None:
    await put(admin, model="a")
    version = (await admin.get("/api/config/defaults")).json()["resourceVersion"]
    body = {"model": "b", "resourceVersion": version}
    assert [(await admin.put("/api/config/defaults", json=body)).status_code for _ in range(2)] == [200, 409]


async def test_concurrent_changes_are_all_applied(admin: httpx2.AsyncClient) -> None:
    providers = ("claude", "codex", "openai", "vllm", "gemma", "qwen", "mock")
    await asyncio.gather(*(put(admin, providers={name: {"model": f"of-{name}"}}) for name in providers))
    found = (await admin.get("/api/config/defaults")).json()["providers"]
    assert {name: each["model"] for name, each in found.items()} == {name: f"of-{name}" for name in providers}


async def test_the_next_job_gets_the_settings(api: Api, admin: httpx2.AsyncClient, user: httpx2.AsyncClient) -> None:
    await put(admin, effort="high", executorImage="example.test/executor:2", providers={"mock": {"model": "tiny"}})

    submitted = await user.post("/api/jobs/submit", json=a_submission())

    detail = (await user.get(f"/api/jobs/{submitted.json()['jobId']}")).json()
    assert (detail["config"]["model"], detail["configOrigins"]["model"]) == ("tiny", "ai-config.providers.mock")
    assert (detail["config"]["effort"], detail["configOrigins"]["effort"]) == ("high", "ai-config")
    assert detail["config"]["executorImage"] == "example.test/executor:2"


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"effort": "utmost"}, "effort"),
        ({"model": ""}, "model"),
        ({"modell": "opus"}, "modell"),
        ({"executorResources": {"limits": {"cpu": "lots"}}}, "executorResources.limits.cpu"),
        ({"executorResources": {"wishes": {}}}, "executorResources.wishes"),
        ({"providers": {"gpt": {}}}, "providers.gpt"),
        ({"providers": {"claude": {"endpoint": "x"}}}, "providers.claude.endpoint"),
        ({"providers": {"claude": {"files": [{"filename": "a", "url": "https://a.test"}]}}}, "providers"),
        (
            {"providers": {"vllm": {"files": [{"filename": "../a", "url": "https://a.test"}]}}},
            "providers.vllm.files[0].filename",
        ),
        ({"providers": {"vllm": {"files": [{"filename": "a", "url": "file:///a"}]}}}, "providers.vllm.files[0].url"),
    ],
)
async def test_an_invalid_field_is_named_in_the_error(
    admin: httpx2.AsyncClient, body: dict[str, Any], field: str
) -> None:
    answer = await admin.put("/api/config/defaults", json=body)
    assert answer.status_code == 422, answer.text
    assert [detail["field"] for detail in answer.json()["details"]] == [field]
    assert (await admin.get("/api/config/defaults")).json() == NOTHING


async def test_the_stubs_respond_to_old_front_ends(admin: httpx2.AsyncClient) -> None:
    path, body = "/api/config/sources/github", {"model": "opus", "anything": [1]}
    assert (await admin.get("/api/config/sources")).json() == {"sources": []}
    assert (await admin.get(path)).json() == {"source": "github", "model": "", "effort": ""}
    assert (await admin.put(path, json=body)).json() == body
    removed = await admin.delete(path)
    assert (removed.status_code, removed.json()) == (200, {"removed": "github"})
    assert (await admin.get("/api/config/sources")).json() == {"sources": []}
