"""The credentials and rights of an attempt in its pod, on a real node: each container has only those that it needs."""

import os
from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing
from pathlib import Path

import pytest
from msgspec.structs import replace

from labrats.backends.kubernetes.batch_client import BatchClient
from labrats.backends.kubernetes.client import ApiClient
from labrats.backends.kubernetes.pod_volumes import INPUTS, SCRATCH
from labrats.backends.kubernetes.restricted_pod import USER
from labrats.backends.kubernetes.runner import KubernetesRunner, KubernetesRunnerSettings
from labrats.backends.kubernetes.settings import executor_limits
from labrats.files.attempt_inputs import TaskSettings
from labrats.model.core_resources import Secret
from labrats.model.errors import GiveUp, NotFound
from labrats.model.job import FailedCode, WorkspaceSetup
from labrats.model.mcp_server import McpServer
from labrats.model.protocol import NO_LIMITS, ErrorEvent, LogEvent, ResultEvent, StatusEvent, decode_event
from labrats.model.record import Metadata, encode
from labrats.ports import Attempt
from tests.cluster.cluster import GATEWAY, Cluster
from tests.conformance.attempts import end_of, events_of, until_logged
from tests.conformance.kubernetes_backend import a_pod_settings, executors_of
from tests.fakes.store import MemoryStore
from tests.support.background import run_in_background
from tests.support.builders import a_spec, an_attempt
from tests.unit.executor.attempts import a_repository
from tests.unit.executor.git_server import GitServer, served

pytestmark = pytest.mark.kubernetes(node=True)

TOKEN = "ghp_0123456789abcdefghijkl"
KEY = "sk-0123456789abcdefghijkl"
HANG = {"hang": True}
SCRATCH_SIZE = "20Mi"


@pytest.fixture
def git_address(cluster: Cluster | None, tmp_path: Path) -> Iterator[str]:
    """The URL of a repository that pods can clone, with the token."""
    if cluster is None:
        pytest.skip("needs the tests' own cluster, whose pods can reach this machine")
    (tmp_path / "origins").mkdir()
    a_repository(tmp_path / "origins" / "rats.git")
    with served(GitServer(tmp_path / "origins", password=TOKEN), cluster.listen()) as server:
        yield f"http://{GATEWAY}:{server.port}/rats.git"


@pytest.fixture
async def runner(
    api_client: ApiClient, jobs_namespace: str, executor_image: str, tmp_path: Path
) -> AsyncIterator[KubernetesRunner]:
    """A runner in a namespace with the Secrets `git`, `wrong` and `wiki`."""
    store = MemoryStore()
    for name, data in {
        "git": {"username": "rat", "password": TOKEN},
        "wrong": {"username": "rat", "password": "wrong-password"},
        "wiki": {"WIKI_KEY": KEY},
    }.items():
        await store.create(Secret(metadata=Metadata(name=name), data=data))
        secret = {"metadata": {"name": name}, "stringData": data}
        await api_client.request("POST", f"/api/v1/namespaces/{jobs_namespace}/secrets", encode(secret))
    limits = executor_limits(NO_LIMITS, SCRATCH_SIZE)
    task = TaskSettings(git_addresses=(f"{GATEWAY}/32",), limits=limits)
    pods = a_pod_settings(executor_image, scratch_size=SCRATCH_SIZE, task=task)
    settings = KubernetesRunnerSettings(jobs_namespace, tmp_path / "attempts", pods)
    runner = KubernetesRunner(api_client, store, settings)
    async with run_in_background(runner.run()):
        yield runner


def an_attempt_on(
    address: str, *steps: object, secret: str = "git", setup: tuple[tuple[str, ...], ...] | None = None
) -> Attempt:
    """Return an attempt with a repository, and with an MCP server that has a Secret. setup: its commands."""
    servers = {"wiki": McpServer(command="wiki", credentials_ref="wiki")}
    repository = WorkspaceSetup(git_repo=address, credentials_ref=secret, setup=setup)
    config, attempt = {"mcp_servers": servers}, an_attempt()
    return Attempt(replace(attempt.job, spec=a_spec(steps, workspace_setup=repository, config=config)))


