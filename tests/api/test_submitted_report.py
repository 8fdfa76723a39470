"""The report of a submitted job: its target in full and in short."""

from typing import Any, Final

import httpx2
import pytest

from tests.api.conftest import a_submission
from tests.support.deliveries import SECRET

SOURCE: Final = {"name": "hub", "type": "github", "secret": SECRET, "credentialsRef": "app"}


@pytest.fixture(autouse=True)
async def _source(admin: httpx2.AsyncClient) -> None:
    assert (await admin.post("/api/webhook-sources", json=SOURCE)).status_code == 201


@pytest.mark.parametrize(
    ("report", "target"),
    [
        ({"target": {"repository": "octo/demo", "issue": 7}}, {"issue": 7}),
        ({"repository": "octo/demo", "issue": 7}, {"issue": 7}),
        ({"repository": "octo/demo", "issue": 7, "pullRequest": {"draft": False}, "source": "hub"}, {"issue": 7}),
        ({"repository": "octo/demo", "pullRequest": 8}, {"pullRequest": 8}),
    ],
)
async def test_the_target_may_stand_in_the_report_itself(
    admin: httpx2.AsyncClient, report: dict[str, Any], target: dict[str, Any]
) -> None:
    submitted = await admin.post("/api/jobs/submit", json=a_submission(report=report | {"comment": "sticky"}))
    assert submitted.status_code == 201, submitted.text

    stored = (await admin.get(f"/api/jobs/{submitted.json()['jobId']}")).json()["report"]

    assert stored["target"] == {"repository": "octo/demo", "source": "hub"} | target
    assert stored["comment"] == "sticky"
    assert stored.get("pullRequest") == ({"draft": False} if "source" in report else None)


@pytest.mark.parametrize(
    ("report", "field"),
    [
        ({"comment": "sticky"}, "report.target"),
        ({"repository": "octo"}, "report.target.repository"),
        ({"repository": "octo/demo", "issue": 7, "pullRequest": 8}, "report.target"),
        ({"repository": "octo/demo", "target": {"repository": "octo/demo"}}, "report.repository"),
        ({"repository": "octo/demo", "pullRequest": True}, "report.target.pullRequest"),
    ],
)
async def test_an_invalid_target_is_refused_with_its_field(
    admin: httpx2.AsyncClient, report: dict[str, Any], field: str
) -> None:
    answer = await admin.post("/api/jobs/submit", json=a_submission(report=report))
    assert answer.status_code == 422
    assert [each["field"] for each in answer.json()["details"]] == [field]
