"""The API of agents."""

import asyncio
from typing import Any
from urllib.parse import quote

import httpx2
import pytest

from labrats.model.agent import AiAgent
from tests.api.conftest import Api

TRIGGER = {
    "source": "github",
    "events": ["issues.labeled", "issues.opened"],
    "instruction": "implement",
    "config": {"model": "opus", "effort": "high"},
    "filters": {"label.name": ["ai", "ai-*"]},
    "enabled": True,
    "next": {
        "agentTriggerName": "ai-reviewer",
        "condition": "always",
        "failurePolicy": "retry",
        "allowCycles": True,
    },
    "concurrency": {"key": "{{ repo }}#{{ number }}", "onNew": "supersede", "debounceSeconds": 30},
}


def an_agent_body(name: str = "developer-1", **fields: Any) -> dict[str, Any]:
    return {"name": name, "triggerName": f"{name}-trigger"} | fields


async def create(admin: httpx2.AsyncClient, body: dict[str, Any], path: str = "/api/agents") -> dict[str, Any]:
    answer = await admin.post(path, json=body)
    assert answer.status_code == 201, answer.text
    created: dict[str, Any] = answer.json()
    return created


async def create_instruction(admin: httpx2.AsyncClient, name: str, **fields: Any) -> dict[str, Any]:
    return await create(admin, {"name": name, "content": f"The text of {name}."} | fields, "/api/instructions")


class TestCreating:
    async def test_a_created_agent_has_all_fields_of_the_request(self, admin: httpx2.AsyncClient) -> None:
        await create_instruction(admin, "kindness")
        body = an_agent_body(
            defaultModel="opus",
            defaultEffort="high",
            defaultProvider="claude",
            eventTriggers=[TRIGGER],
            instructions=["kindness"],
            resultSchema={"type": "object", "required": ["$ref"]},
        )

        created = await create(admin, body)

        assert created == body | {"id": "developer-1", "enabled": True, "resourceVersion": created["resourceVersion"]}
        assert (await admin.get("/api/agents/developer-1")).json() == created
        assert (await admin.get("/api/agents")).json() == {"agents": [created]}
        assert (await admin.get("/api/agents/by-trigger/developer-1-trigger")).json() == created

    @pytest.mark.parametrize("trigger_name", ["Team A/fixer", "a%2Fb", "é?#", "/"])
    async def test_an_agent_is_found_by_a_trigger_name_with_any_characters(
        self, admin: httpx2.AsyncClient, trigger_name: str
    ) -> None:
        created = await create(admin, an_agent_body(triggerName=trigger_name))
        assert (await admin.get(f"/api/agents/by-trigger/{quote(trigger_name, safe='')}")).json() == created

    async def test_missing_fields_have_defaults(self, admin: httpx2.AsyncClient) -> None:
        created = await create(admin, {"name": "a", "eventTriggers": [{"source": "github", "events": ["push"]}]})
        assert (created["triggerName"], created["enabled"], created["instructions"]) == ("a", True, [])
        assert created["eventTriggers"] == [
            {
                "source": "github",
                "events": ["push"],
                "instruction": None,
                "config": {},
                "filters": {},
                "enabled": True,
                "next": None,
                "concurrency": None,
            }
        ]

    async def test_a_second_agent_of_the_same_name_is_refused(self, admin: httpx2.AsyncClient) -> None:
        await create(admin, an_agent_body("a"))
        assert (await admin.post("/api/agents", json=an_agent_body("a", triggerName="b"))).status_code == 409

    async def test_one_of_many_concurrent_agents_gets_a_trigger_name(self, api: Api, admin: httpx2.AsyncClient) -> None:
        bodies = [an_agent_body(f"a-{number}", triggerName="same") for number in range(10)]
        answers = await asyncio.gather(*(admin.post("/api/agents", json=body) for body in bodies))
        assert sorted(answer.status_code for answer in answers) == [201] + [409] * 9
        assert len(await api.store.list(AiAgent)) == 1

    async def test_a_repeated_idempotency_key_gets_the_first_response(self, admin: httpx2.AsyncClient) -> None:
        headers = {"Idempotency-Key": "key-1"}
        first, second = [await admin.post("/api/agents", json=an_agent_body(), headers=headers) for _ in range(2)]
        assert (second.status_code, second.json()) == (201, first.json())

        other = await admin.post("/api/agents", json=an_agent_body("other"), headers=headers)
        assert other.status_code == 422

    @pytest.mark.parametrize(
        ("fields", "field"),
        [
            ({"name": "Not a name"}, "name"),
            ({"name": "triggers"}, "name"),
            ({"triggerName": ""}, "triggerName"),
            ({"triggerName": None}, "triggerName"),
            ({"defaultProvider": "gpt"}, "defaultProvider"),
            ({"defaultEffort": "extreme"}, "defaultEffort"),
            ({"instructions": ["gone"]}, "instructions[0]"),
            ({"eventTriggers": [{}]}, "eventTriggers[0].source"),
            ({"eventTriggers": [TRIGGER | {"events": []}]}, "eventTriggers[0].events"),
            ({"eventTriggers": [TRIGGER | {"instruction": ""}]}, "eventTriggers[0].instruction"),
            ({"eventTriggers": [TRIGGER | {"config": {"modle": "opus"}}]}, "eventTriggers[0].config.modle"),
            ({"eventTriggers": [TRIGGER | {"filters": {"a..b": 1}}]}, "eventTriggers[0].filters"),
            ({"eventTriggers": [TRIGGER | {"filters": {"a": {"b": 1}}}]}, "eventTriggers[0].filters"),
            ({"eventTriggers": [TRIGGER | {"filters": {"a": [["b"]]}}]}, "eventTriggers[0].filters"),
            (
                {"eventTriggers": [TRIGGER | {"next": {"condition": "always"}}]},
                "eventTriggers[0].next.agentTriggerName",
            ),
            (
                {"eventTriggers": [TRIGGER | {"next": {"agentTriggerName": "b", "condition": "maybe"}}]},
                "eventTriggers[0].next.condition",
            ),
            (
                {"eventTriggers": [TRIGGER | {"concurrency": {"key": "a", "onNew": "cancel"}}]},
                "eventTriggers[0].concurrency.onNew",
            ),
            ({"eventTriggers": [TRIGGER | {"concurrency": {"key": ""}}]}, "eventTriggers[0].concurrency.key"),
            ({"resultSchema": {"type": "strin"}}, "resultSchema"),
            ({"resultSchema": {"$ref": "http://127.0.0.1:9/schema.json"}}, "resultSchema"),
            ({"resultSchema": True}, "resultSchema"),
            ({"trigerName": "typo"}, "trigerName"),
        ],
    )
    async def test_an_invalid_field_is_named_in_the_error(
        self, api: Api, admin: httpx2.AsyncClient, fields: dict[str, Any], field: str
    ) -> None:
        answer = await admin.post("/api/agents", json=an_agent_body() | fields)
        assert answer.status_code == 422, answer.text
        assert field in [detail["field"] for detail in answer.json()["details"]]
        assert await api.store.list(AiAgent) == []


