"""Reports to GitHub from an installation: the publisher is a component of its own."""

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.acceptance.engine import User
from tests.chart.fixture import new_installation
from tests.chart.installation import VALUES, Helm, Installation
from tests.chart.test_installation import a_user_of
from tests.cluster.cluster import GATEWAY, Cluster
from tests.support.deliveries import SECRET
from tests.support.github import APP_ID, APP_KEY_PEM, GitHubStandIn, a_github

pytestmark = [pytest.mark.kubernetes(node=True, helm=True, engine_image=True), pytest.mark.timeout(600)]

PUBLISHED_SECONDS = 120


@pytest.fixture
def github(cluster: Cluster | None) -> Iterator[GitHubStandIn]:
    if cluster is None:
        pytest.skip("pods reach the stand-in only on a cluster of the tests' own")
    with a_github(cluster.listen()) as github:
        github.demo.private = False
        yield github


@pytest.fixture
def reporting(
    cluster: Cluster, helm: Helm, engine_image: str, executor_image: str, tmp_path: Path, github: GitHubStandIn
) -> Iterator[Installation]:
    """Yield an installation for which the stand-in is GitHub."""
    with new_installation(cluster, helm, engine_image, executor_image, tmp_path) as installation:
        app = {"appId": APP_ID, "privateKey": APP_KEY_PEM}
        secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "app"}, "stringData": app}
        secret["metadata"] |= {"labels": {"labrats.work/type": "job-credentials"}}  # type: ignore[operator]
        installation.kubectl("apply", "-f", "-", stdin=json.dumps(secret))
        settings = VALUES["settings"] | {
            "OUTBOUND_ALLOWED_CIDRS": f"{GATEWAY}/32",
            "LABRATS_GITHUB_API_URL": github.url,
            "LABRATS_REPORT_INTERVAL_SECONDS": 0.5,
        }
        egress = {"executorEgress": [{"to": [{"ipBlock": {"cidr": f"{GATEWAY}/32"}}]}]}
        installation.install(settings=settings, networkPolicy=egress)
        yield installation


async def published(admin: User, job_id: str) -> dict[str, Any]:
    async with asyncio.timeout(PUBLISHED_SECONDS):
        while True:
            job = await admin.job(job_id)
            if job["published"] and job["published"]["isComplete"]:
                return job
            await asyncio.sleep(0.2)


async def test_a_report_is_written_once_though_the_publisher_is_replaced(
    reporting: Installation, github: GitHubStandIn
) -> None:
    issue = github.demo.open_issue()
    publication = json.dumps({"title": "Add a flag", "comment": "I added the flag."})
    steps = [
        {"sleepMs": 15_000},
        {"write": {"path": "flag.txt", "text": "on\n"}},
        {"write": {"path": ".labrats/publish.json", "text": publication}},
    ]
    source = {"name": "github", "type": "github", "secret": SECRET, "credentialsRef": "app"}
    async with a_user_of(reporting) as admin:
        assert (await admin.post("/api/webhook-sources", source)).status_code == 201
        job_id = await admin.submit(
            *steps,
            workspaceSetup={"gitRepo": github.demo.clone_url, "gitRef": "main"},
            report={
                "comment": "sticky",
                "pullRequest": {},
                "target": {"repository": "octo/demo", "issue": issue.number},
            },
        )
        async with asyncio.timeout(PUBLISHED_SECONDS):
            while not github.comments_of(issue):
                await asyncio.sleep(0.2)
        reporting.kubectl(
            "delete", "pod", "--selector", "app.kubernetes.io/component=publisher", "--wait=false", "--grace-period=0"
        )
        job = await published(admin, job_id)
    (pull_request,) = github.pulls_of(github.demo, f"labrats/{job['name']}/{issue.number}")
    assert pull_request.pull
    assert github.demo.git.git("show", f"{pull_request.pull.head}:flag.txt") == "on"
    (comment,) = github.comments_of(issue)
    assert "I added the flag." in comment["body"]
    assert pull_request.url in comment["body"]
    assert job["outputs"]["pullRequestUrl"] == pull_request.url
    assert job["published"]["refused"] == []