async def test_the_agents_container_has_no_credential_in_files_or_readable_memory(
    runner: KubernetesRunner, git_address: str
) -> None:
    attempt = an_attempt_on(git_address, {"log": "here"}, HANG)
    await runner.start(attempt)
    await until_logged(runner, attempt, "here")
    [pid] = executors_of(attempt.name)
    root = Path(f"/proc/{pid}/root/attempt")

    assert (root / "scratch" / "workspace" / "notes.txt").read_text() == "old\n"
    files = [path for path in root.rglob("*") if path.is_file()]
    assert not [path for path in files if any(each.encode() in path.read_bytes() for each in (TOKEN, KEY))]
    assert "kubernetes.io~projected" not in Path(f"/proc/{pid}/mountinfo").read_text()
    assert os.stat(f"/proc/{pid}").st_uid == USER
    assert os.stat(f"/proc/{pid}/mem").st_uid == 0  # the kernel's owner for a process that its user may not trace
    await runner.kill(attempt.name)


async def test_the_clone_and_the_executor_produce_one_output_without_gaps(
    runner: KubernetesRunner, git_address: str
) -> None:
    attempt = an_attempt_on(git_address, {"log": "worked"}, {"result": "done"})
    await runner.start(attempt)
    gone = await end_of(runner, attempt)
    events = await events_of(runner, attempt)

    assert isinstance(gone.outcome, ResultEvent)
    assert [event.seq for event in events] == list(range(1, len(events) + 1))
    assert [event.state for event in events if isinstance(event, StatusEvent)] == ["started", "workspace", "running"]


async def test_setup_commands_run_before_the_agent_without_credentials(
    runner: KubernetesRunner, git_address: str
) -> None:
    secret = f"{TOKEN[:8]}[{TOKEN[8]}]|{KEY[:8]}[{KEY[8]}]"  # does not match itself, in the task's file
    search = f"cat notes.txt; env | grep -cE '{secret}'; grep -rlE '{secret}' /attempt; true"
    attempt = an_attempt_on(git_address, {"log": "the agent"}, {"result": "done"}, setup=(("sh", "-c", search),))
    await runner.start(attempt)
    gone = await end_of(runner, attempt)

    assert isinstance(gone.outcome, ResultEvent)
    texts = [event.text for event in await events_of(runner, attempt) if isinstance(event, LogEvent)]
    assert texts[2:] == ["old", "0", "the agent"]


PROBE = """
import ctypes, os, socket
libc = ctypes.CDLL(None, use_errno=True)
libc.syscall(425, 1, 0)
print(os.strerror(ctypes.get_errno()))
for family in (socket.AF_VSOCK, socket.AF_PACKET):
    try:
        print("opened", socket.socket(family, socket.SOCK_DGRAM))
    except OSError as error:
        print(error.strerror)
"""
"""Sets up an io_uring, and opens sockets that no network namespace or policy confines."""


async def test_seccomp_that_container_runtimes_may_allow_are_refused(
    runner: KubernetesRunner, git_address: str
) -> None:
    attempt = an_attempt_on(git_address, {"log": "the agent"}, {"result": "done"}, setup=(("python3", "-c", PROBE),))
    await runner.start(attempt)
    gone = await end_of(runner, attempt)

    assert isinstance(gone.outcome, ResultEvent)
    texts = [event.text for event in await events_of(runner, attempt) if isinstance(event, LogEvent)]
    unknown = "Address family not supported by protocol"
    assert texts[-4:] == ["Function not implemented", unknown, unknown, "the agent"]


WRITABLE = """
import os, stat
for path in sorted({line.split()[1] for line in open("/proc/self/mounts")}):
    if os.access(path, os.W_OK) and not stat.S_ISCHR(os.stat(path).st_mode):
        print(path)
"""


