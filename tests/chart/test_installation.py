"""An installation on a real node: jobs, documented permissions, upgrade and uninstallation."""

import asyncio
import json
import secrets
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import pytest

from labrats.backends.kubernetes.egress import OPEN_CHECK
from tests.acceptance.engine import PATIENCE_SECONDS, POLL_SECONDS, User, an_http_client
from tests.chart.fixture import new_installation
from tests.chart.installation import Helm, Installation, Permission, permissions_of
from tests.cluster.cluster import Cluster
from tests.cluster.node import Node
from tests.cluster.shell import Failed

pytestmark = [pytest.mark.kubernetes(node=True, helm=True, engine_image=True), pytest.mark.timeout(400)]

PAGE: Final = Path(__file__).parents[2] / "docs" / "kubernetes.md"
SAME_ORIGIN: Final = {"Sec-Fetch-Site": "same-origin"}
TOKEN: Final = "ghp_testtokenthatmustnotbeseen"


@pytest.fixture
async def user(installation: Installation) -> AsyncIterator[User]:
    async with a_user_of(installation) as user:
        yield user


@pytest.fixture
def spare(
    cluster: Cluster | None, helm: Helm, engine_image: str, executor_image: str, tmp_path: Path
) -> Iterator[Installation]:
    """Yield an installation for one test, which the test installs."""
    if cluster is None:
        pytest.skip("the tests need a cluster of their own, whose node has its volumes on this machine")
    with new_installation(cluster, helm, engine_image, executor_image, tmp_path) as installation:
        yield installation


async def test_job_runs_and_is_followed_through_the_service(user: User) -> None:
    job_id = await user.submit({"log": "tick {n}", "times": 5, "everyMs": 100}, {"result": "done"})
    lines = await user.log_lines(job_id)
    detail = await user.wait(job_id)

    assert lines == [f"tick {n}" for n in range(1, 6)]
    assert (detail["status"], detail["returnvalue"]) == ("completed", "done")


async def test_every_api_pod_serves_every_job(installation: Installation, user: User) -> None:
    job_id = await user.submit({"log": "hello"}, {"result": "done"})
    await user.wait(job_id)

    async with each_pod_of_the_api(installation, user.key) as users:
        assert len(users) == 2
        for each in users:
            assert (await each.wait(job_id))["returnvalue"] == "done"
            assert await each.log_lines(job_id) == ["hello"]


async def test_writes_through_one_api_pod_reach_the_others(installation: Installation, user: User) -> None:
    """The watch of the other pod reports a write a moment later."""
    async with each_pod_of_the_api(installation, user.key) as (one, other):
        agent = {"name": "shared", "triggerName": "shared", "defaultProvider": "mock", "instructions": ["shared"]}
        assert (await one.post("/api/instructions", {"name": "shared", "content": "Be kind."})).status_code == 201
        await until(other, "/api/instructions/shared", 200)
        assert (await other.post("/api/agents", agent)).status_code == 201
        await until(one, "/api/agents/by-trigger/shared", 200)
        uploaded = (await one.http.post("/api/workspace-uploads", files={"file": ("a.txt", b"hello")})).json()
        assert (await other.get(f"/api/workspace-uploads/{uploaded['id']}/a.txt/raw")).content == b"hello"

        files = [{"id": uploaded["id"], "name": "a.txt"}]
        job_id = await other.submit(agentRole="shared", workspaceUploads=files)
        detail = await one.wait(job_id)
        assert (detail["status"], detail["agentRole"]) == ("completed", "shared")

        source = {"name": "shared", "type": "generic", "secret": "test-secret-of-a-source"}
        assert (await one.post("/api/webhook-sources", source)).status_code == 201
        await until(other, "/api/webhook-sources/shared", 200)
        changed = await other.http.patch("/api/webhook-sources/shared", json={"enabled": False})
        assert changed.status_code == 200, changed.text

        for path in ("/api/agents/shared", "/api/instructions/shared", "/api/webhook-sources/shared"):
            assert (await one.http.delete(path)).status_code == 204
            await until(other, path, 404)


