from pathlib import PurePath
from typing import Any

import pytest
from msgspec.structs import replace

from labrats.files.attempt_inputs import AttemptInputs, TaskSettings, TextInput, inputs_of, missing_text, task_of
from labrats.model.ai_model import Prices
from labrats.model.config import Sampling
from labrats.model.core_resources import JOB_CREDENTIALS, Secret
from labrats.model.errors import GiveUp
from labrats.model.job import FailedCode, KeyReference, Usage, WorkspaceFile, WorkspaceSetup, WorkspaceUpload
from labrats.model.mcp_server import McpServer
from labrats.model.phases import Phase
from labrats.model.protocol import Selection, Task
from labrats.model.record import Metadata
from labrats.model.variables import SecretKey
from labrats.ports import Attempt
from tests.support.builders import a_config, a_job, a_spec, an_ai_model

CLAUDE = {"provider": "claude", "model": "opus"}


def test_a_short_prompt_is_the_only_input_of_a_plain_job() -> None:
    attempt = Attempt(a_job(Phase.RUNNING, spec=a_spec(prompt="Look!")))
    assert inputs_of(attempt) == AttemptInputs(prompt="Look!", texts=(), secrets=())


def test_texts_are_read_from_the_config_maps_of_the_spec_or_of_the_status() -> None:
    prompt, instructions = KeyReference(name="a", key="prompt"), KeyReference(name="b", key="instructions")
    spec = a_spec(prompt=None, prompt_ref=prompt, instructions_ref=instructions)
    applied = a_job(Phase.RUNNING, spec=a_spec(prompt="Look!"), prompt_ref=prompt, instructions_ref=instructions)
    for job in (a_job(Phase.RUNNING, spec=spec), applied):
        inputs = inputs_of(Attempt(job))
        assert inputs.prompt is None
        assert inputs.texts == (TextInput("prompt", prompt), TextInput("instructions", instructions))


def test_the_message_for_a_missing_text_names_the_config_map_and_the_key() -> None:
    ref = KeyReference(name="a", key="b")
    without_map = missing_text("prompt", ref, has_config_map=False)
    without_key = missing_text("instructions", ref, has_config_map=True)
    assert without_map == "the job's prompt is missing: there is no ConfigMap 'a'"
    assert without_key == "the job's instructions are missing: the ConfigMap 'a' has no key 'b'"


def test_every_key_of_the_repositorys_secret_is_a_file_with_the_prefix_git() -> None:
    setup = WorkspaceSetup(git_repo="https://git.example/r", credentials_ref="ir-git")
    attempt = Attempt(a_job(Phase.RUNNING, spec=a_spec(workspace_setup=setup)))
    [secret] = inputs_of(attempt).secrets
    assert (secret.name, secret.used_by, secret.failed_code) == ("ir-git", "repository", FailedCode.GIT_CLONE)
    assert secret.files(["username", "password"]) == {"git-username": "username", "git-password": "password"}


def test_only_the_keys_that_the_provider_reads_are_files() -> None:
    ai_model = an_ai_model("opus", provider="claude", model="opus", credentials_ref="claude-key")
    [secret] = inputs_of(Attempt(a_job(Phase.RUNNING, spec=a_spec(config=CLAUDE)), ai_model)).secrets
    assert (secret.name, secret.used_by, secret.failed_code) == ("claude-key", "model", FailedCode.AUTH)
    assert secret.files(["OTHER", "ANTHROPIC_API_KEY"]) == {"ANTHROPIC_API_KEY": "ANTHROPIC_API_KEY"}
    assert secret.missing == "the credentials of AiModel opus are missing: there is no Secret 'claude-key'"


def test_a_provider_without_credentials_reads_no_key() -> None:
    ai_model = an_ai_model(credentials_ref="key")
    [secret] = inputs_of(Attempt(a_job(Phase.RUNNING), ai_model)).secrets
    assert secret.files(["KEY"]) == {}


def test_every_key_of_an_mcp_servers_secret_is_a_file_named_after_the_server() -> None:
    servers = {"docs": McpServer(command="docs", credentials_ref="docs-token"), "wiki": McpServer(command="wiki")}
    attempt = Attempt(a_job(Phase.RUNNING, spec=a_spec(config=CLAUDE | {"mcp_servers": servers})))
    [secret] = inputs_of(attempt).secrets
    assert (secret.name, secret.used_by, secret.failed_code) == ("docs-token", "agent", FailedCode.AUTH)
    assert secret.files(["TOKEN"]) == {"mcp.docs.TOKEN": "TOKEN"}


