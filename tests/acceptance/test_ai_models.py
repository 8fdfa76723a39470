"""AiModels: the admin API that creates, changes and deletes them."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any
from uuid import uuid4

import pytest

from tests.acceptance.engine import User


@pytest.fixture
def name() -> str:
    return f"model-{uuid4()}"


@pytest.fixture
async def ai_model(admin: User, name: str, model: str) -> AsyncIterator[dict[str, Any]]:
    """The answer to the creation of a model with two slots."""
    answer = await admin.post("/api/ai-models", {"name": name, "provider": "mock", "model": model, "slots": 2})
    assert answer.status_code == 201, answer.text
    yield answer.json()
    await admin.http.delete(f"/api/ai-models/{name}")


async def patch(admin: User, name: str, **changes: Any) -> Any:
    return await admin.http.patch(f"/api/ai-models/{name}", json=changes)


async def test_model_is_created_with_every_optional_field(admin: User, name: str, model: str) -> None:
    body = {
        "name": name, "provider": "vllm", "model": model, "slots": 7, "endpoint": "http://10.0.0.5:8000/v1",
        "credentialsRef": "vllm-credentials",
        "prices": {"input": 3, "output": 15.5, "cacheRead": 0.3, "cacheWrite": 3.75},
        "sampling": {"temperature": 0},
    }  # fmt: skip

    answer = await admin.post("/api/ai-models", body)

    assert answer.status_code == 201
    created = answer.json()
    assert ["there is no Secret 'vllm-credentials'" in warning for warning in created["warnings"]] == [True]
    assert created == body | {
        "id": name, "assumedCacheRead": None, "command": None, "environment": None,
        "effectivePrices": body["prices"], "priceSource": "own", "active": 0, "queued": 0, "pausedUntil": None,
        "resourceVersion": created["resourceVersion"],
        "warnings": created["warnings"],
    }  # fmt: skip
    assert (await admin.get(f"/api/ai-models/{name}")).json() == created
    assert created in (await admin.get("/api/ai-models")).json()["aiModels"]


async def test_missing_or_unused_credentials_cause_a_warning(admin: User, ai_model: dict[str, Any], name: str) -> None:
    assert ai_model["warnings"] == []
    missing = (await patch(admin, name, provider="claude", credentialsRef="no-such-secret")).json()["warnings"]
    assert len(missing) == 1
    assert "no-such-secret" in missing[0]
    assert "ANTHROPIC_API_KEY" in missing[0]
    assert (await patch(admin, name, credentialsRef=None)).json()["warnings"] == []


async def test_sampling_is_stored_and_checked_against_bounds(admin: User, ai_model: dict[str, Any], name: str) -> None:
    sampling = {"temperature": 0.2, "topK": 40, "seed": 7, "reasoningEffort": "low"}
    changed = (await patch(admin, name, provider="qwen", sampling=sampling, endpoint="http://127.0.0.1:1/v1")).json()
    assert changed["sampling"] == sampling
    assert changed["warnings"] == []

    for field, value in [("temperature", 2.5), ("topP", 0), ("minP", -1), ("seed", -1), ("reasoningEffort", "much")]:
        refused = await patch(admin, name, sampling={field: value})
        assert (refused.status_code, refused.json()["details"][0]["field"]) == (422, f"sampling.{field}")

    assert "`sampling` has no effect" in (await patch(admin, name, provider="claude")).json()["warnings"][0]
    assert (await patch(admin, name, sampling=None)).json()["sampling"] is None


async def test_omitted_fields_of_a_new_model_are_null(ai_model: dict[str, Any]) -> None:
    nulls = {field for field, value in ai_model.items() if value is None}
    assert nulls == {
        "endpoint", "credentialsRef", "prices", "assumedCacheRead", "effectivePrices",
        "sampling", "command", "environment", "pausedUntil",
    }  # fmt: skip


async def test_duplicate_name_and_duplicate_provider_model_pair_are_refused(
    admin: User, ai_model: dict[str, Any], name: str, model: str
) -> None:
    same_name = await admin.post("/api/ai-models", {"name": name, "provider": "mock", "model": "other", "slots": 1})
    same_model = await admin.post(
        "/api/ai-models", {"name": f"{name}-2", "provider": "mock", "model": model, "slots": 1}
    )

    assert (same_name.status_code, same_model.status_code) == (409, 409)
    assert same_name.json()["error"] == f"there is already a model {name!r}"
    assert [same.json()["details"][0]["field"] for same in (same_name, same_model)] == ["name", "model"]
    assert name in same_model.json()["error"]


async def test_patch_changes_only_named_fields_and_null_clears_them(
    admin: User, ai_model: dict[str, Any], name: str
) -> None:
    changed = (await patch(admin, name, slots=5, endpoint="http://10.0.0.5/v1", prices={"input": 1})).json()
    assert (changed["slots"], changed["endpoint"], changed["provider"]) == (5, "http://10.0.0.5/v1", "mock")
    assert changed["prices"] == {"input": 1, "output": 0, "cacheRead": None, "cacheWrite": None}

    cleared = (await patch(admin, name, endpoint=None, prices=None)).json()
    assert (cleared["slots"], cleared["endpoint"], cleared["prices"]) == (5, None, None)
    assert (await patch(admin, name)).status_code == 200  # an empty patch changes nothing


async def test_unset_price_of_input_from_the_cache_is_assumed_and_marked(
    admin: User, ai_model: dict[str, Any], name: str
) -> None:
    unset = (await patch(admin, name, prices={"input": 5})).json()
    assert (unset["prices"]["cacheRead"], unset["assumedCacheRead"]) == (None, 0.5)
    assert unset["effectivePrices"] == {"input": 5, "output": 0, "cacheRead": 0.5, "cacheWrite": 5}
    assert (await patch(admin, name, prices=unset["prices"])).json()["assumedCacheRead"] == 0.5

    free = (await patch(admin, name, prices={"input": 5, "cacheRead": 0})).json()
    assert (free["prices"]["cacheRead"], free["assumedCacheRead"]) == (0, None)


@pytest.mark.parametrize("field", ["provider", "model", "slots", "resourceVersion"])
async def test_patch_of_a_required_field_to_null_is_refused(
    admin: User, ai_model: dict[str, Any], name: str, field: str
) -> None:
    answer = await patch(admin, name, **{field: None})

    assert (answer.status_code, answer.json()["details"][0]["field"]) == (422, field)


async def test_patch_with_a_stale_resource_version_is_refused(admin: User, ai_model: dict[str, Any], name: str) -> None:
    current = (await patch(admin, name, slots=3, resourceVersion=ai_model["resourceVersion"])).json()

    stale = await patch(admin, name, slots=4, resourceVersion=ai_model["resourceVersion"])

    assert (stale.status_code, stale.json()["code"]) == (409, "conflict")
    assert (await patch(admin, name, slots=4, resourceVersion=current["resourceVersion"])).status_code == 200


async def test_concurrent_patches_of_different_fields_all_take_effect(
    admin: User, ai_model: dict[str, Any], name: str
) -> None:
    prices = {"input": 1, "output": 2, "cacheRead": 3, "cacheWrite": 4}

    answers = await asyncio.gather(
        patch(admin, name, slots=9),
        patch(admin, name, endpoint="http://10.0.0.5/v1"),
        patch(admin, name, prices=prices),
    )

    assert {answer.status_code for answer in answers} == {200}
    now = (await admin.get(f"/api/ai-models/{name}")).json()
    assert (now["slots"], now["endpoint"], now["prices"]) == (9, "http://10.0.0.5/v1", prices)


async def test_patch_to_the_provider_and_model_of_another_ai_model_is_refused(
    admin: User, ai_model: dict[str, Any], name: str, model: str
) -> None:
    await admin.post("/api/ai-models", {"name": f"{name}-2", "provider": "mock", "model": f"{model}-2", "slots": 1})

    assert (await patch(admin, f"{name}-2", model=model)).status_code == 409


async def test_deleted_model_is_gone_and_its_jobs_run_in_default_slots(
    admin: User, user: User, ai_model: dict[str, Any], name: str, model: str
) -> None:
    await patch(admin, name, slots=0)
    job_id = await user.submit(config={"model": model})

    removed = await admin.http.delete(f"/api/ai-models/{name}")

    assert (removed.status_code, removed.content) == (204, b"")
    assert (await admin.get(f"/api/ai-models/{name}")).status_code == 404
    assert (await admin.http.delete(f"/api/ai-models/{name}")).status_code == 404
    assert (await patch(admin, name, slots=1)).status_code == 404
    detail = await user.wait(job_id)
    assert (detail["status"], detail["accountName"]) == ("completed", f"mock/{model}")


async def test_job_with_the_full_name_of_a_model_runs_on_the_ai_model_with_its_alias(
    admin: User, user: User, ai_model: dict[str, Any], name: str, model: str
) -> None:
    await patch(admin, name, slots=0)
    full_name = f"{model}-2026-01-31"
    job_id = await user.submit(config={"model": full_name})
    assert (await user.get(f"/api/jobs/{job_id}")).json()["waiting"]["reason"] == "no_slots"
    assert (await admin.get(f"/api/ai-models/{name}")).json()["queued"] == 1

    await patch(admin, name, slots=1)

    detail = await user.wait(job_id)
    assert (detail["status"], detail["accountName"], detail["model"]) == ("completed", name, full_name)
    found = (await user.get(f"/api/jobs?model={full_name}")).json()["jobs"]
    assert [job["id"] for job in found] == [job_id]


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("name", ""), ("name", "Upper"), ("name", "under_score"), ("name", "-dash"), ("name", "a..b"),
        ("name", "x" * 64),
        ("name", None), ("provider", "gpt"), ("model", ""), ("model", "two\nlines"), ("slots", -1), ("slots", 1.5),
        ("slots", "2"), ("slots", True), ("endpoint", "ftp://host/"), ("endpoint", "host"), ("credentialsRef", "A B"),
        ("prices.input", -1), ("prices.output", "1"), ("unknown", 1), ("prices.unknown", 1),
    ],
)  # fmt: skip
async def test_invalid_field_of_a_new_model_is_refused_by_name(
    admin: User, name: str, model: str, field: str, value: Any
) -> None:
    body: dict[str, Any] = {"name": name, "provider": "mock", "model": model, "slots": 1}
    outer, _, inner = field.partition(".")
    body[outer] = {inner: value} if inner else value

    answer = await admin.post("/api/ai-models", body)

    assert answer.status_code == 422
    assert [detail["field"] for detail in answer.json()["details"]] == [field]
    assert (await admin.get(f"/api/ai-models/{name}")).status_code == 404
