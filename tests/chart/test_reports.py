"""Reports to GitHub from an installation: the publisher is a component of its own, and Claude Code works in pods."""

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any, Final

import pytest

from tests.acceptance.engine import User
from tests.acceptance.github.reporting import REPORT, a_pull_request_of, an_issue_of, deliver, published, until
from tests.acceptance.github.test_ci_loop import FIXER, deliver_failure, head_of
from tests.acceptance.github.test_comment_commands import comment, reactions_to, until_jobs
from tests.acceptance.github.test_signed_commits import COMMITTER, a_signing_key
from tests.agents.claude import CLAUDE, MessagesApi
from tests.chart import test_webhooks
from tests.chart.engine import InstalledEngine
from tests.chart.fixture import new_installation
from tests.chart.installation import VALUES, Helm, Installation
from tests.chart.test_installation import a_user_of
from tests.cluster.cluster import GATEWAY, Cluster
from tests.support.deliveries import SECRET
from tests.support.github import APP_ID, APP_KEY_PEM, APP_LOGIN, GitHubStandIn, Issue, a_github
from tests.support.scripted_model import ModelServer, Says, scripted_model

pytestmark = [pytest.mark.kubernetes(node=True, helm=True, engine_image=True), pytest.mark.timeout(600)]

PUBLISHED_SECONDS: Final = 120
MODEL: Final = "claude-sonnet-5-5"
COMMIT: Final = "git commit --all --quiet --message"
FINDINGS: Final = [
    {"path": "long.txt", "line": 20, "title": "Look at the change"},
    {"path": "new.txt", "line": 1, "title": "Look at the file"},
    {"path": "long.txt", "line": 2, "title": "Look further"},
]


@pytest.fixture(scope="module")
def github(cluster: Cluster | None) -> Iterator[GitHubStandIn]:
    if cluster is None:
        pytest.skip("pods reach the stand-in only on a cluster of the tests' own")
    with a_github(cluster.listen()) as github:
        github.demo.private = False
        yield github


@pytest.fixture(scope="module")
def model_server(cluster: Cluster) -> Iterator[ModelServer]:
    with scripted_model(MessagesApi(), [Says("Done.")], cluster.listen()) as server:
        yield server


@pytest.fixture(scope="module")
def reporting(
    cluster: Cluster,
    helm: Helm,
    engine_image: str,
    executor_image: str,
    tmp_path_factory: pytest.TempPathFactory,
    github: GitHubStandIn,
    model_server: ModelServer,
) -> Iterator[Installation]:
    """Yield an installation for which the stand-in is GitHub. Its pods have the real Claude Code."""
    folder = tmp_path_factory.mktemp("chart")
    with (
        new_installation(cluster, helm, engine_image, executor_image, folder) as installation,
        claude_code(installation) as executor,
    ):
        signing = {"signingKey": a_signing_key(github, folder), "committer": COMMITTER}
        add_credentials(installation, "app", {"appId": APP_ID, "privateKey": APP_KEY_PEM} | signing)
        add_credentials(installation, "anthropic", CLAUDE.secrets)
        settings = VALUES["settings"] | {
            "OUTBOUND_ALLOWED_CIDRS": f"{GATEWAY}/32",
            "LABRATS_GITHUB_API_URL": github.url,
            "LABRATS_REPORT_INTERVAL_SECONDS": 0.5,
        }
        egress = {"executorEgress": [{"to": [{"ipBlock": {"cidr": f"{GATEWAY}/32"}}]}]}
        installation.install(settings=settings, networkPolicy=egress, executor=executor)
        asyncio.run(set_up(installation, model_server.port))
        yield installation


@contextmanager
def claude_code(installation: Installation) -> Iterator[dict[str, Any]]:
    """Yield the values of an executor with the real Claude Code, from a volume: it is too large for the test image."""
    name, size = f"{installation.namespace}-claude", {"storage": "1Gi"}
    CLAUDE.installed()
    common = {"accessModes": ["ReadOnlyMany"], "storageClassName": ""}
    place = {"path": str(CLAUDE.program.parent), "type": "Directory"}
    owner = {"namespace": installation.namespace, "name": "claude"}
    volume = common | {"capacity": size, "hostPath": place, "claimRef": owner}
    claim = common | {"resources": {"requests": size}, "volumeName": name}
    for kind, metadata, spec in (("PersistentVolume", {"name": name}, volume), ("PersistentVolumeClaim", owner, claim)):
        manifest = {"apiVersion": "v1", "kind": kind, "metadata": metadata, "spec": spec}
        installation.cluster.kubectl("create", "-f", "-", stdin=json.dumps(manifest))
    mount = {"name": "claude", "mountPath": "/opt/agent-clis/node_modules/.bin", "readOnly": True}
    try:
        yield installation.values()["executor"] | {
            "resources": {"requests": {"cpu": "10m", "memory": "32Mi"}, "limits": {"memory": "2Gi"}},
            "extraVolumes": [{"name": "claude", "persistentVolumeClaim": {"claimName": "claude", "readOnly": True}}],
            "extraVolumeMounts": [mount],
        }
    finally:
        installation.cluster.kubectl("delete", "persistentvolume", name, "--wait=false")