def test_a_job_has_credentials_of_the_repository_the_model_and_mcp_servers() -> None:
    setup = WorkspaceSetup(git_repo="https://git.example/r", credentials_ref="ir-git")
    config = CLAUDE | {"mcp_servers": {"docs": McpServer(command="docs", credentials_ref="docs-token")}}
    ai_model = an_ai_model("opus", provider="claude", model="opus", credentials_ref="claude-key")
    attempt = Attempt(a_job(Phase.RUNNING, spec=a_spec(workspace_setup=setup, config=config)), ai_model)
    assert [secret.name for secret in inputs_of(attempt).secrets] == ["ir-git", "claude-key", "docs-token"]


def test_a_variable_gets_one_value_of_its_secret() -> None:
    env = {"CI": "1", "NPM_TOKEN": SecretKey(secret="npm", key="token")}
    attempt = Attempt(a_job(Phase.RUNNING, spec=a_spec(config=CLAUDE | {"env": env})))
    [secret] = inputs_of(attempt).secrets
    assert (secret.name, secret.used_by, secret.failed_code) == ("npm", "agent", FailedCode.AUTH)
    assert secret.files(["token", "other"]) == {"env.NPM_TOKEN.token": "token"}


def test_variable_with_the_models_own_key_is_refused() -> None:
    ai_model = an_ai_model("opus", provider="claude", model="opus", credentials_ref="anthropic")
    env = {"KEY": SecretKey(secret="anthropic", key="ANTHROPIC_API_KEY")}
    attempt = Attempt(a_job(Phase.RUNNING, spec=a_spec(config=CLAUDE | {"env": env})), ai_model)
    with pytest.raises(GiveUp, match=r"config\.env\.KEY names the model's key ANTHROPIC_API_KEY"):
        inputs_of(attempt)


def test_job_of_an_external_contributor_gets_no_secret_variables() -> None:
    env = {"NPM_TOKEN": SecretKey(secret="npm", key="token")}
    spec = a_spec(config=CLAUDE | {"env": env}, untrusted=True)
    with pytest.raises(GiveUp, match="external contributor") as refusal:
        inputs_of(Attempt(a_job(Phase.RUNNING, spec=spec)))
    assert refusal.value.code is FailedCode.AUTH
    texts = a_spec(config=CLAUDE | {"env": {"CI": "1"}}, untrusted=True)
    assert inputs_of(Attempt(a_job(Phase.RUNNING, spec=texts))).secrets == ()


def test_job_of_an_external_contributor_gets_no_credentials_of_mcp_servers() -> None:
    """The agent can read them: it runs beside the server."""
    servers = {"wiki": McpServer(url="https://mcp.example/mcp", credentials_ref="wiki-token")}
    spec = a_spec(config=CLAUDE | {"mcp_servers": servers}, untrusted=True)
    with pytest.raises(GiveUp, match=r"external contributor .* MCP server wiki") as refusal:
        inputs_of(Attempt(a_job(Phase.RUNNING, spec=spec)))
    assert refusal.value.code is FailedCode.AUTH
    trusted = a_spec(config=CLAUDE | {"mcp_servers": servers})
    assert [secret.name for secret in inputs_of(Attempt(a_job(Phase.RUNNING, spec=trusted))).secrets] == ["wiki-token"]


def test_mcp_server_does_not_get_the_key_of_the_model() -> None:
    servers = {"wiki": McpServer(command="server", credentials_ref="anthropic")}
    ai_model = an_ai_model("opus", provider="claude", model="opus", credentials_ref="anthropic")
    attempt = Attempt(a_job(Phase.RUNNING, spec=a_spec(config=CLAUDE | {"mcp_servers": servers})), ai_model)
    with pytest.raises(GiveUp, match="which no agent gets"):
        inputs_of(attempt)


def test_a_model_without_a_secret_has_no_credentials() -> None:
    ai_model = an_ai_model("opus", provider="claude", model="opus")
    assert inputs_of(Attempt(a_job(Phase.RUNNING, spec=a_spec(config=CLAUDE)), ai_model)).secrets == ()


def a_task_of(attempt: Attempt) -> Task:
    return task_of(attempt, TaskSettings(), workspace="/work", uploads=PurePath("/uploads"))


def test_a_task_has_the_settings_of_the_job_and_of_its_model() -> None:
    setup = WorkspaceSetup(git_repo="https://git.example/r", git_ref="main")
    job = a_job(Phase.RUNNING, attempts=3, spec=a_spec(workspace_setup=setup, config={"max_turns": 7}))
    ai_model = an_ai_model(endpoint="http://127.0.0.1:8080/v1", sampling=Sampling(temperature=0.2))
    assert a_task_of(Attempt(job, ai_model)) == Task(
        job_id=job.id,
        attempt=f"{job.id}-3",
        number=3,
        workspace="/work",
        config=replace(a_config(max_turns=7).config, sampling=Sampling(temperature=0.2)),
        workspace_setup=setup,
        endpoint="http://127.0.0.1:8080/v1",
        selection=Selection(origins=job.resolved.origins, ai_model=ai_model.name),
    )