class TestChanging:
    async def test_a_patch_changes_only_the_sent_fields(self, admin: httpx2.AsyncClient) -> None:
        created = await create(admin, an_agent_body(defaultModel="opus", eventTriggers=[TRIGGER]))

        answer = await admin.patch("/api/agents/developer-1", json={"enabled": False, "defaultModel": None})

        changed = answer.json()
        assert answer.status_code == 200
        assert changed["resourceVersion"] != created["resourceVersion"]
        assert changed == created | {
            "enabled": False,
            "defaultModel": None,
            "resourceVersion": changed["resourceVersion"],
        }

    async def test_a_patch_ignores_an_equal_name_and_refuses_another(self, admin: httpx2.AsyncClient) -> None:
        await create(admin, an_agent_body())
        refused = await admin.patch("/api/agents/developer-1", json={"name": "developer-2", "enabled": False})
        answer = await admin.patch("/api/agents/developer-1", json={"name": "developer-1", "enabled": False})
        assert (refused.status_code, answer.status_code) == (422, 200)
        assert (answer.json()["name"], answer.json()["enabled"]) == ("developer-1", False)

    async def test_the_next_request_sees_a_change(self, admin: httpx2.AsyncClient) -> None:
        await create(admin, an_agent_body())
        for number in range(10):
            await admin.patch("/api/agents/developer-1", json={"triggerName": f"name-{number}"})
            assert (await admin.get(f"/api/agents/by-trigger/name-{number}")).status_code == 200
            assert (await admin.get(f"/api/agents/by-trigger/name-{number - 1}")).status_code == 404

    async def test_a_stale_version_is_refused(self, admin: httpx2.AsyncClient) -> None:
        created = await create(admin, an_agent_body())
        body = {"enabled": False, "resourceVersion": created["resourceVersion"]}
        first, second = [await admin.patch("/api/agents/developer-1", json=body) for _ in range(2)]
        assert (first.status_code, second.status_code) == (200, 409)

    async def test_concurrent_changes_are_all_applied(self, admin: httpx2.AsyncClient) -> None:
        await create(admin, an_agent_body())
        patches: list[dict[str, Any]] = [{"defaultModel": "opus"}, {"defaultEffort": "low"}, {"enabled": False}] * 5
        answers = await asyncio.gather(*(admin.patch("/api/agents/developer-1", json=patch) for patch in patches))
        assert {answer.status_code for answer in answers} == {200}
        changed = (await admin.get("/api/agents/developer-1")).json()
        assert (changed["defaultModel"], changed["defaultEffort"], changed["enabled"]) == ("opus", "low", False)

    async def test_the_trigger_name_of_another_agent_is_refused(self, admin: httpx2.AsyncClient) -> None:
        await create(admin, an_agent_body("a"))
        await create(admin, an_agent_body("b"))
        assert (await admin.patch("/api/agents/b", json={"triggerName": "a-trigger"})).status_code == 409
        assert (await admin.patch("/api/agents/b", json={"triggerName": "b-trigger"})).status_code == 200

    async def test_a_removed_agent_is_gone_at_once(self, admin: httpx2.AsyncClient) -> None:
        await create(admin, an_agent_body())
        assert (await admin.delete("/api/agents/developer-1")).status_code == 204
        assert (await admin.get("/api/agents")).json() == {"agents": []}
        for answer in (await admin.get("/api/agents/developer-1"), await admin.delete("/api/agents/developer-1")):
            assert answer.status_code == 404
            assert "'developer-1'" in answer.json()["error"]
        await create(admin, an_agent_body())