async def test_sign_in_and_sign_out_at_one_api_pod_apply_to_all(installation: Installation) -> None:
    link = urlsplit(installation.run_labrats("login-link", "--url", "http://labrats").strip())
    async with each_pod_of_the_api(installation) as (one, other):
        opened = await one.http.get(f"{link.path}?{link.query}")
        assert opened.status_code == 303, opened.text
        assert (await other.http.get(f"{link.path}?{link.query}")).status_code == 401
        other.http.cookies["auth_token"] = one.http.cookies["auth_token"]
        assert (await other.get("/api/auth/me")).json()["user"]["name"] == "local"
        assert (await other.get("/api/jobs")).status_code == 200

        assert (await other.http.post("/api/auth/logout", headers=SAME_ORIGIN)).status_code == 204
        await until(one, "/api/jobs", 401)


async def test_controllers_do_not_serve_the_api(installation: Installation, user: User) -> None:
    with installation.reach(installation.addresses("controller")[0], 3001) as url:
        async with an_http_client(url, user.key) as http:
            assert (await http.get("/ready")).json() == {"status": "ok"}
            assert (await http.get("/api/jobs")).status_code == 404


async def test_files_of_a_job_reach_its_pod(user: User) -> None:
    job_id = await user.submit(workspaceFiles=[{"name": "notes/a.txt", "data": "aGVsbG8K"}])
    assert (await user.wait(job_id))["status"] == "completed"


@pytest.mark.parametrize(
    "account", ["labrats-api", "labrats-controller", "labrats-publisher", "labrats-webhook-receiver"]
)
def test_permissions_of_an_account_equal_the_documented_ones(installation: Installation, account: str) -> None:
    found = permissions_of(installation, account) - permissions_of(installation, "default")
    if account == "labrats-publisher":
        found.discard(Permission("", "secrets", "get"))  # of those that sources name, if there are any
    assert found == documented_permissions(account)


REFUSED: Final[dict[str, Any]] = {
    "apiKeyRef": "key-of-another",
    "conversationRef": {"name": "of-another", "key": "conversation"},
    "eventRef": {"name": "of-another", "key": "event"},
    "followUpOf": "ir-00000001",
    "followUpUid": "00000000-0000-0000-0000-000000000000",
    "owner": "another",
    "resolved": {"config": {"provider": "mock"}, "isolation": "container"},
    "workspaceFiles": [{"name": "a.txt", "path": "jobs/ir-00000001/a.txt", "size": 1}],
}
"""Fields by which a job would be that of another caller, use what that has, or have less isolation."""


async def test_users_who_may_create_jobs_cannot_set_the_fields_of_the_engine(
    installation: Installation, user: User
) -> None:
    installation.kubectl("create", "role", "tenant", "--verb=create", "--resource=inferencerequests.labrats.work")
    installation.kubectl("create", "rolebinding", "tenant", "--role=tenant", "--user=tenant")

    def create(name: str, **fields: Any) -> str:
        return by_tenant(installation, "create", "-f", "-", stdin=an_applied_job({"name": name}, **fields))

    async with asyncio.timeout(PATIENCE_SECONDS):
        for field, value in REFUSED.items():
            words = f"spec.{field} is set by the engine only"
            while words not in create(f"tenant-{secrets.token_hex(4)}", **{field: value}):
                await asyncio.sleep(POLL_SECONDS)  # the API server takes a moment to see the policy
    assert "names of `ir-` and eight digits are of the engine's own jobs" in create("ir-0123abcd")
    cancelling = {"key": "of-the-team", "onNew": "supersede"}
    assert "spec.concurrency.onNew cancels other jobs" in create("cancels", concurrency=cancelling)
    assert "created" in create("waits", concurrency={"key": "of-the-team"})
    held = an_applied_job({"name": "held", "finalizers": ["example.com/hold"]})
    assert "metadata.finalizers keep a job" in by_tenant(installation, "create", "-f", "-", stdin=held)
    nobody = {"apiVersion": "v1", "kind": "ConfigMap", "name": "nobody", "uid": "00000000-0000-0000-0000-000000000000"}
    owned = an_applied_job({"name": "owned", "ownerReferences": [nobody]})
    assert "metadata.ownerReferences delete a job" in by_tenant(installation, "create", "-f", "-", stdin=owned)
    installation.kubectl("create", "role", "deleter", "--verb=delete", "--resource=inferencerequests.labrats.work")
    installation.kubectl("create", "rolebinding", "deleter", "--role=deleter", "--user=tenant")
    async with asyncio.timeout(PATIENCE_SECONDS):
        while "created" not in create(f"cancels-{secrets.token_hex(4)}", concurrency=cancelling):
            await asyncio.sleep(POLL_SECONDS)  # the API server takes a moment to see the permission
    assert "created" in create("of-a-tenant")
    assert (await user.wait("of-a-tenant"))["status"] == "completed"


