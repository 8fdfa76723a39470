"""Reports to GitHub from an installation: the publisher is a component of its own."""

import asyncio
import json
from collections.abc import Iterator
from typing import Any

import pytest

from tests.acceptance.engine import User, an_http_client
from tests.chart.fixture import new_installation
from tests.chart.installation import VALUES, Helm, Installation
from tests.chart.test_installation import a_user_of
from tests.chart.test_webhooks import is_true, until
from tests.cluster.cluster import GATEWAY, Cluster
from tests.support.deliveries import SECRET, an_issue_event, github_headers, json_body
from tests.support.github import APP_ID, APP_KEY_PEM, APP_LOGIN, GitHubStandIn, Issue, a_github

pytestmark = [pytest.mark.kubernetes(node=True, helm=True, engine_image=True), pytest.mark.timeout(600)]

PUBLISHED_SECONDS = 120


@pytest.fixture(scope="module")
def github(cluster: Cluster | None) -> Iterator[GitHubStandIn]:
    if cluster is None:
        pytest.skip("pods reach the stand-in only on a cluster of the tests' own")
    with a_github(cluster.listen()) as github:
        github.demo.private = False
        yield github


@pytest.fixture(scope="module")
def reporting(
    cluster: Cluster,
    helm: Helm,
    engine_image: str,
    executor_image: str,
    tmp_path_factory: pytest.TempPathFactory,
    github: GitHubStandIn,
) -> Iterator[Installation]:
    """Yield an installation for which the stand-in is GitHub."""
    with new_installation(
        cluster, helm, engine_image, executor_image, tmp_path_factory.mktemp("chart")
    ) as installation:
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
        asyncio.run(add_source(installation))
        yield installation


async def add_source(installation: Installation) -> None:
    source = {"name": "github", "type": "github", "secret": SECRET, "credentialsRef": "app"}
    async with a_user_of(installation) as admin:
        assert (await admin.post("/api/webhook-sources", source)).status_code == 201


async def published(installation: Installation, admin: User, job_id: str) -> dict[str, Any]:
    """Wait until the report of the job's end is written, and return the job."""
    job: dict[str, Any] = {}
    try:
        async with asyncio.timeout(PUBLISHED_SECONDS):
            while True:
                job = await admin.job(job_id)
                if job["published"] and job["published"]["isComplete"]:
                    return job
                await asyncio.sleep(0.2)
    except TimeoutError:
        logs = [installation.log(component) for component in ("controller", "publisher")]
        pytest.fail(f"the report is not complete: {job}\n" + "\n".join(logs))


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
    async with a_user_of(reporting) as admin:
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
        job = await published(reporting, admin, job_id)
    (pull_request,) = github.pulls_of(github.demo, f"labrats/{job['name']}/{issue.number}")
    assert pull_request.pull
    assert github.demo.git.git("show", f"{pull_request.pull.head}:flag.txt") == "on"
    (comment,) = github.comments_of(issue)
    assert "I added the flag." in comment["body"]
    assert pull_request.url in comment["body"]
    assert job["outputs"]["pullRequestUrl"] == pull_request.url
    assert job["published"]["refused"] == []


async def test_a_command_in_a_comment_starts_an_agent(reporting: Installation, github: GitHubStandIn) -> None:
    issue = github.demo.open_issue()
    agent = {
        "name": "ai-developer",
        "eventTriggers": [{"source": "github", "events": ["issues.labeled"], "instruction": "Do it."}],
        "defaultProvider": "mock",
        "report": {"comment": "sticky"},
    }
    async with a_user_of(reporting) as admin:
        assert (await admin.post("/api/agents", agent)).status_code == 201
        await until(admin, "github", is_true("Ready"))
        refused = await command(reporting, github, issue, "/labrats cancel")
        await until_reaction(reporting, github, refused, "confused")
        started = await command(reporting, github, issue, "/labrats run ai-developer")
        await until_reaction(reporting, github, started, "eyes")
        (job,) = [each for each in (await admin.get("/api/jobs")).json()["jobs"] if each["agentRole"] == "ai-developer"]
        done = await published(reporting, admin, job["id"])
    assert done["metadata"]["number"] == issue.number
    written = [each["body"] for each in github.comments_of(issue) if each["user"]["login"] == APP_LOGIN]
    assert "No job of this thread is waiting or running." in written[0]
    assert "**ai-developer** has" in written[1]


async def command(installation: Installation, github: GitHubStandIn, issue: Issue, text: str) -> dict[str, Any]:
    """Write a comment, and deliver its event to the receiver of the source."""
    comment = github.demo.comment(issue, text)
    payload = an_issue_event("created")
    payload.pop("label")
    payload["issue"] |= {"number": issue.number, "html_url": issue.url}
    body = json_body(payload | {"comment": comment, "repository": github.demo.as_json()})
    service = installation.get("service", "labrats-webhook-github")[0]["spec"]
    with installation.reach(service["clusterIP"], service["ports"][0]["port"]) as url:
        async with an_http_client(url) as client:
            answer = await client.post("/webhooks/github", content=body, headers=github_headers("issue_comment", body))
    assert (answer.status_code, answer.json()["jobs"]) == (200, []), answer.text
    return comment


async def until_reaction(
    installation: Installation, github: GitHubStandIn, comment: dict[str, Any], content: str
) -> None:
    try:
        async with asyncio.timeout(PUBLISHED_SECONDS):
            while content not in [each["content"] for each in github.demo.reactions_to(comment)]:
                await asyncio.sleep(0.2)
    except TimeoutError:
        logs = [installation.log(component) for component in ("controller", "publisher")]
        pytest.fail("the command is not answered\n" + "\n".join(logs))