async def test_everything_that_the_agent_can_write_has_a_limit(runner: KubernetesRunner, git_address: str) -> None:
    setup = (("python3", "-c", WRITABLE),)
    attempt = an_attempt_on(git_address, {"log": "the agent"}, {"result": "done"}, setup=setup)
    await runner.start(attempt)
    gone = await end_of(runner, attempt)

    assert isinstance(gone.outcome, ResultEvent)
    texts = [event.text for event in await events_of(runner, attempt) if isinstance(event, LogEvent)]
    in_memory = ["/dev/mqueue", "/dev/shm"]
    assert [text for text in texts if text.startswith("/")] == [INPUTS, SCRATCH, *in_memory, "/tmp"]


FILL_A_DEEP_PATH = """
import os, time
os.chdir("/attempt/scratch")
for _ in range(40):
    os.mkdir("d" * 200)
    os.chdir("d" * 200)
with open("big", "wb") as file:
    for _ in range(40):
        file.write(os.urandom(1 << 20))
    file.flush()
    time.sleep(60)
"""


async def test_files_whose_path_is_too_long_for_the_node_count(runner: KubernetesRunner, git_address: str) -> None:
    attempt = an_attempt_on(git_address, {"result": "done"}, setup=(("python3", "-c", FILL_A_DEEP_PATH),))
    await runner.start(attempt)
    gone = await end_of(runner, attempt)

    assert isinstance(gone.outcome, ErrorEvent)
    assert gone.outcome.code is FailedCode.DISK_LIMIT
    assert "over executor.scratch (20 MiB)" in gone.outcome.message


async def test_a_refused_clone_fails_with_git_clone(runner: KubernetesRunner, git_address: str) -> None:
    attempt = an_attempt_on(git_address, {"log": "worked"}, secret="wrong")
    await runner.start(attempt)
    gone = await end_of(runner, attempt)

    assert isinstance(gone.outcome, ErrorEvent)
    assert gone.outcome.code is FailedCode.GIT_CLONE
    assert "access was denied" in gone.outcome.message


async def test_an_attempt_stopped_during_the_clone_reports_that_it_was_stopped(
    runner: KubernetesRunner, cluster: Cluster | None
) -> None:
    if cluster is None:
        pytest.skip("needs the tests' own cluster, whose pods can reach this machine")
    with cluster.listen() as silent:  # accepts connections, and never answers
        attempt = an_attempt_on(f"http://{GATEWAY}:{silent.getsockname()[1]}/rats.git")
        await runner.start(attempt)
        await until_state(runner, attempt, "workspace")
        await runner.stop(attempt.name)
        gone = await end_of(runner, attempt)

    assert isinstance(gone.outcome, ErrorEvent)
    assert gone.outcome.message == "stopped on request"


async def until_state(runner: KubernetesRunner, attempt: Attempt, state: str) -> None:
    """Wait until the attempt reports `state`."""
    async with aclosing(runner.read(attempt.name, follow=True)) as batches:
        async for lines in batches:
            events = map(decode_event, lines.splitlines())
            if any(isinstance(event, StatusEvent) and event.state == state for event in events):
                return
    raise AssertionError(f"the attempt ended without the state {state!r}")


@pytest.mark.parametrize(
    ("labels", "words"),
    [
        ({}, "the Secret 'wiki' is not labelled for jobs"),
        ({"labrats.work/type": "session-secret"}, "the Secret 'wiki' is the engine's own"),
    ],
)
async def test_a_secret_that_is_not_for_jobs_is_refused(
    api_client: ApiClient, jobs_namespace: str, tmp_path: Path, labels: dict[str, str], words: str
) -> None:
    store = MemoryStore()
    await store.create(Secret(metadata=Metadata(name="wiki", labels=labels), data={"WIKI_KEY": KEY}))
    settings = KubernetesRunnerSettings(
        jobs_namespace, tmp_path / "attempts", a_pod_settings("none"), labelled_credentials=True
    )
    servers = {"wiki": McpServer(command="wiki", credentials_ref="wiki")}
    attempt = Attempt(replace(an_attempt().job, spec=a_spec(config={"mcp_servers": servers})))

    with pytest.raises(GiveUp, match=words) as refused:
        await KubernetesRunner(api_client, store, settings).start(attempt)
    assert FailedCode(refused.value.code) is FailedCode.AUTH
    with pytest.raises(NotFound):
        await BatchClient(api_client, jobs_namespace).get_job(attempt.name)