async def test_users_who_may_apply_jobs_cannot_set_annotations_of_the_engine(installation: Installation) -> None:
    """By them and a name that everyone can compute, the engine recognises the next job of a chain, for example."""
    resource = "inferencerequests.labrats.work"
    installation.kubectl("create", "role", "applier", "--verb=create,get,patch", f"--resource={resource}")
    installation.kubectl("create", "rolebinding", "applier", "--role=applier", "--user=tenant")
    annotation, words = "labrats.work/chain-parent", "annotations of labrats.work are set by the engine only"
    allowed = {"example.com/team": "red", "labrats.work/created-at": "2026-01-01T00:00:00+00:00"}

    def create(name: str, annotations: dict[str, str]) -> str:
        job = an_applied_job({"name": name, "annotations": annotations})
        return by_tenant(installation, "create", "-f", "-", stdin=job)

    async with asyncio.timeout(PATIENCE_SECONDS):
        while words not in create(f"forged-{secrets.token_hex(4)}", {annotation: "uid/gate"}):
            await asyncio.sleep(POLL_SECONDS)  # the API server takes a moment to see the policy
    assert "created" in create("annotated", allowed)
    assert words in by_tenant(installation, "annotate", "ir", "annotated", f"{annotation}=uid/gate")
    assert "annotated" in by_tenant(installation, "annotate", "ir", "annotated", "example.com/team=blue", "--overwrite")
    installation.kubectl("annotate", "ir", "annotated", f"{annotation}=uid/gate", f"--as={controller_of(installation)}")
    assert words in by_tenant(installation, "annotate", "ir", "annotated", f"{annotation}=other/gate", "--overwrite")
    assert words in by_tenant(installation, "annotate", "ir", "annotated", f"{annotation}-")


async def test_publisher_reads_named_secrets_and_writes_what_is_published_only(
    installation: Installation, user: User
) -> None:
    publisher = f"--as=system:serviceaccount:{installation.namespace}:labrats-publisher"
    name = f"app-{secrets.token_hex(4)}"
    for each in (name, f"{name}-other"):
        installation.kubectl("create", "secret", "generic", each, "--from-literal=token=test-token")
    source = {"name": name, "type": "github", "secret": "test-secret-of-a-source", "credentialsRef": name}
    assert (await user.post("/api/webhook-sources", source)).status_code == 201
    async with asyncio.timeout(PATIENCE_SECONDS):
        while "yes" not in may(installation, "get", f"secrets/{name}", publisher):
            await asyncio.sleep(POLL_SECONDS)
    assert "yes" not in may(installation, "get", f"secrets/{name}-other", publisher)

    job_id = (await user.run({"result": "done"}))["id"]
    path = f"/apis/labrats.work/v1alpha1/namespaces/{installation.namespace}/inferencerequests/{job_id}/status"

    def write(**status: Any) -> str:
        [job] = installation.get("ir", job_id)
        changed = json.dumps(job | {"status": job["status"] | status})
        return installation.kubectl("replace", "--raw", path, "-f", "-", publisher, stdin=changed)

    with pytest.raises(Failed, match="not a field of publication"):
        write(failedReason="forged")
    assert "https://a.example/1" in write(published={"commentUrl": "https://a.example/1"})
    assert (await user.job(job_id))["failedReason"] is None