def test_the_files_of_a_task_have_paths_on_the_uploads_volume() -> None:
    spec = a_spec(
        workspace_files=(WorkspaceFile(name="a.txt", path="jobs/1/0", size=3),),
        workspace_uploads=(WorkspaceUpload(id="up-1", name="b.txt"),),
    )
    task = a_task_of(Attempt(a_job(Phase.RUNNING, spec=spec)))
    assert {file.name: file.path for file in task.workspace_files} == {
        "a.txt": "/uploads/jobs/1/0",
        "b.txt": "/uploads/up-1/b.txt",
    }


@pytest.mark.parametrize(
    ("config", "user"),
    [
        ({"env": {"T": SecretKey(secret="ir-git", key="password")}}, "agent"),
        ({"mcp_servers": {"a": McpServer(command="a", credentials_ref="ir-git")}}, "agent"),
        ({}, "repository"),
    ],
)
def test_an_agent_gets_no_token_of_a_job(config: dict[str, Any], user: str) -> None:
    setup = WorkspaceSetup(git_repo="https://git.example/r", credentials_ref="ir-git")
    job = a_job(Phase.RUNNING, spec=a_spec(workspace_setup=setup, config={"provider": "claude", **config}))
    token = Secret(metadata=Metadata(name="ir-git", owner=job.as_owner(), labels=JOB_CREDENTIALS))
    wanted = next(each for each in inputs_of(Attempt(job)).secrets if each.used_by == user)
    problem = wanted.problem_of(token, job.metadata.uid, labelled_only=True)
    assert problem == (
        None if user == "repository" else "the Secret 'ir-git' has a credential for git, which no agent gets"
    )


@pytest.mark.parametrize(
    ("attempts", "pauses", "tokens", "cost"),
    [(1, 0, 0, 0.0), (2, 0, 0, 0.0), (2, 1, 90, 1.5), (4, 3, 90, 1.5), (4, 2, 0, 0.5), (5, 1, 0, 0.0)],
)
def test_attempt_after_a_pause_has_what_the_earlier_ones_left(
    attempts: int, pauses: int, tokens: int, cost: float
) -> None:
    """Each attempt that a pause did not cause may consume as much as the first."""
    used = Usage(input_tokens=60, output_tokens=30, cache_read_tokens=1000, cost_usd=1.5)
    spec = a_spec(config={"max_tokens": 100, "max_cost_usd": 1.0})
    job = a_job(Phase.RUNNING, attempts=attempts, pauses=pauses, usage=used, spec=spec)
    task = a_task_of(Attempt(job))
    assert (task.spent.input_tokens, task.spent.cost_usd or 0.0) == (tokens, cost)


PRICES = Prices(input=100_000, output=50_000)


@pytest.mark.parametrize(
    ("known", "prices", "cost"), [(3.0, PRICES, 7.5), (3.0, None, 3.0), (0.0, None, None)], ids=str
)
def test_unknown_cost_before_a_pause_is_that_of_the_tokens_or_of_other_attempts(
    known: float, prices: Prices | None, cost: float | None
) -> None:
    """An agent makes it unknown if its program does not report it."""
    used = Usage(input_tokens=60, output_tokens=30, cost_usd=None)
    spec = a_spec(config={"max_cost_usd": 10.0})
    job = a_job(Phase.RUNNING, attempts=3, pauses=2, usage=used, known_cost_usd=known, spec=spec)
    model = an_ai_model()
    attempt = Attempt(job, replace(model, spec=replace(model.spec, prices=prices)))
    assert a_task_of(attempt).spent.cost_usd == pytest.approx(cost)


def test_task_names_the_prices_of_other_models_of_the_provider() -> None:
    own, other = Prices(input=1), Prices(input=2)
    ai_model = an_ai_model("opus", provider="claude", model="opus", prices=own)
    others = [
        ai_model,
        an_ai_model("haiku", provider="claude", model="haiku", prices=other),
        an_ai_model("large", provider="claude", model="opus[1m]", prices=other),
        an_ai_model("elsewhere", provider="claude", model="fable", prices=other, endpoint="https://models.example"),
        an_ai_model("free", provider="claude", model="sonnet"),
        an_ai_model("codex", provider="codex", model="gpt-5", prices=other),
    ]
    attempt = Attempt(a_job(Phase.RUNNING, spec=a_spec(config=CLAUDE)), ai_model, others)
    task = a_task_of(attempt)
    assert (task.prices, task.other_prices) == (own, {"haiku": other})
