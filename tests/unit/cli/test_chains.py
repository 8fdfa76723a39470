"""`labrats chain`."""

import json
from typing import Any

from tests.unit.cli.engines import Labrats, ScriptedEngine, a_job

CHAIN = "0b7c1c9e-0000-4000-8000-000000000001"


def a_link(number: int, depth: int, **fields: Any) -> dict[str, Any]:
    usual = {"id": f"ir-0000000{number}", "chainId": CHAIN, "chainDepth": depth, "childJobId": None, "chainEnded": None}
    return a_job(**usual | fields)


def script(engine: ScriptedEngine, *jobs: dict[str, Any]) -> None:
    engine.answers("GET /api/jobs", {"jobs": list(reversed(jobs)), "total": len(jobs), "page": 1, "limit": 100})
    for job in jobs:
        engine.answers(f"GET /api/jobs/{job['id']}", job)


def test_chain_shows_jobs_in_order_and_where_the_chain_ended(labrats: Labrats, engine: ScriptedEngine) -> None:
    script(
        engine,
        a_link(1, 0, agentRole="ai-developer", childJobId="ir-00000002"),
        a_link(2, 1, agentRole="ai-reviewer", status="failed", chainEnded="the job was failed"),
    )
    assert labrats("chain", CHAIN).out.splitlines() == [
        f"chain {CHAIN}",
        "ir-00000001  ai-developer  completed  42s",
        "└─ ir-00000002  ai-reviewer  failed  42s",
        "      ended here: the job was failed",
    ]
    assert engine.requests[0].path == f"/api/jobs?chainId={CHAIN}&limit=100"


def test_chain_is_found_by_the_id_of_one_of_its_jobs(labrats: Labrats, engine: ScriptedEngine) -> None:
    script(engine, a_link(1, 0))
    assert labrats("chain", "ir-00000001").out.startswith(f"chain {CHAIN}\n")


def test_chain_json_has_the_full_jobs(labrats: Labrats, engine: ScriptedEngine) -> None:
    script(engine, first := a_link(1, 0), second := a_link(2, 1))
    assert json.loads(labrats("chain", CHAIN, "--json").out) == [first, second]


def test_chain_reports_an_unknown_chain_and_a_job_without_a_chain(labrats: Labrats, engine: ScriptedEngine) -> None:
    script(engine)
    unknown = labrats("chain", CHAIN)
    assert (unknown.code, unknown.err) == (4, f"labrats: chain '{CHAIN}' not found, or not visible to your API key\n")
    engine.answers("GET /api/jobs/ir-00000009", a_job(id="ir-00000009", chainId=None))
    alone = labrats("chain", "ir-00000009")
    assert (alone.code, alone.err) == (4, "labrats: job ir-00000009 is not part of a chain\n")