async def test_receiver_creates_only_jobs_that_an_event_could_start(installation: Installation) -> None:
    receiver = f"--as=system:serviceaccount:{installation.namespace}:labrats-webhook-receiver"

    def create(metadata: dict[str, Any] | None = None, **fields: Any) -> str:
        usual = {"owner": "webhook-source/github", "resolved": {"config": {"provider": "mock"}}}
        spec = {field: value for field, value in (usual | fields).items() if value is not None}
        job = an_applied_job({"generateName": "of-receiver-"} | (metadata or {}), **spec)
        return installation.kubectl("create", "--dry-run=server", "-f", "-", receiver, stdin=job)

    def marked(name: str) -> dict[str, Any]:
        return {"metadata": {"annotations": {f"labrats.work/{name}": "uid/1"}}}

    assert "created" in create(**marked("idempotency-key"))
    for fields, words in (
        ({"owner": "key-of-somebody"}, "spec.owner must be the webhook source"),
        ({"apiKeyRef": "key"}, "spec.apiKeyRef is not set by an event"),
        ({"byAdmin": True}, "spec.byAdmin is not set by an event"),
        ({"rerunOf": "ir-00000001"}, "spec.rerunOf is not set by an event"),
        ({"resolved": None}, "spec.resolved is required"),
        (marked("thread-request"), "marks a job which no event starts"),
        (marked("chain-parent"), "marks a job which no event starts"),
        ({"metadata": {"finalizers": ["example.com/a"]}}, "metadata.finalizers and"),
    ):
        with pytest.raises(Failed, match=words):
            create(**fields)


def may(installation: Installation, verb: str, what: str, user: str) -> str:
    """Return the answer of `kubectl auth can-i`."""
    try:
        return installation.kubectl("auth", "can-i", verb, what, user)
    except Failed as failed:
        return str(failed)


async def test_jobs_of_the_api_can_be_labelled_and_deleted_with_kubectl(installation: Installation, user: User) -> None:
    job_id = (await user.run({"result": "done"}))["id"]
    assert "labeled" in installation.kubectl("label", "ir", job_id, "example.com/team=red")
    installation.kubectl("delete", "ir", job_id, "--cascade=foreground", "--timeout=30s")


def an_applied_job(metadata: dict[str, Any], **fields: Any) -> str:
    """Return the manifest of a mock job as JSON."""
    spec = {"source": "kubectl", "type": "any", "prompt": "Hi", "config": {"provider": "mock"}} | fields
    job = {"apiVersion": "labrats.work/v1alpha1", "kind": "InferenceRequest", "metadata": metadata, "spec": spec}
    return json.dumps(job)


def by_tenant(installation: Installation, *arguments: str, stdin: str | None = None) -> str:
    """Run kubectl as the user `tenant`. Return its output, or its error message."""
    try:
        return installation.kubectl(*arguments, "--as=tenant", stdin=stdin)
    except Failed as failed:
        return str(failed)


def controller_of(installation: Installation) -> str:
    """Return the user name of the controller's account."""
    return f"system:serviceaccount:{installation.namespace}:labrats-controller"


def findings_of_the_doctor(installation: Installation) -> dict[str, tuple[str, str]]:
    """Return the result and detail of each check of `labrats doctor` in a pod of the API."""
    script = "labrats doctor --json || true"
    found = json.loads(installation.kubectl("exec", "deploy/labrats-api", "--", "sh", "-c", script))
    return {each["check"]: (each["result"], each["detail"]) for each in found}


async def test_no_object_of_a_job_shows_a_secret(installation: Installation, user: User) -> None:
    installation.kubectl("create", "secret", "generic", "anthropic", f"--from-literal=ANTHROPIC_API_KEY={TOKEN}")
    model = {"name": "secretive", "provider": "claude", "model": "secretive", "slots": 1, "credentialsRef": "anthropic"}
    assert (await user.post("/api/ai-models", model)).status_code == 201
    unlabelled = await user.run(config={"provider": "claude", "model": "secretive"})
    assert "is not labelled for jobs" in unlabelled["failedReason"]
    result, detail = findings_of_the_doctor(installation)["secret: anthropic"]
    assert (result, detail.partition(":")[0]) == ("fails", "not labelled, but named by the model secretive")
    installation.kubectl("label", "secret", "anthropic", "labrats.work/type=job-credentials")
    found = findings_of_the_doctor(installation)
    assert (found["isolation: vm"][0], "secret: anthropic" in found) == ("ok", False)
    repository = {"gitRepo": f"https://octocat:{TOKEN}@1.1.1.1/hello.git"}  # unreachable from the cluster
    job_id = await user.submit(config={"provider": "claude", "model": "secretive"}, workspaceSetup=repository)
    async with asyncio.timeout(180):  # the clone is tried for two minutes
        while (await user.job(job_id))["status"] != "failed":
            await asyncio.sleep(POLL_SECONDS)

    assert "ANTHROPIC_API_KEY" in installation.kubectl(
        "get", "pods", "--selector", f"labrats.work/job={job_id}", "-oyaml"
    )
    for kind in ("pods", "jobs", "inferencerequests", "configmaps", "events"):
        assert TOKEN not in installation.kubectl("get", kind, "--output", "yaml")
    of_the_job = ("--selector", f"labrats.work/job={job_id}")
    described = [
        installation.kubectl("describe", *what)
        for what in (("pods", *of_the_job), ("jobs", *of_the_job), ("inferencerequest", job_id))
    ]
    assert all(job_id in each and TOKEN not in each for each in described)
    assert TOKEN not in installation.log("api") + installation.log("controller")


