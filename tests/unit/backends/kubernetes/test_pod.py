"""The manifest of an attempt, and the settings that change it."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import msgspec
import pytest
from msgspec.structs import replace

from labrats.backends.kubernetes.pod import attempt_job, placeholder_job
from labrats.backends.kubernetes.pod_settings import PodCredentials, PodEgress, PodSettings
from labrats.backends.kubernetes.pod_volumes import EARLIER, EARLIER_FILES, SCRATCH
from labrats.files.attempt_inputs import TaskSettings
from labrats.model.attempt_name import AttemptName
from labrats.model.config import JobConfig, ResolvedConfig, Sampling
from labrats.model.errors import GiveUp
from labrats.model.isolation import Isolation, IsolationLevels
from labrats.model.job import (
    FailedCode,
    KeyReference,
    WorkspaceFile,
    WorkspaceSetup,
    WorkspaceUpload,
    base_cache_scope,
    cache_scope,
)
from labrats.model.phases import Phase
from labrats.model.protocol import Continuation, ResourceLimits, Resumption, Task
from labrats.model.record import Metadata
from labrats.model.workspace_setup import CachedFolder
from labrats.ports import Attempt
from labrats.settings import PodExtras
from tests.support.builders import a_job, a_session, a_spec, an_ai_model, an_attempt, isolated

GOLDEN = Path(__file__).with_name("attempt_job.json")

SETTINGS = PodSettings(
    image="labrats/executor:1",
    resources={"requests": {"cpu": "250m"}, "limits": {"cpu": "2", "memory": "2Gi", "ephemeral-storage": "10Gi"}},
    scratch_size="10Gi",
    uploads_claim="uploads",
    data_claim="data",
    task=TaskSettings(git_addresses=("10.0.0.0/8",)),
)
"""Settings of an operator."""

NO_CREDENTIALS = PodCredentials()


def an_owned_attempt(**spec: Any) -> Attempt:
    """An attempt of a stored job. spec: fields of JobSpec."""
    attempt = an_attempt(job_id="ir-0000000a")
    metadata = Metadata(name="ir-0000000a", uid="5e0b6c1c-0000-4000-8000-000000000001")
    return Attempt(replace(attempt.job, metadata=metadata, spec=a_spec(**spec)), an_ai_model(endpoint="http://models"))


def pod_of(attempt: Attempt, credentials: PodCredentials = NO_CREDENTIALS, settings: PodSettings = SETTINGS) -> Any:
    return attempt_job(attempt, credentials, settings)["spec"]["template"]


def task_of(pod: Any) -> Task:
    task: Task = msgspec.json.decode(pod["metadata"]["annotations"]["labrats.work/task"].encode(), type=Task)
    return task


def test_the_models_sampling_reaches_the_executor() -> None:
    attempt = an_owned_attempt()
    ai_model = an_ai_model(sampling=Sampling(temperature=0.2))

    assert task_of(pod_of(Attempt(attempt.job, ai_model))).config.sampling == Sampling(temperature=0.2)


def test_the_manifest_of_a_job_with_everything_is_as_recorded() -> None:
    attempt = an_owned_attempt(
        prompt=None,
        prompt_ref=KeyReference(name="ir-0000000a-prompt", key="prompt"),
        workspace_setup=WorkspaceSetup(git_repo="https://git.example/a.git", credentials_ref="ir-0000000a-git"),
        workspace_files=(WorkspaceFile(name="notes.md", path="jobs/ir-0000000a-1f/0", size=3),),
        metadata={"repo": "a"},
    )
    credentials = PodCredentials(
        repository=[("ir-0000000a-git", {"git-username": "username", "git-password": "password"})],
        agent=[("docs", {"mcp.docs.TOKEN": "TOKEN"})],
        model=[("anthropic", {"ANTHROPIC_API_KEY": "ANTHROPIC_API_KEY"})],
    )

    assert attempt_job(attempt, credentials, SETTINGS) == json.loads(GOLDEN.read_text())


@pytest.mark.parametrize("path", ["x", "jobs/x", "workspaces/x", "jobs/./x", "jobs/../x", "up-1/x", "/jobs/a/0"])
def test_files_of_other_jobs_are_not_mounted(path: str) -> None:
    attempt = an_owned_attempt(workspace_files=(WorkspaceFile(name="a", path=path, size=1),))
    with pytest.raises(GiveUp, match="must be jobs/FOLDER/NAME") as refused:
        attempt_job(attempt, NO_CREDENTIALS, SETTINGS)
    assert refused.value.code == FailedCode.INVALID


def test_the_folder_of_an_upload_is_mounted_alone() -> None:
    attempt = an_owned_attempt(workspace_uploads=(WorkspaceUpload(id="up-0123456789abcdef", name="a.txt"),))
    mounts = pod_of(attempt)["spec"]["containers"][0]["volumeMounts"]
    assert [mount["subPath"] for mount in mounts if mount["name"] == "uploads"] == ["up-0123456789abcdef"]


def test_annotations_of_the_operator_replace_those_for_autoscalers() -> None:
    name = "karpenter.sh/do-not-disrupt"
    settings = dataclasses.replace(SETTINGS, extras=PodExtras(annotations={name: "false"}))
    assert pod_of(an_owned_attempt())["metadata"]["annotations"][name] == "true"
    assert pod_of(an_owned_attempt(), settings=settings)["metadata"]["annotations"][name] == "false"


def test_the_executor_is_told_its_task() -> None:
    attempt = an_owned_attempt(metadata={"repo": "a"})

    limits = ResourceLimits(processes=100)

    task = task_of(pod_of(attempt, settings=dataclasses.replace(SETTINGS, task=TaskSettings(limits=limits))))

    assert task.limits == limits
    assert (task.job_id, task.attempt, task.number) == ("ir-0000000a", "ir-0000000a-1", 1)
    assert task.metadata == {"repo": "a"}
    assert task.endpoint == "http://models"
    assert task.workspace.startswith(SCRATCH)


def test_the_task_has_the_earlier_session_without_a_workspace() -> None:
    """The workspace of the earlier attempt was deleted with its pod."""
    attempt = an_owned_attempt()
    job = replace(attempt.job, status=replace(attempt.job.status, attempts=2, session=a_session(1)))

    assert task_of(pod_of(attempt)).resumption is None
    assert task_of(pod_of(Attempt(job))).resumption == Resumption(session=a_session(1))


def test_a_prompt_without_a_config_map_is_mounted_from_an_annotation() -> None:
    pod = pod_of(an_owned_attempt(prompt="Do it."))

    assert pod["metadata"]["annotations"]["labrats.work/prompt"] == "Do it."
    (source,) = pod["spec"]["volumes"][0]["projected"]["sources"]
    assert [item["path"] for item in source["downwardAPI"]["items"]] == ["job.json", "prompt"]


def test_instructions_are_mounted_from_their_config_map() -> None:
    ref = KeyReference(name="ir-0000000a-prompt", key="instructions")

    pod = pod_of(an_owned_attempt(prompt="Do it.", instructions_ref=ref))

    _, source = pod["spec"]["volumes"][0]["projected"]["sources"]
    assert source["configMap"] == {"name": ref.name, "items": [{"key": "instructions", "path": "instructions"}]}


def test_texts_of_an_applied_job_are_mounted_from_their_config_map() -> None:
    attempt = an_owned_attempt(prompt="Too long for an annotation.")
    refs = {f"{key}_ref": KeyReference(name="ir-0000000a-texts", key=key) for key in ("prompt", "instructions")}
    job = replace(attempt.job, status=replace(attempt.job.status, **refs))

    pod = pod_of(Attempt(job))

    assert "labrats.work/prompt" not in pod["metadata"]["annotations"]
    _, *sources = pod["spec"]["volumes"][0]["projected"]["sources"]
    assert [source["configMap"]["items"][0]["path"] for source in sources] == ["prompt", "instructions"]


@pytest.mark.parametrize(
    ("own", "resources"),
    [
        (
            {"limits": {"memory": "4Gi"}},
            {
                "requests": {"cpu": "250m"},
                "limits": {"cpu": "2", "memory": "4Gi", "ephemeral-storage": "10Gi"},
            },
        ),
        (
            {"requests": {"memory": "1Gi"}, "limits": {"cpu": "100m"}},
            {
                "requests": {"memory": "1Gi"},
                "limits": {"cpu": "100m", "memory": "2Gi", "ephemeral-storage": "10Gi"},
            },
        ),
        ({}, SETTINGS.resources),
    ],
)
def test_a_job_may_set_resources_and_has_the_other_limits_of_the_operator(own: Any, resources: Any) -> None:
    attempt = an_owned_attempt(config={"executor_resources": own})

    assert pod_of(attempt)["spec"]["containers"][0]["resources"] == resources


def test_an_administrator_may_set_resources_without_a_limit() -> None:
    own = {"requests": {"memory": "4Gi"}}
    resolved = ResolvedConfig(config=JobConfig(executor_resources=own), origins={"executorResources": "ai-config"})
    attempt = an_owned_attempt(resolved=resolved)

    assert pod_of(attempt)["spec"]["containers"][0]["resources"] == own


def test_a_job_may_set_the_image() -> None:
    attempt = an_owned_attempt(config={"executor_image": "example/executor:2"})

    assert pod_of(attempt)["spec"]["containers"][0]["image"] == "example/executor:2"


def test_the_deadline_of_the_cluster_is_well_after_that_of_the_engine() -> None:
    attempt = an_owned_attempt(config={"timeout_ms": 60_000})

    seconds = attempt_job(attempt, NO_CREDENTIALS, SETTINGS)["spec"]["activeDeadlineSeconds"]

    assert seconds > 60 + SETTINGS.start_timeout_seconds + SETTINGS.grace_seconds + 60


def test_an_operator_can_add_fields_to_the_pod_but_not_replace_those_of_the_engine() -> None:
    fields = {"nodeSelector": {"pool": "agents"}, "containers": [], "automountServiceAccountToken": True}
    settings = PodSettings(image="labrats/executor:1", resources={}, scratch_size="1Gi", pod_fields=fields)

    pod = pod_of(an_owned_attempt(), settings=settings)["spec"]

    assert pod["nodeSelector"] == {"pool": "agents"}
    assert pod["automountServiceAccountToken"] is False
    assert len(pod["containers"]) == 1


@pytest.mark.parametrize(
    ("asked", "untrusted", "runtime_class"),
    [(None, False, "ours"), ("sandbox", False, "ours"), ("vm", False, "gvisor"), ("process", True, "gvisor")],
)
def test_a_pod_has_the_runtime_class_of_vms_if_its_job_has_that_isolation(
    asked: str | None, untrusted: bool, runtime_class: str
) -> None:
    levels = IsolationLevels((Isolation.CONTAINER, Isolation.VM), Isolation.CONTAINER, untrusted=Isolation.VM)
    settings = dataclasses.replace(
        SETTINGS, isolation=levels, vm_runtime_class="gvisor", pod_fields={"runtimeClassName": "ours"}
    )
    attempt = isolated(an_owned_attempt(untrusted=untrusted), Isolation(asked) if asked else None)
    assert pod_of(attempt, settings=settings)["spec"]["runtimeClassName"] == runtime_class


def test_a_job_whose_isolation_the_cluster_lacks_is_refused() -> None:
    with pytest.raises(GiveUp, match="the isolation of the job cannot be vm: the levels here are container"):
        pod_of(isolated(an_owned_attempt(), Isolation.VM))


def test_a_pod_mounts_the_files_of_its_job_only() -> None:
    pod = pod_of(an_owned_attempt(workspace_files=(WorkspaceFile(name="a", path="jobs/1/0", size=1),)))

    mount = pod["spec"]["containers"][0]["volumeMounts"][-1]
    assert (mount["subPath"], mount["readOnly"]) == ("jobs/1", True)
    (file,) = task_of(pod).workspace_files
    assert file.path == f"{mount['mountPath']}/0"


def test_a_job_with_files_is_refused_without_an_uploads_volume() -> None:
    attempt = an_owned_attempt(workspace_files=(WorkspaceFile(name="a", path="jobs/1/0", size=1),))
    settings = PodSettings(image="labrats/executor:1", resources={}, scratch_size="1Gi")

    with pytest.raises(GiveUp, match="no uploads volume"):
        attempt_job(attempt, NO_CREDENTIALS, settings)


def test_the_manifest_of_a_job_without_a_uid_has_no_owner() -> None:
    assert attempt_job(an_attempt(), NO_CREDENTIALS, SETTINGS)["metadata"]["ownerReferences"] == []


def test_a_placeholder_takes_the_name_and_never_runs() -> None:
    placeholder = placeholder_job(AttemptName("ir-0000000a", 1), "uid-1", SETTINGS)

    assert placeholder["metadata"]["name"] == "ir-0000000a-1"
    assert placeholder["metadata"]["labels"]["labrats.work/job"] == "ir-0000000a"
    assert placeholder["metadata"]["ownerReferences"][0]["uid"] == "uid-1"
    assert placeholder["spec"]["activeDeadlineSeconds"] == 0


def test_a_secret_without_a_wanted_key_is_not_mounted() -> None:
    source, *_ = pod_of(an_owned_attempt(), PodCredentials(agent=[("anthropic", {})]))["spec"]["volumes"]

    assert not [each for each in source["projected"]["sources"] if "secret" in each]


def test_the_agents_container_mounts_no_secret() -> None:
    credentials = PodCredentials(
        repository=[("git", {"git-password": "password"})],
        agent=[("docs", {"mcp.docs.TOKEN": "TOKEN"})],
        model=[("anthropic", {"ANTHROPIC_API_KEY": "ANTHROPIC_API_KEY"})],
    )
    setup = WorkspaceSetup(git_repo="https://git.example/a.git", credentials_ref="git")

    spec = pod_of(an_owned_attempt(workspace_setup=setup), credentials)["spec"]

    mounted = {
        container["name"]: {
            source["secret"]["name"]
            for volume in spec["volumes"]
            for source in volume.get("projected", {}).get("sources", ())
            if "secret" in source and volume["name"] in {mount["name"] for mount in container["volumeMounts"]}
        }
        for container in [*spec["initContainers"], *spec["containers"]]
    }
    assert mounted == {"prepare": {"docs"}, "clone": {"git"}, "key-proxy": {"anthropic"}, "executor": set()}


def test_the_key_proxy_is_another_user_with_the_engines_image_and_runs_beside_the_executor() -> None:
    credentials = PodCredentials(model=[("anthropic", {"ANTHROPIC_API_KEY": "ANTHROPIC_API_KEY"})])
    attempt = an_owned_attempt(config={"executor_image": "example/executor:2"})

    spec = pod_of(attempt, credentials)["spec"]

    proxy = spec["initContainers"][-1]
    assert (proxy["name"], proxy["image"], proxy["restartPolicy"]) == ("key-proxy", SETTINGS.image, "Always")
    assert proxy["securityContext"]["runAsUser"] != spec["securityContext"]["runAsUser"]
    assert proxy["securityContext"]["readOnlyRootFilesystem"]


def test_pod_of_a_job_without_a_key_has_no_key_proxy() -> None:
    spec = pod_of(an_owned_attempt(), PodCredentials(agent=[("login", {"auth.json": "auth.json"})]))["spec"]

    assert [step["name"] for step in spec["initContainers"]] == ["prepare"]


def test_steps_with_credentials_never_use_the_image_of_a_job() -> None:
    setup = WorkspaceSetup(git_repo="https://git.example/a.git")
    attempt = an_owned_attempt(workspace_setup=setup, config={"executor_image": "example/executor:2"})

    steps = pod_of(attempt)["spec"]["initContainers"]

    assert {step["image"] for step in steps} == {SETTINGS.image}


def test_only_the_prepare_step_mounts_the_claims_volume_and_only_its_own_folder() -> None:
    spec = pod_of(an_owned_attempt())["spec"]

    mounts = {
        container["name"]: [mount.get("subPath") for mount in container["volumeMounts"] if mount["name"] == "claims"]
        for container in [*spec["initContainers"], *spec["containers"]]
    }
    assert mounts == {"prepare": ["claims/0a/ir-0000000a-1"], "executor": []}


def test_without_a_data_volume_nothing_is_claimed() -> None:
    settings = PodSettings(image="labrats/executor:1", resources={}, scratch_size="1Gi")

    spec = pod_of(an_owned_attempt(), settings=settings)["spec"]

    assert spec["initContainers"][0]["args"] == ["prepare", "/attempt/source", "/attempt/inputs"]
    assert "claims" not in [volume["name"] for volume in spec["volumes"]]


@pytest.mark.parametrize("image", ["example/executor:3", "NO IMAGE"])
def test_an_image_that_is_not_allowed_is_refused_for_an_applied_job(image: str) -> None:
    settings = PodSettings(image="usual:1", resources={}, scratch_size="1Gi", images=("example/executor:2",))
    allowed, other = (an_owned_attempt(config={"executor_image": each}) for each in ("example/executor:2", image))

    assert pod_of(allowed, settings=settings)["spec"]["containers"][0]["image"] == "example/executor:2"
    with pytest.raises(GiveUp, match=r"config\.executorImage") as refused:
        pod_of(other, settings=settings)
    assert FailedCode(refused.value.code) is FailedCode.INVALID


def test_an_operators_volumes_are_mounted_in_the_clone_step_the_key_proxy_and_the_executor() -> None:
    extras = PodExtras(
        annotations={"team": "core"},
        labels={"team": "core", "labrats.work/job": "another"},
        volumes=({"name": "ca", "configMap": {"name": "ca"}},),
        volumeMounts=({"name": "ca", "mountPath": "/etc/ca"},),
    )
    settings = PodSettings(image="usual:1", resources={}, scratch_size="1Gi", extras=extras)

    credentials = PodCredentials(model=[("anthropic", {"ANTHROPIC_API_KEY": "ANTHROPIC_API_KEY"})])
    setup = WorkspaceSetup(git_repo="https://git.example/a.git")
    pod = pod_of(an_owned_attempt(workspace_setup=setup), credentials, settings)

    containers = [*pod["spec"]["initContainers"], *pod["spec"]["containers"]]
    mounted = {each["name"]: mount for each in containers for mount in each["volumeMounts"] if mount["name"] == "ca"}
    usual = {"name": "ca", "mountPath": "/etc/ca"}
    assert mounted == {"clone": usual, "key-proxy": {**usual, "readOnly": True}, "executor": usual}
    assert {"name": "ca", "configMap": {"name": "ca"}} in pod["spec"]["volumes"]
    assert pod["metadata"]["annotations"]["team"] == pod["metadata"]["labels"]["team"] == "core"
    assert pod["metadata"]["labels"]["labrats.work/job"] == "ir-0000000a"


def test_an_operators_init_containers_run_between_the_claim_and_the_clone() -> None:
    fields = {"initContainers": [{"name": "fetch-ca", "image": "busybox"}]}
    settings = PodSettings(image="usual:1", resources={}, scratch_size="1Gi", pod_fields=fields)
    setup = WorkspaceSetup(git_repo="https://git.example/a.git")

    pod = pod_of(an_owned_attempt(workspace_setup=setup), settings=settings)

    assert [step["name"] for step in pod["spec"]["initContainers"]] == ["prepare", "fetch-ca", "clone"]


EGRESS = PodEgress(
    ("10.96.0.9", 3128), {"agent": "token-a", "setup": "token-s", "repository": "token-r", "model": "token-m"}
)


def test_pod_with_a_network_rule_has_its_own_labels_and_no_name_server() -> None:
    settings = dataclasses.replace(SETTINGS, pod_fields={"dnsPolicy": "ClusterFirst"})
    pod = pod_of(an_owned_attempt(), PodCredentials(egress=EGRESS), settings)
    usual = pod_of(an_owned_attempt(), NO_CREDENTIALS, settings)

    component = "app.kubernetes.io/component"
    assert (pod["metadata"]["labels"][component], usual["metadata"]["labels"][component]) == (
        "confined-executor",
        "executor",
    )
    assert (pod["spec"]["dnsPolicy"], pod["spec"]["dnsConfig"]) == ("None", {"nameservers": ["127.0.0.1"]})
    assert usual["spec"]["dnsPolicy"] == "ClusterFirst"
    assert (task_of(pod).egress_proxy, task_of(usual).egress_proxy) == (("10.96.0.9", 3128), None)


@pytest.mark.parametrize(
    ("egress", "fields", "range_of_groups"),
    [(EGRESS, {}, "1 0"), (None, {}, None), (EGRESS, {"runtimeClassName": "gvisor"}, None)],
)
def test_pod_with_a_network_rule_lets_no_group_ping(
    egress: PodEgress | None, fields: dict[str, str], range_of_groups: str | None
) -> None:
    """A job's own image may lack the executor's filter of calls. Not every runtime class knows this setting."""
    settings = dataclasses.replace(SETTINGS, pod_fields=fields)
    context = pod_of(an_owned_attempt(), PodCredentials(egress=egress), settings)["spec"]["securityContext"]
    found = {each["name"]: each["value"] for each in context.get("sysctls", ())}
    assert found.get("net.ipv4.ping_group_range") == range_of_groups
    assert context["runAsNonRoot"]


def test_each_part_of_a_pod_mounts_only_its_own_egress_token() -> None:
    attempt = an_owned_attempt(workspace_setup=WorkspaceSetup(git_repo="https://git.example/a.git"))
    credentials = PodCredentials(model=[("anthropic", {"ANTHROPIC_API_KEY": "KEY"})], egress=EGRESS)
    pod = pod_of(attempt, credentials)

    mounted = {
        volume["name"]: [
            item["fieldRef"]["fieldPath"]
            for source in volume["projected"]["sources"]
            for item in source.get("downwardAPI", {}).get("items", ())
            if "egress" in item["path"]
        ]
        for volume in pod["spec"]["volumes"]
        if "projected" in volume
    }
    assert mounted == {
        "source": [
            "metadata.annotations['labrats.work/egress-agent']",
            "metadata.annotations['labrats.work/egress-setup']",
        ],
        "repository": ["metadata.annotations['labrats.work/egress-repository']"],
        "model": ["metadata.annotations['labrats.work/egress-model']"],
    }
    (executor,) = pod["spec"]["containers"]
    assert not {"source", "repository", "model"} & {mount["name"] for mount in executor["volumeMounts"]}


def test_model_without_a_key_is_reached_through_a_key_proxy_if_the_network_is_restricted() -> None:
    pod = pod_of(an_owned_attempt(), PodCredentials(egress=EGRESS, keyless=True))

    assert [step["name"] for step in pod["spec"]["initContainers"]] == ["prepare", "key-proxy"]


CACHED = WorkspaceSetup(
    git_repo="https://git.example/a.git", setup=(("make",),), cache=(CachedFolder(key="lock", path="libraries"),)
)


@pytest.mark.parametrize("ref", [None, "labrats/ai-developer/7"])
def test_only_the_cache_keeper_mounts_the_cached_folders(ref: str | None) -> None:
    attempt = an_owned_attempt(workspace_setup=replace(CACHED, git_ref=ref))
    settings = dataclasses.replace(SETTINGS, task=TaskSettings(caches_bytes=2**30))
    pod = pod_of(attempt, settings=settings)
    containers = {each["name"]: each for each in [*pod["spec"]["initContainers"], *pod["spec"]["containers"]]}
    mounts = {
        name: [mount for mount in container["volumeMounts"] if mount["name"] == "claims"]
        for name, container in containers.items()
    }
    assert [name for name, found in mounts.items() if found] == ["prepare", "cache-keeper"]
    assert mounts["prepare"][0]["subPath"].startswith("claims/")
    scope = cache_scope(attempt.job)
    own = {"name": "claims", "mountPath": f"/attempt/caches/{scope}", "subPath": f"caches/{scope}"}
    sub_path = f"caches/{base_cache_scope(attempt.job)}"
    base = {"name": "claims", "mountPath": "/attempt/base-caches", "subPath": sub_path, "readOnly": True}
    assert mounts["cache-keeper"] == [own, *([base] if ref else [])]
    assert task_of(pod).base_caches == ("/attempt/base-caches" if ref else None)
    assert containers["cache-keeper"]["restartPolicy"] == "Always"
    assert not [mount for mount in containers["executor"]["volumeMounts"] if mount["name"] == "cache-keeper"]
    assert task_of(pod).caches == f"/attempt/caches/{cache_scope(attempt.job)}"
    assert task_of(pod).caches_bytes == 2**30


@pytest.mark.parametrize(
    ("setup", "claim", "size"),
    [
        (CACHED, "data", 0),
        (CACHED, None, 2**30),
        (replace(CACHED, cache=None), "data", 2**30),
        (None, "data", 2**30),
    ],
    ids=["no size", "no volume", "no folders", "no repository"],
)
def test_pod_without_caches_has_no_keeper(setup: WorkspaceSetup | None, claim: str | None, size: int) -> None:
    settings = dataclasses.replace(SETTINGS, data_claim=claim, task=TaskSettings(caches_bytes=size))
    pod = pod_of(an_owned_attempt(workspace_setup=setup), settings=settings)
    assert "cache-keeper" not in json.dumps(pod["spec"])
    assert task_of(pod).caches is None


def test_only_the_step_prepare_mounts_the_files_of_an_earlier_attempt() -> None:
    attempt, earlier = an_owned_attempt(), AttemptName("ir-000000cd", 2)

    pod = attempt_job(attempt, NO_CREDENTIALS, SETTINGS, earlier)["spec"]["template"]["spec"]

    mount = {"name": "claims", "mountPath": EARLIER, "subPath": "attempts/cd/ir-000000cd-2", "readOnly": True}
    containers = [*pod["initContainers"], *pod["containers"]]
    assert [each["name"] for each in containers if mount in each["volumeMounts"]] == ["prepare"]
    assert "ir-000000cd" not in json.dumps(pod_of(attempt)["spec"])


def test_task_names_the_copied_files_for_a_retry_and_for_a_follow_up() -> None:
    session, earlier = a_session(1, provider="mock"), AttemptName("ir-000000cd", 1)
    followed = a_job(Phase.SUCCEEDED, job_id="ir-000000cd", session=session)
    attempt = an_owned_attempt(follow_up_of=followed.id)
    follow_up = Attempt(attempt.job, followed=followed)
    retried = replace(attempt.job, status=replace(attempt.job.status, attempts=2, session=session))

    tasks = [
        task_of(attempt_job(each, NO_CREDENTIALS, SETTINGS, name)["spec"]["template"])
        for each, name in ((follow_up, earlier), (follow_up, None), (Attempt(retried), earlier))
    ]

    assert follow_up.continued == earlier
    assert [each.continuation for each in tasks] == [
        Continuation(job_id=followed.id, session=session, kept=EARLIER_FILES),
        Continuation(job_id=followed.id, session=session),
        Continuation(job_id=followed.id),
    ]
    assert tasks[2].resumption == Resumption(session=session, kept=EARLIER_FILES)


def test_task_names_the_key_that_the_key_proxy_adds() -> None:
    """The program gets the proxy's token in its place: with a subscription it behaves otherwise than with a key."""
    credentials = PodCredentials(model=[("claude", {"CLAUDE_CODE_OAUTH_TOKEN": "CLAUDE_CODE_OAUTH_TOKEN"})])
    assert task_of(pod_of(an_attempt(), credentials)).proxied_key == "CLAUDE_CODE_OAUTH_TOKEN"
    assert task_of(pod_of(an_attempt())).proxied_key is None