def add_credentials(installation: Installation, name: str, data: dict[str, str]) -> None:
    metadata = {"name": name, "labels": {"labrats.work/type": "job-credentials"}}
    secret = {"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "stringData": data}
    installation.kubectl("apply", "-f", "-", stdin=json.dumps(secret))


async def set_up(installation: Installation, model_port: int) -> None:
    """Add the source, the model, and the agents."""
    source = {"name": "github", "type": "github", "secret": SECRET, "credentialsRef": "app"}
    model = {"name": "claude", "provider": "claude", "model": MODEL, "credentialsRef": "anthropic", "slots": 2}
    model["endpoint"] = f"http://{GATEWAY}:{model_port}"
    trigger = {"source": "github", "instruction": "Do it."}
    labelled = trigger | {"events": ["issues.labeled"]}
    opened = trigger | {"events": ["pull_request.opened"]}
    agents: list[dict[str, Any]] = [
        {
            "name": "ai-mock",
            "eventTriggers": [labelled | {"filters": {"label.name": "mock"}}],
            "defaultProvider": "mock",
        }
        | {"report": {"comment": "sticky"}},
        {"name": "ai-developer", "eventTriggers": [labelled], "report": REPORT},
        {
            "name": "ai-builder",
            "eventTriggers": [
                labelled | {"filters": {"label.name": "build"}, "next": {"agentTriggerName": "ai-reviewer"}}
            ],
            "report": {"pullRequest": {}},
        },
        {"name": "ai-reviewer", "eventTriggers": [opened], "report": {"comment": "sticky", "check": {}, "review": {}}}
        | {"defaultNetwork": "none"},  # its pod reaches the repository and the model by the egress proxy alone
        FIXER,
    ]
    async with a_user_of(installation) as admin:
        bodies = [("/api/webhook-sources", source), ("/api/ai-models", model)]
        with_model = {"defaultProvider": "claude", "defaultModel": MODEL}
        for path, body in (*bodies, *(("/api/agents", with_model | agent) for agent in agents)):
            created = await admin.post(path, body)
            assert created.status_code == 201, created.text
        await test_webhooks.until(admin, "github", test_webhooks.is_true("Ready"))


@pytest.fixture
def receiver(reporting: Installation) -> Iterator[InstalledEngine]:
    """Yield the engine behind the receiver of the source, to which GitHub delivers."""
    service = reporting.get("service", "labrats-webhook-github")[0]["spec"]
    with reporting.reach(service["clusterIP"], service["ports"][0]["port"]) as url:
        yield InstalledEngine(reporting, url)


@asynccontextmanager
async def an_admin_of(installation: Installation) -> AsyncIterator[User]:
    """Yield an administrator. A failure in the block shows the logs of the components, too."""
    async with a_user_of(installation) as admin:
        try:
            yield admin
        except (TimeoutError, AssertionError) as error:
            logs = [installation.log(component) for component in ("controller", "publisher")]
            raise AssertionError("\n".join([repr(error), *logs])) from error


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
    async with an_admin_of(reporting) as admin:
        job_id = await admin.submit(
            *steps,
            workspaceSetup={"gitRepo": github.demo.clone_url, "gitRef": "main"},
            report={
                "comment": "sticky",
                "pullRequest": {},
                "target": {"repository": "octo/demo", "issue": issue.number},
            },
        )
        await until(lambda: bool(github.comments_of(issue)), PUBLISHED_SECONDS)
        reporting.kubectl(
            "delete", "pod", "--selector", "app.kubernetes.io/component=publisher", "--wait=false",
            "--grace-period=0",
        )  # fmt: skip
        job = await published(admin, job_id, PUBLISHED_SECONDS)
    (pull_request,) = github.pulls_of(github.demo, f"labrats/{job['name']}/{issue.number}")
    assert pull_request.pull
    assert github.demo.git.git("show", f"{pull_request.pull.head}:flag.txt") == "on"
    assert github.demo.git.verified(pull_request.pull.head)
    (written,) = github.comments_of(issue)
    assert "I added the flag." in written["body"]
    assert pull_request.url in written["body"]
    assert job["outputs"]["pullRequestUrl"] == pull_request.url
    assert job["published"]["refused"] == []


async def test_a_label_is_read_where_no_webhook_arrives(reporting: Installation, github: GitHubStandIn) -> None:
    issue = github.demo.open_issue()
    source = {"name": "read", "type": "github", "mode": "poll", "credentialsRef": "app", "repositories": ["octo/demo"]}
    async with an_admin_of(reporting) as admin:
        known = {job["id"] for job in await jobs_of_agent(admin, "ai-mock")}
        created = await admin.post("/api/webhook-sources", source)
        assert created.status_code == 201, created.text
        try:
            await test_webhooks.until(admin, "read", test_webhooks.is_true("Polling"))
            issue.add_label("mock")
            await until(lambda: bool(github.comments_of(issue)), PUBLISHED_SECONDS)
            (job,) = [each for each in await jobs_of_agent(admin, "ai-mock") if each["id"] not in known]
            done = await published(admin, job["id"], PUBLISHED_SECONDS)
            read = (await admin.get("/api/webhook-sources/read")).json()
        finally:
            await admin.http.delete("/api/webhook-sources/read")
    assert done["metadata"]["number"] == issue.number
    assert not [each for each in read["conditions"] if each["status"] != "True"]
    names = [each["metadata"]["name"] for each in reporting.get("service")]
    assert "labrats-webhook-read" not in names


async def test_a_command_in_a_comment_starts_an_agent(
    reporting: Installation, receiver: InstalledEngine, github: GitHubStandIn
) -> None:
    issue = github.demo.open_issue()
    async with an_admin_of(reporting) as admin:
        refused, _ = await comment(receiver, github, issue, "/labrats cancel")
        await until(lambda: reactions_to(github, refused) == ["confused"], PUBLISHED_SECONDS)
        known = {job["id"] for job in await jobs_of_agent(admin, "ai-mock")}
        started, _ = await comment(receiver, github, issue, "/labrats run ai-mock")
        await until(lambda: reactions_to(github, started) == ["eyes"], PUBLISHED_SECONDS)
        (job,) = [each for each in await jobs_of_agent(admin, "ai-mock") if each["id"] not in known]
        done = await published(admin, job["id"], PUBLISHED_SECONDS)
    assert done["metadata"]["number"] == issue.number
    written = [each["body"] for each in github.comments_of(issue) if each["user"]["login"] == APP_LOGIN]
    assert "No job of this thread is waiting or running." in written[0]
    assert "**ai-mock** has" in written[1]


async def test_claude_code_works_from_a_label_to_a_repaired_and_changed_pull_request(
    reporting: Installation, receiver: InstalledEngine, github: GitHubStandIn, model_server: ModelServer
) -> None:
    issue = github.demo.open_issue()
    model_server.answer_from_now_on(
        CLAUDE.shell(f"printf 'of\\n' > flag.txt && git add flag.txt && {COMMIT} 'Add a flag'"),
        Says("Added."),
        CLAUDE.shell(f"printf 'off\\n' > flag.txt && {COMMIT} 'Correct the flag'"),
        Says("Corrected."),
        CLAUDE.shell(f"printf 'on\\n' > flag.txt && {COMMIT} 'Turn it on'"),
        Says("Turned on."),
    )
    asked = len(model_server.requests)
    async with an_admin_of(reporting) as admin:
        first = await published(admin, await deliver(receiver, "issues", an_issue_of(github, issue)), PUBLISHED_SECONDS)
        (pull,) = github.pulls_of(github.demo, f"labrats/ai-developer/{issue.number}")
        assert pull.pull
        assert pull.pull.draft
        assert "Added." in comment_of(github, issue, "ai-developer")

        run = github.demo.end_check(head_of(github, pull), log="flag.txt: expected 'off', found 'of'\n")
        known = len((await admin.get("/api/jobs")).json()["jobs"])
        await deliver_failure(receiver, github, pull, run)
        repaired = await published(admin, (await until_jobs(admin, known + 1))[0]["id"], PUBLISHED_SECONDS)
        assert (repaired["status"], repaired["agentRole"]) == ("completed", "ci-fixer"), repaired["failedReason"]
        assert github.demo.git.git("show", f"{pull.pull.head}:flag.txt") == "off"

        written, _ = await comment(receiver, github, pull, "Please turn it on.")
        await until(lambda: reactions_to(github, written) == ["eyes"], PUBLISHED_SECONDS)
        changed = await published(admin, (await until_jobs(admin, known + 2))[0]["id"], PUBLISHED_SECONDS)
    assert (changed["status"], changed["followUpOf"]) == ("completed", first["id"]), changed["failedReason"]
    assert [job["published"]["refused"] for job in (first, repaired, changed)] == [[], [], []]
    log = github.demo.git.git("log", "--format=%s", f"main..{pull.pull.head}").splitlines()
    assert log == ["Turn it on", "Correct the flag", "Add a flag"]
    assert model_server.headers["User-Agent"].startswith("claude-cli/")
    first_request, last_request = json.dumps(model_server.requests[asked]), json.dumps(model_server.requests[-1])
    assert "expected 'off', found 'of'" not in first_request
    assert "Please turn it on." in last_request
    assert "Added." in last_request  # the session goes on in another pod


async def test_claude_code_reviews_a_pull_request(
    reporting: Installation, receiver: InstalledEngine, github: GitHubStandIn, model_server: ModelServer
) -> None:
    lines = [f"line {number}\n" for number in range(1, 41)]
    github.demo.git.commit({"long.txt": "".join(lines)})
    lines[19] = "changed\n"
    github.demo.git.commit({"long.txt": "".join(lines), "new.txt": "one\ntwo\n"}, "fix")
    pull = github.demo.open_pull("fix")
    command = f"mkdir -p .labrats && echo '{json.dumps({'findings': FINDINGS})}' > .labrats/publish.json"
    model_server.answer_from_now_on(CLAUDE.shell(command), Says("Three findings."))
    async with an_admin_of(reporting) as admin:
        job_id = await deliver(receiver, "pull_request", a_pull_request_of(github, pull))
        job = await published(admin, job_id, PUBLISHED_SECONDS)
    assert job["status"] == "completed", job["failedReason"]
    assert pull.pull
    (review,) = pull.pull.reviews
    assert "`long.txt:2` **warning** Look further" in review["body"]
    assert [(each["path"], each["original_line"]) for each in pull.pull.comments] == [("long.txt", 20), ("new.txt", 1)]
    (check,) = github.check_runs_of(github.demo, pull.pull.head_sha)
    assert (check["name"], check["conclusion"]) == ("labrats/ai-reviewer", "success")
    assert len(github.demo.annotations[check["id"]]) == 3
    assert "Three findings." in comment_of(github, pull, "ai-reviewer")


async def test_a_chain_of_claude_code_reviews_its_pull_request(
    reporting: Installation, receiver: InstalledEngine, github: GitHubStandIn, model_server: ModelServer
) -> None:
    issue = github.demo.open_issue()
    finding = json.dumps({"findings": [{"path": "built.txt", "line": 1, "severity": "error", "title": "Not built"}]})
    model_server.answer_from_now_on(
        CLAUDE.shell(f"printf 'no\n' > built.txt && git add built.txt && {COMMIT} 'Build it'"),
        Says("Built."),
        CLAUDE.shell(f"mkdir -p .labrats && cat built.txt && echo '{finding}' > .labrats/publish.json"),
        Says("One finding."),
    )
    async with an_admin_of(reporting) as admin:
        known = len((await admin.get("/api/jobs")).json()["jobs"])
        await comment(receiver, github, issue, "/labrats run ai-builder")
        jobs = [(await until_jobs(admin, known + 2))[number] for number in (1, 0)]
        built, reviewed = [await published(admin, job["id"], PUBLISHED_SECONDS) for job in jobs]
    assert [job["published"]["refused"] for job in (built, reviewed)] == [[], []]
    (pull,) = github.pulls_of(github.demo, f"labrats/ai-builder/{issue.number}")
    assert pull.pull
    assert (reviewed["parentJobId"], reviewed["report"]["target"]["pullRequest"]) == (built["id"], pull.number)
    assert [(each["path"], each["original_line"]) for each in pull.pull.comments] == [("built.txt", 1)]
    (check,) = github.check_runs_of(github.demo, pull.pull.head_sha)
    assert (check["name"], check["conclusion"]) == ("labrats/ai-reviewer", "failure")


async def jobs_of_agent(admin: User, name: str) -> list[dict[str, Any]]:
    return [each for each in (await admin.get("/api/jobs")).json()["jobs"] if each["agentRole"] == name]


def comment_of(github: GitHubStandIn, issue: Issue, agent: str) -> str:
    """Return the sticky comment of an agent."""
    (found,) = [each["body"] for each in github.comments_of(issue) if f'"agent {agent}"' in each["body"]]
    return str(found)