async def test_enforcement_of_network_policies_and_of_the_fence_is_detected(installation: Installation) -> None:
    metrics = ""
    async with asyncio.timeout(PATIENCE_SECONDS * 2):
        while 'what="network-policy"' not in metrics:
            await asyncio.sleep(POLL_SECONDS)
            metrics = "".join([await metrics_of(installation, each) for each in installation.addresses("controller")])
    assert 'labrats_degraded{what="network-policy"} 0.0' in metrics
    assert 'labrats_degraded{what="leader-fence"} 0.0' in metrics


async def test_open_pod_starts_once_its_policies_are_in_force(installation: Installation, user: User) -> None:
    check = installation.folder / "data" / OPEN_CHECK
    async with asyncio.timeout(PATIENCE_SECONDS * 2):
        while not check.exists():
            await asyncio.sleep(POLL_SECONDS)
    assert check.read_text() == "enforced"
    found = findings_of_the_doctor(installation)
    assert (found["network rules"][0], found["cluster's network"][0]) == ("ok", "ok")
    job = await user.run({"result": "done"})
    assert job["status"] == "completed", job
    [pod] = installation.get("pods", f"--selector=labrats.work/job={job['id']}")
    service = installation.get("service", "labrats-egress-proxy")[0]["spec"]["clusterIP"]
    assert json.loads(pod["metadata"]["annotations"]["labrats.work/task"])["policyTests"] == [[service, 3128]]


async def test_upgrade_keeps_jobs_running_and_uninstall_leaves_the_documented_objects(
    spare: Installation,
) -> None:
    spare.install(profile="")
    assert (len(spare.pods("api")), len(spare.pods("controller")), fence_of(spare)) == (1, 1, False)
    async with a_user_of(spare) as user:
        job_id = await user.submit({"log": "tick {n}", "times": 60, "everyMs": 200}, {"result": "done"})
        await user.wait(job_id, "active")

    next_image = f"{spare.engine_image}-next"
    Node(spare.cluster, 1).name_image(spare.engine_image, next_image)
    upgraded = replace(spare, engine_image=next_image)
    upgraded.upgrade(profile="", settings={"DEFAULT_MODEL_SLOTS": 7})

    assert images_of(upgraded, "api") == images_of(upgraded, "controller") == {next_image}
    async with a_user_of(upgraded) as user:
        assert (await user.wait(job_id))["returnvalue"] == "done"
        assert await user.log_lines(job_id) == [f"tick {n}" for n in range(1, 61)]

    upgraded.kubectl("delete", "inferencerequests", "--all")
    upgraded.uninstall()
    async with asyncio.timeout(PATIENCE_SECONDS):
        while {kind for kind, _ in remaining_objects(upgraded)} != {
            "persistentvolumeclaim",
            "lease.coordination.k8s.io",
            "secret",
        }:
            await asyncio.sleep(0.5)
    assert {name for kind, name in remaining_objects(upgraded) if kind == "persistentvolumeclaim"} == {
        "labrats-data",
        "labrats-uploads",
    }
    assert not fence_of(upgraded)