class TestLookingUp:
    async def test_triggers_are_found_by_source_and_event(self, admin: httpx2.AsyncClient) -> None:
        await create(admin, an_agent_body("a", eventTriggers=[TRIGGER, TRIGGER | {"events": ["push"]}]))
        await create(admin, an_agent_body("b", eventTriggers=[{"source": "gitlab", "events": ["issues.*"]}]))
        await create(admin, an_agent_body("off", enabled=False, eventTriggers=[TRIGGER]))

        async def found(**query: str) -> list[tuple[str, list[str]]]:
            answer = (await admin.get("/api/agents/triggers", params=query)).json()
            assert [agent["name"] for agent in answer["agents"]] == sorted(
                {each["agent"] for each in answer["triggers"]}
            )
            return [(each["triggerName"], each["events"]) for each in answer["triggers"]]

        issues, push, other = TRIGGER["events"], ["push"], ["issues.*"]
        assert await found() == [("a-trigger", issues), ("a-trigger", push), ("b-trigger", other)]
        assert await found(source="github") == [("a-trigger", issues), ("a-trigger", push)]
        assert await found(event="issues.opened") == [("a-trigger", issues), ("b-trigger", other)]
        assert await found(source="github", event="push") == [("a-trigger", push)]
        assert await found(source="nowhere") == []
        assert await found(source="", event="push") == [("a-trigger", push)]
        assert await found(source="github", event="") == [("a-trigger", issues), ("a-trigger", push)]

    async def test_an_agents_instructions_are_resolved(self, admin: httpx2.AsyncClient) -> None:
        await create_instruction(admin, "late", scope="global", priority=2)
        await create_instruction(admin, "early", scope="global", priority=1)
        await create_instruction(admin, "own")
        await create_instruction(admin, "of-another")
        await create(admin, an_agent_body(instructions=["own"]))

        found = (await admin.get("/api/agents/developer-1/instructions")).json()["instructions"]

        assert [each["name"] for each in found] == ["early", "late", "own"]
        assert found[2]["content"] == "The text of own."