async def test_upgrade_from_a_chart_without_profiles_keeps_the_fence_claims_and_data(spare: Installation) -> None:
    spare.install(profile="production", volumes=spare.volumes(accessMode="ReadWriteMany"))
    async with a_user_of(spare) as user:
        job_id = await user.submit({"log": "hello"}, {"result": "done"})
        await user.wait(job_id)
    label = "labrats.work/profile-"  # which the chart 0.2 did not write
    spare.kubectl("label", "deployment", "labrats-api", "labrats-controller", "labrats-publisher", label)
    claims = claims_of(spare)

    spare.upgrade(profile="")

    assert (claims_of(spare), fence_of(spare), len(spare.pods("api"))) == (claims, True, 2)
    async with a_user_of(spare) as user:
        assert (await user.wait(job_id))["returnvalue"] == "done"
        assert await user.log_lines(job_id) == ["hello"]
    spare.uninstall()
    assert not fence_of(spare)


@asynccontextmanager
async def a_user_of(installation: Installation) -> AsyncIterator[User]:
    """Yield a user with an admin key, once all pods of the API know the key."""
    body = {"name": f"user {secrets.token_hex(4)}", "scopes": ["admin"]}
    with installation.service() as url:
        async with asyncio.timeout(PATIENCE_SECONDS), an_http_client(url, installation.admin_key) as http:
            while (created := await http.post("/api/api-keys", json=body)).status_code == 401:
                await asyncio.sleep(POLL_SECONDS)
            assert created.status_code == 201, created.text
        key = created.json()["key"]
        async with asyncio.timeout(PATIENCE_SECONDS), an_http_client(url, key) as http:
            for _ in range(10):  # each pod of the API learns of the key through its own watch
                while (await http.get("/api/jobs")).status_code == 401:
                    await asyncio.sleep(POLL_SECONDS)
        async with an_http_client(url, key) as http:
            yield User(http, key)


@asynccontextmanager
async def each_pod_of_the_api(installation: Installation, key: str | None = None) -> AsyncIterator[list[User]]:
    """Yield a user for each pod of the API, without the Service."""
    async with AsyncExitStack() as stack:
        urls = [stack.enter_context(installation.reach(each, 3001)) for each in installation.addresses("api")]
        yield [User(await stack.enter_async_context(an_http_client(url, key)), key or "") for url in urls]


async def until(user: User, path: str, status: int) -> None:
    """Poll `path` until it answers `status`."""
    async with asyncio.timeout(PATIENCE_SECONDS):
        while (await user.get(path)).status_code != status:
            await asyncio.sleep(POLL_SECONDS)


def fence_of(installation: Installation) -> bool:
    """Return whether the fence of an installation is there."""
    return f"labrats-leader-{installation.namespace}" in installation.kubectl("get", "validatingadmissionpolicies")


def claims_of(installation: Installation) -> dict[str, tuple[str, list[str]]]:
    """Return id and access modes of each claim."""
    claims = installation.get("persistentvolumeclaims")
    return {each["metadata"]["name"]: (each["metadata"]["uid"], each["spec"]["accessModes"]) for each in claims}


def images_of(installation: Installation, part: str) -> set[str]:
    return {pod["spec"]["containers"][0]["image"] for pod in installation.pods(part)}


async def metrics_of(installation: Installation, address: str) -> str:
    with installation.reach(address, 3001) as url:
        async with an_http_client(url) as http:
            return (await http.get("/metrics")).text


def documented_permissions(account: str) -> set[Permission]:
    """Return the permissions in the table of the documentation."""
    rows = [line.split("|")[2:-2] for line in PAGE.read_text().splitlines() if line.startswith(f"| `{account}` |")]
    assert rows, f"{PAGE} does not list {account}"
    return {
        Permission(group.strip(), resource, verb)
        for group, resources, verbs in rows
        for resource, verb in product(resources.strip().split(", "), verbs.split())
    }


def remaining_objects(installation: Installation) -> set[tuple[str, str]]:
    """Return kind and name of the objects in the namespace, except events and the objects of every namespace."""
    kinds = installation.kubectl("api-resources", "--namespaced", "--verbs=list", "--output=name").split()
    ignored = {"events", "events.events.k8s.io"}
    names = installation.kubectl("get", ",".join(set(kinds) - ignored), "--ignore-not-found", "--output=name").split()
    default = {"configmap/kube-root-ca.crt", "serviceaccount/default"}
    return {(kind, name) for kind, _, name in (each.partition("/") for each in set(names) - default)}