class TestSeeding:
    async def test_the_default_agents_are_added_once(self, admin: httpx2.AsyncClient) -> None:
        assert [(await admin.post("/api/agents/seed")).json() for _ in range(2)] == [{"seeded": 5}, {"seeded": 0}]

        agents = (await admin.get("/api/agents")).json()["agents"]

        names = ["ai-developer", "ai-documenter", "ai-reviewer", "ai-triager", "error-analyst"]
        assert [agent["triggerName"] for agent in agents] == names
        for agent in agents:
            (trigger,) = agent["eventTriggers"]
            resolved = (await admin.get(f"/api/agents/{agent['id']}/instructions")).json()["instructions"]
            publishing = ["publish"] if "report" in agent else []
            assert agent["instructions"] == ["conduct", *publishing, trigger["instruction"]]
            assert [each["name"] for each in resolved] == agent["instructions"]
            assert all(len(each["content"]) > 300 and each["displayName"] for each in resolved)

    async def test_a_seed_adds_missing_agents_and_overwrites_nothing(self, admin: httpx2.AsyncClient) -> None:
        await create(admin, an_agent_body("mine", triggerName="ai-reviewer"))
        await create_instruction(admin, "conduct", content="Our own rules.")

        assert (await admin.post("/api/agents/seed")).json() == {"seeded": 4}

        assert (await admin.get("/api/instructions/conduct")).json()["content"] == "Our own rules."
        assert (await admin.get("/api/agents/ai-reviewer")).status_code == 404
        assert (await admin.get("/api/instructions/code-review")).status_code == 404
        await admin.delete("/api/agents/ai-triager")
        assert (await admin.post("/api/agents/seed")).json() == {"seeded": 1}

    async def test_seeded_agents_are_valid_requests(self, admin: httpx2.AsyncClient) -> None:
        await admin.post("/api/agents/seed")
        for agent in (await admin.get("/api/agents")).json()["agents"]:
            body = {name: value for name, value in agent.items() if name not in ("id", "resourceVersion")}
            assert (await admin.delete(f"/api/agents/{agent['id']}")).status_code == 204
            assert (await create(admin, body))["eventTriggers"] == agent["eventTriggers"]


class TestReports:
    REPORT = {
        "comment": "sticky",
        "check": {"name": "labrats/mine"},
        "pullRequest": {"draft": False, "branch": "ai/{{number}}"},
        "policy": {"maxKiB": 64, "labels": ["bug"]},
    }

    async def test_a_report_is_stored_as_it_was_sent(self, admin: httpx2.AsyncClient) -> None:
        triggers = [{"source": "github", "events": ["issues.labeled"], "report": {"mode": "preview"}}]
        await create(admin, an_agent_body(report=self.REPORT, eventTriggers=triggers))

        agent = (await admin.get("/api/agents/developer-1")).json()

        assert agent["report"] == self.REPORT
        assert agent["eventTriggers"][0]["report"] == {"mode": "preview"}
        assert (await admin.patch("/api/agents/developer-1", json=agent)).json()["report"] == self.REPORT
        cleared = await admin.patch("/api/agents/developer-1", json={"report": None})
        assert "report" not in cleared.json()

    async def test_the_former_name_of_a_limit_is_accepted(self, admin: httpx2.AsyncClient) -> None:
        await create(admin, an_agent_body(report={"policy": {"maxKib": 7}}))
        agent = (await admin.get("/api/agents/developer-1")).json()
        assert agent["report"] == {"policy": {"maxKiB": 7}}

    @pytest.mark.parametrize(
        ("report", "field"),
        [
            ({"comment": "loud"}, "report.comment"),
            ({"pullRequest": {"branch": "a b"}}, "report.pullRequest.branch"),
            ({"pullRequest": {"branch": "{{secret}}"}}, "report.pullRequest.branch"),
            ({"pullRequest": {"reviewers": ["@octocat"]}}, "report.pullRequest.reviewers[0]"),
            ({"review": {"event": "MERGE"}}, "report.review.event"),
            ({"target": {"repository": "octo/demo"}}, "report.target"),
            ({"unknown": True}, "report.unknown"),
        ],
    )
    async def test_an_invalid_report_is_refused_with_its_field(
        self, admin: httpx2.AsyncClient, report: dict[str, Any], field: str
    ) -> None:
        answer = await admin.post("/api/agents", json=an_agent_body(report=report))
        assert answer.status_code == 422
        assert [each["field"] for each in answer.json()["details"]] == [field]
